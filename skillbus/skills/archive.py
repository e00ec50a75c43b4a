"""An archive from outside -> the wanted skills' files, in the staging. Hostile archives end here.

Everything is streamed: bytes come in, are decompressed, and go out to the landings; neither an archive nor a skill is
ever in memory. What all kinds of archive have in common is here: what kind it is, and the limits on bytes and time.
The framing is in ``archive_tar`` and ``archive_zip``, who gets what in ``archive_placing``, what may lie in a skill in
``landing``.

Only the child imports this.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from skillbus.errors import ArchiveBomb, BrokenArchive, TooBig, UnknownArchive
from skillbus.skills.archive_ahead import ahead
from skillbus.skills.archive_placing import Placing, Top
from skillbus.skills.archive_tar import TarStream, is_tar
from skillbus.skills.landing import Landing

__all__ = ["Top", "unpack"]

MAX_UNPACKED_BYTES = 1024 * 1024 * 1024
"""Bytes that may come out of the decompressor, the archive's other content included."""

MAX_WORK_S = 60.0
"""Seconds that unpacking may take, the wait for the network not counted."""

_MIB = 1024 * 1024
_BLOCK = 256 * 1024
_HEAD = 512
_ELSE = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
    b"\x1f\x9d": "compress",
}


def unpack(
    chunks: Iterable[bytes], landings: Mapping[str, Landing], max_wire_bytes: int, *, top: Top = Top.EITHER
) -> None:
    """Write each wanted folder's files to its landing.

    What is wrong with one skill is that landing's ``refuse``; so is that nothing came for it.

    Args:
        chunks: the archive's bytes as they arrive: a tar, a tar.gz or a zip.
        landings: by the skill's folder in the archive, ``/`` between parts; empty for all of it.
        max_wire_bytes: how much of ``chunks`` is read; 0 for no cap.
        top: whether all of it lies in one top folder, from inside of which it is looked at.

    Raises:
        BadArchive: hostile, broken or too big; its subclass says which. Nothing of it may be placed.
        DiskRefused: the staging cannot be written.
    """
    clock = _Clock()
    weighed = clock.waiting(_weighed(chunks, max_wire_bytes))
    head = b""
    for chunk in weighed:
        head += chunk
        if len(head) >= _HEAD:
            break
    whole = chain((head,), weighed)
    placing = Placing(landings, top)
    try:
        if head[:2] == b"PK":
            _unpack_zip(whole, placing, landings, clock)
        elif head[:2] == b"\x1f\x8b":
            with ahead(whole, _inflated) as blocks:
                _unpack_tar(blocks, placing, clock)
        elif is_tar(head):
            _unpack_tar(whole, placing, clock)
        else:
            raise _unknown(head)
        placing.end()
    finally:
        placing.rest()


def _unpack_tar(blocks: Iterable[bytes], placing: Placing, clock: _Clock) -> None:
    stream = TarStream(_counted(blocks, clock))
    for member in stream:
        placing.take(member, stream.data)


def _unpack_zip(chunks: Iterable[bytes], placing: Placing, landings: Mapping[str, Landing], clock: _Clock) -> None:
    from skillbus.skills.archive_zip import ZipSpool

    folder = next(iter(landings.values())).folder
    with ZipSpool(folder, chunks) as spool:
        spool.check(MAX_UNPACKED_BYTES)
        for member in spool:
            clock.check()
            placing.take(member, spool.data)


def _unknown(head: bytes) -> UnknownArchive | BrokenArchive:
    for magic, name in _ELSE.items():
        if head.startswith(magic):
            return UnknownArchive(f"it is {name}, which is not read: offer it as tar.gz or zip")
    if head.lstrip()[:1] == b"<":
        return BrokenArchive("it is a web page and no archive: look at the url in a browser")
    return BrokenArchive("it is no tar, tar.gz or zip")


class _Clock:
    """How long the work took, the wait for bytes not counted."""

    def __init__(self) -> None:
        self._until = time.monotonic() + MAX_WORK_S

    def waiting(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        began = time.monotonic()
        for chunk in chunks:
            self._until += time.monotonic() - began
            yield chunk
            began = time.monotonic()

    def check(self) -> None:
        if time.monotonic() > self._until:
            raise ArchiveBomb(f"it takes longer than {MAX_WORK_S:g} s to unpack")


def _weighed(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if limit and total > limit:
            raise TooBig(f"it weighs more than {limit // _MIB} MiB (SKILLBUS_SKILLS_MAX_ARCHIVE_MB)")
        yield chunk


def _counted(blocks: Iterable[bytes], clock: _Clock) -> Iterator[bytes]:
    total = 0
    for block in blocks:
        if not block:
            continue
        total += len(block)
        if total > MAX_UNPACKED_BYTES:
            raise ArchiveBomb(f"it unpacks to more than {MAX_UNPACKED_BYTES // _MIB} MiB")
        clock.check()
        yield block


class _Inflating:
    """Gzip, one member after the other, whatever ratio it claims."""

    def __init__(self) -> None:
        self._inflate: Any = None
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The bytes behind one piece of it, in blocks."""
        rest = chunk
        while rest:
            if self._inflate is None:
                rest = rest.lstrip(b"\0") if self._begun else rest
                if not rest:
                    return
                self._inflate, self._begun = zlib.decompressobj(wbits=31), True
            yield from _member_blocks(self._inflate, rest)
            if not self._inflate.eof:
                return
            rest = self._inflate.unused_data
            self._inflate = None

    def end(self) -> None:
        """All pieces came."""
        if self._inflate is not None or not self._begun:
            raise BrokenArchive("it ends too early")


def _inflated() -> _Inflating:
    return _Inflating()


def _member_blocks(inflate: Any, data: bytes) -> Iterator[bytes]:
    while True:
        try:
            block = inflate.decompress(data, _BLOCK)
        except zlib.error:
            raise BrokenArchive("its gzip is damaged, or something follows its end") from None
        data = inflate.unconsumed_tail
        if block:
            yield block
        if inflate.eof or (not data and len(block) < _BLOCK):
            return

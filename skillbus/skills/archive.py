"""A tar.gz from outside -> a skill's files in memory. The only importer of tarfile; hostile archives end here.

Nothing is extracted to a disk: members are read, one pass, from a stream whose bytes are counted *below* tarfile, and
what is wanted of them (at most 20 MiB) is kept in memory. So there is no path to escape by. Every member is checked
all the same, wanted or not, because a hostile name anywhere says enough about the whole archive: regular files and
folders only; no link, device, sparse file, setuid; no name that is not the same on every system (rules.py).

tarfile's own filters are not used: on Python 3.11.7 they let a crafted archive write outside its folder.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, Self, cast

from skillbus.errors import BadArchive
from skillbus.skills.bundle import BundleFile, Files
from skillbus.skills.rules import MAX_BYTES, MAX_FILES, SKILL_FILE, PathSet

MAX_MEMBERS = 50_000
MAX_UNPACKED_BYTES = 1024 * 1024 * 1024
"""Bytes that may come out of the decompressor, the archive's other content included."""

MAX_HEADER_BYTES = 64 * 1024
"""Bytes of one pax or long-name header. tarfile would read any size into memory."""

_BLOCK = 64 * 1024
_HEADERS = frozenset(
    (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
)
_PLAIN = frozenset((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE))


def unpack(chunks: Iterable[bytes], subpath: str, max_wire_bytes: int) -> Files:
    """The files of the skill at ``subpath``.

    An archive with everything in one top folder, as most have, is looked at from inside that folder.

    Args:
        chunks: the archive's bytes as they arrive.
        subpath: the skill's folder in the archive, ``/`` between parts; empty for the top.
        max_wire_bytes: how much of ``chunks`` is read; 0 for no cap.

    Raises:
        BadArchive: hostile, broken or too big. Nothing of it may be installed.
    """
    wanted = _Wanted(subpath)
    reader = _Reader(_inflated(chunks, max_wire_bytes))
    try:
        with tarfile.open(
            mode="r|", fileobj=cast("IO[bytes]", reader), tarinfo=_Member, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            _read_members(tar, wanted)
        reader.drain()
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise BadArchive(f"it is no sound tar archive ({type(error).__name__})") from None
    return wanted.files()


def _read_members(tar: tarfile.TarFile, wanted: _Wanted) -> None:
    paths = PathSet()
    for count, member in enumerate(tar, 1):
        if count > MAX_MEMBERS:
            raise BadArchive(f"it has more than {MAX_MEMBERS} members")
        path = _checked(member, paths)
        if path and member.isreg() and wanted.wants(path, member.size):
            stream = tar.extractfile(member)
            data = stream.read() if stream else b""
            if len(data) != member.size:
                raise BadArchive("it ends in the middle of a file")
            wanted.keep(path, BundleFile(data, bool(member.mode & 0o111)))
        tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps every header to the end


def _checked(member: tarfile.TarInfo, paths: PathSet) -> str:
    """The member's path, or nothing for the archive's own top folder."""
    path = member.name
    while path.startswith("./"):
        path = path[2:]
    if path in {"", "."} and member.isdir():
        return ""
    paths.add(path, folder=member.isdir())
    if member.type not in _PLAIN:
        raise BadArchive(f"{path!r} is a link or a device: only files and folders are taken")
    if member.sparse is not None or any(key.startswith("GNU.sparse") for key in member.pax_headers):
        raise BadArchive(f"{path!r} is a sparse file, which may claim any size")
    if member.isreg() and member.mode & 0o6000:
        raise BadArchive(f"{path!r} is setuid or setgid")
    if member.size < 0:
        raise BadArchive(f"{path!r} has a negative size")
    return path


class _Member(tarfile.TarInfo):
    """A header, checked before tarfile acts on it."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        """The next header. tarfile takes a broken one for the archive's end; here it is an error."""
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError, tarfile.SubsequentHeaderError) as error:  # type: ignore[attr-defined]
            raise BadArchive(f"it is no sound tar archive ({error})") from None

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and not 0 <= self.size <= MAX_HEADER_BYTES:
            raise BadArchive(f"a header of {self.size} bytes: at most {MAX_HEADER_BYTES}")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise BadArchive("it holds a sparse file, which may claim any size")
        if self.size < 0:
            raise BadArchive("a member has a negative size")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


class _Wanted:
    """The files under the wanted folder, seen from the archive's top and from inside its one top folder."""

    def __init__(self, subpath: str) -> None:
        self._prefix = subpath.strip("/") + "/" if subpath.strip("/") else ""
        self._kept: dict[str, BundleFile] = {}
        self._bytes = 0
        self._tops: set[str] = set()

    def wants(self, path: str, size: int) -> bool:
        self._tops.add(path.split("/", 1)[0] if "/" in path else "")
        if not (path.startswith(self._prefix) or _inside(path).startswith(self._prefix)):
            return False
        self._bytes += size
        if self._bytes > MAX_BYTES:
            raise BadArchive(f"the skill is bigger than {MAX_BYTES // 1024 // 1024} MiB")
        if len(self._kept) >= MAX_FILES:
            raise BadArchive(f"the skill has more than {MAX_FILES} files")
        return True

    def keep(self, path: str, file: BundleFile) -> None:
        self._kept[path] = file

    def files(self) -> Files:
        at_top = self._under(self._prefix)
        if SKILL_FILE in at_top or len(self._tops) != 1 or "" in self._tops:
            return at_top
        return self._under(f"{next(iter(self._tops))}/{self._prefix}")

    def _under(self, prefix: str) -> dict[str, BundleFile]:
        return {path[len(prefix) :]: file for path, file in self._kept.items() if path.startswith(prefix)}


def _inside(path: str) -> str:
    return path.split("/", 1)[1] if "/" in path else ""


class _Reader:
    """The decompressed stream as a file for tarfile, with a count of what came out."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""
        self._total = 0

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing > 0 and self._more():
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def drain(self) -> None:
        """Read what lies behind the archive's end mark, so that the checksum at the very end is checked too."""
        while self._more():
            self._rest = b""

    def _more(self) -> bool:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return False
            self._total += len(block)
            if self._total > MAX_UNPACKED_BYTES:
                raise BadArchive(f"it unpacks to more than {MAX_UNPACKED_BYTES // 1024 // 1024} MiB")
            self._rest = block
        return True


def _inflated(chunks: Iterable[bytes], max_wire_bytes: int) -> Iterator[bytes]:
    """The bytes behind gzip, in blocks, whatever ratio the archive claims."""
    inflate = None
    begun = False
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if max_wire_bytes and total > max_wire_bytes:
            raise BadArchive(
                f"it weighs more than {max_wire_bytes // 1024 // 1024} MiB (SKILLBUS_SKILLS_MAX_ARCHIVE_MB)"
            )
        rest = chunk
        while rest:
            if inflate is None:
                rest = rest.lstrip(b"\0") if begun else rest
                if not rest:
                    break
                inflate, begun = zlib.decompressobj(wbits=31), True
            yield from _member_blocks(inflate, rest)
            rest = inflate.unused_data
            inflate = None if inflate.eof else inflate
    if inflate is not None or not begun:
        raise BadArchive("it ends too early")


def _member_blocks(inflate: Any, data: bytes) -> Iterator[bytes]:
    while True:
        try:
            block = inflate.decompress(data, _BLOCK)
        except zlib.error:
            raise BadArchive("it is no sound gzip: only tar.gz is supported yet") from None
        data = inflate.unconsumed_tail
        if block:
            yield block
        if inflate.eof or (not data and len(block) < _BLOCK):
            return

"""The framing of tar: a stream of bytes -> members. ustar, pax (POSIX.1-2001) and GNU's long names.

The standard library's reader is not used: it reads an extension header of any size into memory, takes a broken header
for the end, and costs 100 us a member. This one reads one header at a time and refuses what two readers may read in
two ways: a size on what has no data, a doubled extension, a global header that names or sizes all that follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from skillbus.errors import ArchiveBomb, BrokenArchive
from skillbus.skills.archive_placing import Kind, Member

MAX_MEMBERS = 50_000
MAX_HEADER_BYTES = 64 * 1024
"""Bytes of one pax header or long name."""

_BLOCK = 512
_END = bytes(_BLOCK)
_MAX_EXTENSIONS = 4
"""Extension headers in front of one member: a pax header, a global one, a long name, a long link name."""

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"1": Kind.LINK,
    b"2": Kind.LINK,
    b"3": Kind.DEVICE,
    b"4": Kind.DEVICE,
    b"5": Kind.FOLDER,
    b"6": Kind.DEVICE,
    b"7": Kind.DEVICE,
    b"S": Kind.SPARSE,
}
_EXTENSIONS = b"xXgLK"
_WITHOUT_DATA = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
_NUMBER = re.compile(rb"[0-9]{1,19}")
_POSIX, _GNU, _OLD = b"ustar\0", b"ustar ", bytes(6)


def is_tar(head: bytes) -> bool:
    """Whether a stream that begins with ``head`` (512 bytes) can be a tar."""
    return len(head) >= _BLOCK and (head[:_BLOCK] == _END or _is_header(head[:_BLOCK]))


def _is_header(block: bytes) -> bool:
    field = block[148:156]
    try:
        told = _octal(field)
    except BrokenArchive:
        return False
    return told == sum(block) - sum(field) + 8 * 32


class TarStream:
    """The members of a tar, one after the other, each to be read (or not) before the next."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        """``blocks``: the tar's bytes, in pieces of any size."""
        self._blocks = blocks
        self._block = memoryview(b"")
        self._at = 0
        self._missing = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Each member.

        Raises:
            BadArchive: broken, or a bomb.
        """
        count = 0
        while True:
            member = self._next()
            if member is None:
                self._read_rest()
                return
            count += 1
            if count > MAX_MEMBERS:
                raise ArchiveBomb(f"it has more than {MAX_MEMBERS} members")
            yield member
            self._skip(self._missing + self._padding)

    def data(self) -> Iterable[memoryview]:
        """The current member's bytes; what is not taken is skipped.

        Raises:
            BrokenArchive: it ends too early.
        """
        while self._missing:
            piece = self._piece(self._missing)
            self._missing -= len(piece)
            yield piece

    def _next(self) -> Member | None:
        told = _Told()
        for _ in range(_MAX_EXTENSIONS + 1):
            header = self._exactly(_BLOCK)
            if header == _END:
                if told.is_something or self._exactly(_BLOCK) != _END:
                    raise BrokenArchive("its end mark is broken")
                return None
            if not _is_header(header):
                raise BrokenArchive("a header's checksum is wrong")
            if header[156] not in _EXTENSIONS:
                return self._member(header, told)
            size = _number(header[124:136])
            if size > MAX_HEADER_BYTES:
                raise ArchiveBomb(f"it has a header of {size} bytes: at most {MAX_HEADER_BYTES}")
            told.read(header[156:157], self._exactly(size))
            self._skip(-size % _BLOCK)
        raise ArchiveBomb(f"more than {_MAX_EXTENSIONS} headers belong to one member")

    def _member(self, header: bytes, told: _Told) -> Member:
        type_ = header[156:157]
        kind = _KINDS.get(type_, Kind.DEVICE)
        size = _number(header[124:136]) if told.size is None else told.size
        if size and type_ in _WITHOUT_DATA:
            raise BrokenArchive("it has a link, a folder or a device with a size")
        name = _name(header) if told.path is None else told.path
        if kind is Kind.FILE and name.endswith(b"/"):  # how tar of old had folders
            if size:
                raise BrokenArchive("it has a folder with a size")
            kind = Kind.FOLDER
        self._missing, self._padding = size, -size % _BLOCK
        return Member(name, Kind.SPARSE if told.is_sparse else kind, size, _number(header[100:108]))

    def _exactly(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._block):
            found = self._block[self._at : end].tobytes()
            self._at = end
            return found
        parts = []
        while size:
            parts.append(self._piece(size).tobytes())
            size -= len(parts[-1])
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._piece(size))

    def _piece(self, limit: int) -> memoryview:
        """The next bytes there are, at least one."""
        while self._at == len(self._block):
            self._block = memoryview(next(self._blocks, b""))
            self._at = 0
            if not self._block:
                raise BrokenArchive("it ends too early")
        piece = self._block[self._at : self._at + limit]
        self._at += len(piece)
        return piece

    def _read_rest(self) -> None:
        """Read on to the stream's end: the checksum at the very end is checked, and nothing may hide there."""
        rest = self._block[self._at :].tobytes()
        while True:
            if rest.strip(b"\0"):
                raise BrokenArchive("something follows its end")
            rest = next(self._blocks, b"")
            if not rest:
                return


class _Told:
    """What extension headers said of the next member."""

    def __init__(self) -> None:
        self.path: bytes | None = None
        self.size: int | None = None
        self.is_sparse = False
        self.is_something = False
        self._seen: set[bytes] = set()

    def read(self, type_: bytes, data: bytes) -> None:
        """Take in one extension header."""
        if type_ == b"g":
            if any(key in {b"path", b"size"} or key.startswith(b"GNU.sparse") for key, _ in _records(data)):
                raise BrokenArchive("a global header names or sizes everything")
            return
        self.is_something = True
        kind = b"x" if type_ == b"X" else type_
        if kind in self._seen:
            raise BrokenArchive("an extension header is there twice")
        self._seen.add(kind)
        if kind == b"L":
            self._set_path(data.split(b"\0", 1)[0])
        elif kind == b"x":
            self._read_pax(data)

    def _read_pax(self, data: bytes) -> None:
        for key, value in _records(data):
            if key == b"path":
                self._set_path(value)
            elif key == b"size":
                if self.size is not None or not _NUMBER.fullmatch(value):
                    raise BrokenArchive("a pax header's size cannot be read")
                self.size = int(value)
            elif key.startswith(b"GNU.sparse"):
                self.is_sparse = True

    def _set_path(self, path: bytes) -> None:
        if self.path is not None:
            raise BrokenArchive("a member has two long names")
        self.path = path


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a pax header: ``length key=value\\n``."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = int(data[at:space]) if space > at and data[at:space].isdigit() else 0
        record = data[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if at + length > len(data) or not equals or not value.endswith(b"\n"):
            raise BrokenArchive("a pax header cannot be read")
        yield key, value[:-1]
        at += length


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    magic = header[257:263]
    if magic == _POSIX and header[345]:
        return header[345:500].split(b"\0", 1)[0] + b"/" + name
    if magic not in {_POSIX, _GNU, _OLD}:
        raise BrokenArchive("it is a dialect of tar that nobody knows")
    return name


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # base-256, for what octal digits cannot hold
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int:
    digits = field.rstrip(b" \0").lstrip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise BrokenArchive("a header has a number that cannot be read")
    try:
        return int(digits, 8)
    except ValueError:  # an 8, or a 9
        raise BrokenArchive("a header has a number that cannot be read") from None

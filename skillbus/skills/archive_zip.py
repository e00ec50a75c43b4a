"""The framing of zip: spooled to an unnamed file, checked by its central directory, then read member by member.

The standard library's reader is not used: it holds every entry in memory (50 MB for 50,000), takes what precedes or
follows the archive, and reads entries that overlap. Refused here: what two readers may read in two ways (a local
header that differs from the central one, bytes before, between or behind), entries that share bytes, encryption, and
methods other than stored and deflate. ZIP64 is for more than our limits allow.

Sizes are counted as the bytes come out. Those in the headers are claims.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Self

from skillbus.errors import ArchiveBomb, BrokenArchive, UnknownArchive
from skillbus.skills.archive_placing import Kind, Member
from skillbus.skills.archive_tar import MAX_MEMBERS
from skillbus.skills.landing import disk_refused

_END = struct.Struct("<4s4s2H2LH")
_CENTRAL = struct.Struct("<4s4B4H3L5H2L")
_LOCAL = struct.Struct("<4s2B4H3L2H")
_MAX_COMMENT = 65_535
_PIECE = 64 * 1024
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_ZIP64 = 0xFFFFFFFF


class _Entry:
    """One entry of the central directory."""

    __slots__ = ("crc", "flags", "method", "mode", "name", "offset", "packed", "size")

    def __init__(self, fields: tuple[int, ...], name: bytes) -> None:
        self.flags, self.method, self.crc = fields[5], fields[6], fields[9]
        self.packed, self.size = fields[10], fields[11]
        self.mode = fields[-2] >> 16
        self.offset = fields[-1]
        self.name = name

    def kind(self) -> Kind:
        type_ = stat.S_IFMT(self.mode)
        if type_ == stat.S_IFLNK:
            return Kind.LINK
        if type_ not in {0, stat.S_IFREG, stat.S_IFDIR}:
            return Kind.DEVICE
        if self.name.endswith(b"/") or type_ == stat.S_IFDIR:
            if self.size:
                raise BrokenArchive("it has a folder with a size")
            return Kind.FOLDER
        return Kind.FILE


class ZipSpool:
    """A zip on the disk, under no name: it is gone with this process."""

    def __init__(self, folder: int, chunks: Iterable[bytes]) -> None:
        """Spool ``chunks`` into the open ``folder``.

        Raises:
            DiskRefused: it cannot be written.
        """
        self._entry: _Entry | None = None
        self._file = -1
        try:
            self._file = _unnamed(folder)
            self._size = 0
            for chunk in chunks:
                self._size += len(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(self._file, rest) :]
        except BaseException as error:
            self.__exit__()
            if isinstance(error, OSError):
                raise disk_refused(error) from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def check(self, max_unpacked_bytes: int) -> None:
        """Judge the archive by its central directory, before anything of it is read.

        Raises:
            BadArchive: broken, or a bomb.
        """
        self._count, self._start, self._stop = self._found_end()
        total = 0
        ends = array("Q")
        for entry in self._entries():
            total += entry.size
            if total > max_unpacked_bytes:
                raise ArchiveBomb(f"it unpacks to more than {max_unpacked_bytes // 1024 // 1024} MiB")
            if _ZIP64 in {entry.size, entry.packed, entry.offset} or entry.offset >= self._start:
                raise BrokenArchive("an entry lies outside of it")
            ends.append(entry.offset << 32 | min(entry.offset + _LOCAL.size + len(entry.name) + entry.packed, _ZIP64))
        before = 0
        for both in sorted(ends):
            if both >> 32 < before:
                raise ArchiveBomb("its entries overlap")
            before = both & _ZIP64
        if before > self._start:
            raise BrokenArchive("an entry lies outside of it")

    def __iter__(self) -> Iterator[Member]:
        """Each member, in the order of the central directory."""
        for entry in self._entries():
            self._entry = entry
            yield Member(entry.name, entry.kind(), entry.size, entry.mode)

    def data(self) -> Iterator[bytes]:
        """The current member's bytes.

        Raises:
            BadArchive: it is damaged, or not as long as it says.
        """
        entry = self._entry
        assert entry is not None  # noqa: S101 - a member was given
        if entry.flags & _ENCRYPTED:
            raise UnknownArchive("it is encrypted")
        if entry.method not in {_STORED, _DEFLATED}:
            raise UnknownArchive(f"it is packed by method {entry.method}: only deflate is read")
        pieces = self._pieces(self._data_offset(entry), entry.packed)
        crc = size = 0
        for piece in _inflated(pieces) if entry.method == _DEFLATED else pieces:
            crc = zlib.crc32(piece, crc)
            size += len(piece)
            if size > entry.size:
                raise ArchiveBomb("a file in it is bigger than it says")
            yield piece
        if size != entry.size or crc != entry.crc:
            raise BrokenArchive("a file in it is damaged")

    def _data_offset(self, entry: _Entry) -> int:
        local = _LOCAL.unpack(self._read(entry.offset, _LOCAL.size))
        name = self._read(entry.offset + _LOCAL.size, local[-2])
        if local[0] != b"PK\3\4" or name != entry.name or (local[3], local[4]) != (entry.flags, entry.method):
            raise BrokenArchive("it says one thing in its directory and another in its files")
        return entry.offset + _LOCAL.size + len(name) + int(local[-1])

    def _pieces(self, at: int, size: int) -> Iterator[bytes]:
        if at + size > self._start:
            raise BrokenArchive("an entry lies outside of it")
        while size:
            piece = self._read(at, min(size, _PIECE))
            yield piece
            at += len(piece)
            size -= len(piece)

    def _found_end(self) -> tuple[int, int, int]:
        """How many entries, and where the central directory begins and ends."""
        tail_at = max(0, self._size - _END.size - _MAX_COMMENT)
        tail = self._read(tail_at, self._size - tail_at)
        at = tail.rfind(b"PK\5\6")
        if at < 0:
            raise BrokenArchive("it ends too early")
        while at >= 0 and not _ends_at(tail, at):  # the comment may hold what looks like another end
            at = tail.rfind(b"PK\5\6", 0, at)
        if at < 0:
            raise BrokenArchive("something follows its end, or it is cut")
        _, disks, here, count, size, start, _ = _END.unpack_from(tail, at)
        end = tail_at + at
        if disks != bytes(4) or here != count or start + size != end:
            raise BrokenArchive("its directory is not where it says, or it is in parts")
        if count > MAX_MEMBERS:
            raise ArchiveBomb(f"it has more than {MAX_MEMBERS} members")
        return count, start, end

    def _entries(self) -> Iterator[_Entry]:
        at = self._start
        buffer, buffer_at = b"", at
        for _ in range(self._count):
            if at - buffer_at + _CENTRAL.size + 3 * _MAX_COMMENT > len(buffer):
                buffer, buffer_at = self._read(at, min(4 * _MAX_COMMENT, self._stop - at)), at
            if at - buffer_at + _CENTRAL.size > len(buffer):
                raise BrokenArchive("its directory is damaged")
            fields = _CENTRAL.unpack_from(buffer, at - buffer_at)
            name_at = at - buffer_at + _CENTRAL.size
            name = buffer[name_at : name_at + fields[12]]
            if fields[0] != b"PK\1\2" or len(name) != fields[12]:
                raise BrokenArchive("its directory is damaged")
            yield _Entry(fields, name)
            at += _CENTRAL.size + fields[12] + fields[13] + fields[14]
        if at != self._stop:
            raise BrokenArchive("its directory is damaged")

    def _read(self, at: int, size: int) -> bytes:
        data = os.pread(self._file, size, at)
        if len(data) != size:
            raise BrokenArchive("it ends too early")
        return data


def _ends_at(tail: bytes, at: int) -> bool:
    return at + _END.size <= len(tail) and at + _END.size + int(_END.unpack_from(tail, at)[-1]) == len(tail)


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-15)
    try:
        for piece in pieces:
            rest = piece
            while rest and not inflate.eof:
                yield inflate.decompress(rest, _PIECE)
                rest = inflate.unconsumed_tail
        while not inflate.eof:
            block = inflate.decompress(b"", _PIECE)
            if not block:
                break
            yield block
    except zlib.error:
        raise BrokenArchive("a file in it is damaged") from None
    if not inflate.eof or inflate.unused_data:
        raise BrokenArchive("a file in it is damaged")


def _unnamed(folder: int) -> int:
    """A new file without a name in the open ``folder``."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError:  # not every file system can: then it has a name for a moment
        name = f".spool-{os.getpid()}-{os.urandom(4).hex()}"
        file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        os.unlink(name, dir_fd=folder)
        return file

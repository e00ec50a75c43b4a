"""Archives of every kind, made member by member, hostile ones too, and a staging folder to unpack them in."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from skillbus.skills.archive import Top, unpack
from skillbus.skills.landing import Landing

SKILL = b"---\nname: x\ndescription: d\n---\n"
KINDS = ("ustar", "pax", "gnu", "tgz", "zip")
_FORMATS = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}
_MODES = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
}


@dataclass
class Member:
    """One member of an archive to be made."""

    name: str
    data: bytes = b"x"
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    link: str = ""


def make(members: Iterable[Member], kind: str = "tgz") -> bytes:
    """An archive with these members."""
    if kind == "zip":
        return make_zip(members)
    raw = io.BytesIO()
    with tarfile.open(
        fileobj=raw, mode="w", format=_FORMATS.get(kind, tarfile.PAX_FORMAT), errors="surrogateescape"
    ) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mode, info.linkname = member.kind, member.mode, member.link
            info.size = len(member.data) if member.kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(member.data))
    return gzip.compress(raw.getvalue(), 1, mtime=0) if kind == "tgz" else raw.getvalue()


def make_zip(members: Iterable[Member], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with these members, as a Unix writes it."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as packed:
        for member in members:
            is_folder = member.kind == tarfile.DIRTYPE
            info = zipfile.ZipInfo(member.name + "/" * (is_folder and not member.name.endswith("/")))
            info.create_system, info.compress_type = 3, method
            info.external_attr = (_MODES[member.kind] | member.mode) << 16
            data = member.link.encode() if member.kind == tarfile.SYMTYPE else member.data
            with warnings.catch_warnings(action="ignore"):  # a name that is there twice, on purpose
                packed.writestr(info, b"" if is_folder else data)
    return raw.getvalue()


def chunked(raw: bytes, size: int) -> Iterator[bytes]:
    """``raw`` as it may come from a network."""
    return (raw[at : at + size] for at in range(0, len(raw), size))


@contextmanager
def landings(folder: Path, *subpaths: str) -> Iterator[dict[str, Landing]]:
    """A landing for each, in ``folder``."""
    folder.mkdir(exist_ok=True)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    found: dict[str, Landing] = {}
    try:
        for number, subpath in enumerate(subpaths):
            found[subpath] = Landing(opened, f"slot-{number}")
        yield found
    finally:
        for landing in found.values():
            landing.rest()
        os.close(opened)


def unpacked(
    folder: Path, raw: bytes, *subpaths: str, top: Top = Top.EITHER, chunk: int = 997, cap: int = 0
) -> dict[str, Landing]:
    """What landed of the archive, by subpath."""
    with landings(folder, *(subpaths or ("",))) as found:
        unpack(chunked(raw, chunk), found, cap, top=top)
        return found


def on_disk(folder: Path, landing: Landing) -> dict[str, tuple[bytes, bool]]:
    """The files of a landing as they lie on the disk: bytes, and whether they may be executed."""
    slot = folder / landing.slot
    files = [path for path in slot.rglob("*") if not path.is_dir()]
    return {path.relative_to(slot).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100)) for path in files}


def wanted(members: Iterable[Member]) -> dict[str, tuple[bytes, bool]]:
    """What ought to lie there."""
    return {m.name: (m.data, bool(m.mode & 0o111)) for m in members if m.kind == tarfile.REGTYPE}


def everything_below(folder: Path) -> Mapping[str, bytes | None]:
    """Every file and folder, for comparing."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def names_in(folder: Path) -> set[str]:
    """What lies in a folder."""
    return {path.name for path in folder.iterdir()}

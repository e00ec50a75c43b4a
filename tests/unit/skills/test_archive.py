"""A zoo of hostile archives, each with a harmless twin that is taken."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillbus.errors import BadArchive
from skillbus.skills.archive import unpack
from skillbus.skills.bundle import Files

SKILL = b"---\nname: x\ndescription: d\n---\n"


@dataclass
class Member:
    """One member of an archive to be made."""

    name: str
    data: bytes = b"x"
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    link: str = ""


def make(members: Iterable[Member], fmt: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar.gz with a SKILL.md in front."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", format=fmt, errors="surrogateescape", compresslevel=1) as tar:
        for member in (Member("SKILL.md", SKILL), *members):
            info = tarfile.TarInfo(member.name)
            info.type, info.mode, info.linkname = member.kind, member.mode, member.link
            info.size = len(member.data) if member.kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(member.data))
    return raw.getvalue()


def opened(raw: bytes, subpath: str = "", cap: int = 0, chunk: int = 1000) -> Files:
    """What comes out when the bytes arrive in chunks."""
    return unpack((raw[n : n + chunk] for n in range(0, len(raw), chunk)), subpath, cap)


ZOO = {
    "parent": [Member("../evil")],
    "parent-inside": [Member("a/../../evil")],
    "absolute": [Member("/etc/evil")],
    "symlink": [Member("l", kind=tarfile.SYMTYPE, link="/etc")],
    "symlink-inside": [Member("l", kind=tarfile.SYMTYPE, link="SKILL.md")],
    "hardlink": [Member("l", kind=tarfile.LNKTYPE, link="SKILL.md")],
    "fifo": [Member("f", kind=tarfile.FIFOTYPE)],
    "char-device": [Member("c", kind=tarfile.CHRTYPE)],
    "block-device": [Member("b", kind=tarfile.BLKTYPE)],
    "contiguous": [Member("c", kind=tarfile.CONTTYPE)],
    "setuid": [Member("s", mode=0o4755)],
    "setgid": [Member("s", mode=0o2755)],
    "case": [Member("readme"), Member("README")],
    "case-folder": [Member("dir/a"), Member("DIR/b")],
    "unicode-form": [Member("caf\u00e9"), Member("cafe\u0301")],
    "double": [Member("a"), Member("a")],
    "file-then-folder": [Member("a"), Member("a/b")],
    "git": [Member(".git/hooks/post-checkout")],
    "reserved": [Member("con.txt")],
    "stream": [Member("x:y")],
    "backslash": [Member("..\\evil")],
    "newline": [Member("a\nb")],
    "right-to-left": [Member("a\u202eb")],
    "trailing-dot": [Member("a.")],
    "not-utf8": [Member("a\udcff")],
    "deep": [Member("/".join("d" * 30) + "/f")],
    "long-name": [Member("n" * 250)],
    "long-path": [Member("/".join(["n" * 150] * 10))],
    "hostile-beside": [Member("other/place/../../../x")],
}
TWINS = [
    [Member("inside/evil"), Member("a..b"), Member("...c")],
    [Member("script.sh", mode=0o755), Member("dir/", kind=tarfile.DIRTYPE), Member("dir/a")],
    [Member("readme"), Member("readme2"), Member("café"), Member("日本語")],
    [Member(".github/x"), Member("console"), Member("d/d/d/d/d/d/d/d/f"), Member("n" * 190)],
]


@pytest.mark.parametrize("name", ZOO)
def test_a_hostile_member_rejects_the_archive(name: str) -> None:
    """One such member anywhere, in either dialect of tar, and nothing of the archive is taken."""
    for fmt in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with pytest.raises(BadArchive):
            opened(make(ZOO[name], fmt))


@pytest.mark.parametrize("name", ["parent", "symlink", "not-utf8"])
def test_a_hostile_member_outside_the_wanted_folder_rejects_it_too(name: str) -> None:
    """What is not wanted is not trusted either."""
    with pytest.raises(BadArchive):
        opened(make([Member("skills/a/SKILL.md"), *ZOO[name]]), "skills/a")


@pytest.mark.parametrize("twin", range(len(TWINS)))
def test_the_harmless_twins_are_taken(twin: int) -> None:
    """Names and bits that only look odd survive, the executable bit included."""
    files = opened(make(TWINS[twin]))
    wanted = {m.name: bool(m.mode & 0o111) for m in TWINS[twin] if m.kind == tarfile.REGTYPE} | {"SKILL.md": False}
    assert {path: file.executable for path, file in files.items()} == wanted


def test_the_one_top_folder_is_looked_into_and_a_leading_dot_is_dropped() -> None:
    """``pdf-1.4/SKILL.md`` and ``./SKILL.md`` are how people pack."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name in ("pdf-1.4/SKILL.md", "pdf-1.4/a/b"):
            tar.addfile(tarfile.TarInfo(name))
    assert set(opened(raw.getvalue())) == {"SKILL.md", "a/b"}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        root = tarfile.TarInfo("./")
        root.type = tarfile.DIRTYPE
        for info in (root, tarfile.TarInfo("./SKILL.md")):
            tar.addfile(info)
    assert set(opened(raw.getvalue())) == {"SKILL.md"}


@pytest.mark.parametrize("top", ["", "repo-abc123/"])
def test_a_subpath_matches_whole_names_only(top: str) -> None:
    """``skills/a`` is not ``skills/ab``, at the archive's top or inside its one folder."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name in ("skills/a/SKILL.md", "skills/ab/SKILL.md", "skills/ab/x", "README"):
            tar.addfile(tarfile.TarInfo(top + name))
    assert set(opened(raw.getvalue(), "skills/a")) == {"SKILL.md"}
    assert set(opened(raw.getvalue(), "skills/ab")) == {"SKILL.md", "x"}
    assert opened(raw.getvalue(), "skills/none") == {}


def _sparse() -> bytes:
    """A GNU sparse file that claims 8 GB in 2 KB."""
    info = tarfile.TarInfo("sparse")
    info.size = 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    block[483:495] = b"77777777777\0"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return gzip.compress(bytes(block) + bytes(1024))


def _pax_sparse() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,1",
            "GNU.sparse.size": "9999999999",
        }
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    return raw.getvalue()


def _header_bomb(kind: bytes) -> bytes:
    """A header of 100 MB, as pax or GNU long name, in 100 KB."""
    info = tarfile.TarInfo("bomb")
    info.type, info.size = kind, 100 * 1024 * 1024
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(info.size) + bytes(1024), 1)


def _claims_more() -> bytes:
    info = tarfile.TarInfo("liar")
    info.size = 10_000
    return gzip.compress(info.tobuf() + b"short")


def _broken_in_the_middle() -> bytes:
    whole = bytearray(gzip.decompress(make([Member("a"), Member("b")])))
    at = whole.index(b"b\0\0\0")
    whole[at + 148 : at + 156] = b"9999999\0"
    return gzip.compress(bytes(whole))


def _negative() -> bytes:
    info = tarfile.TarInfo("n")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 11 + b"\x00"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return gzip.compress(bytes(block) + bytes(1024))


BROKEN: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"<html>not found</html>",
    "zip": lambda: b"PK\x03\x04" + bytes(100),
    "gzip-of-text": lambda: gzip.compress(b"hello" * 200),
    "cut": lambda: make([Member("a", bytes(range(256)) * 50)])[:-40],
    "wrong-checksum": lambda: make([])[:-8] + bytes(8),
    "rubbish-behind": lambda: make([]) + b"rubbish",
    "claims-more": _claims_more,
    "broken-in-the-middle": _broken_in_the_middle,
    "negative-size": _negative,
    "sparse": _sparse,
    "pax-sparse": _pax_sparse,
    "pax-bomb": lambda: _header_bomb(tarfile.XHDTYPE),
    "global-pax-bomb": lambda: _header_bomb(tarfile.XGLTYPE),
    "long-name-bomb": lambda: _header_bomb(tarfile.GNUTYPE_LONGNAME),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_archive_is_one_error(name: str) -> None:
    """Broken, cut or lying: BadArchive, never half of it, never another error."""
    with pytest.raises(BadArchive):
        opened(BROKEN[name]())


@pytest.mark.parametrize(
    "members",
    [[Member("big", bytes(21 * 1024 * 1024))], [Member(f"f{n}") for n in range(2001)]],
    ids=["bytes", "files"],
)
def test_too_much_in_the_wanted_folder_is_refused_and_elsewhere_it_is_not(members: list[Member]) -> None:
    """The limits are of the skill, not of the monorepo around it."""
    with pytest.raises(BadArchive):
        opened(make(members), chunk=100_000)
    beside = [Member(f"other/{m.name}", m.data) for m in members]
    assert set(opened(make([Member("skills/a/SKILL.md"), *beside]), "skills/a", chunk=100_000)) == {"SKILL.md"}


def test_the_weight_on_the_wire_is_capped() -> None:
    """No more than the cap is read; 0 is no cap."""
    raw = make([Member("a", bytes(range(256)) * 4000)])
    assert len(opened(raw, cap=0)) == 2
    with pytest.raises(BadArchive, match="MAX_ARCHIVE_MB"):
        opened(raw, cap=1000)


def test_bombs_use_little_memory() -> None:
    """A header bomb and a bomb of zeros are refused before they are in memory."""
    zeros = make([Member("other/zeros", bytes(40 * 1024 * 1024))])
    bomb = _header_bomb(tarfile.XHDTYPE)
    tracemalloc.start()
    try:
        with pytest.raises(BadArchive):
            opened(bomb, chunk=100_000)
        opened(zeros, "skills/a", chunk=100_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1024 * 1024


BASE = make([Member("dir/a", b"hello" * 100), Member("b.sh", mode=0o755)], tarfile.PAX_FORMAT)
PLAIN = gzip.decompress(BASE)


@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_a_mutated_archive_is_taken_or_refused(changes: list[tuple[int, int]]) -> None:
    """Bytes changed at random never raise anything else, and never let a bad path out."""
    raw = bytearray(PLAIN)
    for at, value in changes:
        raw[at] = value
    try:
        files = opened(gzip.compress(bytes(raw), 1))
    except BadArchive:
        return
    assert all(not path.startswith("/") and ".." not in path.split("/") for path in files)

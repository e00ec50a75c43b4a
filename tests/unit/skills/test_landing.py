"""Where files land: what is taken, what is refused, and that nothing is written anywhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skillbus.errors import (
    BadArchive,
    BadBundle,
    DiskRefused,
    HostileName,
    NameEscapes,
    NamesCollide,
    TooBig,
    TooDeep,
    TooManyFiles,
)
from skillbus.skills.landing import Landing, check_name
from skillbus.skills.rules import MAX_DEPTH, checked_path, tree_digest
from tests.unit.skills.packing import landings, names_in, on_disk


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[Landing]:
    """One in ``tmp_path``."""
    with landings(tmp_path, "") as found:
        yield found[""]


def test_what_was_written_is_what_lies_there(tmp_path: Path, landing: Landing) -> None:
    """Bytes, executable bits, sizes, digests, and the bytes of SKILL.md."""
    landing.write("SKILL.md", [b"ab", b"", b"c"], executable=False)
    landing.write("a/b/run.sh", [b"#!"], executable=True)
    landing.write("a/empty", [], executable=False)
    assert on_disk(tmp_path, landing) == {
        "SKILL.md": (b"abc", False),
        "a/b/run.sh": (b"#!", True),
        "a/empty": (b"", False),
    }
    assert landing.skill_file == b"abc"
    assert landing.sizes == {"SKILL.md": 3, "a/b/run.sh": 2, "a/empty": 0}
    assert len(tree_digest(landing.facts)) == 64


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["../x"], NameEscapes),
        (["/x"], NameEscapes),
        (["a//x"], NameEscapes),
        ([""], NameEscapes),
        (["a\\b"], HostileName),
        (["con"], HostileName),
        (["a", "A"], NamesCollide),
        (["a", "a"], NamesCollide),
        (["a", "a/b"], NamesCollide),
        (["d/" * MAX_DEPTH + "f"], TooDeep),
        ([f"{n}" for n in range(2001)], TooManyFiles),
    ],
)
def test_each_fault_is_a_refusal_of_its_own(
    tmp_path: Path, landing: Landing, paths: list[str], expected: type[BadArchive]
) -> None:
    """And never raised; the rest that comes is dropped; nothing lies outside of the slot."""
    for path in paths:
        landing.write(path, [b"x"], executable=False)
    assert type(landing.error) is expected
    before = dict(on_disk(tmp_path, landing))
    landing.write("later", [b"x"], executable=False)
    assert on_disk(tmp_path, landing) == before
    assert names_in(tmp_path) == {"slot-0"}


def test_bytes_are_counted_as_they_come(tmp_path: Path, landing: Landing) -> None:
    """An endless file is refused after 20 MiB, and no more of it is asked for."""
    asked = []

    def endless() -> Iterator[bytes]:
        for number in range(1000):
            asked.append(number)
            yield bytes(1024 * 1024)

    landing.write("a", endless(), executable=False)
    assert isinstance(landing.error, TooBig)
    assert len(asked) == 21
    assert landing.facts == {}


def test_the_first_reason_stays(landing: Landing) -> None:
    """Later ones follow from it."""
    landing.refuse(BadBundle("first"))
    landing.refuse(BadBundle("second"))
    assert str(landing.error) == "first"


def test_a_link_planted_in_the_slot_is_not_walked_through(tmp_path: Path, landing: Landing) -> None:
    """Somebody swaps a folder of ours for a link between two files: refused, and the link's target is untouched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    landing.write("a/first", [b"x"], executable=False)
    (tmp_path / "slot-0" / "a" / "first").unlink()
    (tmp_path / "slot-0" / "a").rmdir()
    (tmp_path / "slot-0" / "a").symlink_to(outside)
    with pytest.raises(DiskRefused):
        landing.write("a/second", [b"x"], executable=False)
    (tmp_path / "slot-0" / "third").symlink_to(outside / "file")
    with pytest.raises(DiskRefused):
        landing.write("third", [b"x"], executable=False)
    assert names_in(outside) == set()


def test_a_slot_that_is_there_is_refused(tmp_path: Path) -> None:
    """What lies there is not ours."""
    with landings(tmp_path, "") as found, pytest.raises(DiskRefused):
        Landing(found[""].folder, "slot-0")


def test_no_file_stays_open(tmp_path: Path) -> None:
    """However it ends."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with landings(tmp_path, "") as found:

        def failing() -> Iterator[bytes]:
            yield b"x"
            raise RuntimeError

        with pytest.raises(RuntimeError):
            found[""].write("a/b/c", failing(), executable=False)
        found[""].write("a/b/d", [b"x"], executable=False)
        found[""].write("a/../x", [b"x"], executable=False)
        opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert opened == before + 1
    assert "a/b/c" not in found[""].facts


_PARTS = st.sampled_from(
    [
        "a",
        "SKILL.md",
        ".git",
        ".gitignore",
        ".GIT",
        "con",
        "con.txt",
        "Com1",
        "com1x",
        "lpt9.a.b",
        "..",
        ".",
        "",
        "...",
        "a.",
        "a ",
        "é",
        "a:b",
    ]
) | st.text(max_size=4)


@given(st.lists(_PARTS, min_size=1, max_size=6).map("/".join))
@example("/etc/x")
@example("a/")
@example("a\n")
@example("n" * 200)
@example("n" * 201)
@example("/".join(["n" * 150] * 7))
@settings(max_examples=1000, deadline=None)
def test_the_short_cut_for_plain_names_says_what_the_rules_say(path: str) -> None:
    """One regular expression instead of a look at each letter, and the same verdict."""
    verdicts = []
    for check in (check_name, checked_path):
        try:
            check(path)
            verdicts.append(True)
        except BadArchive:
            verdicts.append(False)
    assert verdicts[0] == verdicts[1]

"""Outlines: when a tree need not be read again, and what is no tree of ours."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skillbus.skills import outline as module
from skillbus.skills import places, tree
from skillbus.skills.memory import Memory
from skillbus.skills.outline import Outline, outline
from skillbus.skills.places import Place, read_receipts, take_stock
from skillbus.skills.quiet import Threads
from skillbus.skills.root import open_root
from skillbus.skills.rules import Facts, tree_digest
from skillbus.skills.tree import scan
from tests.integration.skills.world import ScriptedCheckpoint, World, fake_child, write_tree


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    """The open folder in which ``skill`` lies."""
    write_tree(tmp_path / "skill", {"SKILL.md": b"text", "run.sh": b"#!/bin/sh", "deep/er/file": b"12345"})
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


def there(parent: int) -> Outline:
    """The outline, which must be one."""
    found = outline(parent, "skill")
    assert found is not None
    return found


def test_sizes_bits_and_nothing_else_of_files(parent: int) -> None:
    """Every file by its path, folders not."""
    assert there(parent).files == {"SKILL.md": (4, False), "run.sh": (9, True), "deep/er/file": (5, False)}


def test_unchanged_is_unchanged(parent: int) -> None:
    """Looking and reading change no print."""
    before = there(parent)
    assert scan(parent, "skill", lambda: None)
    assert there(parent) == before


def _same_size(skill: Path) -> None:
    times = (skill / "SKILL.md").stat()
    (skill / "SKILL.md").write_bytes(b"evil")
    os.utime(skill / "SKILL.md", ns=(times.st_atime_ns, times.st_mtime_ns))


def _replaced(skill: Path) -> None:
    times = (skill / "SKILL.md").stat()
    (skill / "draft").write_bytes(b"evil")
    (skill / "draft").rename(skill / "SKILL.md")
    os.utime(skill / "SKILL.md", ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "same size and mtime": _same_size,
    "replaced": _replaced,
    "longer": lambda skill: (skill / "SKILL.md").write_bytes(b"longer"),
    "bit": lambda skill: (skill / "run.sh").chmod(0o644),
    "renamed": lambda skill: (skill / "run.sh").rename(skill / "ran.sh"),
    "added": lambda skill: (skill / "deep/more").write_bytes(b""),
    "gone": lambda skill: (skill / "deep/er/file").unlink(),
    "deep down": lambda skill: (skill / "deep/er/file").write_bytes(b"54321"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_shows(parent: int, tmp_path: Path, change: str) -> None:
    """Also one of the same size whose time was put back: the change time cannot be."""
    before = there(parent).print
    CHANGES[change](tmp_path / "skill")
    assert there(parent).print != before


def _hard(skill: Path) -> None:
    os.link(skill.parent / "outside", skill / "hard")


def _socket(skill: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        folder = os.open(skill, os.O_RDONLY)
        try:
            made.bind(f"/proc/self/fd/{folder}/s")
        finally:
            os.close(folder)


NOT_OURS: dict[str, Callable[[Path], object]] = {
    "link to a file": lambda skill: (skill / "link").symlink_to("/etc/passwd"),
    "link to a folder": lambda skill: (skill / "deep/link").symlink_to("/etc"),
    "dangling link": lambda skill: (skill / "link").symlink_to("nowhere"),
    "hard link": _hard,
    "pipe": lambda skill: os.mkfifo(skill / "deep/pipe"),
    "socket": _socket,
    "too deep": lambda skill: (skill / "/".join("d" * 40)).mkdir(parents=True),
}


@pytest.mark.parametrize("what", NOT_OURS)
def test_what_is_no_tree_of_ours(parent: int, tmp_path: Path, what: str) -> None:
    """Links, hard links and devices at any depth are nothing that we could have placed."""
    (tmp_path / "outside").write_bytes(b"x")
    NOT_OURS[what](tmp_path / "skill")
    assert outline(parent, "skill", unshared=True) is None


def test_a_tree_of_very_many_files_is_not_ours(parent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a skill may have, twice over, and the looking ends."""
    monkeypatch.setattr(module, "MAX_FILES", 3)
    write_tree(tmp_path / "skill", {f"d{number}/f": b"" for number in range(20)})
    assert outline(parent, "skill") is None


@pytest.mark.parametrize("what", ["nothing", "file", "link"])
def test_where_there_is_no_folder(parent: int, tmp_path: Path, what: str) -> None:
    """A file, a link to a folder, or nothing has no outline."""
    if what == "file":
        (tmp_path / "other").write_bytes(b"")
    elif what == "link":
        (tmp_path / "other").symlink_to(tmp_path / "skill")
    assert outline(parent, "other") is None


# ---- when it is relied on --------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A root with one skill that we placed."""
    found = World(tmp_path)
    found.skill("a")
    found.list("./skills/a")
    with fake_child():
        found.run()
    return found


def _stock(world: World, memory: Memory) -> tuple[Memory, str | None]:
    """What is known after one look, and the digest of ``a`` that it came to."""
    root = open_root(world.root, create=False)
    assert root is not None
    threads, place, kept = Threads(ScriptedCheckpoint()), Place(root, frozenset()), Memory()
    try:
        read_receipts(place, memory, kept)
        take_stock(place, memory, kept, threads)
    finally:
        root.close()
        threads.close()
    return kept, place.digests["a"]


def _clock(monkeypatch: pytest.MonkeyPatch, world: World, after_s: float) -> None:
    """The wall clock, so long after the skill's last change."""
    changed_s = max(path.stat().st_ctime for path in (world.root / "a").rglob("*"))
    monkeypatch.setattr(places, "wall_ms", lambda: int((changed_s + after_s) * 1000))


@pytest.mark.parametrize(("after_s", "trusted"), [(-5, False), (0, False), (1.9, False), (2.1, True)])
def test_what_changed_a_moment_ago_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch, after_s: float, trusted: bool
) -> None:
    """A change that follows so soon may leave no trace in the times: so nothing is remembered of it yet."""
    _clock(monkeypatch, world, after_s)
    assert bool(_stock(world, Memory())[0].digests) is trusted


def test_the_age_counts_from_before_the_reading(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading that takes long does not make older what it began to read."""
    _clock(monkeypatch, world, 1.0)
    real = scan

    def slow(*args: object) -> object:
        _clock(monkeypatch, world, 60.0)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tree, "scan", slow)
    assert not _stock(world, Memory())[0].digests


def test_what_is_remembered_is_dropped_with_any_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remembered, the digest is that of the tree; after an edit of the same size and time it is another."""
    _clock(monkeypatch, world, 10.0)
    kept, digest = _stock(world, Memory())
    again, same = _stock(world, kept)
    assert (again.digests, same) == (kept.digests, digest)
    skill_file = world.root / "a/SKILL.md"
    times = skill_file.stat()
    skill_file.write_bytes(skill_file.read_bytes().replace(b"text", b"evil"))
    os.utime(skill_file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _stock(world, kept)[1] != digest


def test_a_lie_in_the_memory_would_be_believed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the print that decides, for this root and this name, and nothing is read then."""
    _clock(monkeypatch, world, 10.0)
    kept, digest = _stock(world, Memory())
    ((key, (shape, _)),) = kept.digests.items()
    assert _stock(world, Memory(digests={key: (shape, "told")}))[1] == "told"
    assert _stock(world, Memory(digests={((0, 0), "a"): (shape, "told")}))[1] == digest
    assert _stock(world, Memory(digests={key: (shape + 1, "told")}))[1] == digest
    assert digest == tree_digest(_facts(world))


def _facts(world: World) -> Facts:
    opened = os.open(world.root, os.O_RDONLY)
    try:
        found = scan(opened, "a", lambda: None)
    finally:
        os.close(opened)
    assert found is not None
    return found

"""The disk against the lock: every difference is told, nothing is written, nobody's own folders are looked into."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skillbus.skills import tree
from skillbus.skills.lock import Lock, write_lock
from skillbus.skills.root import Root, open_root
from skillbus.skills.verify import State, verify
from tests.unit.skills.receipts import receipt_of

FILES = {"SKILL.md": b"---\nname: x\n---\n", "bin/run.sh": b"echo", "notes/a.txt": b"a"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A skills root with two managed skills, ``one`` and ``two``."""
    opened = open_root(tmp_path / "root", create=True)
    assert opened is not None
    try:
        _place(opened, "one", "two")
    finally:
        opened.close()
    return tmp_path / "root"


def _place(root: Root, *names: str) -> None:
    receipts = {}
    for name in names:
        for path, data in FILES.items():
            (root.path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (root.path / name / path).write_bytes(data)
            (root.path / name / path).chmod(0o755 if path.endswith(".sh") else 0o644)
        facts = tree.scan(root.fd, name, lambda: None)
        assert facts is not None
        receipts[name] = receipt_of(facts)
    write_lock(root, Lock(receipts))


def drift(root: Path) -> dict[str, str]:
    """What differs in ``one``."""
    found = verify(root).skills[0]
    assert found.name == "one"
    assert (found.state is State.OK) == (not found.files)
    return {one.path: one.change for one in found.files}


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def _file_for_folder(path: Path) -> None:
    for inner in path.iterdir():
        inner.unlink()
    path.rmdir()
    path.write_text("x")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda one: None, {}),
        (lambda one: (one / "notes/a.txt").write_text("b"), {"notes/a.txt": "changed"}),
        (lambda one: (one / "notes/a.txt").chmod(0o755), {"notes/a.txt": "mode"}),
        (lambda one: (one / "notes/a.txt").chmod(0o600), {}),
        (lambda one: (one / "notes/a.txt").unlink(), {"notes/a.txt": "missing"}),
        (lambda one: (one / "notes/b\n.txt").write_text("b"), {"notes/b\n.txt": "added"}),
        (lambda one: (one / "empty").mkdir(), {}),
        (lambda one: _link(one / "notes/a.txt"), {"notes/a.txt": "no file"}),
        (lambda one: (one / "more").symlink_to("/etc"), {"more": "no file"}),
        (lambda one: os.mkfifo(one / "pipe"), {"pipe": "no file"}),
        (lambda one: _folder(one / "notes/a.txt"), {"notes/a.txt": "no file"}),
        (lambda one: _file_for_folder(one / "notes"), {"notes": "no file", "notes/a.txt": "missing"}),
    ],
)
def test_every_difference_is_told(root: Path, change: Callable[[Path], object], told: dict[str, str]) -> None:
    """By file: changed, added, missing, executable bit, or no file any more. What git does not see is no difference."""
    change(root / "one")
    assert drift(root) == told
    assert verify(root).skills[1].state is State.OK, "the neighbour is as it was"
    assert verify(root).drifted == bool(told)


def test_a_skill_that_is_gone_or_replaced(root: Path, tmp_path: Path) -> None:
    """Missing is not replaced; a link to the very same files is replaced all the same."""
    (root / "one").rename(tmp_path / "moved")
    assert [one.state for one in verify(root).skills] == [State.MISSING, State.OK]
    (root / "one").symlink_to(tmp_path / "moved")
    assert [one.state for one in verify(root).skills] == [State.REPLACED, State.OK]
    (root / "one").unlink()
    (root / "one").write_text("a file")
    assert [one.state for one in verify(root).skills] == [State.REPLACED, State.OK]


def test_what_is_not_ours_is_counted_and_not_named(root: Path) -> None:
    """A user's own skill is no drift."""
    (root / "mine").mkdir()
    (root / "note.txt").write_text("x")
    found = verify(root)
    assert (found.others_count, found.drifted) == (2, False)
    assert [one.name for one in found.skills] == ["one", "two"]


def test_it_leaves_no_trace(root: Path, tmp_path: Path) -> None:
    """Nothing is created or touched: not where our folder is, not where only a lock is, not where nothing is."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "only-lock").mkdir()
    (tmp_path / "only-lock/skillbus.lock").write_bytes((root / "skillbus.lock").read_bytes())
    before = _everything(tmp_path)
    assert [one.state for one in verify(root).skills] == [State.OK, State.OK]
    assert verify(tmp_path / "bare").skills == ()
    assert [one.state for one in verify(tmp_path / "only-lock").skills] == [State.MISSING, State.MISSING]
    assert verify(tmp_path / "not-there") == verify(tmp_path / "not-there")
    assert not verify(tmp_path / "not-there").drifted
    assert _everything(tmp_path) == before


def test_what_cannot_be_verified_is_drift(root: Path, tmp_path: Path) -> None:
    """A lock that cannot be read, a root that is a link or a file: one sentence, and not ok."""
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "file").write_text("x")
    (root / "skillbus.lock").write_text("{")
    for path, word in {"root": "cannot be understood", "link": "is a link", "file": "is no folder"}.items():
        found = verify(tmp_path / path)
        assert word in found.error
        assert found.drifted
        assert found.skills == ()


def test_an_unsettled_change_is_told(root: Path) -> None:
    """A journal of a pass that died names its skills; while that pass is at work it is no drift."""
    undo = {"name": "two", "slot": "1", "new": None, "old": None, "receipt": None}
    (root / ".skillbus/undo").mkdir()
    (root / ".skillbus/undo/journal").write_text(json.dumps([undo]))
    found = verify(root)
    assert (found.unsettled, found.at_work, found.drifted) == (("two",), False, True)
    at_work = open_root(root, create=False)
    assert at_work is not None
    try:
        assert at_work.try_flock()
        found = verify(root)
        assert (found.unsettled, found.at_work, found.drifted) == (("two",), True, False)
    finally:
        at_work.close()


def test_a_folder_without_end_comes_to_an_end(root: Path) -> None:
    """Very many and very deep additions: told, within bounds."""
    deep = root / "one" / "/".join(["d"] * 60)
    deep.mkdir(parents=True)
    (deep / "x").write_text("x")
    assert drift(root) == {"/".join(["d"] * 17): "added"}
    (root / "two/many").mkdir()
    for n in range(8_100):
        (root / "two/many" / str(n)).touch()
    found = verify(root).skills[1]
    assert found.state is State.CHANGED
    assert len(found.files) < 8_100


def _everything(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path): (info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
        for path in sorted(folder.rglob("*"))
        for info in [path.lstat()]
    }

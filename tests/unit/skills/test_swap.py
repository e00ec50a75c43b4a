"""Batches: kept or undone whole, in whatever way the file system renames, and whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skillbus.errors import DiskRefused, PassAborted
from skillbus.skills import history, swap, tree
from skillbus.skills.lock import Lock, Receipt, read_lock, write_lock
from skillbus.skills.retiring import retire_settled
from skillbus.skills.root import Root, open_root
from skillbus.skills.rules import Facts
from skillbus.skills.swap import Batch, Change, needs_sweep, read_journal, recover, sweep
from tests.integration.skills.world import ScriptedCheckpoint, Tree, visible, write_tree
from tests.unit.skills.receipts import receipt_of


@pytest.fixture(params=["exchange", "no-exchange"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Root]:
    """A root that holds ``update``, ``remove`` and ``relock``, of which the lock tells, and the user's ``own``."""
    if request.param == "no-exchange":
        monkeypatch.setattr(tree, "exchange", lambda *_: False)
    opened = open_root(tmp_path / "root", create=True)
    assert opened is not None
    for name in ("update", "remove", "relock"):
        write_tree(opened.path / name, {"SKILL.md": f"old {name}".encode(), "gone": b"x"})
    write_tree(opened.path / "own", {"SKILL.md": b"mine"})
    write_lock(opened, Lock({name: _receipt(opened, opened.fd, name) for name in ("update", "remove", "relock")}))
    yield opened
    opened.close()


def go_on() -> None:
    """Nothing stands in the way."""


def _facts(folder: int, name: str) -> Facts:
    found = tree.scan(folder, name, lambda: None)
    assert found is not None
    return found


def _receipt(root: Root, folder: int, name: str, **given: str) -> Receipt:
    return receipt_of(_facts(folder, name), **given)


def _staged(root: Root, slot: str, name: str) -> Change:
    assert root.staging
    write_tree(root.staging_path / slot, {"SKILL.md": f"new {name}".encode()})
    return Change(name, slot, _receipt(root, root.staging, slot))


def _changes(root: Root) -> list[Change]:
    """One of each kind."""
    return [
        _staged(root, "1", "add"),
        _staged(root, "2", "update"),
        Change("remove", "3", None),
        Change("relock", "4", _receipt(root, root.fd, "relock", revision="later"), moves=False),
    ]


def _all(root: Root) -> Tree:
    return visible(root.path)


def _assert_lock_is_true(root: Root) -> None:
    for name, receipt in read_lock(root).receipts.items():
        assert _facts(root.fd, name) == receipt.files, name


def test_made_and_kept(root: Root) -> None:
    """All of it stays, the lock tells of it, the journal is gone, what went out can still be had."""
    changes = _changes(root)
    batch = Batch(root, read_lock(root), changes)
    batch.make(ScriptedCheckpoint())
    assert read_journal(root) is not None
    batch.keep()
    assert (batch.done, batch.failed, batch.moved) == (changes, [], ["add", "update", "remove"])
    assert read_journal(root) is None
    assert recover(root, go_on) == []
    found = _all(root)
    assert {path.split("/")[0] for path in found} == {"add", "update", "relock", "own", "skillbus.lock"}
    assert (found["add/SKILL.md"], found["update/SKILL.md"]) == (b"new add", b"new update")
    assert set(read_lock(root).receipts) == {"add", "update", "relock"}
    assert read_lock(root).receipts["relock"].revision == "later"
    _assert_lock_is_true(root)
    with pytest.raises(DiskRefused, match="not yet dealt with"):
        sweep(root, go_on)
    assert retire_settled(root, go_on) == []
    assert {name: len(history.versions(root, name)) for name in ("add", "update", "remove", "relock")} == {
        "add": 0,
        "update": 1,
        "remove": 1,
        "relock": 0,
    }
    write_tree(root.staging_path / "9", {"left": b""})
    assert needs_sweep(root)
    sweep(root, go_on)
    assert not needs_sweep(root)
    assert _all(root) == found


@pytest.mark.parametrize("how", ["undo", "recover"])
def test_made_and_undone(root: Root, how: str) -> None:
    """Byte for byte as before, lock included, be it by the batch or by the next process; and twice is as once."""
    before = _all(root)
    batch = Batch(root, read_lock(root), _changes(root))
    batch.make(ScriptedCheckpoint())
    assert _all(root) != before
    if how == "undo":
        batch.undo()
        batch.undo()
    else:
        assert recover(root, go_on) == ["add", "update", "remove", "relock"]
    assert _all(root) == before
    assert recover(root, go_on) == []


def test_a_recovery_that_is_stopped_anywhere_is_done_later(root: Root) -> None:
    """Stopped before any of its steps it can be done again, and until it is done the journal stays."""
    before, stops = _all(root), 0
    batch = Batch(root, read_lock(root), _changes(root))
    batch.make(ScriptedCheckpoint())
    while read_journal(root) is not None:
        stops += 1
        with suppress(PassAborted):
            recover(root, ScriptedCheckpoint(trip_at=stops))
    assert stops > 2
    assert _all(root) == before


def test_refused_at_any_checkpoint_nothing_stays(root: Root) -> None:
    """Before the journal, before each rename, before the lock: the tree is as before and no journal lies there."""
    before, changes, calls = _all(root), _changes(root), 0
    while True:
        calls += 1
        checkpoint = ScriptedCheckpoint(trip_at=calls)
        batch = Batch(root, read_lock(root), changes)
        try:
            batch.make(checkpoint)
        except PassAborted:
            assert _all(root) == before, calls
            assert read_journal(root) is None
            assert {path.name for path in root.staging_path.iterdir()} == {"1", "2"}
        else:
            break
    assert calls - 1 == 3 + len(changes)  # journal, first permit, each change, lock


def test_the_permit_is_the_first_behind_the_journal(root: Root) -> None:
    """So its age tells since when this batch has been under way."""
    checkpoint = ScriptedCheckpoint()
    assert Batch(root, read_lock(root), _changes(root)).make(checkpoint).at_s == 2.0


def test_what_appears_meanwhile_is_left_alone(root: Root) -> None:
    """The user makes a folder of that name right before the rename: it stays, it is told, the others are done."""
    changes = _changes(root)
    batch = Batch(root, read_lock(root), changes)
    checkpoint = ScriptedCheckpoint()

    def appear() -> None:
        if checkpoint.calls == 2:
            write_tree(root.path / "add", {"SKILL.md": b"mine"})

    checkpoint.before = appear
    batch.make(checkpoint)
    batch.keep()
    assert [change.name for change, _ in batch.failed] == ["add"]
    assert "left alone" in str(batch.failed[0][1])
    assert batch.done == changes[1:]
    assert (root.path / "add/SKILL.md").read_bytes() == b"mine"
    assert "add" not in read_lock(root).receipts
    _assert_lock_is_true(root)


def test_a_disk_that_fails_half_way_undoes_all(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock cannot be written: one sentence, and everything as before."""
    before = _all(root)
    batch = Batch(root, read_lock(root), _changes(root))
    real = tree.write_file

    def failing(parent: int, name: str, data: bytes, scratch: int) -> None:
        if name == "skillbus.lock":
            raise OSError(28, "No space left on device")
        real(parent, name, data, scratch)

    monkeypatch.setattr(tree, "write_file", failing)
    with pytest.raises(DiskRefused, match="free some space"):
        batch.make(ScriptedCheckpoint())
    assert _all(root) == before
    assert read_journal(root) is None


def test_undoing_leaves_alone_what_is_not_ours(root: Root) -> None:
    """Somebody replaced the new folder before the recovery: theirs stays, and nothing of theirs is moved."""
    batch = Batch(root, read_lock(root), _changes(root))
    batch.make(ScriptedCheckpoint())
    (root.path / "add").rename(root.path / "moved")
    write_tree(root.path / "add", {"SKILL.md": b"mine"})
    recover(root, go_on)
    found = _all(root)
    assert found["add/SKILL.md"] == b"mine"
    assert found["update/SKILL.md"] == b"old update"
    assert "add" not in read_lock(root).receipts


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"{}",
        b"[[]]",
        b"[" * 9999,
        b'[{"name": "../x", "slot": "1"}]',
        b'[{"name": "x", "slot": "../1"}]',
        b'[{"name": "x", "slot": "1", "new": "3"}]',
        b'[{"name": "x", "slot": "1", "old": 3.5}]',
        b'[{"name": "x", "slot": "1", "receipt": {}}]',
    ],
)
def test_a_journal_that_cannot_be_understood_stops_the_root(root: Root, journal: bytes) -> None:
    """It is not thrown away: what it described is half done."""
    before = _all(root)
    assert root.undo
    (root.path / ".skillbus/undo/journal").write_bytes(journal)
    with pytest.raises(DiskRefused, match="journal"):
        recover(root, go_on)
    assert _all(root) == before
    assert (root.path / ".skillbus/undo/journal").read_bytes() == journal


def test_a_journal_that_could_not_be_read_again_is_not_written(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too long would stop this root for good."""
    before = _all(root)
    batch = Batch(root, read_lock(root), _changes(root))
    with monkeypatch.context() as patch:
        patch.setattr(swap, "MAX_LOCK_BYTES", 100)
        with pytest.raises(DiskRefused, match="fewer"):
            batch.make(ScriptedCheckpoint())
    assert read_journal(root) is None
    assert _all(root) == before


def test_it_is_undone_on_a_file_system_that_forgot_how(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanged, and no longer able to: it says so, the journal stays, and once it can it is undone."""
    before = _all(root)
    batch = Batch(root, read_lock(root), _changes(root))
    batch.make(ScriptedCheckpoint())
    with monkeypatch.context() as patch:
        patch.setattr(tree, "exchange", lambda *_: False)
        patch.setattr(tree, "move_new", _refusing)
        with pytest.raises(DiskRefused):
            recover(root, go_on)
    assert read_journal(root) is not None
    recover(root, go_on)
    assert _all(root) == before


def _refusing(*_: object) -> None:
    raise OSError(95, "Operation not supported")

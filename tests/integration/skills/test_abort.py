"""Checkpoints: nothing that stays begins after the trip, at whatever point of a pass it comes (P1)."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skillbus.clock import BootClock
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Permit
from skillbus.errors import PassAborted
from skillbus.skills import history, passing, tree
from skillbus.skills.reconciler import ReconcileAborted, SkillsReconciler
from skillbus.skills.rules import tree_digest
from skillbus.skills.swap import Batch
from tests.integration.skills.world import ScriptedCheckpoint, Tree, World, counts, everything

pytestmark = pytest.mark.usefixtures("in_process")


def _ready(folder: Path) -> World:
    """A world whose next pass adds, updates, repairs and removes one each."""
    world = World(folder)
    for name in ("update", "repair", "remove"):
        world.skill(name)
    world.list("./skills/update", "./skills/repair", "./skills/remove")
    assert counts(world.run()) == {"added": 3}
    world.skill("update", "new")
    world.skill("add")
    (world.root / "repair/SKILL.md").write_text("drifted")
    world.list("./skills/add", "./skills/update", "./skills/repair")
    return world


def _assert_lock_matches(world: World, *, drifted: frozenset[str] = frozenset()) -> None:
    """The lock names exactly what we placed, with the digest of what lies there."""
    lock = json.loads((world.root / "skillbus.lock").read_text())["skills"]
    folders = {path.name for path in world.root.iterdir() if path.is_dir() and path.name != ".skillbus"}
    assert set(lock) == folders
    with_fd = os.open(world.root, os.O_RDONLY)
    try:
        for name, receipt in lock.items():
            facts = tree.scan(with_fd, name, lambda: None)
            assert facts is not None
            assert name in drifted or tree_digest(facts) == receipt["digest"], name
    finally:
        os.close(with_fd)


def _aborted(world: World, checkpoint: ScriptedCheckpoint) -> PassResult:
    with pytest.raises(ReconcileAborted) as caught:
        world.run(checkpoint)
    return caught.value.result


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_a_trip_at_any_checkpoint_leaves_what_was_settled(
    in_memory: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """For every checkpoint of a pass in turn: what is visible at the end is what was settled last, lock included."""
    monkeypatch.setattr(passing, "BATCH", batch)
    whole = ScriptedCheckpoint()
    world = _ready(in_memory / "0")
    assert counts(world.run(whole)) == {"added": 1, "updated": 1, "repaired": 1, "removed": 1}
    assert whole.settles == -(-4 // batch)
    assert whole.calls > 20
    for trip_at in range(1, whole.calls + 1):
        world = _ready(in_memory / str(trip_at))
        stays: list[Tree] = [world.visible()]
        checkpoint = ScriptedCheckpoint(trip_at=trip_at)
        checkpoint.settled = lambda stays=stays, world=world: stays.append(world.visible())  # type: ignore[misc]
        result = _aborted(world, checkpoint)
        assert world.visible() == stays[-1], trip_at
        assert sum(result.counts.values()) == min(4, batch * (len(stays) - 1))
        world.run()
        assert counts(world.run()) == {"unchanged": 3}
        _assert_lock_matches(world)


@pytest.mark.parametrize("batch", [1, 3, 256])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
@pytest.mark.parametrize("exchange", [True, False])
def test_a_settle_that_refuses_reverts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, exchange: bool, batch: int
) -> None:
    """Its whole batch is undone and named, the lock tells what is there, the abort comes through."""
    monkeypatch.setattr(passing, "BATCH", batch)
    batches = [("add", "update", "repair", "remove")[at : at + batch] for at in range(0, 4, batch)]
    if nth > len(batches):
        pytest.skip("there are not so many batches")
    if not exchange:
        monkeypatch.setattr(tree, "exchange", lambda *_: False)
    world = _ready(tmp_path)
    stays: list[Tree] = [world.visible()]
    checkpoint = ScriptedCheckpoint(trip_at_settle=nth)
    checkpoint.settled = lambda: stays.append(world.visible())
    result = _aborted(world, checkpoint)
    assert result.reverted == batches[nth - 1]
    assert world.visible() == stays[-1]
    assert sum(result.counts.values()) == batch * (nth - 1)
    _assert_lock_matches(world, drifted=frozenset(["repair"]))


def test_nothing_is_written_after_an_abort(tmp_path: Path) -> None:
    """Once the checkpoint has refused outside a swap, not a file is touched any more, our own folder's included."""
    world = _ready(tmp_path)
    checkpoint = ScriptedCheckpoint()
    at_trip: list[dict[str, tuple[int, int, int]]] = []

    def trip_at_a_fetch() -> None:
        if checkpoint.calls == 6:
            checkpoint.trip()
            at_trip.append(everything(world.root))

    checkpoint.before = trip_at_a_fetch
    _aborted(world, checkpoint)
    assert everything(world.root) == at_trip[0]


def test_no_two_changes_without_a_checkpoint_between(tmp_path: Path) -> None:
    """Between one checkpoint and the next at most one thing changes: a skill, or the lock."""
    world = _ready(tmp_path)
    checkpoint = ScriptedCheckpoint()
    last: list[Tree] = [world.visible()]
    widest = [0]

    def compare() -> None:
        now = world.visible()
        changed = {path.split("/")[0] for path in set(now) ^ set(last[0])}
        changed |= {path.split("/")[0] for path in set(now) & set(last[0]) if now[path] != last[0][path]}
        widest[0] = max(widest[0], len(changed))
        last[0] = now

    checkpoint.before = compare
    world.run(checkpoint)
    assert widest == [1]


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_what_is_settled_is_the_oldest_permit_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Whatever a process is frozen in, the settle sees how old the leave for the first of these changes is.

    And each rename has a checkpoint of its own right before it, which alone can say that it is still wanted.
    """
    monkeypatch.setattr(passing, "BATCH", batch)
    world = _ready(tmp_path)
    checkpoint = ScriptedCheckpoint()
    renames: list[int] = []
    journals: list[int] = []

    def noting(real: Callable[..., object], calls: list[int]) -> Callable[..., object]:
        def act(*args: object) -> object:
            calls.append(checkpoint.calls)
            return real(*args)

        return act

    # What moves to the history is not visible to anybody: only what happens in the root counts.
    for step in ("exchange", "move_new"):
        monkeypatch.setattr(tree, step, noting(getattr(tree, step), renames))
    monkeypatch.setattr(history, "retire", lambda *_: None)
    monkeypatch.setattr(tree, "write_file", noting(tree.write_file, journals))
    world.run(checkpoint)
    assert len(set(renames)) == len(renames) == 4
    firsts, written = renames[::batch], journals[::2]  # Of each batch the journal, then the lock.
    settled = [permit.at_s for permit in checkpoint.permits]
    assert len(settled) == len(firsts) == len(written)
    for journal, permit, first in zip(written, settled, firsts, strict=True):
        assert journal < permit <= first


def test_every_fetch_has_a_checkpoint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the child nor a source is asked anything without leave: one call lies before each question."""
    from skillbus.skills.sources import folder
    from tests.integration.skills import world as worlds

    checkpoint = ScriptedCheckpoint()
    seen: list[int] = []
    real_ask, real_resolve = worlds.FakeChild.ask, folder.FolderSource.resolve

    async def noting(self: worlds.FakeChild, *args: Any) -> dict[str, Any]:
        seen.append(checkpoint.calls)
        return await real_ask(self, *args)

    async def resolving(self: folder.FolderSource, *args: Any) -> Any:
        seen.append(checkpoint.calls)
        return await real_resolve(self, *args)

    monkeypatch.setattr(worlds.FakeChild, "ask", noting)
    monkeypatch.setattr(folder.FolderSource, "resolve", resolving)
    for name in "abc":
        world.skill(name)
    world.list("./skills/a", "./skills/b", "./skills/c")
    world.run(checkpoint)
    assert len(seen) == 7  # the manifest, three folders resolved, three fetched
    assert sorted(set(seen)) == seen


class _SlowSettle(ScriptedCheckpoint):
    """Its settle waits until it is let go, as one that reads the record afresh does."""

    def __init__(self) -> None:
        super().__init__()
        self.settling = asyncio.Event()
        self.go = asyncio.Event()

    async def settle(self, permit: Permit) -> None:
        self.settling.set()
        await self.go.wait()
        await super().settle(permit)


@pytest.mark.parametrize("killed", [True, False])
def test_a_cancellation_cannot_cut_a_swap(tmp_path: Path, killed: bool) -> None:
    """Cancelled (twice) while a swap is settled, the pass ends only when that is kept or undone."""
    world = _ready(tmp_path)
    before = world.visible()

    async def cancelled() -> PassResult:
        checkpoint = _SlowSettle()
        task = asyncio.create_task(SkillsReconciler(world.options(), BootClock()).reconcile(checkpoint))
        await checkpoint.settling.wait()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.02)
            assert not task.done()
        if killed:
            checkpoint.trip()
        checkpoint.go.set()
        with pytest.raises(ReconcileAborted if killed else asyncio.CancelledError) as caught:
            await task
        result = getattr(caught.value, "result", None)
        assert isinstance(result, PassResult)
        return result

    result = asyncio.run(cancelled())
    if killed:
        assert result.reverted == ("add", "update", "repair", "remove")
        assert world.visible() == before
    else:
        assert sum(result.counts.values()) == 4
        assert "add/SKILL.md" in world.visible()
    _assert_lock_matches(world, drifted=frozenset(["repair"]) if killed else frozenset())


def test_work_in_a_thread_is_awaited_and_hastened(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while a second root's tree is copied, the pass ends only when the thread is back: it copies no more."""
    world.skill("a", files={"b": b"b", "c": b"c"})
    world.list("./skills/a")
    copying, go = threading.Event(), threading.Event()
    copied: list[str] = []

    def slow(*args: Any) -> Any:
        copied.append(args[2])
        copying.set()
        go.wait(10)
        return real(*args)

    real = tree._copy_file
    monkeypatch.setattr(tree, "_copy_file", slow)

    async def cancelled() -> None:
        options = world.options(targets=(world.root, world.folder / "second"))
        task = asyncio.create_task(SkillsReconciler(options, BootClock()).reconcile(ScriptedCheckpoint()))
        await asyncio.to_thread(copying.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert copied == ["SKILL.md"]
    assert not (world.root / "a").exists()
    assert not (world.folder / "second/a").exists()


def test_not_even_sweeping_goes_on_without_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tripped right behind swaps that stay, the old trees lie where they are until the next pass."""
    monkeypatch.setattr(passing, "BATCH", 1)
    world = _ready(tmp_path)
    checkpoint = ScriptedCheckpoint()
    checkpoint.settled = lambda: checkpoint.trip() if checkpoint.settles == 2 else None
    assert counts(_aborted(world, checkpoint)) == {"added": 1, "updated": 1}
    staging = world.root / ".skillbus/staging"
    assert list(staging.iterdir())
    world.run()
    assert list(staging.iterdir()) == []


def test_a_settle_that_fails_in_any_other_way_reverts_too(tmp_path: Path) -> None:
    """A judge that breaks has not said that the change may stay."""
    world = _ready(tmp_path)
    before = world.visible()

    class Broken(ScriptedCheckpoint):
        async def settle(self, permit: Permit) -> None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        world.run(Broken())
    assert world.visible() == before


def test_the_abort_is_a_pass_aborted(tmp_path: Path) -> None:
    """The loop that calls a reconciler knows that class alone."""
    world = _ready(tmp_path)
    with pytest.raises(PassAborted, match="killed") as caught:
        world.run(ScriptedCheckpoint(trip_at=1))
    assert getattr(caught.value, "result", None) is not None


def _died_unsettled(world: World, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A world whose last pass died before it could judge its changes. What was visible before that pass."""
    before = world.visible()

    class Dying(ScriptedCheckpoint):
        async def settle(self, permit: Permit) -> None:
            raise RuntimeError("died")

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "undo", lambda _: None)
        with pytest.raises(RuntimeError):
            world.run(Dying())
    assert world.visible() != before
    return before


def test_a_recovery_does_not_go_on_after_the_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tripped in its first rename, no other follows and the lock is not written; the next pass does the rest."""
    world = _ready(tmp_path)
    before = _died_unsettled(world, monkeypatch)
    checkpoint = ScriptedCheckpoint()
    renames: list[str] = []

    def tripping(real: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any) -> Any:
            renames.append(args[1])
            checkpoint.trip()
            return real(*args)

        return act

    with monkeypatch.context() as patch:
        for step in ("exchange", "move_new"):
            patch.setattr(tree, step, tripping(getattr(tree, step)))
        lock = (world.root / "skillbus.lock").read_bytes()
        _aborted(world, checkpoint)
    assert len(renames) == 1
    assert (world.root / "skillbus.lock").read_bytes() == lock
    world.manifest.write_text("not: a manifest")
    world.run()
    assert world.visible() == before


def test_a_sweep_does_not_go_on_after_the_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tripped while a tree is removed, no other is."""
    world = _ready(tmp_path)
    for number in range(5):
        (world.root / f".skillbus/staging/{number}").mkdir()
    checkpoint = ScriptedCheckpoint()
    real = tree.remove

    def tripping(parent: int, name: str) -> None:
        checkpoint.trip()
        real(parent, name)

    monkeypatch.setattr(tree, "remove", tripping)
    _aborted(world, checkpoint)
    assert len(list((world.root / ".skillbus/staging").iterdir())) == 4

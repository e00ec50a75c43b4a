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
from skillbus.skills import tree
from skillbus.skills.reconciler import ReconcileAborted, SkillsReconciler
from skillbus.skills.rules import tree_digest
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


def test_a_trip_at_any_checkpoint_leaves_what_was_settled(in_memory: Path) -> None:
    """For every checkpoint of a pass in turn: what is visible at the end is what was settled last, lock included."""
    whole = ScriptedCheckpoint()
    world = _ready(in_memory / "0")
    assert counts(world.run(whole)) == {"added": 1, "updated": 1, "repaired": 1, "removed": 1}
    assert whole.settles == 4
    assert whole.calls > 20
    for trip_at in range(1, whole.calls + 1):
        world = _ready(in_memory / str(trip_at))
        stays: list[Tree] = [world.visible()]
        checkpoint = ScriptedCheckpoint(trip_at=trip_at)
        checkpoint.settled = lambda stays=stays, world=world: stays.append(world.visible())  # type: ignore[misc]
        result = _aborted(world, checkpoint)
        assert world.visible() == stays[-1], trip_at
        assert sum(result.counts.values()) == len(stays) - 1
        assert counts(world.run())
        _assert_lock_matches(world)


@pytest.mark.parametrize(("nth", "name"), [(1, "add"), (2, "update"), (3, "repair"), (4, "remove")])
@pytest.mark.parametrize("exchange", [True, False])
def test_a_settle_that_refuses_reverts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, name: str, exchange: bool
) -> None:
    """The change is put back and named, the lock tells what is there, the abort comes through."""
    if not exchange:
        monkeypatch.setattr(tree, "exchange", lambda *_: False)
    world = _ready(tmp_path)
    stays: list[Tree] = [world.visible()]
    checkpoint = ScriptedCheckpoint(trip_at_settle=nth)
    checkpoint.settled = lambda: stays.append(world.visible())
    result = _aborted(world, checkpoint)
    assert result.reverted == (name,)
    assert world.visible() == stays[-1]
    assert sum(result.counts.values()) == nth - 1
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


def test_what_is_settled_is_the_permit_right_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a process is frozen in, the settle sees how old the leave for this very change is."""
    world = _ready(tmp_path)
    checkpoint = ScriptedCheckpoint()
    renames: list[float] = []

    def noting(real: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object) -> object:
            renames.append(checkpoint.calls)
            return real(*args)

        return act

    for step in ("exchange", "move_new"):
        monkeypatch.setattr(tree, step, noting(getattr(tree, step)))
    world.run(checkpoint)
    assert len(renames) == 4
    assert [permit.at_s for permit in checkpoint.permits] == renames


def test_every_fetch_has_a_checkpoint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child is asked nothing without leave: one call of the checkpoint lies before each job."""
    from tests.integration.skills import world as worlds

    checkpoint = ScriptedCheckpoint()
    seen: list[int] = []
    real = worlds.FakeChild.ask

    async def noting(self: worlds.FakeChild, job: dict[str, object]) -> dict[str, object]:
        seen.append(checkpoint.calls)
        return await real(self, job)

    monkeypatch.setattr(worlds.FakeChild, "ask", noting)
    for name in "abc":
        world.skill(name)
    world.list("./skills/a", "./skills/b", "./skills/c")
    world.run(checkpoint)
    assert len(seen) == 7
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
    """Cancelled (twice) while a swap is settled, the pass ends only when that is kept or put back."""
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
        assert result.reverted == ("add",)
        assert world.visible() == before
    else:
        assert counts(result) == {"added": 1}
        assert "add/SKILL.md" in world.visible()
    _assert_lock_matches(world, drifted=frozenset(["repair"]))


def test_work_in_a_thread_is_awaited_and_hastened(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while a tree is copied, the pass ends only when the thread is back, which does not copy on."""
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
        task = asyncio.create_task(SkillsReconciler(world.options(), BootClock()).reconcile(ScriptedCheckpoint()))
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


def test_not_even_sweeping_goes_on_without_leave(tmp_path: Path) -> None:
    """Tripped right behind a swap that stays, the old tree lies where it is until the next pass."""
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

"""What a pod sends when it hears a kill: one heartbeat that tells of it and reads the record, and no more than that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from skillbus.core.latch import Obeyed, ScopeReading, State
from skillbus.core.orders import KillOrder, KillRecord
from skillbus.core.ports import Reading
from skillbus.pod.switch import Switch
from tests.fakes.clock import FakeClock
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import FLEET, GROUP, PROD, Rig
from tests.unit.pod.test_drill import drill, hints

Make = Callable[..., Rig]
ORDER = KillOrder(id="k1", by="oncall", via="cli", reason="stop")


def killed(store: MemoryStore, order: KillOrder = ORDER) -> None:
    """As ``skillbus kill`` does it: recorded first, then published."""
    record = order.record(fallback_id="", now_ms=store.now_ms)
    store.data.setdefault(FLEET.killed_key, record.to_bytes())
    store.publish(FLEET.kill_channel, order.to_bytes())


def echoes(store: MemoryStore) -> int:
    """How often the pod spoke to itself."""
    return sum(channel == PROD.echo_channel("web-1") for channel, _ in store.published)


def test_an_idle_pod_proves_a_recorded_kill_in_one_round_trip(rig: Make, store: MemoryStore) -> None:
    """One heartbeat says ``stopped``, with a hint and without an echo; its reading is the only one that is needed."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            calls_count, told, spoken = len(pod.bus.calls), hints(store), echoes(store)
            killed(store)
            await pod.until(4.3 + 1.9)
            assert pod.bus.calls[calls_count:] == ["beat"]
            assert (hints(store), echoes(store)) == (told + 1, spoken)
            assert pod.evidence.obeys("k1")
            assert pod.evidence.state is State.STOPPED
            assert pod.evidence.quiet
            assert "(not recorded yet)" not in pod.why, "the answer showed it"

    asyncio.run(main())


def test_that_it_is_recorded_is_told_with_the_next_turn(rig: Make, store: MemoryStore) -> None:
    """Every pod learns it at the same moment, and nobody waits for it: no heartbeat of its own, and no hint."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            killed(store)
            await pod.until(6.25)
            told, spoken = hints(store), echoes(store)
            assert not pod.evidence.causes[0].recorded
            await pod.until(6.35)
            assert pod.evidence.causes[0].recorded
            assert (hints(store), echoes(store)) == (told, spoken + 1)

    asyncio.run(main())


def test_the_record_that_stands_is_told_at_once_if_it_is_another(rig: Make, store: MemoryStore) -> None:
    """A certificate of that record waits for it."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            store.data[FLEET.killed_key] = KillRecord(id="k0").to_bytes()
            killed(store)
            await pod.until(4.31)
            assert pod.evidence.obeys("k0")
            assert not pod.evidence.obeys("k1")
            assert pod.bus.calls[-2:] == ["beat", "beat"]

    asyncio.run(main())


def test_a_heartbeat_that_is_kept_back_keeps_back_no_record(
    rig: Make, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy file on a disk that hangs: the heartbeat cannot leave, and the record is written all the same."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            tasks = pod.pod._tasks
            assert tasks is not None
            hangs = asyncio.Event()
            monkeypatch.setattr(tasks.heartbeat, "beat", lambda **_: hangs.wait())
            store.publish(FLEET.kill_channel, b"stop")
            await pod.until(4.14)
            before = store.record(FLEET)
            await pod.until(4.16)
            monkeypatch.undo()
            hangs.set()
            assert (before, store.record(FLEET) is not None) == (None, True)

    asyncio.run(main())


def test_a_failed_heartbeat_leaves_the_record_to_the_recorder(rig: Make, store: MemoryStore) -> None:
    """It is denied its own evidence, and may write the record: both are tried."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            pod.bus.unreachable = True
            store.publish(FLEET.kill_channel, b"stop")
            await pod.until(4.11)
            assert pod.count("write_record") == 1
            pod.bus.unreachable = False
            await pod.until(5.0)
            assert store.record(FLEET) is not None

    asyncio.run(main())


def test_a_pod_never_falls_silent_to_itself(rig: Make, store: MemoryStore) -> None:
    """Of two urgent heartbeats one at least brings an echo: a latched pod, too, finds out that it is deaf."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            killed(store)
            await pod.until(4.4)
            spoken, beats = echoes(store), pod.count("beat")
            for number in range(4):
                drill(store, f"d{number}")
                await pod.until(4.5 + number * 0.3)
            assert pod.count("beat") == beats + 4
            assert echoes(store) == spoken + 2

    asyncio.run(main())


# -- what a reading may settle --------------------------------------------------------------------------------------


def reading(record: KillRecord | None, epoch: int = 0) -> Reading:
    """One of the fleet's scope."""
    return Reading({FLEET: ScopeReading(epoch, record.to_bytes() if record else None)}, 1, armed=True)


def heard(*records: str) -> tuple[Switch, tuple[Obeyed, ...]]:
    """A switch that heard these orders, and what was unsettled behind the first."""
    switch = Switch(FakeClock(), 6.0, require_armed=True)
    asked: tuple[Obeyed, ...] = ()
    for record_id in records:
        switch.hear(FLEET, KillRecord(id=record_id))
        asked = asked or switch.unsettled()
    return switch, asked


def test_a_reading_asked_for_behind_the_order_settles_it() -> None:
    """Its record and its epoch; then nothing is unsettled."""
    switch, asked = heard("k1")
    switch.settle_by(asked, reading(KillRecord(id="k0"), 7))
    obeyed = switch.memory.obeyed[FLEET]
    assert (obeyed.record.id, obeyed.epoch, obeyed.recorded) == ("k0", 7, True)
    assert switch.unsettled() == ()


def test_a_reading_without_the_record_says_nothing() -> None:
    """Whether the order may still be written is for the writer's transaction to say."""
    switch, asked = heard("k1")
    switch.settle_by(asked, reading(None, 7))
    assert switch.unsettled() == asked


def test_a_reading_asked_for_before_the_order_settles_nothing() -> None:
    """It may have left the server before a reset, and the order came behind that (docs/protocol.md §4)."""
    switch, _ = heard("k1")
    switch.settle_by((), reading(KillRecord(id="k0"), 7))
    switch.fold(reading(KillRecord(id="k0"), 7))
    assert switch.memory.obeyed[FLEET].epoch is None


def test_a_reading_asked_for_before_a_further_order_does_not_settle_that() -> None:
    """It was lifted by a reset and heard anew while the answer was on its way."""
    switch, asked = heard("k1")
    switch.lift(FLEET)
    switch.hear(FLEET, KillRecord(id="k2"))
    switch.settle_by(asked, reading(KillRecord(id="k1"), 7))
    obeyed = switch.memory.obeyed[FLEET]
    assert (obeyed.record.id, obeyed.epoch) == ("k2", None)


def test_other_scopes_are_left_alone() -> None:
    """Only what was heard is settled."""
    switch, asked = heard("k1")
    switch.hear(GROUP, KillRecord(id="k2"))
    switch.settle_by(asked, reading(KillRecord(id="k1"), 7))
    assert [obeyed.scope for obeyed in switch.unsettled()] == [GROUP]

"""A drill in a pod: heard where kills are heard, up to the gate, through the loop, told at once; it never trips."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from skillbus.core.latch import LATCHED, CauseKind, State
from skillbus.core.orders import DrillOrder, KillOrder, KillRecord
from skillbus.core.ports import Checkpoint
from skillbus.pod.switch import Rehearsal, Switch
from tests.fakes.clock import FakeClock
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import FLEET, GROUP, PROD, Rig, endless

Make = Callable[..., Rig]
CHANNELS = ("skillbus:prod:kill", "skillbus:prod:kill:group:eu", "skillbus:prod:kill:pod:web-1")
LOOK_ALIKES = [
    b"stop",
    b"",
    b"\xff",
    KillOrder(id="k1", by="oncall", via="cli", reason="stop").to_bytes(),
    KillRecord(id="k1", reason="stop").to_bytes(),
    b'{"v":1,"id":"k1","timeout_s":"1","reason":"stop"}',
    b'{"v":1,"id":"k1","reason":"stop","kind":"kill","scope":"fleet"}',
]


def drill(store: MemoryStore, name: str = "d1", **fields: Any) -> None:
    """Send one."""
    store.publish(PROD.drill_channel, DrillOrder(name, "oncall", **fields).to_bytes())


def latch_of(switch: Switch) -> tuple[object, ...]:
    """Everything of a latch that a kill would change. (Not the lease: a heartbeat that answers is a heartbeat.)"""
    standing = switch.standing
    return (
        standing.state,
        standing.why,
        standing.quiet,
        standing.tripped_at_s,
        standing.quiet_at_s,
        switch.memory,
        switch.causes,
        tuple(switch.actions),
        dict(switch._holds),
    )


def hints(store: MemoryStore) -> int:
    """How many hints were given."""
    return sum(channel == PROD.events_channel for channel, _ in store.published)


def test_it_is_answered_at_once(rig: Make, store: MemoryStore) -> None:
    """Between two heartbeats, with a hint; every kill channel of its is named, and what the gate said."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            before, given = latch_of(pod.switch), hints(store)
            drill(store)
            await pod.until(4.300001)
            told = pod.evidence.drill
            assert (told.id, told.trips, told.lease, told.channels) == ("d1", True, True, CHANNELS)
            instants = (told.heard_at_ms, told.gate_at_ms, told.loop_at_ms, told.answered_at_ms)
            assert instants == (store.now_ms,) * 4
            assert hints(store) == given + 1
            assert latch_of(pod.switch) == before
            await pod.until(5.9)
            assert pod.pod._evidence is not None
            assert abs(pod.pod._evidence.last_drill_at_ms - told.answered_at_ms) <= 1
            assert pod.stands(State.RUNNING)
            assert (len(pod.ended), pod.tombstones, store.record(FLEET)) == (1, [], None)

    asyncio.run(main())


def test_in_the_middle_of_a_pass(rig: Make, store: MemoryStore) -> None:
    """The pass goes on, and the loop that waits for it has its turn all the same."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.3)
            before = latch_of(pod.switch)
            drill(store)
            await pod.until(4.300001)
            assert pod.evidence.drill.answered_at_ms == store.now_ms
            assert (latch_of(pod.switch), pod.work.busy) == (before, True)
            await pod.until(20.0)
            assert pod.work.busy
            store.publish(FLEET.kill_channel, b"and a kill kills")
            await pod.until(20.1)
            assert pod.stands(State.STOPPED)

    asyncio.run(main())


def test_pods_that_do_not_run_answer_too(rig: Make, store: MemoryStore) -> None:
    """Stopping, stopped, and holding because nobody armed the fleet; none of them moves."""

    async def stubborn(checkpoint: Checkpoint) -> None:
        try:
            await endless(checkpoint)
        finally:
            await store.clock.sleep(3.0)

    async def main() -> None:
        async with rig(stubborn) as pod:
            await pod.until(4.3)
            store.publish(FLEET.kill_channel, b"stop")
            await pod.until(4.4)
            for at_s, state in ((5.0, State.STOPPING), (9.1, State.STOPPED)):
                await pod.until(at_s)
                before = latch_of(pod.switch)
                drill(store, f"d-{state}")
                await pod.until(at_s + 0.000001)
                assert (pod.state, pod.evidence.drill.id) == (state, f"d-{state}")
                assert (pod.evidence.drill.trips, pod.evidence.drill.answered_at_ms) == (True, store.now_ms)
                assert latch_of(pod.switch) == before
        store.lose_data()
        async with rig(pod_id="web-2", incarnation="b" * 32) as held:
            await held.until(13.0)
            drill(store, "d-holding")
            await held.until(13.1)
            assert (held.state, held.evidence.drill.id) == (State.HOLDING, "d-holding")
            assert held.evidence.drill.trips

    asyncio.run(main())


@pytest.mark.parametrize("payload", LOOK_ALIKES, ids=lambda payload: f"{payload[:20]!r}")
def test_what_looks_like_a_kill_stops_nothing(rig: Make, store: MemoryStore, payload: bytes) -> None:
    """On the drill channel it is no drill: ignored and counted; the latch is as it was, and nothing is written."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.3)
            before = latch_of(pod.switch)
            for _ in range(50):
                store.publish(PROD.drill_channel, payload)
            await pod.until(4.5)
            assert latch_of(pod.switch) == before
            await pod.until(6.2)
            assert (pod.evidence.ignored_count, pod.evidence.drill, pod.work.busy) == (50, None, True)
            assert (store.record(FLEET), pod.tombstones) == (None, [])
            drill(store)
            await pod.until(6.3)
            assert pod.evidence.drill.id == "d1"

    asyncio.run(main())


def test_each_is_answered_once(rig: Make, store: MemoryStore) -> None:
    """A replay brings no heartbeat and no hint, and does not count as the last drill."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            drill(store)
            await pod.until(4.4)
            heard_at_ms, given, beats = pod.evidence.drill.heard_at_ms, hints(store), pod.count("beat")
            for _ in range(100):
                drill(store)
            await pod.until(5.9)
            assert (hints(store), pod.count("beat")) == (given, beats)
            await pod.until(8.5)
            assert abs(pod.evidence.drill.heard_at_ms - heard_at_ms) <= 1
            assert (pod.evidence.drills_before, pod.evidence.ignored_count) == ((), 100)

    asyncio.run(main())


def test_a_burst_is_answered_five_times_a_second(rig: Make, store: MemoryStore) -> None:
    """The rest is ignored; no answer covers another, and a second later the next is answered."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.3)
            beats = pod.count("beat")
            for number in range(200):
                drill(store, f"d{number}")
            await pod.until(4.4)
            told = [pod.evidence.drill, *pod.evidence.drills_before]
            assert [line.id for line in told] == ["d4", "d3", "d2", "d1", "d0"]
            assert all(line.answered_at_ms for line in told)
            assert pod.count("beat") - beats <= 5
            await pod.until(5.4)
            drill(store, "later")
            await pod.until(5.5)
            assert (pod.evidence.drill.id, pod.evidence.ignored_count) == ("later", 195)
            await pod.until(70.0)
            assert (pod.evidence.drill.id, pod.evidence.drills_before) == ("later", ())
            assert pod.work.busy

    asyncio.run(main())


def test_the_memory_of_ids_has_an_end(rig: Make, store: MemoryStore) -> None:
    """256 ids are remembered: more would let whoever may drill fill every pod's memory."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.0)
            for number in range(300):
                await pod.until(5.0 + number)
                drill(store, f"d{number}")
            await pod.until(310.0)
            assert pod.pod._evidence is not None
            drills = pod.pod._evidence.drills
            assert [drills.may_answer(name) for name in ("d299", "d44", "d0")] == [False, False, True]

    asyncio.run(main())


def test_another_groups_drill_is_not_ours(rig: Make, store: MemoryStore) -> None:
    """Silence, and it does not count as garbage; our own group's is answered."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            drill(store, scope="group:us")
            drill(store, "d2", scope="pod:web-2")
            await pod.until(6.3)
            assert (pod.evidence.drill, pod.evidence.ignored_count) == (None, 0)
            drill(store, "d3", scope="group:eu")
            await pod.until(6.4)
            assert pod.evidence.drill.id == "d3"

    asyncio.run(main())


def test_a_lost_answer_leaves_again(rig: Make, store: MemoryStore) -> None:
    """Redis is gone for a moment: the next heartbeat bears it, with the time at which that one left."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            drill(store)
            pod.bus.slow_s = 1.5
            await pod.until(5.4)
            pod.bus.slow_s = 0.0
            await pod.until(7.0)
            told = pod.evidence.drill
            assert told.id == "d1"
            assert told.answered_at_ms - told.heard_at_ms >= 1000

    asyncio.run(main())


def test_a_deaf_pod_does_not_answer(rig: Make, store: MemoryStore) -> None:
    """Its heartbeats go on, and say nothing of a drill that it did not hear."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            pod.bus.deaf = True
            drill(store)
            await pod.until(8.5)
            assert pod.evidence.drill is None
            assert pod.evidence.beat_at_ms > store.now_ms - 2000

    asyncio.run(main())


def test_a_loop_that_does_not_turn_shows(rig: Make, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drill was heard and passed the gate; without the loop's turn it is no answer."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.3)
            monkeypatch.setattr("skillbus.pod.loop.Loop._rehearse", lambda self: None)
            drill(store)
            await pod.until(6.3)
            told = pod.evidence.drill
            assert told.heard_at_ms
            assert (told.id, told.loop_at_ms, told.answered_at_ms) == ("d1", 0, 0)

    asyncio.run(main())


# -- the gate ----------------------------------------------------------------------------------------------------------


def _running(clock: FakeClock) -> Switch:
    switch = Switch(clock, 6.0, require_armed=False)
    switch.renew(clock.now_s())
    return switch


def _killed(clock: FakeClock) -> Switch:
    switch = _running(clock)
    switch.hear(FLEET, KillRecord(id="drill"))
    return switch


def _holding(clock: FakeClock) -> Switch:
    switch = _running(clock)
    switch.hold("deaf", "deaf")
    return switch


def _local(clock: FakeClock) -> Switch:
    switch = _running(clock)
    switch.begin()
    switch.trip(CauseKind.LOCAL, "by hand")
    return switch


def _starting(clock: FakeClock) -> Switch:
    return Switch(clock, 6.0, require_armed=True)


@pytest.mark.parametrize("make", [_starting, _running, _holding, _killed, _local])
def test_a_rehearsal_changes_nothing(make: Callable[[FakeClock], Switch], clock: FakeClock) -> None:
    """In any state, as often as you like; what it says is what the kill then does, and nobody is woken by it."""

    async def main() -> None:
        switch = make(clock)
        changed = switch.listen()
        before = (*latch_of(switch), switch.lease_ends_at_s)
        for _ in range(100):
            said = switch.rehearse([FLEET, GROUP])
        assert (*latch_of(switch), switch.lease_ends_at_s) == before
        assert not changed.is_set()
        switch.hear(GROUP, KillRecord(id="k1"))
        assert said.trips
        assert switch.standing.state in LATCHED

    asyncio.run(main())


def test_a_rehearsal_says_whether_the_lease_is_there(clock: FakeClock) -> None:
    """As of now."""

    async def main() -> None:
        switch = _running(clock)
        assert switch.rehearse([FLEET]) == Rehearsal(trips=True, has_lease=True)
        await clock.advance(6.0)
        assert switch.rehearse([FLEET]) == Rehearsal(trips=True, has_lease=False)

    asyncio.run(main())


def test_a_gate_that_is_broken_is_told(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch whose code would not trip says so, for it is that code that the rehearsal runs."""
    switch = _running(clock)
    monkeypatch.setattr("skillbus.pod.switch.hear", lambda memory, scope, record: (memory, []))
    assert not switch.rehearse([FLEET]).trips

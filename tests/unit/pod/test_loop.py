"""The loop: check, pass, report, rest. When a pass begins, when not, and what follows each outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from skillbus.core.latch import State
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.errors import NeedsHuman, PassAborted
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import FLEET, PROD, Rig, endless

Make = Callable[..., Rig]


def test_cycles_are_an_interval_apart(rig: Make) -> None:
    """Counted from the end of a pass; the first is due at once; a fresh read before each."""

    async def script(checkpoint: Checkpoint) -> None:
        await pod.clock.sleep(2.0)

    async def main() -> None:
        async with pod:
            await pod.until(40.0)
            assert pod.work.began_at_s == [0.0, 12.0, 24.0, 36.0]
            assert pod.count("read") == 1 + 4

    pod = rig(script, every_s=10.0)
    asyncio.run(main())


def test_unknown_means_no_cycle(rig: Make, store: MemoryStore) -> None:
    """The pod still runs on its lease, and begins nothing: each tenth of a second it reads again."""

    async def main() -> None:
        async with rig(every_s=3.0) as pod:
            await pod.until(2.5)
            pod.bus.unreachable = True
            await pod.until(4.0)
            assert pod.stands(State.RUNNING)
            assert pod.work.began_at_s == [0.0]
            reads_count = pod.count("read")
            pod.bus.unreachable = False
            await pod.until(4.2)
            assert pod.work.began_at_s[1:] == [pytest.approx(4.1, abs=0.11)]
            assert pod.count("read") == reads_count + 1

    asyncio.run(main())


def test_a_kill_that_only_the_fresh_read_shows_stops_the_cycle(rig: Make, store: MemoryStore) -> None:
    """No message and no beat since: the read before the cycle is enough."""

    async def main() -> None:
        async with rig(every_s=5.0) as pod:
            await pod.until(4.9)
            store.kill(FLEET)
            await pod.until(5.0)
            assert pod.stands(State.STOPPED)
            assert pod.work.began_at_s == [0.0]

    asyncio.run(main())


def test_a_failed_pass_backs_off(rig: Make) -> None:
    """5, 10, 20, 40 s and so on; a good one returns to the interval and forgets the failures."""
    outcomes = iter([False, False, False, True, False, True])

    async def script(checkpoint: Checkpoint) -> PassResult:
        return PassResult() if next(outcomes, True) else PassResult(errors=("no",))

    async def main() -> None:
        async with rig(script, every_s=100.0) as pod:
            await pod.until(300.0)
            assert pod.work.began_at_s == [0.0, 5.0, 15.0, 35.0, 135.0, 140.0, 240.0]

    asyncio.run(main())


def test_whatever_a_reconciler_raises_the_loop_goes_on(rig: Make) -> None:
    """A failed pass, told in the evidence; a pod is not ended by its reconciler."""
    errors = iter([ValueError("boom \udc80\x1b"), NeedsHuman("look at it"), KeyError(), RecursionError("deep")])

    async def script(checkpoint: Checkpoint) -> None:
        error = next(errors, None)
        if error is not None:
            raise error

    async def main() -> None:
        async with rig(script, every_s=100.0) as pod:
            await pod.until(1.0)
            assert pod.evidence.last_pass is not None
            assert pod.evidence.last_pass.outcome == "failed"
            assert pod.evidence.last_pass.errors == ("ValueError: boom   ",)
            await pod.until(6.0)
            assert pod.evidence.last_pass.errors == ("look at it",)
            await pod.until(200.0)
            assert pod.stands(State.RUNNING)
            assert pod.work.began_at_s == [0.0, 5.0, 15.0, 35.0, 75.0, 175.0]

    asyncio.run(main())


def test_what_was_done_before_an_error_is_told(rig: Make) -> None:
    """An error that bears a partial result: its counts and errors are kept."""

    class Partial(NeedsHuman):
        result = PassResult(counts={"added": 2}, errors=("first",), reverted=("skill-a",))

    async def script(checkpoint: Checkpoint) -> None:
        raise Partial("second")

    async def main() -> None:
        async with rig(script) as pod:
            await pod.until(1.0)
            last = pod.evidence.last_pass
            assert last is not None
            assert (last.counts, last.errors, last.reverted) == ({"added": 2}, ("first", "second"), ("skill-a",))

    asyncio.run(main())


def test_a_hold_aborts_and_a_licence_begins_again(rig: Make, store: MemoryStore) -> None:
    """Aborted is not failed: due as soon as the pod may run, without back-off."""

    async def main() -> None:
        async with rig(endless, every_s=100.0) as pod:
            await pod.until(4.1)
            store.read_only = True
            await pod.until(6.0)
            assert pod.work.ended_at_s == [6.0]
            assert [ended.outcome for ended in pod.ended] == ["aborted"]
            await pod.until(19.0)
            assert pod.work.began_at_s == [0.0]
            store.read_only = False
            await pod.until(20.0)
            assert pod.work.began_at_s == [0.0, 20.0]

    asyncio.run(main())


def test_a_pass_is_told_once(rig: Make, store: MemoryStore) -> None:
    """Cancelled once, so that its clean-up is not cut short; and no second pass begins beside it."""
    told: list[str] = []

    async def script(checkpoint: Checkpoint) -> None:
        try:
            await endless(checkpoint)
        except asyncio.CancelledError:
            told.append("cancelled")
            await pod.clock.sleep(10.0)
            told.append("cleaned up")

    async def main() -> None:
        async with pod:
            await pod.until(4.1)
            store.read_only = True
            await pod.until(8.0)
            store.publish(FLEET.kill_channel)
            await pod.until(15.9)
            assert told == ["cancelled"]
            assert pod.stands(State.STOPPING)
            await pod.until(16.0)
            assert told == ["cancelled", "cleaned up"]
            assert pod.stands(State.STOPPED)
            assert len(pod.work.began_at_s) == 1

    pod = rig(script)
    asyncio.run(main())


def test_a_pass_that_hears_the_checkpoint_is_aborted(rig: Make) -> None:
    """PassAborted from a reconciler is an aborted pass."""

    async def script(checkpoint: Checkpoint) -> None:
        await pod.clock.sleep(4.1)
        pod.pod.kill("enough")
        checkpoint()

    async def main() -> None:
        async with pod:
            await pod.until(5.0)
            assert pod.stands(State.STOPPED)
            assert [ended.outcome for ended in pod.ended] == ["aborted"]

    pod = rig(script)
    asyncio.run(main())


def test_a_reconciler_that_aborts_by_itself_does_not_spin(rig: Make) -> None:
    """PassAborted while nothing forbids to run: a second later the next one, and no hammering of Redis."""

    async def script(checkpoint: Checkpoint) -> None:
        raise PassAborted("by mistake")

    async def main() -> None:
        async with rig(script, every_s=100.0) as pod:
            await pod.until(3.5)
            assert pod.work.began_at_s == [0.0, 1.0, 2.0, 3.0]

    asyncio.run(main())


def test_a_request_brings_the_next_pass_forward(rig: Make, store: MemoryStore) -> None:
    """A sync message: at once, through the same gate, and told as its trigger."""

    async def main() -> None:
        async with rig(every_s=100.0) as pod:
            await pod.until(10.0)
            store.publish(PROD.sync_channel, b'{"v": 1, "id": "s1"}')
            await pod.until(10.5)
            assert pod.work.began_at_s == [0.0, 10.0]
            assert pod.evidence.last_pass is not None
            assert pod.evidence.last_pass.trigger == "s1"
            await pod.until(110.0)
            assert pod.work.began_at_s == [0.0, 10.0, 110.0]
            assert pod.evidence.last_pass.trigger == "cycle"

    asyncio.run(main())


def test_a_request_in_a_pass_is_followed_by_another(rig: Make, store: MemoryStore) -> None:
    """Level-triggered: however many asked, one more pass begins when this one has ended."""

    async def script(checkpoint: Checkpoint) -> None:
        await pod.clock.sleep(2.0)

    async def main() -> None:
        async with pod:
            for name in (b"s1", b"s2", b"s3"):
                store.publish(PROD.sync_channel, b'{"id": "%b"}' % name)
            await pod.until(50.0)
            assert pod.work.began_at_s == [0.0, 2.0]

    pod = rig(script, every_s=100.0)
    asyncio.run(main())


def test_no_request_goes_around_the_gate(rig: Make, store: MemoryStore) -> None:
    """A killed or holding pod is not moved by a sync."""

    async def main() -> None:
        async with rig(every_s=100.0) as pod:
            await pod.until(4.1)
            store.publish(FLEET.kill_channel)
            store.publish(PROD.sync_channel, b'{"id": "s1"}')
            await pod.until(50.0)
            assert pod.work.began_at_s == [0.0]

    asyncio.run(main())


def test_every_line_of_a_pass_bears_its_id(rig: Make, caplog: pytest.LogCaptureFixture) -> None:
    """One summary for each pass, and a line for each thing that failed."""
    caplog.set_level(logging.INFO, "skillbus.pod.loop")

    async def script(checkpoint: Checkpoint) -> PassResult:
        return PassResult(counts={"added": 1}, errors=("one", "two"), reverted=("skill-a",))

    async def main() -> None:
        async with rig(script) as pod:
            await pod.until(1.0)
            assert pod.evidence.last_pass is not None
            names.append(pod.evidence.last_pass.id)

    names: list[str] = []
    asyncio.run(main())
    (name,) = names
    lines = [line for line in caplog.messages if name in line]
    assert [line.split(" pass=")[0] for line in lines] == [
        "pass ended",
        "pass error",
        "pass error",
        "change reverted",
    ]

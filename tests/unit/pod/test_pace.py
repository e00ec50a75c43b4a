"""When a pass is due, to the second: spread after a start, intervals out of step, a sync's share, a source at rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from skillbus.core.latch import State
from skillbus.core.outcome import PassResult, share_of
from skillbus.core.ports import Checkpoint
from skillbus.errors import RateLimited
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import FLEET, PROD, Rig

Make = Callable[..., Rig]

FIRST_S = 30.0 * share_of("a" * 32)
"""The share of a spread of 30 s that the rig's incarnation waits: 7 s."""


def jitter(passes_count: int) -> float:
    """By what the rig's pod stretches the interval behind that pass."""
    return 1.0 + 0.1 * (2.0 * share_of("web-1", str(passes_count)) - 1.0)


def test_the_first_pass_waits_for_its_share(rig: Make, caplog: pytest.LogCaptureFixture) -> None:
    """At the instant that the log named; the pod runs, hears and beats meanwhile. Then no interval is like another."""
    caplog.set_level(logging.INFO, "skillbus.pod.loop")

    async def main() -> None:
        async with rig(every_s=300.0, spread_s=30.0) as pod:
            await pod.until(FIRST_S - 0.01)
            assert pod.stands(State.RUNNING)
            assert pod.evidence.armed
            assert pod.work.began_at_s == []
            await pod.until(2000.0)
            due_s = [FIRST_S]
            for passes_count in range(1, 7):
                due_s.append(due_s[-1] + 300.0 * jitter(passes_count))
            assert pod.work.began_at_s == pytest.approx(due_s, abs=1e-3)

    asyncio.run(main())
    assert caplog.messages[0] == f"first pass due in_s={FIRST_S:.1f}"


def test_another_start_is_another_share(rig: Make) -> None:
    """The incarnation decides it, so that a pod that always restarts with its machine is not always last."""

    async def main() -> None:
        async with rig(every_s=300.0, spread_s=30.0, incarnation="b" * 32) as pod:
            await pod.until(31.0)
            assert pod.work.began_at_s == pytest.approx([30.0 * share_of("b" * 32)], abs=1e-3)

    asyncio.run(main())


def test_a_sync_cuts_the_first_wait_short(rig: Make, store: MemoryStore) -> None:
    """At once, and the next pass is an interval behind it."""

    async def main() -> None:
        async with rig(every_s=300.0, spread_s=30.0) as pod:
            await pod.until(3.0)
            store.publish(PROD.sync_channel, b'{"v": 1, "id": "s1"}')
            await pod.until(299.0)
            assert pod.work.began_at_s == [3.0]

    asyncio.run(main())


def test_a_kill_in_the_wait_is_obeyed_at_once(rig: Make, store: MemoryStore) -> None:
    """The pod is stopped and quiet in that instant, and no pass follows."""

    async def main() -> None:
        async with rig(every_s=300.0, spread_s=30.0) as pod:
            await pod.until(3.0)
            store.publish(FLEET.kill_channel, b"now")
            await pod.until(3.1)
            assert pod.stands(State.STOPPED)
            await pod.until(100.0)
            assert pod.work.began_at_s == []

    asyncio.run(main())


def test_failed_passes_of_a_fleet_do_not_come_back_in_step(rig: Make) -> None:
    """The back-off is stretched like an interval."""

    async def script(checkpoint: Checkpoint) -> PassResult:
        return PassResult(errors=("no",))

    async def main() -> None:
        async with rig(script, every_s=300.0, spread_s=0.001) as pod:
            await pod.until(16.0)
            began = [0.0, 5.0 * jitter(1), 5.0 * jitter(1) + 10.0 * jitter(2)]
            assert pod.work.began_at_s == pytest.approx(began, abs=2e-3)

    asyncio.run(main())


# -- a sync's window --------------------------------------------------------------------------------------------------


def test_a_pod_waits_for_its_share_of_a_sync(rig: Make, store: MemoryStore) -> None:
    """The pod's and the sync's ids decide it: the same for the same sync, another for the next."""

    async def main() -> None:
        async with rig(every_s=1000.0) as pod:
            await pod.until(10.0)
            store.publish(PROD.sync_channel, b'{"v": 1, "id": "s1", "within_s": 20}')
            await pod.until(50.0)
            store.publish(PROD.sync_channel, b'{"v": 1, "id": "s2", "within_s": 20.0}')
            await pod.until(100.0)
            due_s = [0.0, 10.0 + 20.0 * share_of("web-1", "s1"), 50.0 + 20.0 * share_of("web-1", "s2")]
            assert pod.work.began_at_s == pytest.approx(due_s, abs=1e-3)
            assert pod.evidence.last_pass.trigger == "s2"

    asyncio.run(main())


def test_a_newer_sync_does_not_multiply_the_wait(rig: Make, store: MemoryStore) -> None:
    """Sync upon sync: the pass comes when the first of them has it due, once, and bears the last one's id."""

    async def main() -> None:
        async with rig(every_s=1000.0) as pod:
            await pod.until(10.0)
            store.publish(PROD.sync_channel, b'{"id": "s1", "within_s": 20}')
            due_s = 10.0 + 20.0 * share_of("web-1", "s1")
            for second in range(int(due_s - 10.0)):
                await pod.until(10.5 + second)
                store.publish(PROD.sync_channel, b'{"id": "more", "within_s": 3000}')
            await pod.until(900.0)
            assert pod.work.began_at_s == pytest.approx([0.0, due_s], abs=1e-3)
            assert pod.evidence.last_pass.trigger == "more"

    asyncio.run(main())


def test_an_impatient_sync_wins(rig: Make, store: MemoryStore) -> None:
    """One that asks for now is not held up by one that gave time."""

    async def main() -> None:
        async with rig(every_s=1000.0) as pod:
            await pod.until(10.0)
            store.publish(PROD.sync_channel, b'{"id": "s1", "within_s": 3000}')
            store.publish(PROD.sync_channel, b'{"id": "s2"}')
            await pod.until(11.0)
            assert pod.work.began_at_s == [0.0, 10.0]

    asyncio.run(main())


def test_a_cycle_that_is_due_first_serves_the_sync(rig: Make, store: MemoryStore) -> None:
    """One pass for both, under the sync's name."""

    async def main() -> None:
        async with rig(every_s=20.0) as pod:
            await pod.until(19.0)
            store.publish(PROD.sync_channel, b'{"id": "s1", "within_s": 1000}')
            await pod.until(39.0)
            assert pod.work.began_at_s == [0.0, 20.0]
            assert pod.evidence.last_pass.trigger == "s1"

    asyncio.run(main())


def test_a_kill_in_a_syncs_wait_is_obeyed_at_once(rig: Make, store: MemoryStore) -> None:
    """No pass follows."""

    async def main() -> None:
        async with rig(every_s=1000.0) as pod:
            await pod.until(10.0)
            store.publish(PROD.sync_channel, b'{"id": "s1", "within_s": 20}')
            store.publish(FLEET.kill_channel, b"now")
            await pod.until(10.1)
            assert pod.stands(State.STOPPED)
            await pod.until(100.0)
            assert pod.work.began_at_s == [0.0]

    asyncio.run(main())


@pytest.mark.parametrize(
    "said",
    [b'"soon"', b"null", b"true", b"-5", b"NaN", b"[]", b"-Infinity", b"-1e999", b"{}", b"-" + b"9" * 4000],
    ids=lambda said: said[:12].decode(),
)
def test_a_window_that_is_none_is_now(rig: Make, store: MemoryStore, said: bytes) -> None:
    """The sync itself is clear, so it is obeyed; and no number ends the listener."""

    async def main() -> None:
        async with rig(every_s=1000.0) as pod:
            await pod.until(10.0)
            store.publish(PROD.sync_channel, b'{"id": "s1", "within_s": %b}' % said)
            await pod.until(11.0)
            assert pod.work.began_at_s == [0.0, 10.0]
            assert pod.evidence.ignored_count == 0

    asyncio.run(main())


@pytest.mark.parametrize("said", [b"1e300", b"Infinity", b"9" * 4000], ids=lambda said: said[:8].decode())
def test_no_window_is_longer_than_an_hour(rig: Make, store: MemoryStore, said: bytes) -> None:
    """Whatever the message says."""

    async def main() -> None:
        async with rig(every_s=100_000.0, heartbeat_s=20.0, lease_s=50.0) as pod:
            await pod.until(10.0)
            store.publish(PROD.sync_channel, b'{"id": "s1", "within_s": %b}' % said)
            await pod.until(3611.0)
            assert pod.work.began_at_s == pytest.approx([0.0, 10.0 + 3600.0 * share_of("web-1", "s1")], abs=1e-3)

    asyncio.run(main())


# -- a source that wants to be left alone -----------------------------------------------------------------------------


def test_no_pass_before_a_source_may_be_asked_again(rig: Make, store: MemoryStore) -> None:
    """Neither by back-off nor for a sync, whose wish is kept until then; the heartbeat says until when."""
    rests = iter([90.0])

    async def script(checkpoint: Checkpoint) -> PassResult:
        rest_s = next(rests, 0.0)
        return PassResult(errors=("left alone",) if rest_s else (), retry_after_s=rest_s)

    async def main() -> None:
        async with rig(script, every_s=1000.0) as pod:
            await pod.until(5.0)
            assert pod.evidence.rests_until_ms == pod.evidence.last_pass.began_at_ms + 90_000
            store.publish(PROD.sync_channel, b'{"id": "s1"}')
            pod.pod._tasks.loop.request("manual")  # type: ignore[union-attr]
            await pod.until(89.9)
            assert pod.work.began_at_s == [0.0]
            await pod.until(95.0)
            assert pod.work.began_at_s == pytest.approx([0.0, 90.0], abs=1e-3)
            assert pod.evidence.rests_until_ms == 0

    asyncio.run(main())


def test_a_reconciler_may_raise_that_it_was_turned_away(rig: Make) -> None:
    """``RateLimited`` says how long."""
    errors = iter([RateLimited("the source counts 60 requests an hour", 70.0)])

    async def script(checkpoint: Checkpoint) -> None:
        for error in errors:
            raise error

    async def main() -> None:
        async with rig(script, every_s=1000.0) as pod:
            await pod.until(80.0)
            assert pod.work.began_at_s == pytest.approx([0.0, 70.0], abs=1e-3)
            assert pod.ended[0].result.errors == ("the source counts 60 requests an hour",)

    asyncio.run(main())


def test_a_source_left_alone_hinders_no_kill(rig: Make, store: MemoryStore) -> None:
    """The pod rests from passes, not from anything else."""

    async def script(checkpoint: Checkpoint) -> PassResult:
        return PassResult(retry_after_s=3600.0)

    async def main() -> None:
        async with rig(script) as pod:
            await pod.until(20.0)
            store.publish(FLEET.kill_channel, b"now")
            await pod.until(20.1)
            assert pod.stands(State.STOPPED)
            assert pod.evidence.state is State.STOPPED

    asyncio.run(main())


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), "5", None, 10**400], ids=lambda bad: str(bad)[:8])
def test_a_rest_that_is_no_number_fails_the_pass(rig: Make, bad: object) -> None:
    """With a sentence, and the usual back-off."""

    async def script(checkpoint: Checkpoint) -> PassResult:
        return PassResult(retry_after_s=bad)  # type: ignore[arg-type]

    async def main() -> None:
        async with rig(script) as pod:
            await pod.until(6.0)
            assert pod.work.began_at_s == [0.0, 5.0]
            assert pod.evidence.last_pass.errors[0].startswith("the reconciler's result cannot be used")

    asyncio.run(main())

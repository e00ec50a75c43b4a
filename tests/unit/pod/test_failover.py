"""Another server answers, and the subscription is still at the old one: nobody works deaf (docs/protocol.md §3.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from skillbus.core.latch import State
from skillbus.pod.listening import Ears
from skillbus.pod.switch import Standing
from tests.fakes.clock import FakeClock
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import FLEET, PROD, Rig, endless

Make = Callable[..., Rig]
R, H, X, B = State.RUNNING, State.HOLDING, State.STOPPED, State.STARTING
LONG_S = 1000.0


@pytest.fixture
def second(clock: FakeClock) -> MemoryStore:
    """The replica that becomes the master."""
    store = MemoryStore(clock, "memory:2")
    store.arm(PROD)
    return store


def hearers_count(store: MemoryStore) -> int:
    """How many subscriber connections that server has."""
    return len(store.subscriptions)


async def fail_over_within_the_lease(pod: Rig, store: MemoryStore, second: MemoryStore) -> None:
    """Its server freezes at 4.1, and from 7.5 on its way leads to another. The subscription stays where it is."""
    await pod.until(4.1)
    store.hung_until_s = pod.clock.now_s() + LONG_S
    await pod.until(7.5)
    pod.bus.fail_over(second)


def test_a_holding_pod_does_not_run_before_it_hears_the_new_master(
    rig: Make, store: MemoryStore, second: MemoryStore, clock: FakeClock
) -> None:
    """Its lease was over when the new master answered. It runs once it listens there, and a bare message stops it."""
    deaf: list[float] = []

    async def main() -> None:
        async with rig(endless) as pod:
            pod.pod.on_change(note)
            await pod.until(4.1)
            store.hung_until_s = clock.now_s() + LONG_S
            await pod.until(13.0)
            assert pod.stands(H)
            pod.bus.fail_over(second)
            await pod.until(18.0)
            assert pod.stands(R)
            assert second.publish(FLEET.kill_channel, b"after the failover") == 1
            await pod.until(18.1)
            assert pod.stands(X)
            assert not deaf

    def note(standing: Standing) -> None:
        if standing.state is R and store.hung_until_s > 0 and not hearers_count(second):
            deaf.append(clock.now_s())

    asyncio.run(main())


def test_a_running_pod_holds_as_soon_as_another_server_answers(
    rig: Make, store: MemoryStore, second: MemoryStore
) -> None:
    """The failover was quicker than the lease. The beat at 8 is answered by the new master: it holds at 8."""

    async def main() -> None:
        async with rig(endless) as pod:
            await fail_over_within_the_lease(pod, store, second)
            await pod.until(7.999999)
            assert pod.stands(R)
            await pod.until(8.0)
            assert pod.stands(H)
            assert "memory:2" in pod.why
            assert pod.work.ended_at_s == [8.0]
            await pod.until(14.0)
            assert pod.stands(R)
            assert hearers_count(second) == 1

    asyncio.run(main())


def test_a_new_subscription_alone_disproves_no_doubt(rig: Make, store: MemoryStore, second: MemoryStore) -> None:
    """It holds, and subscribes anew at the new master with a lease that still runs. Only a beat from then on can bring
    its own voice back from there; before that it does not run."""
    asked_before_it_ran: list[list[str]] = []

    async def main() -> None:
        async with rig(endless) as pod:
            await fail_over_within_the_lease(pod, store, second)
            await pod.until(8.1)
            assert pod.stands(H)
            asked_count = len(pod.bus.calls)
            pod.pod.on_change(
                lambda standing: (
                    asked_before_it_ran.append(pod.bus.calls[asked_count:]) if standing.state is R else None
                )
            )
            for subscription in list(store.subscriptions):
                subscription.break_off()
            await pod.until(9.0)
            assert pod.switch.lease_ends_at_s > pod.clock.now_s()
            assert pod.stands(R)

    asyncio.run(main())
    assert asked_before_it_ran[0][0] == "subscribe"
    assert "beat" in asked_before_it_ran[0]


def test_a_server_that_was_gone_for_a_moment_aborts_nothing(rig: Make) -> None:
    """One beat fails; the next is answered by the same server, where the pod hears itself: it works on."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            pod.bus.unreachable = True
            await pod.until(7.0)
            pod.bus.unreachable = False
            await pod.until(20.0)
            assert [state for _, state in pod.stood] == [B, R]
            assert pod.work.began_at_s == [0.0]

    asyncio.run(main())


def test_answers_alone_renew_nothing_behind_an_address_that_may_have_moved(rig: Make) -> None:
    """Beats failed, then answers come and no echo does: it may be another server.

    The lease of the beat at 4 ends at 10. Answers without an echo lengthen it by nothing.
    """

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            pod.bus.deaf = True
            pod.bus.unreachable = True
            await pod.until(7.0)
            pod.bus.unreachable = False
            await pod.until(9.0)
            lease_ends_in_s = pod.switch.lease_ends_at_s - pod.clock.now_s()
            assert lease_ends_in_s <= 1.0
            await pod.until(30.0)
            assert pod.stands(H)

    asyncio.run(main())


def test_a_server_that_was_no_master_is_believed_once_it_is_heard(rig: Make, store: MemoryStore) -> None:
    """It refused the beat, so the pod holds; it answers again, and no echo comes: it holds on."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            store.read_only = True
            await pod.until(6.1)
            assert pod.stands(H)
            store.read_only, pod.bus.deaf = False, True
            await pod.until(8.1)
            assert pod.stands(H)
            pod.bus.deaf = False
            await pod.until(14.0)
            assert pod.stands(R)

    asyncio.run(main())


def test_the_echo_of_a_beat_that_failed_proves_nothing_any_more(clock: FakeClock) -> None:
    """A frozen server wakes and does what it was asked long ago: that voice is not the server's that we ask now."""
    name = b"a" * 32
    ears = Ears(clock, 2.0)
    ears.opened(frozenset(), "memory:1")
    ears.speak(name + b":1")
    ears.spoke(sent=False)
    ears.speak(name + b":2")
    ears.spoke(sent=True)
    assert not ears.echoed(name + b":1")
    assert ears.in_doubt
    assert ears.echoed(name + b":2")
    assert not ears.in_doubt

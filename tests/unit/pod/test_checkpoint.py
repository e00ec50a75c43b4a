"""Checkpoint and settle: leave before a change, and a second look behind a slow one (docs/protocol.md §3.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from skillbus.core.latch import CauseKind, State
from skillbus.core.ports import Permit
from skillbus.core.scope import Scope
from skillbus.errors import PassAborted
from skillbus.pod.checkpoint import PodCheckpoint
from skillbus.pod.switch import Switch
from tests.fakes.clock import FakeClock
from tests.fakes.life import T0_S
from tests.fakes.memory_bus import MemoryBus, MemoryStore
from tests.unit.pod.rig import FLEET, GROUP, PROD

SCOPES = PROD.scopes_of("web-1", ("eu",))


class Case:
    """A licensed switch and its checkpoint."""

    def __init__(self, clock: FakeClock, store: MemoryStore) -> None:
        self.clock, self.store = clock, store
        self.bus = MemoryBus(PROD, store)
        self.switch = Switch(clock, 6.0, require_armed=True)
        self.switch.fold(store.look(SCOPES))
        self.switch.renew(clock.now_s())
        self.checkpoint = PodCheckpoint(self.switch, self.bus, SCOPES, clock, lambda text: None)

    async def settled_after(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        """A permit, a change that takes so long, and its settling."""
        permit = self.checkpoint()
        await self.clock.leap(seconds)
        meanwhile()
        await self.checkpoint.settle(permit)


@pytest.fixture
def case(clock: FakeClock, store: MemoryStore) -> Case:
    """A running pod's checkpoint."""
    return Case(clock, store)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run ``test`` on a loop."""

    async def main() -> None:
        await test()

    asyncio.run(main())


def test_a_permit_bears_the_moment(case: Case) -> None:
    """By the boot-time clock; and the lease's end is known."""
    assert case.checkpoint() == Permit(T0_S)
    assert case.checkpoint.lease_ends_at_s == T0_S + 6.0


@pytest.mark.parametrize("took_s", [0.0, 0.1, 0.25])
def test_a_quick_change_needs_no_second_look(case: Case, took_s: float) -> None:
    """Up to 250 ms: local and cheap."""
    run(lambda: case.settled_after(took_s))
    assert case.bus.calls == []


@pytest.mark.parametrize("took_s", [0.26, 1.0, 5.9])
def test_a_slow_change_is_settled_by_a_fresh_read(case: Case, took_s: float) -> None:
    """Nothing stands against it: it stays."""
    run(lambda: case.settled_after(took_s))
    assert case.bus.calls == ["read"]
    assert case.switch.standing.state is State.RUNNING


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_a_kill_behind_a_slow_change_undoes_it(case: Case, scope: Scope) -> None:
    """Any scope's: the read shows it, the latch trips, the change must go."""
    with pytest.raises(PassAborted, match="killed"):
        run(lambda: case.settled_after(0.3, lambda: case.store.kill(scope)))
    assert case.switch.latched


def test_a_missed_kill_behind_a_slow_change_undoes_it(case: Case) -> None:
    """Killed and reset while the process was frozen: the epoch moved."""
    with pytest.raises(PassAborted):
        run(lambda: case.settled_after(0.3, lambda: case.store.reset(GROUP)))


@pytest.mark.parametrize("fault", ["unreachable", "denied", "read-only", "hung"])
def test_a_slow_change_that_cannot_be_settled_is_undone(case: Case, fault: str) -> None:
    """Nothing can be read: nobody knows, so it goes; the latch stays as it is."""

    async def test() -> None:
        permit = case.checkpoint()
        await case.clock.leap(0.3)
        case.bus.unreachable = fault == "unreachable"
        case.bus.denied = "NOPERM" if fault == "denied" else ""
        case.store.read_only = fault == "read-only"
        case.store.hung_until_s = case.clock.now_s() + 60 if fault == "hung" else 0.0
        settling = asyncio.create_task(case.checkpoint.settle(permit))
        await case.clock.advance(1.0)
        assert settling.done()
        await settling

    with pytest.raises(PassAborted, match="cannot be read"):
        run(test)
    assert not case.switch.latched


def test_lost_data_behind_a_slow_change_undoes_it(case: Case) -> None:
    """A fleet that is not armed any more: hold, and undo."""
    with pytest.raises(PassAborted, match="not armed"):
        run(lambda: case.settled_after(0.3, case.store.lose_data))


@pytest.mark.parametrize("took_s", [0.0, 0.3])
def test_a_change_that_ended_behind_the_latch_is_undone(case: Case, took_s: float) -> None:
    """Quick or slow, and without asking anybody: it may have begun behind the trip."""
    with pytest.raises(PassAborted):
        run(lambda: case.settled_after(took_s, lambda: case.switch.trip(CauseKind.LOCAL, "enough")))
    assert case.bus.calls == []


def test_a_change_that_ended_behind_the_lease_is_undone(case: Case) -> None:
    """However fresh a read would look."""
    with pytest.raises(PassAborted, match="lease is over"):
        run(lambda: case.settled_after(6.0))
    assert case.bus.calls == []


def test_a_lease_that_ends_during_the_second_look_undoes_the_change(case: Case) -> None:
    """A read renews no lease."""

    async def test() -> None:
        permit = case.checkpoint()
        await case.clock.leap(5.5)
        case.bus.slow_s = 0.9
        settling = asyncio.create_task(case.checkpoint.settle(permit))
        await case.clock.advance(1.0)
        await settling

    with pytest.raises(PassAborted, match="lease is over"):
        run(test)


def test_a_cancellation_during_the_second_look_undoes_the_change(case: Case) -> None:
    """It is the same error, so that nobody forgets to undo for it."""

    async def test() -> None:
        permit = case.checkpoint()
        await case.clock.leap(0.3)
        case.bus.slow_s = 0.9
        settling = asyncio.create_task(case.checkpoint.settle(permit))
        await case.clock.advance(0.1)
        settling.cancel()
        await settling

    with pytest.raises(PassAborted, match="told to end"):
        run(test)


def test_the_fleets_scope_is_among_those_read(case: Case) -> None:
    """So that being armed is read afresh, too."""
    assert SCOPES[0] == FLEET

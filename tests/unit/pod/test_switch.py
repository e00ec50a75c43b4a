"""The switch of one process: lease, holds and latch folded into one answer; from any thread, and after a fork."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from skillbus.core.latch import CauseKind, Drop, Keep, Restore, ScopeReading, State
from skillbus.core.orders import KillRecord
from skillbus.core.ports import Reading
from skillbus.errors import PassAborted
from skillbus.pod.switch import Switch
from tests.fakes.clock import FakeClock
from tests.fakes.life import T0_S
from tests.unit.pod.rig import FLEET, GROUP

CLEAR = Reading({FLEET: ScopeReading(0, None), GROUP: ScopeReading(None, None)}, server_ms=1, armed=True)
UNARMED = Reading({FLEET: ScopeReading(None, None)}, server_ms=1, armed=False)
KILLED = Reading({FLEET: ScopeReading(0, b'{"id": "k1", "reason": "r"}')}, server_ms=1, armed=True)
RECORD = KillRecord(id="k1", reason="r")


def licensed(clock: FakeClock) -> Switch:
    """A running pod's switch, its lease good for six seconds."""
    switch = Switch(clock, 6.0, require_armed=True)
    switch.fold(CLEAR)
    switch.renew(clock.now_s())
    return switch


def test_nothing_proved_nothing_allowed(clock: FakeClock) -> None:
    """Starting: no permit, no pass; a good reading alone grants no lease."""
    switch = Switch(clock, 6.0, require_armed=True)
    switch.fold(CLEAR)
    assert switch.standing.state is State.STARTING
    assert not switch.begin()
    with pytest.raises(PassAborted):
        switch.permit()


def test_a_renewed_lease_permits(clock: FakeClock) -> None:
    """From before the request was sent, and never shortened by an older one."""
    switch = licensed(clock)
    assert switch.permit().at_s == T0_S
    switch.renew(T0_S - 3)
    assert switch.lease_ends_at_s == T0_S + 6


def test_the_permit_ends_with_the_lease(clock: FakeClock) -> None:
    """At its very instant, whatever the state still says."""

    async def main() -> None:
        switch = licensed(clock)
        await clock.advance(5.999999)
        switch.permit()
        await clock.advance(0.000001)
        assert switch.standing.state is State.HOLDING
        with pytest.raises(PassAborted, match="lease is over"):
            switch.permit()
        assert not switch.begin()

    asyncio.run(main())


def test_an_answer_that_comes_behind_its_own_lease_grants_nothing(clock: FakeClock) -> None:
    """A machine that was frozen between asking and hearing: it holds."""

    async def main() -> None:
        switch = licensed(clock)
        sent_at_s = clock.now_s()
        await clock.leap(7)
        switch.renew(sent_at_s)
        assert switch.standing.state is State.HOLDING
        assert switch.standing.why == "no good read for 6 s"

    asyncio.run(main())


def test_every_hold_must_go(clock: FakeClock) -> None:
    """Named reasons: releasing one does not release another, and each is told."""
    switch = licensed(clock)
    switch.hold("deaf", "it does not hear")
    switch.hold("bus", "it is refused")
    assert switch.standing.why == "it does not hear; it is refused"
    states = []
    for name in ("deaf", "never", "bus"):
        switch.release(name)
        states.append(switch.standing.state)
    assert states == [State.HOLDING, State.HOLDING, State.RUNNING]


def test_a_good_reading_ends_what_a_bad_one_held(clock: FakeClock) -> None:
    """Not armed, refused: both are answered by the next good reading."""
    switch = licensed(clock)
    switch.hold("bus", "refused")
    switch.fold(UNARMED)
    assert "not armed" in switch.standing.why
    assert "refused" not in switch.standing.why
    switch.fold(CLEAR)
    assert switch.standing.state is State.RUNNING


def test_no_hold_and_no_release_touches_the_latch(clock: FakeClock) -> None:
    """Latched is latched: holds, readings, renewals and resets release nothing."""
    switch = licensed(clock)
    switch.fold(KILLED)
    touches: list[Callable[[], object]] = [
        lambda: switch.hold("x", "y"),
        lambda: switch.release("x"),
        lambda: switch.fold(CLEAR),
        lambda: switch.renew(clock.now_s() + 100),
        lambda: switch.lift(FLEET),
        lambda: switch.fold(Reading({FLEET: ScopeReading(9, None)}, 1, armed=True)),
        lambda: switch.end(vouched=True),
        lambda: switch.settle(FLEET, RECORD, 9, stored=True),
        switch.nudge,
    ]
    for touch in touches:
        touch()
        assert switch.standing.state is State.STOPPED
        with pytest.raises(PassAborted):
            switch.permit()


def test_what_follows_from_a_trip_is_queued_and_not_done(clock: FakeClock) -> None:
    """The switch does no I/O: tombstone and record are the recorder's."""
    switch = licensed(clock)
    switch.hear(GROUP, RECORD)
    assert switch.latched
    assert [type(action) for action in switch.actions] == [Keep, Restore]
    switch.actions.clear()
    switch.settle(GROUP, RECORD, 0, stored=True)
    switch.lift(GROUP)
    assert [type(action) for action in switch.actions] == [Keep, Drop]


def test_stopped_waits_for_the_pass(clock: FakeClock) -> None:
    """Stopping while it is under way; quiet and stopped when it is observed to be over."""

    async def main() -> None:
        switch = licensed(clock)
        assert switch.begin()
        assert not switch.standing.quiet
        await clock.advance(1)
        switch.trip(CauseKind.LOCAL, "enough")
        assert (switch.standing.state, switch.standing.quiet) == (State.STOPPING, False)
        await clock.advance(2)
        switch.end(vouched=True)
        standing = switch.standing
        assert (standing.state, standing.quiet) == (State.STOPPED, True)
        assert (standing.tripped_at_s, standing.quiet_at_s) == (T0_S + 1, T0_S + 3)

    asyncio.run(main())


def test_no_proof_is_never_made_good(clock: FakeClock) -> None:
    """One pass that could not vouch for its end: this process is never stopped, whatever later passes say."""
    switch = licensed(clock)
    assert switch.begin()
    switch.end(vouched=False)
    assert switch.begin()
    switch.end(vouched=True)
    switch.trip(CauseKind.LOCAL, "enough")
    assert switch.standing.state is State.STOPPING
    assert not switch.vouched


def test_every_cause_is_told(clock: FakeClock) -> None:
    """Any one stops, none overrules another, and the same one twice is one."""
    switch = licensed(clock)
    switch.trip(CauseKind.POLICY, "force-off")
    switch.trip(CauseKind.POLICY, "force-off again")
    switch.trip(CauseKind.LOCAL, "enough")
    switch.fold(KILLED)
    why = switch.standing.why
    assert "fleet 'prod' killed: \"r\"" in why
    assert "policy: force-off" in why
    assert "local: enough" in why
    assert "again" not in why


def test_every_listener_is_told_of_each_change(clock: FakeClock) -> None:
    """On its own loop, from whatever thread the change came; and not of what changes nothing."""

    async def main() -> None:
        switch = licensed(clock)
        one, other = switch.listen(), switch.listen()
        switch.hold("x", "y")
        assert one.is_set()
        assert other.is_set()
        one.clear()
        switch.hold("x", "y")
        switch.release("never")
        assert not one.is_set()
        thread = threading.Thread(target=switch.trip, args=(CauseKind.LOCAL, "enough"))
        thread.start()
        thread.join()
        await asyncio.wait_for(one.wait(), 5)

    asyncio.run(main())


def test_a_loop_that_is_gone_is_told_nothing(clock: FakeClock) -> None:
    """A pod that ended can still be tripped."""
    switch = licensed(clock)

    async def main() -> None:
        switch.listen()

    asyncio.run(main())
    switch.trip(CauseKind.LOCAL, "late")
    assert switch.latched


def test_trips_from_many_threads_are_one(clock: FakeClock) -> None:
    """No thread gets a permit behind its own trip."""
    switch = licensed(clock)
    got: list[str] = []

    def trip_and_ask() -> None:
        switch.trip(CauseKind.LOCAL, "enough")
        try:
            switch.permit()
            got.append("a permit")
        except PassAborted:
            got.append("none")

    threads = [threading.Thread(target=trip_and_ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["none"] * 20
    assert len(switch.causes) == 1


_FORK = """
import os, sys, threading
from skillbus.clock import BootClock
from skillbus.core.latch import ScopeReading, State
from skillbus.core.ports import Reading
from skillbus.core.scope import Fleet
from skillbus.errors import PassAborted
from skillbus.pod.switch import Switch

clock = BootClock()
switch = Switch(clock, 60.0, require_armed=True)
switch.fold(Reading({Fleet("prod").scope: ScopeReading(0, None)}, 1, armed=True))
switch.renew(clock.now_s())
busy = switch.begin() if "busy" in sys.argv else switch.permit()
held, release = threading.Event(), threading.Event()

def hold_the_lock():
    with switch._lock:
        held.set()
        release.wait(20)

if "locked" in sys.argv:
    threading.Thread(target=hold_the_lock).start()
    held.wait(20)
pid = os.fork()
if pid == 0:
    try:
        switch.permit()
        os._exit(1)
    except PassAborted as error:
        forked = "forked child" in str(error)
    os._exit(0 if forked and switch.standing.state is State.STOPPED and not switch.begin() else 2)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
release.set()
switch.permit()
assert switch.standing.state is State.RUNNING
sys.exit(code)
"""


@pytest.mark.parametrize("case", ["plain", "busy", "locked"])
def test_a_forked_child_is_latched(case: str) -> None:
    """In the midst of a pass, and even while another thread held the lock; the parent goes on."""
    ran = subprocess.run([sys.executable, "-c", _FORK, case], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")

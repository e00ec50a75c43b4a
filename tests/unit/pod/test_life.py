"""A pod's life on exact seconds: start, lease, deafness, holding, kill, restart (docs/protocol.md §3, §4)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from skillbus.core.latch import CauseKind, State
from skillbus.core.ports import Checkpoint
from skillbus.errors import PassAborted
from tests.fakes.clock import FakeClock
from tests.fakes.life import T0_S
from tests.fakes.memory_bus import OOM, MemoryStore
from tests.unit.pod.rig import FLEET, GROUP, PROD, Rig, endless

Make = Callable[..., Rig]
R, H, P, X, B = State.RUNNING, State.HOLDING, State.STOPPING, State.STOPPED, State.STARTING


# -- start --------------------------------------------------------------------------------------------------------


def test_a_pod_subscribes_confirms_reads_and_only_then_works(rig: Make) -> None:
    """The order of docs/protocol.md §3.1, and a fresh read before the first cycle."""

    async def main() -> None:
        async with rig() as pod:
            calls = pod.bus.calls
            assert calls.index("subscribe") < calls.index("confirmed") < calls.index("read")
            assert pod.stands(R)
            assert pod.work.began_at_s == [0.0]
            assert calls[calls.index("confirmed") :].count("read") == 2
            await pod.until(0.5)
            assert pod.evidence.armed
            assert pod.evidence.state is R
            assert pod.evidence.hears == tuple(sorted(pod.evidence.hears))
            assert {FLEET.kill_channel, GROUP.kill_channel} <= set(pod.evidence.hears)

    asyncio.run(main())


@pytest.mark.parametrize("scope", [FLEET, GROUP, PROD.pod("web-1")], ids=str)
def test_a_killed_scope_lets_nothing_begin(rig: Make, store: MemoryStore, scope: object) -> None:
    """A record of any of its scopes stops a starting pod before its first pass."""
    store.kill(scope)  # type: ignore[arg-type]

    async def main() -> None:
        async with rig() as pod:
            await pod.until(10)
            assert pod.stands(X)
            assert pod.work.began_at_s == []
            assert len(pod.tombstones) == 1

    asyncio.run(main())


def test_another_scopes_kill_is_none_of_ours(rig: Make, store: MemoryStore) -> None:
    """Neither a record nor a message for somebody else stops a pod."""
    store.kill(PROD.group("us"))
    store.kill(PROD.pod("web-2"))

    async def main() -> None:
        async with rig() as pod:
            store.publish(PROD.pod("web-2").kill_channel)
            store.publish(PROD.group("us").kill_channel)
            await pod.until(10)
            assert pod.stands(R)

    asyncio.run(main())


def test_an_unreachable_redis_lets_nothing_begin(rig: Make, store: MemoryStore) -> None:
    """The pod holds and says why; with Redis it runs."""
    store.unreachable = True

    async def main() -> None:
        async with rig() as pod:
            await pod.until(20)
            assert pod.stands(H)
            assert "not subscribed" in pod.why
            assert pod.work.began_at_s == []
            store.unreachable = False
            await pod.until(24)
            assert pod.stands(R)
            assert len(pod.work.began_at_s) == 1

    asyncio.run(main())


def test_a_kill_between_confirmation_and_read_is_obeyed(rig: Make, store: MemoryStore) -> None:
    """An order that comes while the first read is on its way stops the pod at once."""

    async def main() -> None:
        pod = rig()
        pod.bus.slow_s = 0.5
        async with pod:
            await pod.until(0.2)
            store.publish(FLEET.kill_channel, b"now")
            await pod.until(0.6)
            pod.bus.slow_s = 0.0
            await pod.until(10)
            assert pod.stands(X)
            assert pod.work.began_at_s == []

    asyncio.run(main())


# -- the lease ----------------------------------------------------------------------------------------------------


def test_the_lease_runs_out_exactly_lease_s_after_the_beat_was_sent(rig: Make) -> None:
    """Beats at 0, 2 and 4; then silence: the pod holds at 10, not a moment earlier or later, and its pass ends."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.0)
            pod.bus.unreachable = True
            await pod.until(9.999999)
            assert pod.stands(R)
            assert pod.work.busy
            await pod.until(10.0)
            assert pod.stands(H)
            assert pod.work.ended_at_s == [10.0]
            assert "no good read for 6 s" in pod.why
            with pytest.raises(PassAborted):
                pod.switch.permit()

    asyncio.run(main())


def test_a_late_answer_grants_no_lease_from_its_arrival(rig: Make) -> None:
    """The beat sent at 6.0 is answered at 6.9: the lease ends at 12.0, not at 12.9."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(5.0)
            pod.bus.slow_s = 0.9
            await pod.until(6.95)
            assert pod.switch.lease_ends_at_s == T0_S + 12.0
            pod.bus.unreachable = True
            await pod.until(11.999999)
            assert pod.stands(R)
            await pod.until(12.0)
            assert pod.stands(H)

    asyncio.run(main())


def test_a_machine_that_wakes_up_has_no_lease(rig: Make, clock: FakeClock) -> None:
    """However fresh the answer in its socket looks: it was asked for before the sleep."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(5.0)
            pod.bus.slow_s = 0.5
            await pod.until(6.1)
            await clock.leap(20.0)
            with pytest.raises(PassAborted):
                pod.switch.permit()
            assert not pod.work.busy or not pod.stands(R)

    asyncio.run(main())


def test_the_checkpoint_knows_the_end_of_the_lease_before_anybody_notices(rig: Make, clock: FakeClock) -> None:
    """No task has to run for a checkpoint to say no: it compares clocks itself."""
    asked: list[str] = []

    async def script(checkpoint: Checkpoint) -> None:
        checkpoint()
        clock._now_ns += 6_000_000_000
        with pytest.raises(PassAborted, match="lease is over"):
            checkpoint()
        asked.append("yes")
        await endless(checkpoint)

    async def main() -> None:
        async with rig(script):
            assert asked == ["yes"]

    asyncio.run(main())


def test_a_pod_runs_again_after_a_good_read(rig: Make) -> None:
    """Holding at 10, Redis back at 13: the pass that was aborted is due at once."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.0)
            pod.bus.unreachable = True
            await pod.until(13.0)
            pod.bus.unreachable = False
            await pod.until(15.0)
            assert pod.stands(R)
            assert pod.work.busy
            assert len(pod.work.began_at_s) == 2
            assert 13.0 <= pod.work.began_at_s[1] <= 14.1
            assert [ended.outcome for ended in pod.ended] == ["aborted"]

    asyncio.run(main())


def test_a_hung_server_is_a_silent_one(rig: Make, store: MemoryStore, clock: FakeClock) -> None:
    """Connections stay open and nobody answers: the lease runs out all the same."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.0)
            store.hung_until_s = clock.now_s() + 30
            await pod.until(9.999999)
            assert pod.stands(R)
            await pod.until(10.0)
            assert pod.stands(H)
            await pod.until(40.0)
            assert pod.stands(R)

    asyncio.run(main())


# -- deaf ---------------------------------------------------------------------------------------------------------


def test_a_pod_that_does_not_hear_itself_is_deaf(rig: Make) -> None:
    """The echo of the beat at 6.0 is due at 8.0; the next look is at 8.25. Then the pod holds and subscribes anew."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            pod.bus.deaf = True
            await pod.until(8.0)
            assert pod.stands(R)
            await pod.until(8.25)
            assert pod.stands(H)
            assert "deaf" in pod.why
            assert pod.work.ended_at_s == [8.25]
            assert not pod.evidence.armed
            await pod.until(20.0)
            assert pod.stands(H)
            assert pod.count("subscribe") > 2
            pod.bus.deaf = False
            await pod.until(26.0)
            assert pod.stands(R)
            assert pod.evidence.armed
            assert pod.work.busy

    asyncio.run(main())


def test_a_deaf_pod_still_obeys_the_record(rig: Make, store: MemoryStore) -> None:
    """Its heartbeats go on reading: a lost message delays a stop by a heartbeat at most."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            pod.bus.deaf = True
            store.publish(FLEET.kill_channel, b"unheard")
            store.kill(FLEET)
            await pod.until(5.999999)
            assert pod.stands(R)
            await pod.until(6.0)
            assert pod.stands(X)
            assert pod.work.ended_at_s == [6.0]

    asyncio.run(main())


def test_a_twins_voice_is_not_ones_own(rig: Make, store: MemoryStore) -> None:
    """A deaf pod is not saved by the echoes of another life under its id."""

    async def main() -> None:
        async with rig(endless) as pod, rig(endless, incarnation="b" * 32):
            await pod.until(4.1)
            (own,) = (subscription for subscription in store.subscriptions if subscription._bus is pod.bus)
            deliver = own.deliver

            def only_the_twins(channel: str, payload: bytes) -> int:
                return deliver(channel, payload) if not payload.startswith(b"a" * 32) else 1

            own.deliver = only_the_twins  # type: ignore[method-assign]
            await pod.until(8.2)
            assert pod.count("subscribe") == 1
            await pod.until(8.25)
            assert pod.count("subscribe") == 2

    asyncio.run(main())


# -- not aborted by a brief reconnect -----------------------------------------------------------------------------


def test_a_brief_reconnect_aborts_nothing(rig: Make) -> None:
    """The subscriber connection breaks and is back at once: the pass goes on, and nobody held."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            pod.bus.break_subscription()
            await pod.until(12.0)
            assert pod.count("subscribe") == 2
            assert [state for _, state in pod.stood] == [B, R]
            assert pod.work.began_at_s == [0.0]
            assert pod.work.busy

    asyncio.run(main())


def test_a_reconnect_of_a_second_aborts_nothing_and_begins_nothing(rig: Make) -> None:
    """While it is not subscribed a pod may finish what it does, and starts nothing new."""

    async def script(checkpoint: Checkpoint) -> None:
        await pod.clock.sleep(4.5)

    async def main() -> None:
        async with pod:
            await pod.until(4.1)
            pod.bus.break_subscription()
            pod.bus.unreachable = True
            await pod.until(4.9)
            pod.pod._tasks.loop.request("sync")  # type: ignore[union-attr]
            await pod.until(5.0)
            assert pod.stands(R)
            assert pod.work.ended_at_s == [4.5]
            assert len(pod.work.began_at_s) == 1
            pod.bus.unreachable = False
            await pod.until(8.0)
            assert [state for _, state in pod.stood] == [B, R]
            assert len(pod.work.began_at_s) == 2

    pod = rig(script)
    asyncio.run(main())


def test_a_longer_reconnect_holds(rig: Make) -> None:
    """Not subscribed for as long as it may take to notice deafness: the pod holds, its lease notwithstanding."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            pod.bus.break_subscription()
            pod.bus.unreachable = True
            await pod.until(6.0)
            assert pod.stands(R)
            await pod.until(8.2)
            assert pod.stands(H)
            assert "not subscribed" in pod.why

    asyncio.run(main())


def test_a_kill_lost_in_a_reconnect_is_read_behind_it(rig: Make, store: MemoryStore) -> None:
    """Subscribe, confirm, then read: no gap in which a kill is missed."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            pod.bus.break_subscription()
            store.kill(FLEET)
            await pod.until(4.1)
            assert pod.stands(X)

    asyncio.run(main())


# -- holding ------------------------------------------------------------------------------------------------------


def test_a_fleet_that_is_not_armed_holds(rig: Make, store: MemoryStore) -> None:
    """Absent data means hold, never run; armed, the pod runs with its next beat."""
    store.lose_data()

    async def main() -> None:
        async with rig() as pod:
            await pod.until(11.0)
            assert pod.stands(H)
            assert pod.why.startswith("fleet 'prod' is not armed: a new fleet? run skillbus arm")
            assert pod.work.began_at_s == []
            store.arm(PROD)
            await pod.until(12.0)
            assert pod.stands(R)
            assert pod.work.began_at_s == [12.0]

    asyncio.run(main())


def test_who_prefers_to_run_runs(rig: Make, store: MemoryStore) -> None:
    """``SKILLBUS_REQUIRE_ARMED=false`` turns the rule off."""
    store.lose_data()

    async def main() -> None:
        async with rig(require_armed=False) as pod:
            assert pod.stands(R)

    asyncio.run(main())


def test_lost_data_holds_a_running_pod(rig: Make, store: MemoryStore) -> None:
    """A FLUSHALL in mid-pass: the next beat reads no epoch, the pass ends."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            store.lose_data()
            await pod.until(6.0)
            assert pod.stands(H)
            assert pod.work.ended_at_s == [6.0]

    asyncio.run(main())


def test_a_demoted_server_holds_at_once(rig: Make, store: MemoryStore) -> None:
    """READONLY is no good read: at the next beat the pod holds, long before its lease ends."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            store.read_only = True
            await pod.until(6.0)
            assert pod.stands(H)
            assert "read-only" in pod.why
            assert pod.work.ended_at_s == [6.0]
            store.read_only = False
            await pod.until(8.0)
            assert pod.stands(R)

    asyncio.run(main())


def test_a_refusing_server_holds_at_once(rig: Make) -> None:
    """A password or ACL that was taken away."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            pod.bus.denied = "NOPERM: check the ACL"
            await pod.until(6.0)
            assert pod.stands(H)
            assert "NOPERM" in pod.why

    asyncio.run(main())


def test_a_full_server_lets_a_pod_run(rig: Make, store: MemoryStore) -> None:
    """Out of memory spoils the writes, not the read: the lease goes on."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            store.refusal = OOM
            await pod.until(30.0)
            assert [state for _, state in pod.stood] == [B, R]

    asyncio.run(main())


# -- killed -------------------------------------------------------------------------------------------------------

HOSTILE = [b"", b"\xff\xfe", b'{"id": "\\ud800', b'{"\\ud800": "\\udc80"}', b"[" * 100_000, b"x" * 1_000_000, b"\x00"]


@pytest.mark.parametrize("payload", HOSTILE, ids=lambda payload: f"{payload[:8]!r}x{len(payload)}")
def test_any_message_stops_at_once(rig: Make, store: MemoryStore, payload: bytes) -> None:
    """Latched, aborted, recorded and remembered at the very instant; and the listener lives on."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.25)
            store.publish(GROUP.kill_channel, payload)
            await pod.until(4.25)
            assert pod.stands(X)
            assert pod.work.ended_at_s == [4.25]
            record = store.record(GROUP)
            assert record is not None
            assert record.heard_by == "web-1"
            assert store.record(FLEET) is None
            assert pod.tombstones == ["prod~web-1~group~eu.json"]
            assert pod.evidence.state is X
            assert pod.evidence.quiet
            assert pod.evidence.obeys(record.id)
            store.publish(FLEET.kill_channel, b"again")
            await pod.until(4.25)
            assert store.record(FLEET) is not None

    asyncio.run(main())


@pytest.mark.parametrize("payload", HOSTILE, ids=lambda payload: f"{payload[:8]!r}x{len(payload)}")
def test_no_other_message_stops_or_breaks_anything(rig: Make, store: MemoryStore, payload: bytes) -> None:
    """Garbage on the sync, drill and echo channels is ignored and counted, and the pod hears on."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            for channel in (PROD.sync_channel, PROD.drill_channel, PROD.echo_channel("web-1")):
                store.publish(channel, payload)
            store.publish(PROD.sync_channel, b'{"id": "\\ud800"}')
            await pod.until(30.0)
            assert [state for _, state in pod.stood] == [B, R]
            assert pod.evidence.beat_at_ms > store.now_ms - 2000
            assert pod.evidence.ignored_count >= 2

    asyncio.run(main())


def test_a_lost_message_costs_one_heartbeat(rig: Make, store: MemoryStore) -> None:
    """The record alone stops a pod at its next beat."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.000001)
            store.kill(FLEET)
            await pod.until(5.999999)
            assert pod.stands(R)
            await pod.until(6.0)
            assert pod.stands(X)

    asyncio.run(main())


def test_never_stopped_before_quiet(rig: Make, store: MemoryStore) -> None:
    """A pass that takes three seconds to wind down: stopping until then, for the pod and for everybody who asks."""

    async def stubborn(checkpoint: Checkpoint) -> None:
        try:
            await endless(checkpoint)
        finally:
            await pod.clock.sleep(3.0)

    async def main() -> None:
        async with pod:
            await pod.until(4.25)
            store.publish(FLEET.kill_channel)
            await pod.until(7.249999)
            assert pod.stands(P)
            assert pod.evidence.state is P
            assert not pod.evidence.quiet
            await pod.until(7.25)
            assert pod.stands(X)
            assert pod.evidence.state is X
            assert pod.evidence.quiet_at_ms - pod.evidence.tripped_at_ms == 3000

    pod = rig(stubborn)
    asyncio.run(main())


def test_who_cannot_vouch_is_never_stopped(rig: Make, store: MemoryStore) -> None:
    """A pass that ended without proof that its work did: stopping, for good."""

    async def main() -> None:
        pod = rig(endless)
        pod.work.vouched = False
        async with pod:
            await pod.until(4.1)
            store.publish(FLEET.kill_channel)
            await pod.until(20.0)
            assert pod.stands(P)
            assert not pod.evidence.vouched
            assert "by hand" in pod.why

    asyncio.run(main())


def test_a_stopped_pod_is_alive_and_visible(rig: Make, store: MemoryStore) -> None:
    """It beats on, hears on, and takes over the records of its other scopes."""
    store.kill(FLEET)

    async def main() -> None:
        async with rig() as pod:
            await pod.until(20.0)
            assert pod.evidence.beat_at_ms == store.now_ms
            store.kill(GROUP)
            await pod.until(22.0)
            assert {cause.scope for cause in pod.evidence.causes} == {"fleet", "group:eu"}
            assert len(pod.tombstones) == 2

    asyncio.run(main())


def test_a_thread_can_trip_the_latch(rig: Make) -> None:
    """``Pod.kill`` from anywhere: the pass ends, nothing is written anywhere."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            thread = threading.Thread(target=pod.pod.kill, args=("enough \udc80",))
            thread.start()
            thread.join()
            with pytest.raises(PassAborted):
                pod.switch.permit()
            await pod.until(4.1)
            assert pod.stands(X)
            assert not pod.work.busy
            assert pod.store.record(FLEET) is None
            assert pod.tombstones == []
            assert [cause.kind for cause in pod.evidence.causes] == [CauseKind.LOCAL]

    asyncio.run(main())


# -- reset, restart, loss -----------------------------------------------------------------------------------------


def test_a_reset_releases_no_process(rig: Make, store: MemoryStore) -> None:
    """The tombstone goes, the pod says what it waits for, and stays stopped; the next life runs."""
    store.kill(FLEET)

    async def main() -> None:
        async with rig() as pod:
            await pod.until(3.0)
            store.reset(FLEET)
            await pod.until(30.0)
            assert pod.stands(X)
            assert "reset, waits for restart" in pod.why
            assert pod.tombstones == []
            assert store.record(FLEET) is None
        async with rig(incarnation="b" * 32) as next_life:
            assert next_life.stands(R)
            assert len(next_life.work.began_at_s) == 1

    asyncio.run(main())


@pytest.mark.parametrize("loss", ["none", "data", "record"])
def test_a_restart_stays_stopped(rig: Make, store: MemoryStore, loss: str) -> None:
    """By the record, or by the tombstone, which writes the record back."""
    store.kill(GROUP, b'{"id": "k1", "reason": "first"}')

    async def main() -> None:
        async with rig() as pod:
            await pod.until(3.0)
            await pod.die()
        if loss == "data":
            store.lose_data()
            store.arm(PROD)
        elif loss == "record":
            del store.data[GROUP.killed_key]
        async with rig(incarnation="b" * 32) as next_life:
            await next_life.until(5.0)
            assert next_life.stands(X)
            assert next_life.work.began_at_s == []
            record = store.record(GROUP)
            assert record is not None
            assert (record.id, record.reason) == ("k1", "first")

    asyncio.run(main())


def test_a_latched_pod_writes_a_lost_kill_back(rig: Make, store: MemoryStore) -> None:
    """FLUSHALL and a new arming: a pod that joins finds the kill again."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(3.0)
            store.publish(FLEET.kill_channel, b"first")
            await pod.until(4.5)
            store.lose_data()
            store.arm(PROD)
            await pod.until(6.0)
            record = store.record(FLEET)
            assert record is not None
            assert record.reason == "first"
            async with rig(pod_id="web-2") as other:
                assert other.stands(X)

    asyncio.run(main())


def test_a_running_pod_that_missed_a_kill_stops(rig: Make, store: MemoryStore) -> None:
    """Killed and reset between two beats: the epoch moved, so there was a kill."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            store.reset(GROUP)
            await pod.until(6.0)
            assert pod.stands(X)
            assert [cause.kind for cause in pod.switch.causes] == [CauseKind.MISSED]
            assert pod.tombstones == []

    asyncio.run(main())


def test_one_hearing_pod_stops_them_all(rig: Make, store: MemoryStore) -> None:
    """The deaf one reads what the hearing one wrote."""

    async def main() -> None:
        async with rig(endless) as hearing, rig(endless, pod_id="web-2") as deaf:
            await hearing.until(4.1)
            deaf.bus.deaf = True
            store.publish(FLEET.kill_channel, b"stop")
            await hearing.until(6.0)
            assert (hearing.state, deaf.state) == (X, X)
            assert hearing.evidence.causes[0].record_id == deaf.evidence.causes[0].record_id

    asyncio.run(main())


def test_a_goodbye_is_said(rig: Make, store: MemoryStore) -> None:
    """A pod that ends by itself leaves a last heartbeat, quiet and ended."""

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            await pod.end()
            assert pod.evidence.ended_at_ms >= store.now_ms - 1000
            assert pod.evidence.quiet
            assert pod.bus.calls[-1] == "close"

    asyncio.run(main())


def test_earlier_lives_are_forgotten_when_they_are_certainly_over(rig: Make, store: MemoryStore) -> None:
    """After a minute of silence; a twin that beats stays."""

    async def main() -> None:
        async with rig(incarnation="0" * 32) as dead:
            await dead.until(1.0)
            await dead.die()
        async with rig() as pod, rig(incarnation="b" * 32):
            await pod.until(30.0)
            assert set(store.evidence(PROD, "web-1")) == {"0" * 32, "a" * 32, "b" * 32}
            await pod.until(130.0)
            assert set(store.evidence(PROD, "web-1")) == {"a" * 32, "b" * 32}

    asyncio.run(main())


def test_a_state_change_is_logged_once(rig: Make, store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    """Retries that change nothing are not news: one line for each state."""
    caplog.set_level(logging.INFO, "skillbus.pod.pod")

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            store.unreachable = True
            pod.bus.break_subscription()
            await pod.until(120.0)
            store.unreachable = False
            await pod.until(130.0)
            store.publish(FLEET.kill_channel, b"stop")
            await pod.until(200.0)

    asyncio.run(main())
    states = [line.split("state=")[1].split()[0] for line in caplog.messages if line.startswith("state state=")]
    assert states == [B, R, H, R, P, X]

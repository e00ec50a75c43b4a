"""A keeper's life on a still clock: it hears, records, remembers, restores, and says when it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from skillbus.core.ports import Reading
from skillbus.core.scope import Scope
from tests.fakes.memory_bus import OOM, MemoryStore
from tests.unit.console.keepers import FLEET, GROUP, POD, PROD, KeeperRig

Make = Callable[..., KeeperRig]


def reason(store: MemoryStore, scope: Scope = FLEET) -> str | None:
    """What the stored record says."""
    record = store.record(scope)
    return record.reason if record is not None else None


# -- it hears ----------------------------------------------------------------------------------------------------------


def test_it_subscribes_is_confirmed_and_only_then_reads(rig: Make) -> None:
    """The protocol's order (§3.1), and it counts as hearing only once its own voice came back."""

    async def main() -> None:
        async with rig() as one:
            calls = one.bus.calls
            assert calls.index("subscribe") < calls.index("confirmed") < calls.index("read")
            await one.until(0.1)
            assert one.hears
            assert one.standing.why == ""
            assert one.standing.deaf_since_ms == 0

    asyncio.run(main())


@pytest.mark.parametrize("scope", [FLEET, GROUP, POD, PROD.pod("unheard-of")], ids=str)
@pytest.mark.parametrize("payload", [b"", b"stop", b"\xff\xfe", b'{"reason": "x"', b"x" * (1 << 20)], ids=len)
def test_any_payload_of_any_scope_is_recorded_at_once(
    rig: Make, store: MemoryStore, scope: Scope, payload: bytes
) -> None:
    """No time passes between the message and its record, and no pod is needed."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            assert store.publish(scope.kill_channel, payload) == 1
            await one.clock.advance(0)
            record = store.record(scope)
            assert record is not None
            assert (record.via, record.heard_by) == ("pubsub", "keeper:one")
            assert len(one.tombstones) == 1
            assert one.standing.persisted_count == 1
            assert one.standing.last_persisted_at_ms == store.now_ms

    asyncio.run(main())


def test_a_channel_that_is_no_scopes_kills_nobody(rig: Make, store: MemoryStore) -> None:
    """The pattern of kill channels also catches what is none."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            for name in ("x", "group:", "pod:a b", "group:a:b"):
                assert store.publish(f"{FLEET.kill_channel}:{name}", b"stop") == 1
            await one.until(5.0)
            assert not [key for key in store.data if "killed" in key]
            assert one.hears

    asyncio.run(main())


def test_an_order_that_was_recorded_by_its_sender_is_adopted(rig: Make, store: MemoryStore) -> None:
    """SETNX came before PUBLISH: the keeper writes nothing, tells nothing, and remembers it."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.kill(FLEET, b'{"id": "o1", "via": "cli", "reason": "leaked"}')
            store.publish(FLEET.kill_channel, b'{"id": "o1", "via": "cli", "reason": "leaked"}')
            await one.until(20.0)
            assert store.audit == []
            assert one.tombstones == ["prod~keeper~fleet~.json"]
            assert one.standing.persisted_count == 0

    asyncio.run(main())


def test_a_kill_whose_message_was_lost_is_found(rig: Make, store: MemoryStore) -> None:
    """The fleet's with the next beat; a group's by the next search: then it has a tombstone."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.kill(FLEET)
            store.kill(GROUP)
            await one.until(1.2)
            assert one.tombstones == ["prod~keeper~fleet~.json"]
            await one.until(31.0)
            assert one.tombstones == ["prod~keeper~fleet~.json", "prod~keeper~group~eu.json"]

    asyncio.run(main())


# -- it does not hear, and says so -------------------------------------------------------------------------------------


def test_a_silent_subscription_is_noticed_within_about_two_seconds(rig: Make) -> None:
    """Its own voice does not come back: deaf, since when, and why; then it hears again by itself."""

    async def main() -> None:
        async with rig() as one:
            await one.until(10.05)
            since_ms = one.standing.hears_since_ms
            one.bus.deaf = True
            await one.until(12.3)
            assert not one.hears
            assert (one.standing.hears_since_ms, one.standing.deaf_since_ms > since_ms) == (0, True)
            assert "does not hear its own voice" in one.standing.why or "not subscribed" in one.standing.why
            one.bus.deaf = False
            await one.until(16.0)
            assert one.hears
            assert one.standing.hears_since_ms > since_ms

    asyncio.run(main())


def test_a_hung_server_is_noticed_within_about_two_seconds(rig: Make, store: MemoryStore) -> None:
    """No answer: it is blind, says what was asked, and recovers with the first answer."""

    async def main() -> None:
        async with rig() as one:
            await one.until(10.05)
            store.hung_until_s = one.clock.now_s() + 30
            await one.until(12.1)
            assert not one.hears
            assert "no answer" in one.standing.why
            await one.until(43.0)
            assert one.hears
            assert one.standing.why == ""

    asyncio.run(main())


def test_a_refusal_is_said(rig: Make) -> None:
    """Denied from the beginning: not hearing, why, since when, and no end of trying."""

    async def main() -> None:
        one = rig()
        one.bus.denied = "NOPERM: print the ACL lines anew"
        async with one:
            await one.until(30.0)
            assert not one.hears
            assert "not subscribed: NOPERM" in one.standing.why
            one.bus.denied = ""
            await one.until(33.0)
            assert one.hears

    asyncio.run(main())


def test_the_instants_stand_still_while_nothing_changes(rig: Make) -> None:
    """Whoever shows the standing sees a change only when there is one."""

    async def main() -> None:
        async with rig() as one:
            await one.until(1.0)
            before = one.standing
            one.bus.slow_s = 0.01
            await one.until(60.0)
            assert one.standing == before

    asyncio.run(main())


def test_a_break_is_said_and_begun_anew(rig: Make, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours ends no keeper: it says so, begins anew, and what it had heard is recorded all the same."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.refusal = OOM
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(2.0)
            with monkeypatch.context() as patch:
                patch.setattr(one.bus, "speak", None)
                await one.until(3.5)
                assert "the keeper broke" in one.standing.why
                assert not one.hears
            store.refusal = ""
            await one.until(8.0)
            assert one.hears
            assert reason(store) == "stop"

    asyncio.run(main())


# -- it records, for as long as the rule lets it -----------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["unreachable", "denied", "full", "read-only"])
def test_a_record_is_written_as_soon_as_it_can_be(rig: Make, store: MemoryStore, fault: str) -> None:
    """The standing says that it is killed and not recorded; 2 s after the fault it is, and the audit knows."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            one.bus.unreachable = fault == "unreachable"
            one.bus.denied = "NOPERM" if fault == "denied" else ""
            store.refusal = OOM if fault == "full" else ""
            store.read_only = fault == "read-only"
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(60.0)
            assert reason(store) is None
            assert one.standing.unrecorded == ("fleet",)
            assert "not recorded yet: fleet" in one.standing.why
            one.bus.unreachable, one.bus.denied, store.refusal, store.read_only = False, "", "", False
            await one.until(65.0)
            assert reason(store) == "stop"
            assert one.standing.unrecorded == ()
            assert [entry["reason"] for entry in one.told("kill")] == ["stop"]
            assert one.told("restored") == []

    asyncio.run(main())


def test_no_late_retry_undoes_a_reset(rig: Make, store: MemoryStore) -> None:
    """Refused for want of memory, then reset: the retries end by the epoch, and the tombstone goes."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.refusal = OOM
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(5.0)
            store.reset(FLEET)
            store.refusal = ""
            await one.until(20.0)
            assert reason(store) is None
            assert one.tombstones == []
            assert one.standing.unrecorded == ()
            written_count = one.bus.calls.count("write_record")
            await one.until(60.0)
            assert one.bus.calls.count("write_record") == written_count

    asyncio.run(main())


# -- it remembers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["DEL", "FLUSHALL", "an epoch that went back"])
def test_what_was_lost_is_written_back_and_told(rig: Make, store: MemoryStore, loss: str) -> None:
    """Within a beat, unchanged, armed or not; the audit says that it was restored, once."""

    async def main() -> None:
        store.data[FLEET.epoch_key] = b"1000"
        async with rig() as one:
            await one.until(0.1)
            store.publish(FLEET.kill_channel, b"still wanted")
            await one.until(5.0)
            before = store.record(FLEET)
            if loss == "FLUSHALL":
                store.lose_data()
            else:
                del store.data[FLEET.killed_key]
            if loss == "an epoch that went back":
                store.data[FLEET.epoch_key] = b"0"
            await one.until(6.2)
            assert store.record(FLEET) == before
            await one.until(8.0)
            (entry,) = one.told("restored")
            assert before is not None
            assert (entry["scope"], entry["record"], entry["reason"]) == ("fleet", before.id, "still wanted")
            assert (one.standing.persisted_count, one.standing.restored_count) == (1, 1)

    asyncio.run(main())


def test_an_old_reading_is_no_loss(rig: Make, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading from before an order that is weighed behind its record says nothing of it: nothing was lost."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            speak = one.bus.speak

            async def late(scopes: Sequence[Scope], channel: str, echo: bytes) -> Reading:
                reading = await speak([*scopes, GROUP], channel, echo)
                store.publish(GROUP.kill_channel, b"stop")
                for _ in range(100):
                    await asyncio.sleep(0)
                assert store.record(GROUP) is not None
                return reading

            with monkeypatch.context() as patch:
                patch.setattr(one.bus, "speak", late)
                await one.until(1.5)
            await one.until(5.0)
            assert one.told("restored") == []
            assert (one.standing.persisted_count, one.standing.restored_count) == (1, 0)

    asyncio.run(main())


def test_a_reset_is_no_loss(rig: Make, store: MemoryStore) -> None:
    """The tombstone goes within a beat, and nothing comes back; the next raw order is a kill anew."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.publish(FLEET.kill_channel, b"first")
            await one.until(5.0)
            store.reset(FLEET)
            await one.until(6.2)
            assert one.tombstones == []
            await one.until(60.0)
            assert reason(store) is None
            store.publish(FLEET.kill_channel, b"first")
            await one.until(60.1)
            assert reason(store) == "first"
            assert one.told("restored") == []
            await one.until(65.0)
            assert len(one.told("kill")) == 2

    asyncio.run(main())


def test_an_order_right_behind_a_reset_is_a_new_kill(rig: Make, store: MemoryStore) -> None:
    """Before any beat has seen the reset, and with the very same words."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(5.0)
            store.reset(FLEET)
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(20.0)
            assert reason(store) == "stop"
            assert one.tombstones == ["prod~keeper~fleet~.json"]

    asyncio.run(main())


@pytest.mark.parametrize("meanwhile", ["nothing", "data loss", "reset"])
def test_tombstones_outlive_the_keeper(rig: Make, store: MemoryStore, meanwhile: str) -> None:
    """Killed with SIGKILL and started again: what Redis lost meanwhile is back at once; what was reset is forgotten."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            for scope in (FLEET, GROUP, POD):
                store.publish(scope.kill_channel, b"still wanted")
            await one.until(3.0)
            await one.die()
        if meanwhile == "data loss":
            store.lose_data()
        if meanwhile == "reset":
            for scope in (FLEET, GROUP, POD):
                store.reset(scope)
        again = rig()
        async with again:
            await again.clock.advance(0)
            wanted = None if meanwhile == "reset" else "still wanted"
            assert [reason(store, scope) for scope in (FLEET, GROUP, POD)] == [wanted] * 3
            assert len(again.tombstones) == (0 if meanwhile == "reset" else 3)
            await again.until(10.0)
            assert len(again.told("restored")) == (3 if meanwhile == "data loss" else 0)

    asyncio.run(main())


def test_a_keeper_that_died_before_it_wrote_writes_in_its_next_life(rig: Make, store: MemoryStore) -> None:
    """Its tombstone has no epoch; the record is told as the kill that it is, not as restored."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            one.bus.unreachable = True
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(0.2)
            await one.die()
        async with rig() as again:
            await again.until(10.0)
            assert reason(store) == "stop"
            assert [entry["reason"] for entry in again.told("kill")] == ["stop"]
            assert again.told("restored") == []

    asyncio.run(main())


def test_a_disk_that_takes_no_tombstone(rig: Make, store: MemoryStore) -> None:
    """It hears and records all the same, and says that it will not remember."""

    async def main() -> None:
        one = rig()
        one.folder.mkdir()
        (one.folder / "keeper").write_text("not a folder")
        async with one:
            await one.until(0.1)
            assert one.hears
            assert not one.standing.remembers
            assert "tombstones" in one.standing.why
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(2.0)
            assert reason(store) == "stop"

    asyncio.run(main())


# -- it tidies ---------------------------------------------------------------------------------------------------------


def test_who_is_silent_for_seven_days_leaves_the_roster(rig: Make, store: MemoryStore) -> None:
    """Not before, and not if its hash is there; the audit says how many."""

    async def main() -> None:
        day_ms = 86_400_000
        for name, days in (("gone", 8), ("quiet", 6), ("doubtful", 8)):
            store.roster[PROD.roster_key, name] = store.now_ms - days * day_ms
        store.hashes[PROD.pod_key("doubtful")] = {"i1": b"{}"}
        async with rig() as one:
            await one.until(3602.0)
            assert sorted(name for _, name in store.roster) == ["doubtful", "quiet"]
            (entry,) = one.told("tidied")
            assert entry["count"] == "1"
            await one.until(7300.0)
            assert len(one.told("tidied")) == 1

    asyncio.run(main())

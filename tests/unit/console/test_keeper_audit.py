"""What keepers tell the audit: each raw order once, however many heard it, and a flood in few words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from skillbus.core.orders import KillOrder
from tests.fakes.memory_bus import OOM, MemoryStore
from tests.unit.console.keepers import FLEET, GROUP, KeeperRig

Make = Callable[..., KeeperRig]


def reasons(one: KeeperRig) -> list[str]:
    """Of the kills in the audit, in order."""
    return [entry["reason"] for entry in one.told("kill")]


def test_a_raw_order_is_told_under_its_records_id(rig: Make, store: MemoryStore) -> None:
    """Who heard it, via what and why; history and reset find it by the id of the record."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.publish(FLEET.kill_channel, b'{"reason": "leaked", "by": "oncall", "incident": "https://i/1"}')
            await one.until(2.0)
            record = store.record(FLEET)
            assert record is not None
            (entry,) = one.told("kill")
            told = {"scope": "fleet", "record": record.id, "reason": "leaked", "by": "oncall", "via": "pubsub"}
            assert told.items() <= entry.items()
            assert (entry["incident"], entry["heard_by"]) == ("https://i/1", "keeper:one")

    asyncio.run(main())


def test_two_keepers_tell_once(rig: Make, store: MemoryStore) -> None:
    """One record, one entry, for the first order, for a further one, and for a loss."""

    async def main() -> None:
        async with rig() as one, rig("two"):
            await one.until(0.1)
            assert store.publish(FLEET.kill_channel, b"first") == 2
            await one.until(3.0)
            assert reasons(one) == ["first"]
            store.publish(FLEET.kill_channel, b"second")
            await one.until(6.0)
            assert reasons(one) == ["first", "second"]
            record = store.record(FLEET)
            assert record is not None
            assert [entry.get("stands", "") for entry in one.told("kill")] == ["", record.id]
            del store.data[FLEET.killed_key]
            await one.until(20.0)
            assert len(one.told("restored")) == 1

    asyncio.run(main())


def test_a_record_that_a_pod_wrote_is_told(rig: Make, store: MemoryStore) -> None:
    """Pods may not write the audit, so a keeper tells of what a pod recorded first; not a second time as its own."""

    async def main() -> None:
        async with rig() as one, rig("two"):
            await one.until(0.1)
            at = KillOrder(reason="stop").record(fallback_id="of-the-pod", now_ms=store.now_ms + 40, heard_by="web-1")
            store.kill(FLEET, at.to_bytes())
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(5.0)
            (entry,) = one.told("kill")
            assert (entry["record"], entry["heard_by"]) == ("of-the-pod", "web-1")

    asyncio.run(main())


def test_the_same_words_later_are_a_further_order(rig: Make, store: MemoryStore) -> None:
    """Not the echo of the order on record: somebody wants the stop now, and reset must know."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(40.0)
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(45.0)
            assert reasons(one) == ["stop", "stop"]
            assert one.told("kill")[0]["record"] != one.told("kill")[1]["record"]

    asyncio.run(main())


def test_an_order_with_an_id_is_told_by_its_sender(rig: Make, store: MemoryStore) -> None:
    """A further kill by our tools is in the audit a moment later; one that is not there then is told by the keeper."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.kill(FLEET, b'{"id": "first", "via": "cli"}')
            store.publish(FLEET.kill_channel, b'{"id": "second", "via": "cli"}')
            await one.until(0.5)
            store.audit.append((store.now_ms, {"kind": "kill", "scope": "fleet", "record": "second"}))
            await one.until(5.0)
            assert len(one.told("kill")) == 1
            store.publish(FLEET.kill_channel, b'{"id": "third", "reason": "by hand"}')
            await one.until(10.0)
            assert [entry["record"] for entry in one.told("kill")] == ["second", "third"]

    asyncio.run(main())


def test_a_flood_is_recorded_at_once_and_told_in_few_words(rig: Make, store: MemoryStore) -> None:
    """Ten thousand messages, two keepers: the first is on record, some are told, the rest counted, and each once."""

    async def main() -> None:
        async with rig() as one, rig("two"):
            await one.until(0.1)
            for number in range(10_000):
                store.publish(FLEET.kill_channel, b"message %d" % number)
                if number % 1000 == 0:
                    await one.clock.advance(0)
            record = store.record(FLEET)
            assert record is not None
            assert record.reason == "message 0"
            await one.until(25.0)
            entries = one.told("kill")
            assert len(entries) <= 12
            (rest,) = [entry for entry in entries if "count" in entry]
            assert int(rest["count"]) + len(entries) - 1 == 10_000
            assert len({entry["reason"] for entry in entries}) == len(entries)
            store.publish(FLEET.kill_channel, b"and one more")
            await one.until(30.0)
            assert reasons(one)[-1] == "and one more"

    asyncio.run(main())


def test_a_flood_of_one_scope_silences_no_other(rig: Make, store: MemoryStore) -> None:
    """Each scope has its own account."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            for number in range(500):
                store.publish(FLEET.kill_channel, b"message %d" % number)
            store.publish(GROUP.kill_channel, b"ours")
            await one.until(5.0)
            assert "ours" in reasons(one)

    asyncio.run(main())


def test_an_audit_that_refuses_is_said_and_told_later(rig: Make, store: MemoryStore) -> None:
    """The record does not wait for it; what waits is bounded, and told once it can be."""

    async def main() -> None:
        async with rig() as one:
            one.bus.audit_denied = "NOPERM"
            await one.until(0.1)
            for number in range(200):
                store.publish(FLEET.kill_channel, b"message %d" % number)
                await one.clock.advance(0.1)
            assert store.record(FLEET) is not None
            await one.until(60.0)
            assert "the audit is not told: NOPERM" in one.standing.why
            assert len(one.keeper._accounts._queue) <= 50
            one.bus.audit_denied = ""
            await one.until(120.0)
            assert reasons(one)[0] == "message 0"
            assert one.standing.why == ""

    asyncio.run(main())


def test_an_order_that_was_lifted_before_it_was_recorded_is_told(rig: Make, store: MemoryStore) -> None:
    """Heard while the server took no writes, and reset meanwhile: history knows that it was."""

    async def main() -> None:
        async with rig() as one:
            await one.until(0.1)
            store.refusal = OOM
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(5.0)
            store.reset(FLEET)
            store.refusal = ""
            await one.until(15.0)
            assert store.record(FLEET) is None
            assert reasons(one) == ["stop"]

    asyncio.run(main())

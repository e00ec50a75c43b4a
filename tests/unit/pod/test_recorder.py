"""What follows from a trip: the record, retried until it holds or the epoch ends it (docs/protocol.md §4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from skillbus.core.latch import State
from skillbus.core.scope import Scope
from tests.fakes.memory_bus import OOM, MemoryStore
from tests.unit.pod.rig import FLEET, GROUP, Rig

Make = Callable[..., Rig]


def reason(store: MemoryStore, scope: Scope = FLEET) -> str | None:
    """What the stored record says."""
    record = store.record(scope)
    return record.reason if record is not None else None


@pytest.mark.parametrize("fault", ["unreachable", "denied", "full", "read-only"])
def test_a_record_is_written_as_soon_as_it_can_be(rig: Make, store: MemoryStore, fault: str) -> None:
    """The pod is stopped meanwhile, and says that the kill is not recorded yet; 2 s after the fault it is."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            pod.bus.unreachable = fault == "unreachable"
            pod.bus.denied = "NOPERM" if fault == "denied" else ""
            store.refusal = OOM if fault == "full" else ""
            store.read_only = fault == "read-only"
            store.publish(FLEET.kill_channel, b"stop")
            await pod.until(60.0)
            assert pod.stands(State.STOPPED)
            assert "(not recorded yet)" in pod.why
            assert reason(store) is None
            assert pod.count("write_record") > 20
            pod.bus.unreachable, pod.bus.denied, store.refusal, store.read_only = False, "", "", False
            await pod.until(62.0)
            assert reason(store) == "stop"
            assert "(not recorded yet)" not in pod.why
            written_count = pod.count("write_record")
            await pod.until(120.0)
            assert pod.count("write_record") == written_count

    asyncio.run(main())


def test_no_late_retry_undoes_a_reset(rig: Make, store: MemoryStore) -> None:
    """Refused for want of memory, then reset: the retries end by the epoch, and the tombstone goes."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            store.refusal = OOM
            store.publish(FLEET.kill_channel, b"stop")
            await pod.until(5.0)
            assert pod.tombstones == ["prod~web-1~fleet~.json"]
            store.reset(FLEET)
            store.refusal = ""
            await pod.until(20.0)
            assert reason(store) is None
            assert pod.stands(State.STOPPED)
            assert "reset, waits for restart" in pod.why
            assert pod.tombstones == []
            written_count = pod.count("write_record")
            await pod.until(60.0)
            assert pod.count("write_record") == written_count

    asyncio.run(main())


def test_no_late_restore_undoes_a_reset(rig: Make, store: MemoryStore) -> None:
    """A record that was lost and could not be written back before the reset is not written back behind it."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            store.publish(FLEET.kill_channel, b"stop")
            await pod.until(5.0)
            store.refusal = OOM
            del store.data[FLEET.killed_key]
            await pod.until(9.0)
            store.reset(FLEET)
            store.refusal = ""
            await pod.until(30.0)
            assert reason(store) is None
            assert pod.tombstones == []

    asyncio.run(main())


def test_the_first_writer_wins_and_the_others_adopt(rig: Make, store: MemoryStore) -> None:
    """Three pods hear one raw message: one record, and all obey that one."""

    async def main() -> None:
        async with rig() as one, rig(pod_id="web-2") as two, rig(pod_id="web-3") as three:
            await one.until(4.1)
            store.publish(FLEET.kill_channel, b"stop")
            await one.until(6.5)
            record = store.record(FLEET)
            assert record is not None
            for pod in (one, two, three):
                assert pod.evidence.obeys(record.id)
                assert len(pod.tombstones) == 1

    asyncio.run(main())


def test_an_order_heard_right_behind_a_reset_is_a_new_kill(rig: Make, store: MemoryStore) -> None:
    """A stopped pod that has not seen the reset yet is enough for a raw kill to stay (docs/protocol.md §2, P4)."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            store.publish(FLEET.kill_channel, b"first")
            await pod.until(6.5)
            store.reset(FLEET)
            store.publish(FLEET.kill_channel, b"second")
            await pod.until(20.0)
            assert reason(store) == "second"
            assert pod.tombstones == ["prod~web-1~fleet~.json"]
            await pod.end()
        async with rig(incarnation="b" * 32) as next_life:
            assert next_life.stands(State.STOPPED)

    asyncio.run(main())


def test_an_answer_to_an_older_order_settles_no_newer_one(rig: Make, store: MemoryStore) -> None:
    """A lost record is being written back; before the answer comes, a reset, and a new order: that one is written."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            store.publish(FLEET.kill_channel, b"first")
            await pod.until(5.0)
            del store.data[FLEET.killed_key]
            pod.bus.slow_s = 0.5
            while store.record(FLEET) is None:
                await pod.clock.advance(0.05)
            store.reset(FLEET)
            store.publish(FLEET.kill_channel, b"second")
            await pod.until(20.0)
            assert reason(store) == "second"
            assert pod.tombstones == ["prod~web-1~fleet~.json"]

    asyncio.run(main())


def test_the_same_order_again_is_written_once(rig: Make, store: MemoryStore) -> None:
    """An order that comes with its own id, again and again, costs nothing."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            for _ in range(5):
                store.publish(GROUP.kill_channel, b'{"id": "o1", "reason": "stop"}')
                await pod.clock.advance(0.1)
            assert pod.count("write_record") == 1
            record = store.record(GROUP)
            assert record is not None
            assert record.id == "o1"

    asyncio.run(main())


def test_a_second_order_shows_the_first_record(rig: Make, store: MemoryStore) -> None:
    """A killed scope that is killed again keeps its first record, and everybody obeys that."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            store.publish(FLEET.kill_channel, b'{"id": "o1"}')
            await pod.until(4.5)
            store.publish(FLEET.kill_channel, b'{"id": "o2"}')
            await pod.until(5.0)
            assert pod.evidence.obeys("o1")
            assert not pod.evidence.obeys("o2")

    asyncio.run(main())


def test_a_goodbye_tries_once_more(rig: Make, store: MemoryStore) -> None:
    """A pod that ends with an unwritten kill attempts it a last time; the tombstone remembers it anyway."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            store.refusal = OOM
            store.publish(FLEET.kill_channel, b"stop")
            await pod.until(4.2)
            store.refusal = ""
            await pod.end()
            assert reason(store) == "stop"
            assert pod.tombstones == ["prod~web-1~fleet~.json"]

    asyncio.run(main())

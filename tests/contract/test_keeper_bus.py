"""One suite for every keeper's bus: in memory, and on each real server of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pytest

from skillbus.bus.connect import Endpoint
from skillbus.bus.keeper_bus import RedisKeeperBus
from skillbus.clock import BootClock
from skillbus.core.orders import KillRecord
from skillbus.core.ports import KeeperBus, Message, Subscription, Write
from skillbus.core.scope import Fleet
from skillbus.errors import BusUnreachable
from tests.fakes.memory_bus import MemoryStore
from tests.fakes.memory_keeper import MemoryKeeperBus
from tests.servers import RealServer, server_binary, server_names

PROD = Fleet("prod")
FLEET, GROUP, POD = PROD.scope, PROD.group("eu"), PROD.pod("web-1")
ECHO = PROD.keeper_echo_channel("one")
PATIENCE_S = 5.0


class Place(Protocol):
    """A server, and the hand on it that never goes through the bus under test."""

    def bus(self) -> KeeperBus: ...
    def put(self, key: str, value: bytes) -> None: ...
    def publish(self, channel: str, payload: bytes) -> int: ...
    def roster(self, pod_id: str, silent_s: int) -> None: ...
    def names(self) -> set[str]: ...
    def audited(self) -> list[dict[str, str]]: ...
    def clear(self) -> None: ...


@dataclass
class InMemory:
    """The stand-in of our own."""

    store: MemoryStore

    def bus(self) -> KeeperBus:
        return MemoryKeeperBus(PROD, self.store)

    def put(self, key: str, value: bytes) -> None:
        self.store.data[key] = value

    def publish(self, channel: str, payload: bytes) -> int:
        return self.store.publish(channel, payload)

    def roster(self, pod_id: str, silent_s: int) -> None:
        self.store.roster[PROD.roster_key, pod_id] = self.store.now_ms - silent_s * 1000

    def names(self) -> set[str]:
        return {name for _, name in self.store.roster}

    def audited(self) -> list[dict[str, str]]:
        return [fields for _, fields in self.store.audit]

    def clear(self) -> None:
        self.store.lose_data()


@dataclass
class OnServer:
    """A real one."""

    server: RealServer

    def bus(self) -> KeeperBus:
        return RedisKeeperBus(PROD, Endpoint(self.server.url), "one")

    def put(self, key: str, value: bytes) -> None:
        self.server.cli("SET", key, value)

    def publish(self, channel: str, payload: bytes) -> int:
        reply = self.server.cli("PUBLISH", channel, payload)
        assert isinstance(reply, int)
        return reply

    def roster(self, pod_id: str, silent_s: int) -> None:
        time = self.server.cli("TIME")
        assert isinstance(time, list)
        assert isinstance(time[0], bytes)
        self.server.cli("ZADD", PROD.roster_key, (int(time[0]) - silent_s) * 1000, pod_id)

    def names(self) -> set[str]:
        reply = self.server.cli("ZRANGE", PROD.roster_key, 0, -1)
        assert isinstance(reply, list)
        return {name.decode() for name in reply if isinstance(name, bytes)}

    def audited(self) -> list[dict[str, str]]:
        rows = self.server.cli("XRANGE", PROD.audit_key, "-", "+")
        assert isinstance(rows, list)
        found = []
        for row in rows:
            assert isinstance(row, list)
            fields = row[1]
            assert isinstance(fields, list)
            words = [word.decode() for word in fields if isinstance(word, bytes)]
            found.append(dict(zip(words[::2], words[1::2], strict=True)))
        return found

    def clear(self) -> None:
        self.server.cli("FLUSHALL")


@pytest.fixture(scope="module", params=["memory", *server_names()])
def standing_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Each kind of server in turn, started once."""
    if request.param == "memory":
        yield InMemory(MemoryStore(BootClock()))
    else:
        with RealServer(server_binary(request.param), tmp_path_factory.mktemp("keeper")) as server:
            yield OnServer(server)


@pytest.fixture
def place(standing_place: Place) -> Place:
    """The server, empty."""
    standing_place.clear()
    return standing_place


def on(place: Place, test: Callable[[KeeperBus], Awaitable[None]]) -> None:
    """Run ``test`` with a bus on ``place``."""

    async def main() -> None:
        bus = place.bus()
        try:
            await test(bus)
        finally:
            await bus.close()

    asyncio.run(main())


async def confirmed(subscription: Subscription, count: int) -> None:
    """Wait for so many confirmations."""
    async with asyncio.timeout(PATIENCE_S):
        while len(subscription.confirmed) < count:
            assert await subscription.get(0.1) is None


async def heard(subscription: Subscription) -> Message:
    """The next message."""
    async with asyncio.timeout(PATIENCE_S):
        while (message := await subscription.get(0.1)) is None:
            pass
        return message


def test_channels_and_a_pattern_on_one_connection(place: Place) -> None:
    """Each is confirmed under its own text; a message bears the channel it came on, by whichever way."""

    async def test(bus: KeeperBus) -> None:
        subscription = await bus.subscribe([FLEET.kill_channel, ECHO], [PROD.kill_pattern])
        try:
            await confirmed(subscription, 3)
            assert subscription.confirmed == {FLEET.kill_channel, ECHO, PROD.kill_pattern}
            for channel in (FLEET.kill_channel, GROUP.kill_channel, POD.kill_channel, ECHO):
                for payload in (b"", b"\xff\x00", b"x" * (1 << 20)):
                    assert await asyncio.to_thread(place.publish, channel, payload) == 1
                    assert await heard(subscription) == Message(channel, payload)
            for other in (PROD.drill_channel, "skillbus:prod:killed", "skillbus:other:kill", FLEET.kill_channel + "x"):
                assert await asyncio.to_thread(place.publish, other, b"") == 0
        finally:
            await subscription.close()

    on(place, test)


def test_a_read_of_many_scopes_is_whole(place: Place) -> None:
    """However many there are, each is told; and the echo was sent."""
    pods = [PROD.pod(f"p{number}") for number in range(450)]
    place.put(FLEET.epoch_key, b"0")
    place.put(pods[-1].killed_key, b"why")
    place.put(pods[-1].epoch_key, b"7")

    async def test(bus: KeeperBus) -> None:
        subscription = await bus.subscribe([ECHO])
        try:
            await confirmed(subscription, 1)
            for reading in (await bus.read([FLEET, *pods]), await bus.speak([FLEET, *pods], ECHO, b"e1")):
                assert set(reading.scopes) == {FLEET, *pods}
                assert reading.armed
                assert (reading.scopes[pods[-1]].epoch, reading.scopes[pods[-1]].record) == (7, b"why")
                assert reading.scopes[pods[0]].record is None
                assert reading.server_ms > 0
            assert await heard(subscription) == Message(ECHO, b"e1")
        finally:
            await subscription.close()

    on(place, test)


def test_a_record_is_written_under_the_epoch_rule(place: Place) -> None:
    """First writer wins; a newer epoch ends it."""

    async def test(bus: KeeperBus) -> None:
        place.put(GROUP.epoch_key, b"7")
        ours = KillRecord(id="ours", reason="why", heard_by="keeper:one")
        assert (await bus.write_record(GROUP, ours, 6)).write is Write.SUPERSEDED
        answer = await bus.write_record(GROUP, ours, None)
        assert (answer.write, answer.epoch) == (Write.WRITTEN, 7)
        answer = await bus.write_record(GROUP, ours.model_copy(update={"id": "second"}), None)
        assert (answer.write, answer.record.id) == (Write.ADOPTED, "ours")
        assert list(await bus.killed_scopes()) == [GROUP]

    on(place, test)


def test_an_entry_is_told_once(place: Place) -> None:
    """Of many that tell the same at once one does; what is older than asked for does not count."""

    def covers(row: Mapping[str, str]) -> bool:
        return row.get("record") == "r1"

    async def test(bus: KeeperBus) -> None:
        others = [place.bus() for _ in range(4)]
        try:
            now_ms = (await bus.read([FLEET])).server_ms
            entry = {"kind": "kill", "record": "r1", "reason": "gr\u00fc\u00dfe"}
            told = await asyncio.gather(*(one.tell(entry, covers, now_ms - 1000) for one in (bus, *others)))
            assert sorted(told) == [False] * 4 + [True]
            assert [row["reason"] for row in place.audited()] == ["gr\u00fc\u00dfe"]
            await asyncio.sleep(0.005)
            assert await bus.tell(entry, covers, (await bus.read([FLEET])).server_ms)
            assert len(place.audited()) == 2
            assert await bus.tell({"kind": "kill", "record": "r2"}, lambda row: row.get("record") == "r2", 0)
        finally:
            for one in others:
                await one.close()

    on(place, test)


def test_the_silent_leave_the_roster(place: Place) -> None:
    """Those who were silent for so long."""
    place.roster("gone", 800)
    place.roster("here", 700)

    async def test(bus: KeeperBus) -> None:
        assert await bus.tidy_roster(750) == 1
        assert place.names() == {"here"}
        assert await bus.tidy_roster(750) == 0

    on(place, test)


def test_a_bots_entry_covers_too(redis_server: RealServer) -> None:
    """A bot's order is told in the bot's own stream; a keeper looks there."""
    redis_server.cli("XADD", PROD.bot_audit_key("pager"), "*", "kind", "kill", "record", "r1")
    place = OnServer(redis_server)

    async def test(bus: KeeperBus) -> None:
        assert not await bus.tell({"kind": "kill", "record": "r1"}, lambda row: row.get("record") == "r1", 0)
        assert place.audited() == []

    on(place, test)


def test_a_server_that_is_gone_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No verb hangs, and each says so with an error of ours."""
    with RealServer(server_binary(), tmp_path_factory.mktemp("gone")) as server:
        place = OnServer(server)

        async def test(bus: KeeperBus) -> None:
            await bus.read([FLEET])
            server.kill()
            record = KillRecord(id="ours")
            for attempt in (
                lambda: bus.speak([FLEET], ECHO, b"e"),
                lambda: bus.write_record(FLEET, record, None),
                lambda: bus.killed_scopes(),
                lambda: bus.tell({"kind": "kill"}, lambda row: False, 0),
                lambda: bus.tidy_roster(1.0),
                lambda: bus.subscribe([ECHO], [PROD.kill_pattern]),
            ):
                with pytest.raises(BusUnreachable):
                    await attempt()

        on(place, test)

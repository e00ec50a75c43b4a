"""The verbs of the protocol that a keeper needs, on Redis (docs/protocol.md §5).

Three connections: one listens; one reads, echoes and writes records; and one asks what takes long (SCAN, the audit, the
roster), so that no record waits behind that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from skillbus.bus.connect import Endpoint, error_of, translated
from skillbus.bus.operator_bus import OperatorBus
from skillbus.bus.redis_bus import demand_master, queue_reads, reading_of, write_record
from skillbus.bus.subscription import RedisSubscription
from skillbus.core.orders import KillRecord
from skillbus.core.ports import Reading, WriteAnswer
from skillbus.core.scope import Fleet, Scope
from skillbus.errors import BusNotReady

_CHUNK = 200
"""Scopes that are read in one round trip: a record that must be written waits for no more than that."""


class RedisKeeperBus:
    """A keeper's way to Redis."""

    def __init__(self, fleet: Fleet, endpoint: Endpoint, name: str) -> None:
        self._endpoint = endpoint
        self._name = f"skillbus-keeper-{name}"
        self._client = endpoint.client(self._name)
        self._slow = OperatorBus(fleet, endpoint)

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str] = ()) -> RedisSubscription:
        """Open a subscriber connection and ask for ``channels`` and ``patterns``."""
        return await RedisSubscription.open(self._endpoint, channels, self._name, patterns)

    async def read(self, scopes: Sequence[Scope]) -> Reading:
        """Ask whether this is a master, then read every scope afresh."""
        return await self._read(scopes)

    async def speak(self, scopes: Sequence[Scope], channel: str, echo: bytes) -> Reading:
        """Read every scope, and send an echo in the first round trip."""
        return await self._read(scopes, channel, echo)

    async def _read(self, scopes: Sequence[Scope], channel: str = "", echo: bytes = b"") -> Reading:
        reading = await self._read_some(scopes[:_CHUNK], channel, echo)
        for start in range(_CHUNK, len(scopes), _CHUNK):
            more = await self._read_some(scopes[start : start + _CHUNK])
            reading = Reading({**reading.scopes, **more.scopes}, reading.server_ms, reading.armed or more.armed)
        return reading

    async def _read_some(self, scopes: Sequence[Scope], channel: str = "", echo: bytes = b"") -> Reading:
        spoken: object = None
        with translated(self._endpoint):
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.execute_command("ROLE")
                queue_reads(pipe, scopes)
                if channel:
                    pipe.publish(channel, echo)
                role, *answers = await pipe.execute(raise_on_error=False)
        if channel:
            spoken = answers.pop()
        try:
            demand_master(role, self._endpoint)
            reading = reading_of(scopes, answers, self._endpoint)
        except BusNotReady:  # Its name may lead to another server by now.
            await self._client.connection_pool.disconnect()
            raise
        if isinstance(spoken, Exception):
            raise error_of(spoken, self._endpoint) from spoken
        return reading

    async def write_record(self, scope: Scope, record: KillRecord, latch_epoch: int | None) -> WriteAnswer:
        """Write ``record`` under the epoch rule."""
        with translated(self._endpoint):
            return await write_record(self._client, scope, record, latch_epoch, self._endpoint)

    async def killed_scopes(self) -> list[Scope]:
        """Every scope of the fleet that has a record (SCAN)."""
        return await self._slow.killed_scopes()

    async def tell(self, entry: Mapping[str, str], covers: Callable[[Mapping[str, str]], bool], since_ms: int) -> bool:
        """Add an entry to the audit unless one since then covers it: whether it was added."""
        return await self._slow.streams.write_once(entry, covers, since_ms)

    async def tidy_roster(self, silent_s: float) -> int:
        """Remove from the roster whoever has been silent for so long and left no hash; how many."""
        return await self._slow.tidy_roster(await self._slow.now_ms() - round(silent_s * 1000))

    async def close(self) -> None:
        """Drop every connection. Never raises."""
        for close in (self._client.aclose, self._slow.__aexit__):
            with suppress(Exception):
                await close()

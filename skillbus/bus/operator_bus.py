"""The verbs of the protocol that an operator, a bot or the console needs, on Redis (docs/protocol.md §2, §4).

All on one connection, for WAIT speaks only of what its own connection wrote. Nothing here decides anything: what an
answer means is control's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis import exceptions as wire

from skillbus.bus.connect import Client, Endpoint, error_of, translated
from skillbus.bus.redis_bus import demand_master, queue_reads, reading_of
from skillbus.bus.subscription import RedisSubscription
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import ScopeReading
from skillbus.core.orders import RECORD_LIMIT, KillRecord
from skillbus.core.ports import Reading
from skillbus.core.scope import NAME, Fleet, Scope
from skillbus.errors import BusNotReady, SkillbusError

AUDIT_LIMIT = 100_000
"""Entries that an audit stream keeps, about (docs/protocol.md §1)."""

_CHUNK = 500
_TAIL = 1000

_RESET_TRIES = 5
"""Times to try a reset anew because the record, the epoch or the audit moved under it."""

AuditTail = list[tuple[int, dict[str, str]]]
"""``(server time in ms, entry)``, the newest first."""


@dataclass(frozen=True, slots=True)
class OrderAnswers:
    """What became of each part of a kill, by itself (docs/protocol.md §2). An error is the server's word on that part.

    Attributes:
        server_ms: the server's clock when it took the order.
        recorded: True if our record was written, False if one was there.
        receivers: what PUBLISH printed. Never an acknowledgement: a deaf listener counts in it too.
    """

    server_ms: int
    recorded: bool | SkillbusError
    receivers: int | SkillbusError
    audited: str | SkillbusError


class OperatorBus:
    """One connection to Redis with an operator's credentials.

    Attributes:
        unanswered: whether an order was sent whose answer never came: it may be stored, or not.
    """

    def __init__(self, fleet: Fleet, endpoint: Endpoint) -> None:
        self.fleet = fleet
        self.endpoint = endpoint
        self.unanswered = False
        self._client: Client = endpoint.client("skillbus-operator")
        self._wrote_through: Any = None

    async def __aenter__(self) -> OperatorBus:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def subscribe(self, channels: Sequence[str]) -> RedisSubscription:
        """Listen to ``channels`` on a connection of its own."""
        return await RedisSubscription.open(self.endpoint, channels, "skillbus-operator")

    async def read(self, scopes: Sequence[Scope]) -> Reading:
        """Ask whether this is a master, then read the epoch and the record of ``scopes``; one round trip."""
        with translated(self.endpoint):
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.execute_command("ROLE")
                queue_reads(pipe, scopes)
                role, *answers = await pipe.execute(raise_on_error=False)
        demand_master(role, self.endpoint)
        return reading_of(scopes, answers, self.endpoint)

    async def now_ms(self) -> int:
        """The server's clock."""
        with translated(self.endpoint):
            seconds, micros = await self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def order(self, scope: Scope, record: KillRecord, payload: bytes, audit: Mapping[str, str]) -> OrderAnswers:
        """Record, publish, audit, in this order and not in MULTI: a server that refuses one still does the others."""
        with translated(self.endpoint):
            self._wrote_through = await self._socket()
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.setnx(scope.killed_key, record.to_bytes())
                pipe.publish(scope.kill_channel, payload)
                pipe.xadd(self.fleet.audit_key, dict(audit), maxlen=AUDIT_LIMIT, approximate=True)
                try:
                    time, recorded, receivers, audited = await pipe.execute(raise_on_error=False)
                except BaseException:
                    self.unanswered = True
                    raise
        server_ms = 0 if isinstance(time, Exception) else time[0] * 1000 + time[1] // 1000
        return OrderAnswers(
            server_ms=server_ms,
            recorded=self._or_error(recorded, bool),
            receivers=self._or_error(receivers, int),
            audited=self._or_error(audited, lambda x: x.decode()),
        )

    def _or_error(self, answer: Any, read: Any) -> Any:
        return error_of(answer, self.endpoint) if isinstance(answer, Exception) else read(answer)

    async def replicas(self, wanted_count: int, timeout_s: float) -> int:
        """How many replicas hold the order given before (WAIT). May answer fewer than ``wanted_count``.

        Raises:
            BusNotReady: its connection is gone. On one that wrote nothing, WAIT counts every replica there is.
        """
        timeout_ms = max(1, int(min(timeout_s, self.endpoint.timeout_s * 0.8) * 1000))
        with translated(self.endpoint):
            sockets = [await self._socket()]
            count = int(await self._client.wait(wanted_count, timeout_ms))
            sockets.append(await self._socket())
        if any(one is not self._wrote_through for one in sockets):
            raise BusNotReady("the connection that wrote the order is gone: how many replicas hold it is not known")
        return count

    async def _socket(self) -> Any:
        """What the one connection speaks through: another object after the client has connected anew."""
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            return getattr(connection, "_writer", None)
        finally:
            await pool.release(connection)

    async def pod_ids(self) -> list[str]:
        """Every pod id in the roster. What cannot be the name of a pod is none, whoever put it there."""
        with translated(self.endpoint):
            found = [_text(raw) for raw in await self._client.zrange(self.fleet.roster_key, 0, -1)]
        return [name for name in found if NAME.fullmatch(name)]

    async def heartbeats(self, pod_ids: Sequence[str]) -> tuple[int, dict[str, list[Heartbeat]]]:
        """``(server time in ms, evidence by pod id)``. A pod without a hash has an empty list."""
        found: dict[str, list[Heartbeat]] = {}
        server_ms = await self.now_ms()
        for start in range(0, len(pod_ids), _CHUNK):
            chunk = pod_ids[start : start + _CHUNK]
            with translated(self.endpoint):
                async with self._client.pipeline(transaction=False) as pipe:
                    pipe.time()
                    for pod_id in chunk:
                        pipe.hgetall(self.fleet.pod_key(pod_id))
                    time, *hashes = await pipe.execute(raise_on_error=False)
                denied = (answer for answer in hashes if isinstance(answer, wire.NoPermissionError))
                if (error := time if isinstance(time, Exception) else next(denied, None)) is not None:
                    raise error_of(error, self.endpoint)
            server_ms = time[0] * 1000 + time[1] // 1000
            found |= {pod_id: _evidence(raw) for pod_id, raw in zip(chunk, hashes, strict=True)}
        return server_ms, found

    async def reset(
        self, scope: Scope, entry: Mapping[str, str], approve: Callable[[ScopeReading, AuditTail], None]
    ) -> int:
        """Move the epoch, delete the record and audit ``entry`` with the new epoch, atomically; the new epoch.

        ``WATCH killed, epoch, audit; MULTI; XADD audit; SET epoch max(epoch + 1, TIME in ms); DEL killed; EXEC``
        (docs/protocol.md §4).

        Args:
            approve: given what was read under the WATCH. What it raises ends the reset.

        Raises:
            BusNotReady: somebody wrote meanwhile, each time. Nothing was done.
        """
        with translated(self.endpoint):
            for _ in range(_RESET_TRIES):
                async with self._client.pipeline(transaction=True) as pipe:
                    await pipe.watch(scope.killed_key, scope.epoch_key, self.fleet.audit_key)
                    reading = await self._read_watched(pipe, scope)
                    approve(reading.scopes[scope], _tail(await pipe.xrevrange(self.fleet.audit_key, count=_TAIL)))
                    epoch = max((reading.scopes[scope].epoch or 0) + 1, reading.server_ms)
                    pipe.multi()
                    told = {**entry, "epoch": str(epoch)}
                    pipe.xadd(self.fleet.audit_key, told, maxlen=AUDIT_LIMIT, approximate=True)
                    pipe.set(scope.epoch_key, epoch)
                    pipe.delete(scope.killed_key)
                    try:
                        await pipe.execute()
                    except wire.WatchError:
                        continue
                    return epoch
        raise BusNotReady(f"{scope} is not reset, for others keep writing meanwhile: look and try again")

    async def _read_watched(self, pipe: Any, scope: Scope) -> Reading:
        answers = [await pipe.time(), await pipe.get(scope.epoch_key), await pipe.exists(scope.killed_key)]
        value = b""
        with suppress(wire.ResponseError):  # A record of another type kills without words.
            value = await pipe.getrange(scope.killed_key, 0, RECORD_LIMIT - 1)
        return reading_of([scope], [*answers, value], self.endpoint)

    async def tidy_roster(self, silent_since_ms: int) -> int:
        """Remove from the roster whoever has been silent since then; how many (docs/protocol.md §1)."""
        with translated(self.endpoint):
            return int(await self._client.zremrangebyscore(self.fleet.roster_key, "-inf", silent_since_ms))

    async def arm(self) -> bool:
        """``SETNX epoch 0``, never more. Whether this call armed the fleet."""
        with translated(self.endpoint):
            return bool(await self._client.setnx(self.fleet.scope.epoch_key, 0))

    async def publish(self, channel: str, fields: Mapping[str, Any]) -> int:
        """Publish a JSON object; how many connections Redis handed it to (no acknowledgement)."""
        with translated(self.endpoint):
            return int(await self._client.publish(channel, json.dumps(dict(fields), ensure_ascii=False)))

    async def audit(self, entry: Mapping[str, str]) -> str:
        """Add an entry to the audit stream; its id."""
        with translated(self.endpoint):
            raw = await self._client.xadd(self.fleet.audit_key, dict(entry), maxlen=AUDIT_LIMIT, approximate=True)
        return str(raw.decode())

    async def audit_tail(self) -> AuditTail:
        """The youngest entries of the audit stream, the newest first."""
        with translated(self.endpoint):
            return _tail(await self._client.xrevrange(self.fleet.audit_key, count=_TAIL))

    async def killed_scopes(self) -> list[Scope]:
        """Every scope of the fleet that has a record, also a group or pod that nobody knows (SCAN)."""
        prefix = self.fleet.scope.killed_key
        with translated(self.endpoint):
            found = {_text(key) async for key in self._client.scan_iter(match=f"{prefix}*", count=1000)}
        scopes = (self.fleet.of_suffix(name.removeprefix(prefix)) for name in sorted(found))
        return [scope for scope in scopes if scope is not None]

    async def fleets(self) -> list[tuple[str, int]]:
        """``(name, pods in the roster)`` of the armed fleets on this Redis, for a person who named the wrong one.

        A fleet whose roster these credentials may not count is listed with 0.
        """
        names: set[str] = set()
        with translated(self.endpoint):
            async for key in self._client.scan_iter(match="skillbus:{*}:epoch", count=1000):
                name = Fleet.of_epoch_key(_text(key))
                if name:
                    names.add(name)
            async with self._client.pipeline(transaction=False) as pipe:
                for name in sorted(names):
                    pipe.zcard(Fleet(name).roster_key)
                counts = await pipe.execute(raise_on_error=False)
        return [
            (name, count if isinstance(count, int) else 0) for name, count in zip(sorted(names), counts, strict=True)
        ]


def _tail(rows: Any) -> AuditTail:
    return [(int(i.split(b"-")[0]), {_text(k): _text(v) for k, v in fields.items()}) for i, fields in rows]


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


def _evidence(raw: Any) -> list[Heartbeat]:
    if isinstance(raw, Exception):
        return []
    parsed = (Heartbeat.parse(value) for value in raw.values())
    return [heartbeat for heartbeat in parsed if heartbeat is not None]

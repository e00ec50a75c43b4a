"""The verbs of the protocol that an operator, a bot or the console needs, on Redis (docs/protocol.md §2, §4).

All on one connection, for WAIT speaks only of what its own connection wrote. Nothing here decides anything: what an
answer means is control's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skillbus.bus.connect import Client, Endpoint, error_of, translated
from skillbus.bus.redis_bus import queue_reads, reading_of
from skillbus.bus.subscription import RedisSubscription
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.orders import KillRecord
from skillbus.core.ports import Reading
from skillbus.core.scope import NAME, Fleet, Scope
from skillbus.errors import SkillbusError

AUDIT_LIMIT = 100_000
"""Entries that an audit stream keeps, about (docs/protocol.md §1)."""

_CHUNK = 500


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
    """One connection to Redis with an operator's credentials."""

    def __init__(self, fleet: Fleet, endpoint: Endpoint) -> None:
        self.fleet = fleet
        self.endpoint = endpoint
        self._client: Client = endpoint.client("skillbus-operator")

    async def __aenter__(self) -> OperatorBus:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def subscribe(self, channels: Sequence[str]) -> RedisSubscription:
        """Listen to ``channels`` on a connection of its own."""
        return await RedisSubscription.open(self.endpoint, channels, "skillbus-operator")

    async def read(self, scopes: Sequence[Scope]) -> Reading:
        """Read the epoch and the record of ``scopes``."""
        with translated(self.endpoint):
            async with self._client.pipeline(transaction=False) as pipe:
                queue_reads(pipe, scopes)
                return reading_of(scopes, await pipe.execute(raise_on_error=False), self.endpoint)

    async def now_ms(self) -> int:
        """The server's clock."""
        with translated(self.endpoint):
            seconds, micros = await self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def order(self, scope: Scope, record: KillRecord, payload: bytes, audit: Mapping[str, str]) -> OrderAnswers:
        """Record, publish, audit, in this order and not in MULTI: a server that refuses one still does the others."""
        with translated(self.endpoint):
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.setnx(scope.killed_key, record.to_bytes())
                pipe.publish(scope.kill_channel, payload)
                pipe.xadd(self.fleet.audit_key, dict(audit), maxlen=AUDIT_LIMIT, approximate=True)
                time, recorded, receivers, audited = await pipe.execute(raise_on_error=False)
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
        """How many replicas hold all that this connection wrote (WAIT). May answer fewer than ``wanted_count``."""
        timeout_ms = max(1, int(min(timeout_s, self.endpoint.timeout_s * 0.8) * 1000))
        with translated(self.endpoint):
            return int(await self._client.wait(wanted_count, timeout_ms))

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
                if isinstance(time, Exception):
                    raise error_of(time, self.endpoint)
            server_ms = time[0] * 1000 + time[1] // 1000
            found |= {pod_id: _evidence(raw) for pod_id, raw in zip(chunk, hashes, strict=True)}
        return server_ms, found

    async def reset(self, scope: Scope) -> tuple[int, bool]:
        """Move the epoch and delete the record, atomically: ``(new epoch, whether there was a record)``.

        ``WATCH killed; MULTI; SET epoch max(epoch + 1, TIME in ms); DEL killed; EXEC`` (docs/protocol.md §4).

        Raises:
            BusNotReady: the record changed meanwhile. Nothing was done.
        """
        with translated(self.endpoint):
            async with self._client.pipeline(transaction=True) as pipe:
                await pipe.watch(scope.killed_key, scope.epoch_key)
                reading = await self._read_watched(pipe, scope)
                epoch = max((reading.scopes[scope].epoch or 0) + 1, reading.server_ms)
                pipe.multi()
                pipe.set(scope.epoch_key, epoch)
                pipe.delete(scope.killed_key)
                _, deleted = await pipe.execute()
        return epoch, bool(deleted)

    async def _read_watched(self, pipe: Any, scope: Scope) -> Reading:
        answers = [await pipe.time(), await pipe.get(scope.epoch_key), await pipe.exists(scope.killed_key), b""]
        return reading_of([scope], answers, self.endpoint)

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

    async def audit_tail(self, count: int = 1000) -> list[tuple[int, dict[str, str]]]:
        """``(server time in ms, entry)`` of the audit stream, the newest first."""
        with translated(self.endpoint):
            rows = await self._client.xrevrange(self.fleet.audit_key, count=count)
        return [(int(i.split(b"-")[0]), {_text(k): _text(v) for k, v in fields.items()}) for i, fields in rows]

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


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


def _evidence(raw: Any) -> list[Heartbeat]:
    if isinstance(raw, Exception):
        return []
    parsed = (Heartbeat.parse(value) for value in raw.values())
    return [heartbeat for heartbeat in parsed if heartbeat is not None]

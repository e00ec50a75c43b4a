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

from skillbus.bus.audit_streams import AUDIT_LIMIT, AuditRow, AuditStreams, rows_since
from skillbus.bus.connect import Client, Endpoint, error_of, translated
from skillbus.bus.evidence import read_evidence, read_roster, scores_of
from skillbus.bus.redis_bus import demand_master, queue_reads, reading_of
from skillbus.bus.subscription import RedisSubscription
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import ScopeReading
from skillbus.core.orders import RECORD_LIMIT, KillRecord
from skillbus.core.ports import Reading
from skillbus.core.scope import NAME, Fleet, Scope
from skillbus.core.skillset import SET_BYTES_LIMIT
from skillbus.errors import BusNotReady, SkillbusError

_RESET_TRIES = 5
"""Times to try a reset anew because the record, the epoch or the audit moved under it."""


@dataclass(frozen=True, slots=True)
class OrderAnswers:
    """What became of each part of a kill, by itself (docs/protocol.md §2). An error is the server's word on that part.

    Attributes:
        server_ms: the server's clock when it took the order; 0: it did not tell.
        recorded: True if our record was written, False if one was there.
        receivers: what PUBLISH printed. Never an acknowledgement: a deaf listener counts in it too.
        read_back: what was read behind all of it, on the same way; None: nothing could be.
        connected: how many replicas there were then; None: it did not tell.
    """

    server_ms: int
    recorded: bool | SkillbusError
    receivers: int | SkillbusError
    audited: str | SkillbusError
    read_back: Reading | None = None
    connected: int | None = None


class OperatorBus:
    """One connection to Redis with an operator's credentials.

    Attributes:
        unanswered: whether an order was sent whose answer never came: it may be stored, or not.
        streams: the audit, to be read.
    """

    def __init__(self, fleet: Fleet, endpoint: Endpoint) -> None:
        self.fleet = fleet
        self.endpoint = endpoint
        self.unanswered = False
        self._client: Client = endpoint.client("skillbus-operator")
        self.streams = AuditStreams(fleet, endpoint, self._client)
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
        return self._reading(scopes, role, answers)

    async def now_ms(self) -> int:
        """The server's clock."""
        with translated(self.endpoint):
            seconds, micros = await self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def order(self, scope: Scope, record: KillRecord, payload: bytes, audit: Mapping[str, str]) -> OrderAnswers:
        """Record, publish, audit, in this order and not in MULTI: a server that refuses one still does the others.

        Behind them it is read what stands, on the same way: a server to which thousands answer takes its time for the
        next question.
        """
        with translated(self.endpoint):
            self._wrote_through = await self._socket()
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.setnx(scope.killed_key, record.to_bytes())
                pipe.publish(scope.kill_channel, payload)
                pipe.xadd(self.streams.own, self.streams.signed(audit), maxlen=AUDIT_LIMIT, approximate=True)
                pipe.execute_command("ROLE")
                queue_reads(pipe, [scope])
                try:
                    time, recorded, receivers, audited, role, *read = await pipe.execute(raise_on_error=False)
                except BaseException:
                    self.unanswered = True
                    raise
        told = await self._audited(audited, audit)
        return OrderAnswers(
            server_ms=_time_ms(time, told),
            recorded=self._or_error(recorded, bool),
            receivers=self._or_error(receivers, int),
            audited=told,
            read_back=self._read_back(scope, role, read),
            connected=_connected(role),
        )

    def _read_back(self, scope: Scope, role: Any, answers: Sequence[Any]) -> Reading | None:
        with suppress(SkillbusError):
            return self._reading([scope], role, answers)
        return None

    def _reading(self, scopes: Sequence[Scope], role: Any, answers: Sequence[Any]) -> Reading:
        demand_master(role, self.endpoint)
        return reading_of(scopes, answers, self.endpoint)

    async def _audited(self, answer: Any, entry: Mapping[str, str]) -> str | SkillbusError:
        """The entry's id. A bot's order that control's stream refused goes into its own. Never raises."""
        try:
            if isinstance(answer, wire.NoPermissionError) and self.streams.turn_to_bot():
                return await self.streams.write(entry)
        except SkillbusError as error:
            return error
        return error_of(answer, self.endpoint) if isinstance(answer, Exception) else _text(answer)

    def _or_error(self, answer: Any, read: Any) -> Any:
        return error_of(answer, self.endpoint) if isinstance(answer, Exception) else read(answer)

    async def connected_replicas(self) -> int:
        """How many replicas are there, whatever they hold (ROLE)."""
        with translated(self.endpoint):
            role = await self._client.execute_command("ROLE")
        demand_master(role, self.endpoint)
        return _connected(role) or 0

    async def replicas(self, wanted_count: int, timeout_s: float) -> int:
        """How many replicas hold the order given before (WAIT). May answer fewer than ``wanted_count``.

        Raises:
            BusNotReady: its connection is gone. On one that wrote nothing, WAIT counts every replica there is.
        """
        with translated(self.endpoint):
            return int(await self._asked_where_written("WAIT", wanted_count, self._patience_ms(timeout_s)))

    async def fsynced(self, wanted_count: int, timeout_s: float) -> tuple[bool | None, int] | None:
        """WAITAOF: whether the order is on the master's disk (None: it keeps no AOF), and on how many replicas' disks.

        None: cannot be asked, for the server knows no WAITAOF (before 7.2) or these credentials may not.

        Raises:
            BusNotReady: its connection is gone.
        """
        for here_count in (1, 0):  # Without an AOF of its own, a master can only be asked for others'.
            words = ("WAITAOF", here_count, wanted_count, self._patience_ms(timeout_s))
            try:
                here, there = await self._asked_where_written(*words)
            except wire.NoPermissionError:
                return None
            except wire.ResponseError as error:
                if "unknown command" in str(error).lower():
                    return None
                if not here_count:
                    raise error_of(error, self.endpoint) from error
                continue
            return (bool(here) if here_count else None), int(there)
        return None

    def _patience_ms(self, timeout_s: float) -> int:
        return max(1, int(min(timeout_s, self.endpoint.timeout_s * 0.8) * 1000))

    async def _asked_where_written(self, *words: str | int) -> Any:
        """The answer of the connection that wrote the order. A refusal by the server is raised as it came."""
        with translated(self.endpoint):
            sockets = [await self._socket()]
            try:
                answer = await self._client.execute_command(*words)
            except wire.ResponseError as error:
                answer = error
            sockets.append(await self._socket())
        if any(one is not self._wrote_through for one in sockets):
            raise BusNotReady("the connection that wrote the order is gone: how many replicas hold it is not known")
        if isinstance(answer, wire.ResponseError):
            raise answer
        return answer

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
        return [name for name in map(_text, await self._roster("ZRANGE", "0", "-1")) if NAME.fullmatch(name)]

    async def roster(self) -> dict[str, int]:
        """The same, and when each has beaten last in ms: a hint, for who may write the roster can write anything."""
        return scores_of(await self._roster("ZRANGE", "0", "-1", "WITHSCORES"))

    async def beaten_since(self, since_ms: int) -> list[str]:
        """Who has beaten since then, as the roster has it."""
        return list(map(_text, await self._roster("ZRANGEBYSCORE", str(since_ms), "+inf")))

    async def _roster(self, verb: str, *words: str) -> list[bytes]:
        with translated(self.endpoint):
            return await read_roster(self._client, (verb, self.fleet.roster_key, *words), self.endpoint)

    async def heartbeats(self, pod_ids: Sequence[str]) -> tuple[int, dict[str, list[Heartbeat]]]:
        """``(server time in ms, evidence by pod id)``. A pod without a hash has an empty list.

        The time is that before the first was read: who beat while the others were read is not taken for silent.
        """
        with translated(self.endpoint):
            return await read_evidence(self._client, self.fleet, pod_ids, self.endpoint)

    async def skill_sets(self, digests: Sequence[str]) -> list[bytes | None]:
        """What each of these digests of sets stands for, as it lies there; None: nothing that could be one.

        Not believed yet (core/skillset.py). At most ``SET_BYTES_LIMIT`` of each is read, and one more, so that what is
        longer cannot be taken for whole; so it is ``GETRANGE``, where ``MGET`` would read whatever somebody put there.
        """
        with translated(self.endpoint):
            async with self._client.pipeline(transaction=False) as pipe:
                for digest in digests:
                    pipe.getrange(self.fleet.skills_key(digest), 0, SET_BYTES_LIMIT)
                answers = await pipe.execute(raise_on_error=False)
        denied = next((answer for answer in answers if isinstance(answer, wire.NoPermissionError)), None)
        if denied is not None:
            raise error_of(denied, self.endpoint)
        return [answer or None if isinstance(answer, bytes) else None for answer in answers]

    async def reset(
        self,
        scope: Scope,
        entry: Mapping[str, str],
        known: Mapping[str, str],
        approve: Callable[[ScopeReading, list[AuditRow]], None],
    ) -> int:
        """Move the epoch, delete the record and audit ``entry`` with the new epoch, atomically; the new epoch.

        ``WATCH killed, epoch, audit…; MULTI; XADD audit; SET epoch max(epoch + 1, TIME in ms); DEL killed; EXEC``
        (docs/protocol.md §4).

        Args:
            known: the last entry of each audit stream that the caller has read.
            approve: given what was read under the WATCH, and what was audited since. What it raises ends the reset.

        Raises:
            BusNotReady: somebody wrote meanwhile, each time. Nothing was done.
        """
        for _ in range(_RESET_TRIES):
            keys = await self.streams.keys()
            with translated(self.endpoint):
                async with self._client.pipeline(transaction=True) as pipe:
                    await pipe.watch(scope.killed_key, scope.epoch_key, self.fleet.audit_key)
                    with suppress(wire.NoPermissionError):  # Then what bots write in this instant is not seen.
                        await pipe.watch(*keys)
                    reading = await self._read_watched(pipe, scope)
                    approve(reading.scopes[scope], [row for key in keys for row in await rows_since(pipe, key, known)])
                    epoch = max((reading.scopes[scope].epoch or 0) + 1, reading.server_ms)
                    pipe.multi()
                    told = self.streams.signed({**entry, "epoch": str(epoch)})
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
        """Remove from the roster whoever has been silent since then and left no hash; how many (docs/protocol.md §1).

        The hash decides, for anybody who may write the roster can give another pod an old score there.
        """
        key = self.fleet.roster_key
        with translated(self.endpoint):
            silent = await self._client.zrangebyscore(key, "-inf", silent_since_ms)
            async with self._client.pipeline(transaction=False) as pipe:
                for pod_id in silent:
                    pipe.exists(self.fleet.pod_key(_text(pod_id)))
                there = await pipe.execute(raise_on_error=False)
            gone = [pod_id for pod_id, found in zip(silent, there, strict=True) if found == 0]
            return int(await self._client.zrem(key, *gone)) if gone else 0

    async def arm(self) -> bool:
        """``SETNX epoch 0``, never more. Whether this call armed the fleet."""
        with translated(self.endpoint):
            return bool(await self._client.setnx(self.fleet.scope.epoch_key, 0))

    async def publish(self, channel: str, fields: Mapping[str, Any]) -> int:
        """Publish a JSON object; how many connections Redis handed it to (no acknowledgement)."""
        with translated(self.endpoint):
            return int(await self._client.publish(channel, json.dumps(dict(fields), ensure_ascii=False)))

    async def drill(self, payload: bytes) -> tuple[int, int, int | None, int | None]:
        """Publish a drill: ``(server time in ms, who it was handed to, who hears drills, who hears the fleet's kill)``.

        Connections, not pods. The last two by PUBSUB NUMSUB; None where these credentials may not ask.
        """
        channels = (self.fleet.drill_channel, self.fleet.scope.kill_channel)
        with translated(self.endpoint):
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.publish(channels[0], payload)
                pipe.execute_command("PUBSUB", "NUMSUB", *channels)
                time, receivers, numsub = await pipe.execute(raise_on_error=False)
        for answer in (time, receivers):
            if isinstance(answer, Exception):
                raise error_of(answer, self.endpoint)
        counts = dict(_pairs(numsub))
        return _time_ms(time, None), int(receivers), counts.get(channels[0]), counts.get(channels[1])

    async def audit(self, entry: Mapping[str, str]) -> str:
        """Add an entry to the audit, with where it comes from; its id. A bot writes a stream of its own."""
        return await self.streams.write(entry)

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


def _connected(role: Any) -> int | None:
    """Replicas of the server that answered so to ROLE; None: it did not."""
    return len(role[2]) if isinstance(role, list | tuple) and len(role) > 2 and isinstance(role[2], list) else None


def _time_ms(time: Any, audited: object) -> int:
    """The server's clock in ms: as it told it, or as it stamped the entry; 0: neither."""
    if not isinstance(time, Exception):
        return int(time[0]) * 1000 + int(time[1]) // 1000
    return int(audited.partition("-")[0]) if isinstance(audited, str) else 0


def _pairs(numsub: Any) -> list[tuple[str, int]]:
    """PUBSUB NUMSUB's answer, flat as the server gives it or in pairs as the client does; none if it was an error."""
    if not isinstance(numsub, list):
        return []
    flat = [word for one in numsub for word in (one if isinstance(one, list | tuple) else (one,))]
    return [(_text(name), int(count)) for name, count in zip(flat[::2], flat[1::2], strict=False)]


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)

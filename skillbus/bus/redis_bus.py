"""The verbs of the protocol that a pod needs, on Redis (docs/protocol.md §1-§4); an operator's: operator_bus.py.

A read is epochs first, then records, in one round trip. ``EXISTS`` decides, for it is blind to the key's type;
``GETRANGE`` only fetches words to show, 1 KiB at most. Nothing here decides what a reading means: core/latch.py does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from redis import exceptions as wire

from skillbus.bus.connect import Client, Endpoint, error_of, translated
from skillbus.bus.sentinel import server_of
from skillbus.bus.subscription import RedisSubscription
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import ScopeReading, superseded
from skillbus.core.orders import RECORD_LIMIT, KillRecord
from skillbus.core.ports import Reading, Write, WriteAnswer
from skillbus.core.scope import Fleet, Scope, ScopeKind
from skillbus.core.text import harmless
from skillbus.errors import BusDenied, BusNotReady

HASH_TTL_S = 60
"""Seconds a pod's hash outlives its last beat (docs/protocol.md §1)."""

LASTING_TTL_S = 7 * 86400
"""The same for a hash in which somebody could not vouch for the end of its work: as long as the roster remembers."""


class RedisBus:
    """A pod's two connections to Redis: one that listens, one that asks."""

    def __init__(self, fleet: Fleet, endpoint: Endpoint, name: str) -> None:
        self._fleet = fleet
        self._endpoint = endpoint
        self._name = name
        self._client = endpoint.client(name)

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str] = ()) -> RedisSubscription:
        """Open a subscriber connection and ask for ``channels`` and ``patterns``."""
        return await RedisSubscription.open(self._endpoint, channels, self._name, patterns)

    async def read(self, scopes: Sequence[Scope]) -> Reading:
        """Ask whether this is a master and who we are there, then read every scope afresh; one round trip."""
        with translated(self._endpoint):
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.execute_command("ROLE")
                pipe.execute_command("ACL", "WHOAMI")
                queue_reads(pipe, scopes)
                role, user, *answers = await pipe.execute(raise_on_error=False)
        async with self._resolving_anew():
            demand_master(role, self._endpoint)
            return replace(reading_of(scopes, answers, self._endpoint), user=_user(user))

    async def beat(
        self,
        scopes: Sequence[Scope],
        pod_id: str,
        heartbeat: Heartbeat,
        echo: bytes,
        *,
        hint: bool,
        lasting: bool = False,
    ) -> Reading:
        """Read every scope and leave evidence, in one round trip. A server that spoils writes alone is read."""
        key = self._fleet.pod_key(pod_id)
        with translated(self._endpoint):
            async with self._client.pipeline(transaction=False) as pipe:
                queue_reads(pipe, scopes)
                reads_count = len(pipe)
                pipe.zadd(self._fleet.roster_key, {pod_id: heartbeat.beat_at_ms})
                pipe.hset(key, heartbeat.incarnation, heartbeat.to_bytes().decode())
                pipe.expire(key, LASTING_TTL_S if lasting else HASH_TTL_S)
                pipe.hlen(key)
                if echo:
                    pipe.publish(self._fleet.echo_channel(pod_id), echo)
                if hint:
                    pipe.publish(self._fleet.events_channel, pod_id)
                answers = await pipe.execute(raise_on_error=False)
        reading = reading_of(scopes, answers[:reads_count], self._endpoint)
        written = answers[reads_count:]
        count = written[3] if isinstance(written[3], int) else 0
        async with self._resolving_anew():
            refusal = _spoiled(written, self._endpoint)
        return replace(reading, refusal=refusal, incarnations_count=count, server=server_of(self._client))

    async def tell_skills(self, digest: str, value: bytes) -> None:
        """``EXISTS``, then ``SETNX``: equal digests are equal values, so the first writer has written for all.

        A set may weigh some hundred KB, and a fleet has the same at the same time: so most pods send a question.
        """
        key = self._fleet.skills_key(digest)
        with translated(self._endpoint):
            with suppress(wire.NoPermissionError):  # rules of before the question: the write is what they must allow
                if await self._client.exists(key):
                    return
            await self._client.setnx(key, value)

    @asynccontextmanager
    async def _resolving_anew(self) -> AsyncIterator[None]:
        """A server that is no master any more keeps its name only until that leads elsewhere: connect anew."""
        try:
            yield
        except BusNotReady:
            await self._client.connection_pool.disconnect()
            raise

    async def forget(self, pod_id: str, incarnations: Sequence[str]) -> None:
        """Remove the evidence of incarnations of this pod that have certainly ended."""
        with translated(self._endpoint):
            await self._client.hdel(self._fleet.pod_key(pod_id), *incarnations)

    async def incarnations(self, pod_id: str) -> dict[str, bytes]:
        """What this pod's hash holds, by incarnation."""
        with translated(self._endpoint):
            raw = await self._client.hgetall(self._fleet.pod_key(pod_id))
        return {field.decode("utf-8", "replace"): value for field, value in raw.items()}

    async def write_record(self, scope: Scope, record: KillRecord, latch_epoch: int | None) -> WriteAnswer:
        """Write ``record`` under the epoch rule. Most pods find one there, and are done after one round trip."""
        with translated(self._endpoint):
            return await write_record(self._client, scope, record, latch_epoch, self._endpoint)

    async def close(self) -> None:
        """Drop the connection. Never raises."""
        with suppress(Exception):
            await self._client.aclose()


def _user(answer: Any) -> str:
    """The name in an answer to ACL WHOAMI; empty if it was refused (old rules, or a server before 6)."""
    return harmless(answer.decode("utf-8", "replace"), 80) if isinstance(answer, bytes) else ""


def queue_reads(pipe: Any, scopes: Sequence[Scope]) -> None:
    """Queue the reading of ``scopes``: the time, all epochs, and then all records."""
    pipe.time()
    for scope in scopes:
        pipe.get(scope.epoch_key)
    for scope in scopes:
        pipe.exists(scope.killed_key)
        pipe.getrange(scope.killed_key, 0, RECORD_LIMIT - 1)


def reading_of(scopes: Sequence[Scope], answers: Sequence[Any], endpoint: Endpoint) -> Reading:
    """The reading in the answers to ``queue_reads``."""
    time, epochs, records = answers[0], answers[1 : 1 + len(scopes)], answers[1 + len(scopes) :]
    if isinstance(time, Exception):
        raise error_of(time, endpoint)
    found = {}
    armed = False
    for index, scope in enumerate(scopes):
        epoch = _epoch(scope, epochs[index], endpoint)
        found[scope] = ScopeReading(epoch, _record(records[2 * index], records[2 * index + 1], endpoint))
        armed = armed or (scope.kind is ScopeKind.FLEET and epoch is not None)
    return Reading(found, server_ms=time[0] * 1000 + time[1] // 1000, armed=armed)


def _epoch(scope: Scope, answer: Any, endpoint: Endpoint) -> int | None:
    if isinstance(answer, wire.ResponseError) and not isinstance(answer, wire.NoPermissionError):
        raise BusNotReady(f"the epoch of {scope} cannot be read ({answer}): an admin must look at {scope.epoch_key}")
    if isinstance(answer, Exception):
        raise error_of(answer, endpoint)
    try:
        return None if answer is None else int(answer)
    except ValueError:
        raise BusNotReady(f"the epoch of {scope} is no number: an admin must look at {scope.epoch_key}") from None


def _record(exists: Any, value: Any, endpoint: Endpoint) -> bytes | None:
    if isinstance(exists, Exception):
        raise error_of(exists, endpoint)
    if not exists:
        return None
    return value if isinstance(value, bytes) else b""


def demand_master(role: Any, endpoint: Endpoint) -> None:
    """Refuse what says by ROLE that it is no master: what it holds may be old."""
    if isinstance(role, Exception):
        raise error_of(role, endpoint)
    name = role[0] if isinstance(role, list | tuple) and role else role
    if name not in (b"master", "master"):
        raise BusNotReady(f"{endpoint.shown} is no master (it says {name!r}): give the URL of the master")


def _spoiled(answers: Sequence[Any], endpoint: Endpoint) -> str:
    """The server's words if it would not take the writes. A demoted or forbidding server is no good read at all."""
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    for error in errors:
        if isinstance(error, wire.ReadOnlyError):
            raise BusNotReady(f"{endpoint.shown} is read-only: no master, or one that was demoted") from error
        if isinstance(error, wire.NoPermissionError):
            raise BusDenied(f"{endpoint.shown} refuses a pod's own writes: {error}: check its ACL") from error
    return str(errors[0]).splitlines()[0][:200] if errors else ""


async def write_record(
    client: Client, scope: Scope, record: KillRecord, latch_epoch: int | None, endpoint: Endpoint
) -> WriteAnswer:
    """One attempt to write a record: ``WATCH epoch; GET epoch, EXISTS killed; MULTI; SETNX killed; EXEC``.

    For pods and keepers, first write and each retry. A newer epoch than the latch's ends it (docs/protocol.md §4).
    """
    async with client.pipeline(transaction=False) as pipe:
        queue_reads(pipe, [scope])
        stored = reading_of([scope], await pipe.execute(raise_on_error=False), endpoint).scopes[scope]
    if stored.record is not None:
        return WriteAnswer(Write.ADOPTED, stored.epoch or 0, KillRecord.parse(stored.record))
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(scope.epoch_key)
        epoch = _epoch(scope, await pipe.get(scope.epoch_key), endpoint) or 0
        if superseded(latch_epoch, epoch):
            return WriteAnswer(Write.SUPERSEDED, epoch, record)
        pipe.multi()
        pipe.setnx(scope.killed_key, record.to_bytes())
        pipe.getrange(scope.killed_key, 0, RECORD_LIMIT - 1)
        try:
            written, value = await pipe.execute(raise_on_error=False)
        except (wire.ReadOnlyError, wire.NoPermissionError):
            raise
        except (wire.ResponseError, wire.WatchError) as error:
            # The epoch was read after the order was heard: it is good even though the write was refused.
            return WriteAnswer(Write.REFUSED, epoch, record, str(error).splitlines()[0][:200])
    if isinstance(written, Exception):
        return WriteAnswer(Write.REFUSED, epoch, record, str(written)[:200])
    if written:
        return WriteAnswer(Write.WRITTEN, epoch, record)
    return WriteAnswer(Write.ADOPTED, epoch, KillRecord.parse(value if isinstance(value, bytes) else b""))

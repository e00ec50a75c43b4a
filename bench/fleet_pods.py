"""A process full of simulated pods, or of bare subscribers. Lines on stdin drive it, JSON lines on stdout tell of it.

A simulated pod is leaner than a real one, for 4,500 must fit on two cores beside their Redis. But from its first beat
on, what Redis sees of it is byte for byte what it sees of a real one, instants and ids aside: two connections, and the
same commands in the same order. Names, the reads of a heartbeat, orders, records and evidence are made by skillbus' own
code; only the wire and the tasks of a pod (pod/, redis-py) are replaced by callbacks.

    pods     whole pods, idle, that stop when they are told to
    watch    the listening connection of a pod alone
    bare     redis-py asyncio subscribers, as bench/bare.py, that note the message
    raw      subscribers on bare sockets, the least that Python can do

``renew``: every pod begins a new life. ``pause``, ``go``: heartbeats. The end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
import uuid
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from bench.fleet_wire import Script, Wire, packed
from skillbus import __version__
from skillbus.bus.redis_bus import HASH_TTL_S, queue_reads
from skillbus.clock import boottime_s
from skillbus.core.heartbeat import CauseLine, Heartbeat, PassLine
from skillbus.core.latch import CauseKind, State
from skillbus.core.orders import KillOrder, KillRecord
from skillbus.core.scope import Fleet, Scope
from skillbus.core.text import harmless

_order_of = lru_cache(KillOrder.parse)
_record_of = lru_cache(KillRecord.parse)
FLEET = Fleet("bench")
HEARTBEAT_S = 2.0
LEASE_S = 6.0
_CONNECTING = 200
"""Connections opened at the same time: fewer than a listening socket queues."""


def raise_descriptors() -> None:
    """As many descriptors as the machine lets one process have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def say(**fields: Any) -> None:
    """One line on stdout."""
    print(json.dumps(fields), flush=True)


# -- a pod ------------------------------------------------------------------------------------------------------------


class SimulatedPod:
    """One pod: watch, confirm, read, beat; trip, leave evidence, find the record, leave evidence."""

    def __init__(self, number: int, phase: float, on_stopped: Callable[[], None]) -> None:
        self.pod_id = f"pod-{number:05d}"
        self._phase = phase
        self._on_stopped = on_stopped
        self._scopes = FLEET.scopes_of(self.pod_id, ())
        self._by_channel: dict[bytes, Scope] = {scope.kill_channel.encode(): scope for scope in self._scopes}
        own = FLEET.echo_channel(self.pod_id)
        self.channels = [scope.kill_channel for scope in self._scopes]
        self.channels += [own, FLEET.drill_channel, FLEET.sync_channel]
        self._echo = own.encode()
        self._reads = Script()
        queue_reads(self._reads, self._scopes)
        self._confirmed: set[bytes] = set()
        self._heard_all = asyncio.Event()
        self._due: asyncio.TimerHandle | None = None
        self._asked: deque[tuple[int, Callable[[list[Any]], None]]] = deque()
        self._queue: deque[tuple[bytes, int, Callable[[list[Any]], None]]] = deque()
        self._got: list[Any] = []
        self._server_ms = self._server_at_s = 0.0
        self._born()

    def _born(self) -> None:
        self._beats_count = 0
        self._heard_at_s: float | None = None
        self._latched: KillRecord | None = None
        last = PassLine(id=uuid.uuid4().hex[:12], outcome="ok", began_at_ms=self._now_ms(), took_s=0.0)
        self._evidence = Heartbeat(
            incarnation=uuid.uuid4().hex,
            state=State.RUNNING,
            beat_at_ms=0,
            started_at_ms=self._now_ms(),
            lease_s=LEASE_S,
            armed=True,
            hears_since_ms=self._now_ms(),
            hears=tuple(sorted(self.channels)),
            quiet=True,
            passes_count=1,
            last_pass=last,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
        )

    def _now_ms(self, at_s: float | None = None) -> int:
        return round(self._server_ms + ((boottime_s() if at_s is None else at_s) - self._server_at_s) * 1000)

    async def open(self, url: str) -> None:
        """Both connections; beats begin at this pod's own phase."""
        name = f"skillbus-pod-{self.pod_id}"
        self._watch = await Wire.open(url, self._message, name)
        self._watch.send(packed("SUBSCRIBE", *self.channels))
        await self._heard_all.wait()
        self._ask_wire = await Wire.open(url, self._answered, name)
        self._asked.append((1, lambda answers: None))
        read = Script()
        read.add("ROLE")
        read.raw, read.count = read.raw + self._reads.raw, read.count + self._reads.count
        self._ask(read.raw, read.count, self._welcomed)

    def _welcomed(self, answers: list[Any]) -> None:
        self._told(answers[1])
        self.renew()

    def renew(self) -> None:
        """A new life on the connections of the old one."""
        self._born()
        self._later(self._phase * HEARTBEAT_S, hint=True)

    def pause(self) -> None:
        """No more beats."""
        if self._due is not None:
            self._due.cancel()

    def go(self) -> None:
        """Beats again."""
        self._later(self._phase * HEARTBEAT_S)

    def _later(self, seconds: float, *, hint: bool = False) -> None:
        self.pause()
        self._due = asyncio.get_running_loop().call_later(max(0.0, seconds), self._turn, hint)

    def _turn(self, hint: bool) -> None:
        began_s = boottime_s()
        self._beat(hint=hint)
        self._later(began_s + HEARTBEAT_S - boottime_s())

    # -- asking -------------------------------------------------------------------------------------------------------

    def _ask(self, raw: bytes, count: int, then: Callable[[list[Any]], None]) -> None:
        """One question at a time, as a pool of one connection has it."""
        self._queue.append((raw, count, then))
        if not self._asked:
            self._next()

    def _next(self) -> None:
        raw, count, then = self._queue.popleft()
        self._asked.append((count, then))
        self._ask_wire.send(raw)

    def _answered(self, answer: Any) -> None:
        self._got.append(answer)
        count, then = self._asked[0]
        if len(self._got) == count:
            got, self._got = self._got, []
            self._asked.popleft()
            if self._queue:
                self._next()
            then(got)

    def _told(self, time: Any) -> None:
        self._server_ms, self._server_at_s = int(time[0]) * 1000 + int(time[1]) / 1000, boottime_s()

    def _beat(self, *, hint: bool) -> None:
        self._beats_count += 1
        heard_ms = self._now_ms(self._heard_at_s) if self._heard_at_s is not None else 0
        beat = self._evidence.model_copy(update={"beat_at_ms": self._now_ms(), "heard_at_ms": heard_ms})
        key = FLEET.pod_key(self.pod_id)
        commands = [
            packed("ZADD", FLEET.roster_key, beat.beat_at_ms, self.pod_id),
            packed("HSET", key, beat.incarnation, beat.to_bytes()),
            packed("EXPIRE", key, HASH_TTL_S),
            packed("HLEN", key),
            packed("PUBLISH", self._echo, f"{beat.incarnation}:{self._beats_count}"),
        ]
        if hint:
            commands.append(packed("PUBLISH", FLEET.events_channel, self.pod_id))
        self._ask(self._reads.raw + b"".join(commands), self._reads.count + len(commands), self._read)

    def _read(self, answers: list[Any]) -> None:
        self._told(answers[0])
        records = answers[1 + len(self._scopes) : self._reads.count]
        for scope, exists, value in zip(self._scopes, records[::2], records[1::2], strict=True):
            if exists and self._latched is None:
                self._trip(scope, _record_of(value), recorded=True)

    # -- hearing ------------------------------------------------------------------------------------------------------

    def _message(self, message: Any) -> None:
        if not isinstance(message, list):
            return
        kind, channel, payload = message
        if kind == b"subscribe":
            self._confirmed.add(channel)
            if len(self._confirmed) == len(self.channels):
                self._heard_all.set()
        elif channel == self._echo:
            self._heard_at_s = boottime_s()
        elif channel in self._by_channel and self._latched is None:
            order = _order_of(payload)
            now_ms = self._now_ms()
            record = order.record(fallback_id=uuid.uuid4().hex, now_ms=now_ms, heard_by=self.pod_id)
            self._trip(self._by_channel[channel], record, recorded=False)

    def _trip(self, scope: Scope, record: KillRecord, *, recorded: bool) -> None:
        self._latched = record
        at_ms = self._now_ms()
        instants = {"state": State.STOPPED, "quiet_at_ms": at_ms, "tripped_at_ms": at_ms}
        self._evidence = self._evidence.model_copy(update=instants)
        self._confess(scope, record, recorded=recorded)
        if recorded:
            self._on_stopped()
            return
        read = Script()
        queue_reads(read, [scope])
        self._ask(read.raw, read.count, lambda answers: self._found(scope, answers))

    def _found(self, scope: Scope, answers: list[Any]) -> None:
        self._told(answers[0])
        if not answers[2]:
            raise RuntimeError("a simulated pod writes no records: order with SETNX first, as skillbus kill does")
        self._confess(scope, _record_of(answers[3]), recorded=True)
        self._on_stopped()

    def _confess(self, scope: Scope, record: KillRecord, *, recorded: bool) -> None:
        cause = CauseLine(
            kind=CauseKind.RECORD if recorded else CauseKind.ORDER,
            scope=scope.label,
            record_id=record.id,
            reason=harmless(record.reason),
            by=harmless(record.by, 80),
            at=harmless(record.at, 40),
            recorded=recorded,
        )
        why = f"{scope} killed: {record.sentence()}" + ("" if recorded else " (not recorded yet)")
        self._evidence = self._evidence.model_copy(update={"why": why, "causes": (cause,)})
        self._beat(hint=True)
        self._later(HEARTBEAT_S)


# -- a process of them ------------------------------------------------------------------------------------------------


class Count:
    """Tells when all have done it, and at which instant (boot-time clock) the last had."""

    def __init__(self, event: str, wanted_count: int) -> None:
        self._event, self._wanted_count, self._count = event, wanted_count, 0

    def one(self) -> None:
        """One more has."""
        self._count += 1
        if self._count == self._wanted_count:
            say(event=self._event, at_s=boottime_s())
            self._count = 0


class Listening:
    """A subscriber on a bare socket. ``parses``: it reads the order, as a pod does."""

    def __init__(self, channels: list[str], heard: Count, *, parses: bool) -> None:
        self._channels, self._heard, self._parses = channels, heard, parses
        self._confirmed_count = 0
        self.ready = asyncio.Event()

    async def open(self, url: str) -> None:
        """Subscribe, and wait for the confirmations."""
        self._wire = await Wire.open(url, self._message, "bench")
        self._wire.send(packed("SUBSCRIBE", *self._channels))
        await self.ready.wait()

    def _message(self, message: Any) -> None:
        if isinstance(message, list) and message[0] == b"message":
            if self._parses:
                KillOrder.parse(message[2]).record(fallback_id="", now_ms=0)
            self._heard.one()
        elif isinstance(message, list):
            self._confirmed_count += 1
            if self._confirmed_count == len(self._channels):
                self.ready.set()


class Bare:
    """A redis-py asyncio subscriber, as bench/bare.py is one."""

    def __init__(self, channel: str, heard: Count) -> None:
        self._channel, self._heard = channel, heard
        self._ready = asyncio.Event()

    async def open(self, url: str) -> None:
        """Subscribe, and wait for the confirmation."""
        self._task = asyncio.create_task(self._listen(url))
        await self._ready.wait()

    async def _listen(self, url: str) -> None:
        from redis.asyncio import Redis

        pubsub = Redis.from_url(url).pubsub()
        await pubsub.subscribe(self._channel)
        async for message in pubsub.listen():
            if message["type"] == "subscribe":
                self._ready.set()
            else:
                self._heard.one()


def _crowd(kind: str, first: int, count: int) -> list[Any]:
    channel = FLEET.scope.kill_channel
    if kind == "pods":
        stopped = Count("stopped", count)
        return [SimulatedPod(first + n, n / count, stopped.one) for n in range(count)]
    heard = Count("heard", count)
    if kind == "bare":
        return [Bare("bench:bare", heard) for _ in range(count)]
    if kind == "watch":
        pods = (SimulatedPod(first + n, 0.0, heard.one) for n in range(count))
        return [Listening(pod.channels, heard, parses=True) for pod in pods]
    return [Listening(["bench:raw" if kind == "raw" else channel], heard, parses=False) for _ in range(count)]


async def main(kind: str, url: str, first: int, count: int) -> None:
    raise_descriptors()
    crowd = _crowd(kind, first, count)
    for start in range(0, count, _CONNECTING):
        await asyncio.gather(*(one.open(url) for one in crowd[start : start + _CONNECTING]))
    say(event="ready")
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).strip().decode():
        for one in crowd:
            if line == "pause":
                one.pause()
            elif line == "renew":
                one.renew()
            else:
                one.go()
        say(event=line)
    os._exit(0)  # thousands of connections need not be closed one by one


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))

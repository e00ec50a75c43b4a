"""A process full of simulated pods. Lines on stdin drive it, JSON lines on stdout tell of it.

A simulated pod is leaner than a real one, for 4,500 must fit on two cores beside their Redis. But from its first beat
on, what Redis sees of it is what it sees of a real one, command for command, instants and ids aside: two connections,
and the same commands in the same order (tests/integration/test_simulated_pods.py holds it against one). Names, the
reads of a heartbeat, orders, records and evidence are made by skillbus' own code, and kept as bytes into which instants
are put; only the wire and the tasks of a pod (pod/, redis-py) are replaced by callbacks on one loop.

``renew``: every pod begins a new life. ``pause``, ``go``: heartbeats. The end of stdin ends it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
import sys
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from bench.fleet_wire import Lines, Loop, Script, Wire, bulk, packed
from skillbus import __version__
from skillbus.bus.redis_bus import HASH_TTL_S, queue_reads
from skillbus.clock import boottime_s
from skillbus.core.heartbeat import CauseLine, Heartbeat, PassLine
from skillbus.core.latch import CauseKind, State
from skillbus.core.orders import KillOrder, KillRecord
from skillbus.core.scope import Fleet, Scope
from skillbus.core.text import harmless

FLEET = Fleet("bench")
HEARTBEAT_S = 2.0
LEASE_S = 6.0
_CONNECTING = 50
_RECORDER_S = 0.05
"""A pod whose heartbeat is on its way for so long when it hears an order asks for the record first (recorder.py)."""

_BEAT_AT_MS = 111_111_111_111_1
_HEARD_AT_MS = 222_222_222_222_2
_QUIET_AT_MS = 333_333_333_333_3
"""Where instants go: as long as today's, and never one."""


def raise_descriptors() -> None:
    """As many descriptors as the machine lets one process have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def say(**fields: Any) -> None:
    """One line on stdout."""
    print(json.dumps(fields), flush=True)


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


_LATCHED: dict[tuple[str, str, bool], bytes] = {}


def _latched(scope: Scope, record: KillRecord, recorded: bool) -> bytes:
    """The part of a stopped pod's evidence that all pods of a kill have in common."""
    key = (scope.label, record.id, recorded)
    if key not in _LATCHED:
        _LATCHED[key] = _made(scope, record, recorded)
    return _LATCHED[key]


def _made(scope: Scope, record: KillRecord, recorded: bool) -> bytes:
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
    beat = Heartbeat(incarnation="", state=State.STOPPED, why=why, causes=(cause,), beat_at_ms=0)
    return _standing(beat.to_bytes())


def _standing(raw: bytes) -> bytes:
    """State, why and causes in a heartbeat."""
    return raw[raw.index(b'"state":') : raw.index(b',"beat_at_ms":')]


@lru_cache
def _heard(payload: bytes, now_ms: int) -> KillRecord:
    order = KillOrder.parse(payload)
    if not order.id or not order.at:
        raise RuntimeError("a simulated pod makes up no record: order as skillbus kill does")
    return order.record(fallback_id="", now_ms=now_ms)


_found = lru_cache(KillRecord.parse)


def channels_of(pod_id: str) -> list[str]:
    """What a pod listens to."""
    kills = [scope.kill_channel for scope in FLEET.scopes_of(pod_id, ())]
    return [*kills, FLEET.echo_channel(pod_id), FLEET.drill_channel, FLEET.sync_channel]


class SimulatedPod:
    """One pod: watch, confirm, read, beat; trip, and say so in a heartbeat that reads the record too."""

    def __init__(self, loop: Loop, number: int, phase: float, on_stopped: Callable[[], None]) -> None:
        self.pod_id = f"pod-{number:05d}"
        self.ready = False
        self._loop, self._number, self._phase, self._on_stopped = loop, number, phase, on_stopped
        self._scopes = FLEET.scopes_of(self.pod_id, ())
        self._by_channel: dict[bytes, Scope] = {scope.kill_channel.encode(): scope for scope in self._scopes}
        self.channels = channels_of(self.pod_id)
        self._echo = FLEET.echo_channel(self.pod_id).encode()
        self._reads = Script()
        queue_reads(self._reads, self._scopes)
        self._confirmed: set[bytes] = set()
        self._then: Callable[[list[Any]], None] | None = None
        self._wanted_count = 0
        self._got: list[Any] = []
        self._server_ms = self._server_at_s = 0.0

    # -- a life ---------------------------------------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Both connections. ``ready`` once it has read."""
        self._url = url
        self._watch = Wire(self._loop, url, self._message, f"skillbus-pod-{self.pod_id}")
        self._watch.send(packed("SUBSCRIBE", *self.channels))

    def _hears_all(self) -> None:
        self._ask_wire = Wire(self._loop, self._url, self._answered, f"skillbus-pod-{self.pod_id}")
        self._ask(packed("ROLE") + self._reads.raw, self._reads.count + 1, self._welcomed)

    def _welcomed(self, answers: list[Any]) -> None:
        self._told(answers[1])
        self.ready = True
        self.renew()

    def renew(self) -> None:
        """A new life on the connections of the old one; beats begin at this pod's own phase."""
        self._beats_count = 0
        self._heard_at_s: float | None = None
        self._tripped_at_s = 0.0
        self._record: KillRecord | None = None
        self._settled = self._spoke = self._late = False
        self._untold = True
        self._incarnation = uuid.uuid4().hex
        now_ms = self._now_ms()
        last = PassLine(id=uuid.uuid4().hex[:12], outcome="ok", began_at_ms=now_ms, took_s=0.0)
        evidence = Heartbeat(
            incarnation=self._incarnation,
            state=State.RUNNING,
            beat_at_ms=_BEAT_AT_MS,
            started_at_ms=now_ms,
            lease_s=LEASE_S,
            armed=True,
            heard_at_ms=_HEARD_AT_MS,
            hears_since_ms=now_ms,
            hears=tuple(sorted(self.channels)),
            quiet=True,
            quiet_at_ms=_QUIET_AT_MS,
            tripped_at_ms=_QUIET_AT_MS,
            passes_count=1,
            last_pass=last,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            user="default",  # what the bench's server answers to ACL WHOAMI
        )
        raw = evidence.to_bytes().replace(b"%", b"%%")
        for instant in (_BEAT_AT_MS, _HEARD_AT_MS, _QUIET_AT_MS):
            raw = raw.replace(b"%d" % instant, b"%d")
        self._running = _standing(raw)
        self._evidence = raw
        key = FLEET.pod_key(self.pod_id)
        self._head = self._reads.raw + b"*4\r\n" + bulk("ZADD") + bulk(FLEET.roster_key) + b"$13\r\n%d\r\n"
        self._head += bulk(self.pod_id) + b"*4\r\n" + bulk("HSET") + bulk(key) + bulk(self._incarnation)
        self._tail = b"\r\n" + packed("EXPIRE", key, HASH_TTL_S) + packed("HLEN", key)
        self._hint = packed("PUBLISH", FLEET.events_channel, self.pod_id)
        self._later(boottime_s() + self._phase * HEARTBEAT_S)

    def pause(self) -> None:
        """No more beats."""
        self._later(None)

    def go(self) -> None:
        """Beats again."""
        self._later(boottime_s() + self._phase * HEARTBEAT_S)

    def _later(self, at_s: float | None) -> None:
        self._loop.at(self._number, at_s, self._turn)

    def _turn(self) -> None:
        if self._then is None:
            self._beat(urgent=False)
        else:
            self._later(boottime_s() + 0.01)

    def _now_ms(self, at_s: float | None = None) -> int:
        return round(self._server_ms + ((boottime_s() if at_s is None else at_s) - self._server_at_s) * 1000)

    # -- asking -------------------------------------------------------------------------------------------------------

    def _ask(self, raw: bytes, count: int, then: Callable[[list[Any]], None]) -> None:
        """One question at a time, as a pool of one connection has it."""
        self._then, self._wanted_count, self._sent_at_s = then, count, boottime_s()
        self._ask_wire.send(raw)

    def _answered(self, answer: Any) -> None:
        self._got.append(answer)
        if len(self._got) == self._wanted_count and self._then is not None:
            then, got = self._then, self._got
            self._then, self._got = None, []
            then(got)

    def _told(self, time: Any) -> None:
        self._server_ms, self._server_at_s = int(time[0]) * 1000 + int(time[1]) / 1000, self._sent_at_s

    def _beat(self, *, urgent: bool) -> None:
        began_s = boottime_s()
        self._beats_count += 1
        beat_ms = self._now_ms(began_s)
        json_bytes = self._composed(beat_ms)
        raw = self._head % beat_ms + b"$%d\r\n" % len(json_bytes) + json_bytes + self._tail
        count = self._reads.count + 4
        self._spoke = not (urgent and self._spoke)
        if self._spoke:
            raw += packed("PUBLISH", self._echo, f"{self._incarnation}:{self._beats_count}")
            count += 1
        if self._untold:
            self._untold = False
            raw += self._hint
            count += 1
        self._asked_when_latched = self._record is not None
        self._ask(raw, count, self._read)
        self._later(began_s + HEARTBEAT_S)

    def _composed(self, beat_ms: int) -> bytes:
        heard_ms = 0 if self._heard_at_s is None else self._now_ms(self._heard_at_s)
        if self._record is None:
            return self._evidence % (beat_ms, heard_ms, 0, 0)
        quiet_ms = self._now_ms(self._tripped_at_s)
        raw = self._evidence % (beat_ms, heard_ms, quiet_ms, quiet_ms)
        return raw.replace(self._running, _latched(self._scope, self._record, self._settled), 1)

    def _read(self, answers: list[Any]) -> None:
        self._told(answers[0])
        at = 1 + len(self._scopes)
        for index, scope in enumerate(self._scopes):
            exists, value = answers[at + 2 * index], answers[at + 2 * index + 1]
            if exists and self._record is None:
                self._trip(scope, _found(value), settled=True)
            elif exists and self._asked_when_latched and not self._settled:
                self._settle(_found(value))
        if self._asked_when_latched and not self._settled:
            raise RuntimeError("a simulated pod writes no records: order with SETNX first, as skillbus kill does")
        if self._untold and self._record is not None:
            self._speak_up()

    def _settle(self, record: KillRecord) -> None:
        if self._record is None or record.id != self._record.id:
            raise RuntimeError("a simulated pod knows one kill at a time")
        self._record, self._settled = record, True
        self._on_stopped()

    # -- hearing ------------------------------------------------------------------------------------------------------

    def _message(self, message: Any) -> None:
        kind, channel, payload = message
        if kind == b"subscribe":
            self._confirmed.add(channel)
            if len(self._confirmed) == len(self.channels):
                self._hears_all()
        elif channel == self._echo:
            self._heard_at_s = boottime_s()
        elif channel in self._by_channel and self._record is None:
            self._trip(self._by_channel[channel], _heard(payload, 0), settled=False)

    def _trip(self, scope: Scope, record: KillRecord, *, settled: bool) -> None:
        self._scope, self._record, self._settled = scope, record, settled
        self._tripped_at_s = boottime_s()
        self._untold = True
        if settled:
            self._on_stopped()
        if self._then is None:
            self._speak_up()

    def _speak_up(self) -> None:
        """An urgent heartbeat, which reads the record too. Behind a slow one the recorder has asked for it before."""
        if self._settled or boottime_s() - self._tripped_at_s < _RECORDER_S:
            self._beat(urgent=True)
            return
        read = Script()
        queue_reads(read, [self._scope])
        self._ask(read.raw, read.count, self._recorded)

    def _recorded(self, answers: list[Any]) -> None:
        self._told(answers[0])
        if not answers[2]:
            raise RuntimeError("a simulated pod writes no records: order with SETNX first, as skillbus kill does")
        self._settle(_found(answers[3]))
        self._beat(urgent=True)


def main(url: str, first: int, count: int) -> None:
    raise_descriptors()
    loop = Loop()
    stopped = Count("stopped", count)
    pods = [SimulatedPod(loop, first + n, n / count, stopped.one) for n in range(count)]

    def hear(line: str) -> None:
        for pod in pods:
            getattr(pod, line)()
        say(event=line)

    for start in range(0, count, _CONNECTING):
        some = pods[start : start + _CONNECTING]
        for pod in some:
            pod.open(url)
        while not all(pod.ready for pod in some):
            loop.turn()
    gc.disable()  # nothing here makes a cycle, and all the pods would be searched for one again and again
    say(event="ready")
    Lines(loop, hear)
    while True:
        loop.turn()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

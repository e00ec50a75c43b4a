"""A bus in memory: ``skillbus.core.ports.Bus`` for unit tests of a pod, held to the contract suite of the real one.

One ``MemoryStore`` is the server; each ``MemoryBus`` on it is one pod's way there, so that several pods meet. A store's
data are raw bytes under the names of docs/protocol.md §1, as in Redis: what is no record, no number or of another type
can be put there too.

Disturbances have names. On the store (every pod sees them): ``unreachable``, ``hung_until_s``, ``read_only``,
``refusal`` (it takes no writes: out of memory), ``lose_data``; a fleet that is not armed is simply one that nobody
``arm``-ed. On a bus (one pod's way): ``unreachable``, ``denied``, ``slow_s``, ``deaf``, ``break_subscription``.

All waiting is done through the injected clock. A read is taken when the request arrives, the answer comes ``slow_s``
later: that is what makes an answer stale.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from skillbus.bus.redis_bus import HASH_TTL_S, LASTING_TTL_S
from skillbus.clock import Clock
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import ScopeReading, superseded
from skillbus.core.orders import RECORD_LIMIT, KillRecord
from skillbus.core.ports import Message, Reading, Write, WriteAnswer
from skillbus.core.scope import Fleet, Scope, ScopeKind
from skillbus.errors import BusDenied, BusNotReady, BusUnreachable

COMMAND_TIMEOUT_S = 1.0
SERVER_STARTED_MS = 1_700_000_000_000
OOM = "OOM command not allowed when used memory > 'maxmemory'."

Value = bytes | list[bytes]
"""What a key holds: a string, or (to stand for any other type) a list."""


class MemoryStore:
    """The server: its data, its clock, its listeners, and what is wrong with it.

    Attributes:
        data: strings and lists by key.
        hashes: the pods' evidence, by key and incarnation; read them by ``hash_at``, which minds when they expire.
        roster: ``(roster key, pod id)`` -> score.
        unreachable: no connection and no answer.
        hung_until_s: until then (the clock's time) connections stay open and nobody answers.
        read_only: a replica, or a master that was demoted.
        refusal: the words with which it refuses every write; empty: it takes them.
        published: every ``(channel, payload)`` so far.
        audit: control's stream: ``(server time in ms, entry)``.
        name: its address.
    """

    def __init__(self, clock: Clock, name: str = "memory:1") -> None:
        self.clock = clock
        self.name = name
        self.data: dict[str, Value] = {}
        self.hashes: dict[str, dict[str, bytes]] = {}
        self._expire_at_s: dict[str, float] = {}
        self.roster: dict[tuple[str, str], int] = {}
        self.unreachable = False
        self.hung_until_s = 0.0
        self.read_only = False
        self.refusal = ""
        self.published: list[tuple[str, bytes]] = []
        self.audit: list[tuple[int, dict[str, str]]] = []
        self.subscriptions: list[MemorySubscription] = []
        self._began_at_s = clock.now_s()

    @property
    def now_ms(self) -> int:
        """The server's clock."""
        return SERVER_STARTED_MS + round((self.clock.now_s() - self._began_at_s) * 1000)

    # -- what an operator does ------------------------------------------------------------------------------------

    def arm(self, fleet: Fleet) -> None:
        """``SETNX epoch 0``."""
        self.data.setdefault(fleet.scope.epoch_key, b"0")

    def kill(self, scope: Scope, record: bytes = b'{"id": "k"}') -> None:
        """``SETNX killed``, and no message: a kill whose message was lost."""
        self.data.setdefault(scope.killed_key, record)

    def reset(self, scope: Scope) -> int:
        """Move the epoch and delete the record; the new epoch."""
        epoch = max(self.epoch(scope) + 1, self.now_ms)
        self.data[scope.epoch_key] = str(epoch).encode()
        self.data.pop(scope.killed_key, None)
        return epoch

    def epoch(self, scope: Scope) -> int:
        """The stored epoch; 0 if absent."""
        raw = self.data.get(scope.epoch_key, b"0")
        assert isinstance(raw, bytes)
        return int(raw)

    def record(self, scope: Scope) -> KillRecord | None:
        """The stored record."""
        raw = self.data.get(scope.killed_key)
        return None if raw is None else KillRecord.parse(raw if isinstance(raw, bytes) else b"")

    def publish(self, channel: str, payload: bytes = b"") -> int:
        """Hand a message to every listener; how many there were, deaf ones included."""
        self.published.append((channel, payload))
        return sum([subscription.deliver(channel, payload) for subscription in list(self.subscriptions)])

    def lose_data(self) -> None:
        """FLUSHALL, or a start with an empty volume."""
        self.data.clear()
        self.hashes.clear()
        self._expire_at_s.clear()
        self.roster.clear()
        self.audit.clear()

    def evidence(self, fleet: Fleet, pod_id: str) -> dict[str, Heartbeat]:
        """A pod's hash, by incarnation."""
        raw = self.hash_at(fleet.pod_key(pod_id))
        parsed = {incarnation: Heartbeat.parse(value) for incarnation, value in raw.items()}
        return {incarnation: beat for incarnation, beat in parsed.items() if beat is not None}

    def hash_at(self, key: str) -> dict[str, bytes]:
        """A pod's hash; empty if there is none, or it has expired."""
        if self.clock.now_s() >= self._expire_at_s.get(key, self.clock.now_s() + 1):
            self.hashes.pop(key, None)
        return dict(self.hashes.get(key, {}))

    def ttl_s(self, key: str) -> float | None:
        """Seconds until a hash expires; None for what does not."""
        at_s = self._expire_at_s.get(key)
        return None if at_s is None else at_s - self.clock.now_s()

    # -- what a bus does ------------------------------------------------------------------------------------------

    def expire(self, key: str, seconds: float) -> None:
        """Let a hash go after so long."""
        self._expire_at_s[key] = self.clock.now_s() + seconds

    def look(self, scopes: Sequence[Scope]) -> Reading:
        """Every scope's epoch and record."""
        found = {scope: ScopeReading(self._epoch(scope), self._record(scope)) for scope in scopes}
        armed = any(scope.kind is ScopeKind.FLEET and one.epoch is not None for scope, one in found.items())
        return Reading(found, server_ms=self.now_ms, armed=armed)

    def _epoch(self, scope: Scope) -> int | None:
        raw = self.data.get(scope.epoch_key)
        if isinstance(raw, list):
            raise BusNotReady(f"the epoch of {scope} cannot be read")
        try:
            return None if raw is None else int(raw)
        except ValueError:
            raise BusNotReady(f"the epoch of {scope} is no number") from None

    def _record(self, scope: Scope) -> bytes | None:
        raw = self.data.get(scope.killed_key)
        return b"" if isinstance(raw, list) else raw if raw is None else raw[:RECORD_LIMIT]

    def write_record(self, scope: Scope, record: KillRecord, latch_epoch: int | None) -> WriteAnswer:
        """SETNX under the epoch rule."""
        stored = self.look([scope]).scopes[scope]
        epoch = stored.epoch or 0
        if stored.record is not None:
            return WriteAnswer(Write.ADOPTED, epoch, KillRecord.parse(stored.record))
        if superseded(latch_epoch, epoch):
            return WriteAnswer(Write.SUPERSEDED, epoch, record)
        if self.read_only:
            raise BusNotReady("read-only")
        if self.refusal:
            return WriteAnswer(Write.REFUSED, epoch, record, self.refusal)
        self.data[scope.killed_key] = record.to_bytes()
        return WriteAnswer(Write.WRITTEN, epoch, record)


class MemorySubscription:
    """One subscriber connection. The confirmations lie in it first, each waiting to be got."""

    def __init__(self, store: MemoryStore, bus: MemoryBus, channels: Sequence[str], patterns: Sequence[str]) -> None:
        self._store = store
        self._bus = bus
        self._channels = frozenset((*channels, *patterns))
        self._patterns = tuple(patterns)
        self._confirmed: set[str] = set()
        self._queue: deque[str | Message] = deque((*channels, *patterns))
        self._arrived = asyncio.Event()
        self._broken = False
        store.subscriptions.append(self)

    @property
    def confirmed(self) -> frozenset[str]:
        """The channels whose confirmation was got."""
        return frozenset(self._confirmed)

    def deliver(self, channel: str, payload: bytes) -> int:
        """A message for this connection; 1 if it listens to that channel, whether it hears or not."""
        if channel not in self._channels and not any(fnmatchcase(channel, pattern) for pattern in self._patterns):
            return 0
        if not self._bus.deaf:
            self._queue.append(Message(channel, payload))
            self._arrived.set()
        return 1

    def break_off(self) -> None:
        """The connection breaks; what lies in it is gone."""
        self._broken = True
        self._queue.clear()
        self._arrived.set()

    @property
    def server(self) -> str:
        """Whose connection this is."""
        return self._store.name

    async def get(self, timeout_s: float) -> Message | None:
        """The next message; None after ``timeout_s`` or a confirmation."""
        if not self._ready():
            self._arrived.clear()
            await self._store.clock.wait(self._arrived, timeout_s)
        if self._broken:
            raise BusUnreachable("the subscriber connection broke")
        if not self._ready():
            return None
        item = self._queue.popleft()
        if isinstance(item, Message):
            return item
        self._confirmed.add(item)
        if self._confirmed == self._channels:
            self._bus.calls.append("confirmed")
        return None

    def _ready(self) -> bool:
        silent = self._bus.deaf or self._store.clock.now_s() < self._store.hung_until_s
        return self._broken or bool(self._queue and not silent)

    async def close(self) -> None:
        """Drop the connection."""
        if self in self._store.subscriptions:
            self._store.subscriptions.remove(self)


class MemoryBus:
    """One pod's way to the store.

    Attributes:
        unreachable: this pod alone gets no connection and no answer.
        denied: the words with which the server refuses this pod; empty: it does not.
        slow_s: seconds by which each answer is late.
        deaf: its subscription stays open and delivers nothing.
        calls: every verb so far, in order; ``confirmed`` stands where the last confirmation was got.
    """

    def __init__(self, fleet: Fleet, store: MemoryStore) -> None:
        self._fleet = fleet
        self._store = store
        self._lock = asyncio.Lock()
        self.unreachable = False
        self.denied = ""
        self.slow_s = 0.0
        self.deaf = False
        self.calls: list[str] = []

    def break_subscription(self) -> None:
        """This pod's subscriber connections break."""
        for subscription in list(self._store.subscriptions):
            if subscription._bus is self:
                subscription.break_off()

    def fail_over(self, store: MemoryStore) -> None:
        """From now on this pod's way leads to another server. Its subscriber connection stays where it is."""
        self._store = store

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str] = ()) -> MemorySubscription:
        """Open a subscriber connection; confirmations are yet to come."""
        self.calls.append("subscribe")
        await self._reach()
        return MemorySubscription(self._store, self, channels, patterns)

    async def read(self, scopes: Sequence[Scope]) -> Reading:
        """Read every scope afresh."""
        self.calls.append("read")
        async with self._lock:
            await self._reach()
            if self._store.read_only:
                raise BusNotReady("no master")
            reading = self._store.look(scopes)
            await self._answer()
            return reading

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
        """Read, and leave evidence."""
        self.calls.append("beat")
        async with self._lock:
            await self._reach()
            reading = self._store.look(scopes)
            if self._store.read_only:
                raise BusNotReady("read-only: no master, or one that was demoted")
            key = self._fleet.pod_key(pod_id)
            self._store.hash_at(key)
            evidence = self._store.hashes.setdefault(key, {})
            if not self._store.refusal:
                evidence[heartbeat.incarnation] = heartbeat.to_bytes()
                self._store.roster[self._fleet.roster_key, pod_id] = heartbeat.beat_at_ms
            self._store.expire(key, LASTING_TTL_S if lasting else HASH_TTL_S)  # a full server takes this
            if echo:
                self._store.publish(self._fleet.echo_channel(pod_id), echo)
            if hint:
                self._store.publish(self._fleet.events_channel, pod_id.encode())
            count, refusal = len(evidence), self._store.refusal
            await self._answer()
            return replace(reading, refusal=refusal, incarnations_count=count, server=self._store.name)

    async def tell_skills(self, digest: str, value: bytes) -> None:
        """``SETNX``."""
        self.calls.append("tell_skills")
        async with self._lock:
            await self._reach()
            if self._store.read_only or self._store.refusal:
                raise BusNotReady(self._store.refusal or "read-only")
            self._store.data.setdefault(self._fleet.skills_key(digest), value)
            await self._answer()

    async def incarnations(self, pod_id: str) -> dict[str, bytes]:
        """What the pod's hash holds."""
        async with self._lock:
            await self._reach()
            await self._answer()
            return self._store.hash_at(self._fleet.pod_key(pod_id))

    async def forget(self, pod_id: str, incarnations: Sequence[str]) -> None:
        """Remove evidence from the pod's hash."""
        async with self._lock:
            await self._reach()
            for incarnation in incarnations:
                self._store.hashes.get(self._fleet.pod_key(pod_id), {}).pop(incarnation, None)
            await self._answer()

    async def write_record(self, scope: Scope, record: KillRecord, latch_epoch: int | None) -> WriteAnswer:
        """Write a record under the epoch rule."""
        self.calls.append("write_record")
        async with self._lock:
            await self._reach()
            answer = self._store.write_record(scope, record, latch_epoch)
            await self._answer()
            return answer

    async def close(self) -> None:
        """Nothing is left to drop."""
        self.calls.append("close")

    async def _reach(self) -> None:
        """The request arrives at a server that serves, or does not arrive."""
        if self.unreachable or self._store.unreachable:
            raise BusUnreachable("no connection")
        hung_s = self._store.hung_until_s - self._store.clock.now_s()
        if hung_s > 0:
            await self._store.clock.sleep(min(hung_s, COMMAND_TIMEOUT_S))
            if hung_s > COMMAND_TIMEOUT_S:
                raise BusUnreachable(f"no answer within {COMMAND_TIMEOUT_S:g} s")
        if self.denied:
            raise BusDenied(self.denied)

    async def _answer(self) -> None:
        """The answer comes, late or not at all."""
        if self.slow_s:
            await self._store.clock.sleep(min(self.slow_s, COMMAND_TIMEOUT_S))
        if self.slow_s > COMMAND_TIMEOUT_S or self.unreachable or self._store.unreachable:
            raise BusUnreachable("no answer in time")

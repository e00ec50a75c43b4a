"""What the contract suite stands on: a server of each kind, and the hand that prepares and inspects it.

The hand never goes through the bus under test: on a real server it is the tests' own RESP client, in memory the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import fakeredis
import pytest

from skillbus.bus.connect import Endpoint
from skillbus.bus.redis_bus import RedisBus
from skillbus.clock import BootClock
from skillbus.core.ports import Bus
from skillbus.core.scope import Fleet
from tests.fakes.memory_bus import OOM, MemoryBus, MemoryStore
from tests.servers import RealServer

PROD = Fleet("prod")
POD = "web-1"

LIMITS: Mapping[tuple[str, str], str] = {
    ("fakeredis", "refuse_writes"): "fakeredis knows no maxmemory",
    ("fakeredis", "demote"): "fakeredis cannot be a replica",
    ("fakeredis", "cut_subscriptions"): "fakeredis has no connections to cut",
    ("memory", "between"): "a write in memory is one step: nothing comes between",
}
"""What a stand-in cannot do. The real servers can do all of it."""


class Ground(Protocol):
    """A server and the hand on it."""

    @property
    def name(self) -> str: ...
    def bus(self) -> Bus: ...
    def clear(self) -> None: ...
    def put(self, key: str, value: bytes) -> None: ...
    def put_list(self, key: str) -> None: ...
    def get(self, key: str) -> bytes | None: ...
    def publish(self, channel: str, payload: bytes) -> int: ...
    def evidence(self, pod_id: str) -> dict[str, bytes]: ...
    def ttl_s(self, pod_id: str) -> float: ...
    def roster(self) -> dict[str, int]: ...
    def refuse_writes(self) -> Any: ...
    def demote(self) -> Any: ...
    def cut_subscriptions(self) -> None: ...


def demand(ground: Ground, ability: str) -> None:
    """Skip, with the reason, where a stand-in cannot do what the test needs."""
    if reason := LIMITS.get((ground.name, ability)):
        pytest.skip(reason)


@dataclass
class MemoryGround:
    """The stand-in of our own."""

    name: str = "memory"
    store: MemoryStore = field(default_factory=lambda: MemoryStore(BootClock()))

    def bus(self) -> Bus:
        return MemoryBus(PROD, self.store)

    def clear(self) -> None:
        self.store.lose_data()

    def put(self, key: str, value: bytes) -> None:
        self.store.data[key] = value

    def put_list(self, key: str) -> None:
        self.store.data[key] = [b"x"]

    def get(self, key: str) -> bytes | None:
        value = self.store.data.get(key)
        assert not isinstance(value, list)
        return value

    def publish(self, channel: str, payload: bytes) -> int:
        return self.store.publish(channel, payload)

    def evidence(self, pod_id: str) -> dict[str, bytes]:
        return self.store.hash_at(PROD.pod_key(pod_id))

    def ttl_s(self, pod_id: str) -> float:
        ttl_s = self.store.ttl_s(PROD.pod_key(pod_id))
        assert ttl_s is not None
        return ttl_s

    def roster(self) -> dict[str, int]:
        return {pod_id: score for (_, pod_id), score in self.store.roster.items()}

    @contextmanager
    def refuse_writes(self) -> Iterator[None]:
        self.store.refusal = OOM
        yield
        self.store.refusal = ""

    @contextmanager
    def demote(self) -> Iterator[None]:
        self.store.read_only = True
        yield
        self.store.read_only = False

    def cut_subscriptions(self) -> None:
        for subscription in list(self.store.subscriptions):
            subscription.break_off()


@dataclass
class RealGround:
    """A real server."""

    server: RealServer

    @property
    def name(self) -> str:
        return self.server.binary.origin

    def bus(self) -> Bus:
        return RedisBus(PROD, Endpoint(self.server.url), "contract")

    def clear(self) -> None:
        self.server.cli("FLUSHALL")

    def put(self, key: str, value: bytes) -> None:
        self.server.cli("SET", key, value)

    def put_list(self, key: str) -> None:
        self.server.cli("RPUSH", key, "x")

    def get(self, key: str) -> bytes | None:
        reply = self.server.cli("GET", key)
        assert reply is None or isinstance(reply, bytes)
        return reply

    def publish(self, channel: str, payload: bytes) -> int:
        reply = self.server.cli("PUBLISH", channel, payload)
        assert isinstance(reply, int)
        return reply

    def evidence(self, pod_id: str) -> dict[str, bytes]:
        return {name.decode(): value for name, value in self._pairs("HGETALL", PROD.pod_key(pod_id))}

    def ttl_s(self, pod_id: str) -> float:
        reply = self.server.cli("TTL", PROD.pod_key(pod_id))
        assert isinstance(reply, int)
        return reply

    def roster(self) -> dict[str, int]:
        pairs = self._pairs("ZRANGE", PROD.roster_key, 0, -1, "WITHSCORES")
        return {name.decode(): int(score) for name, score in pairs}

    def _pairs(self, *words: str | int) -> list[tuple[bytes, bytes]]:
        reply = self.server.cli(*words)
        assert isinstance(reply, list)
        flat = [word for word in reply if isinstance(word, bytes)]
        return list(zip(flat[::2], flat[1::2], strict=True))

    @contextmanager
    def refuse_writes(self) -> Iterator[None]:
        self.server.cli("CONFIG", "SET", "maxmemory", 1)
        yield
        self.server.cli("CONFIG", "SET", "maxmemory", 0)

    @contextmanager
    def demote(self) -> Iterator[None]:
        self.server.cli("REPLICAOF", "127.0.0.1", 1)
        yield
        self.server.cli("REPLICAOF", "NO", "ONE")

    def cut_subscriptions(self) -> None:
        self.server.cli("CLIENT", "KILL", "TYPE", "pubsub")


class _FakeClient(fakeredis.FakeAsyncRedis):  # type: ignore[misc]
    """fakeredis knows no ROLE; its pipeline answers as a master would."""

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        pipe = super().pipeline(*args, **kwargs)
        execute = pipe.execute_command
        pipe.execute_command = lambda *words, **options: (
            execute("ECHO", "master") if words == ("ROLE",) else execute(*words, **options)
        )
        return pipe


@dataclass(frozen=True, slots=True)
class FakeEndpoint(Endpoint):
    """An endpoint whose clients are fakeredis, all on one server."""

    server: Any = None

    def client(self, name: str) -> Any:
        return _FakeClient(server=self.server, protocol=2, decode_responses=False)


@dataclass
class FakeGround:
    """fakeredis: redis-py's own client on a server in this process."""

    name: str = "fakeredis"
    server: Any = None

    def __post_init__(self) -> None:
        self.clear()

    def bus(self) -> Bus:
        return RedisBus(PROD, FakeEndpoint("redis://fake", server=self.server), "contract")

    def clear(self) -> None:
        # A new server: fakeredis goes on counting subscribers that closed.
        self.server = fakeredis.FakeServer()
        self.hand = fakeredis.FakeStrictRedis(server=self.server, protocol=2)

    def put(self, key: str, value: bytes) -> None:
        self.hand.set(key, value)

    def put_list(self, key: str) -> None:
        self.hand.rpush(key, "x")

    def get(self, key: str) -> bytes | None:
        value: bytes | None = self.hand.get(key)
        return value

    def publish(self, channel: str, payload: bytes) -> int:
        return int(self.hand.publish(channel, payload))

    def evidence(self, pod_id: str) -> dict[str, bytes]:
        return {name.decode(): value for name, value in self.hand.hgetall(PROD.pod_key(pod_id)).items()}

    def ttl_s(self, pod_id: str) -> float:
        return float(self.hand.ttl(PROD.pod_key(pod_id)))

    def roster(self) -> dict[str, int]:
        return {name.decode(): int(score) for name, score in self.hand.zrange(PROD.roster_key, 0, -1, withscores=True)}

    def refuse_writes(self) -> Any:
        raise NotImplementedError

    def demote(self) -> Any:
        raise NotImplementedError

    def cut_subscriptions(self) -> None:
        raise NotImplementedError

"""An operator's bus on fakeredis, and evidence of pods in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import fakeredis

from skillbus.bus.operator_bus import OperatorBus
from skillbus.core.heartbeat import CauseLine, Heartbeat
from skillbus.core.latch import CauseKind, State
from skillbus.core.scope import Fleet
from tests.contract.grounds import FakeEndpoint

PROD = Fleet("prod")
FLEET, GROUP = PROD.scope, PROD.group("eu")

T = TypeVar("T")


class Redis:
    """A server in memory, and the hand on it."""

    def __init__(self) -> None:
        self.server = fakeredis.FakeServer()
        self.hand = fakeredis.FakeStrictRedis(server=self.server, protocol=2)

    def run(self, test: Callable[[OperatorBus], Awaitable[T]]) -> T:
        """Run ``test`` with an operator's bus."""

        async def main() -> T:
            async with OperatorBus(PROD, FakeEndpoint("redis://fake", server=self.server)) as bus:
                return await test(bus)

        return asyncio.run(main())

    @property
    def now_ms(self) -> int:
        seconds, micros = self.hand.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def pod(self, pod_id: str, state: State = State.RUNNING, *, obeys: str = "", age_ms: int = 0, **more: Any) -> None:
        """A pod that beat ``age_ms`` ago."""
        at_ms = self.now_ms - age_ms
        if obeys:
            more["causes"] = (CauseLine(kind=CauseKind.RECORD, record_id=obeys),)
        beat = Heartbeat(incarnation="i1", state=state, beat_at_ms=at_ms, started_at_ms=1, **more)
        self.hand.hset(PROD.pod_key(pod_id), "i1", beat.to_bytes())
        self.hand.zadd(PROD.roster_key, {pod_id: at_ms})

    def audit(self) -> list[dict[str, str]]:
        """The audit stream, the oldest first."""
        rows = self.hand.xrange(PROD.audit_key)
        return [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in rows]

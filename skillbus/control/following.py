"""Following pods by their evidence: what a kill and a drill wait with. Subscribe-then-read; a hint is no evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from skillbus.bus.operator_bus import OperatorBus
from skillbus.bus.redis_bus import HASH_TTL_S
from skillbus.bus.subscription import RedisSubscription
from skillbus.clock import boottime_s
from skillbus.core.certificate import Incarnation
from skillbus.core.heartbeat import Heartbeat
from skillbus.errors import SkillbusError

_POLL_S = 0.5
"""Seconds between looks at every missing pod: what fences a silent one is time, and time sends no event."""

_MANY = 100
"""More missing pods than that are looked at without waiting for their hints."""

_ANSWER_S = 50e-6
"""Seconds behind an order in which a pod's answer can be there, for each pod that was asked (docs/bench.md)."""

_PATIENCE = 2
"""How many times as long answers are read as they come in, while some still do."""


@dataclass(slots=True)
class Beats:
    """The last heartbeat seen of each incarnation. What was seen once is remembered, for a hash expires."""

    _beats: dict[Incarnation, Heartbeat] = field(default_factory=dict)
    _settled: set[str] = field(default_factory=set)

    async def ahead(
        self,
        bus: OperatorBus,
        roster: Mapping[str, int],
        order_ms: int,
        pace: Pace,
        is_proved: Callable[[Sequence[Heartbeat]], bool],
    ) -> None:
        """While thousands answer an order, read those who have beaten since, each once, until all have or it is time.

        The roster tells who, which is a hint and no evidence: whom it hides is looked at with all the others.

        Args:
            roster: server time of each pod's last beat in ms.
            order_ms: that of the order.
            is_proved: whether what a pod's hash says can be counted as it is, whatever comes later.

        Raises:
            RetryLater, NeedsHuman: it cannot be read.
        """
        waiting = {pod_id for pod_id, beat_ms in roster.items() if beat_ms > order_ms - HASH_TTL_S * 1000}
        fresh = [pod_id for pod_id in waiting if roster[pod_id] >= order_ms]
        known_count = 0
        while waiting and not pace.is_time(len(roster), more_come=len(fresh) > known_count):
            known_count = len(fresh)
            if len(fresh) >= min(_MANY, len(waiting)):
                waiting.difference_update(fresh)
                known_count = 0
                _, found = await bus.heartbeats(fresh)
                self._note(found)
                self._settled.update(pod_id for pod_id, beats in found.items() if is_proved(beats))
            else:
                await asyncio.sleep(_ANSWER_S * _MANY)
            if waiting:
                fresh = [pod_id for pod_id in await bus.beaten_since(order_ms) if pod_id in waiting]

    def unsettled(self, ids: Sequence[str]) -> list[str]:
        """Those of ``ids`` whose evidence was not read ahead, or can still change."""
        return [pod_id for pod_id in ids if pod_id not in self._settled]

    async def look(self, bus: OperatorBus, ids: Sequence[str]) -> int:
        """Read the evidence of ``ids``; the server's clock in ms.

        Raises:
            RetryLater, NeedsHuman: it cannot be read.
        """
        now_ms, found = await bus.heartbeats(ids)
        self._note(found)
        return now_ms

    def _note(self, found: Mapping[str, Sequence[Heartbeat]]) -> None:
        self._beats |= {(pod_id, beat.incarnation): beat for pod_id, beats in found.items() for beat in beats}

    def known(self) -> dict[str, list[Heartbeat]]:
        """All that was seen, by pod id."""
        known: dict[str, list[Heartbeat]] = {}
        for (pod_id, _), beat in self._beats.items():
            known.setdefault(pod_id, []).append(beat)
        return known


@dataclass(slots=True)
class Pace:
    """When to look again at whoever is missing.

    While few are, a hint says so at once. While thousands are, each would hint, and hearing that much costs more than
    looking: then the looks follow each other, with as long a rest between them as the last one took.

    Attributes:
        told_at_s: when those who are to answer were told (boot-time clock).
    """

    bus: OperatorBus
    told_at_s: float = field(default_factory=boottime_s)
    _subscription: RedisSubscription | None = field(default=None, init=False)
    _asked: bool = field(default=False, init=False)

    async def __aenter__(self) -> Pace:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._subscription is not None:
            await self._subscription.close()

    async def first(self, pods_count: int) -> None:
        """So many were told something: who reads their answers before they can be there reads them all twice."""
        if pods_count > _MANY:
            await asyncio.sleep(self.told_at_s + self._answer_s(pods_count) - boottime_s())

    def is_time(self, pods_count: int, *, more_come: bool) -> bool:
        """Whether so many are looked at, all of them: few at once, thousands when they can have answered.

        Args:
            more_come: whether answers still come in, which they may for a while.
        """
        patience = _PATIENCE if more_come else 1
        due_at_s = self.told_at_s + self._answer_s(pods_count) * patience
        return pods_count <= _MANY or boottime_s() >= due_at_s

    @staticmethod
    def _answer_s(pods_count: int) -> float:
        return min(pods_count * _ANSWER_S, _POLL_S)

    async def again(self, missing_count: int, look_s: float | None, timeout_s: float) -> None:
        """So many were missing in a look that took ``look_s``: return when it is time for another.

        Args:
            look_s: None: nothing could be seen.
            timeout_s: return then, whatever happens.
        """
        timeout_s = min(timeout_s, _POLL_S)
        if look_s is None:
            await asyncio.sleep(timeout_s)
        elif missing_count > _MANY:
            await asyncio.sleep(min(max(look_s, _ANSWER_S * _MANY), timeout_s))
        elif self._asked:
            await _hint(self._subscription, timeout_s)
        else:  # Subscribe, then read: what was said before is there to be read.
            self._asked = True
            self._subscription = await _hints(self.bus, timeout_s)


async def _hints(bus: OperatorBus, timeout_s: float) -> RedisSubscription | None:
    """The channel on which pods tell that their hash has changed; None if it cannot be heard."""
    subscription: RedisSubscription | None = None
    try:
        subscription = await bus.subscribe([bus.fleet.events_channel])
        await subscription.get(timeout_s)
    except BaseException as error:
        if subscription is not None:
            await subscription.close()
        if not isinstance(error, SkillbusError):
            raise
        return None
    return subscription


async def _hint(subscription: RedisSubscription | None, timeout_s: float) -> None:
    """Wait for a hint that some hash has changed, or ``timeout_s``. A burst of them counts as one."""
    if subscription is None:
        await asyncio.sleep(timeout_s)
        return
    try:
        heard = await subscription.get(timeout_s)
        while heard is not None:
            heard = await subscription.get(0.005)
    except SkillbusError:
        await asyncio.sleep(timeout_s)

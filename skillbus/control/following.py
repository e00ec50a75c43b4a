"""Following pods by their evidence: what a kill and a drill wait with. Subscribe-then-read; a hint is no evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from skillbus.bus.operator_bus import OperatorBus
from skillbus.bus.subscription import RedisSubscription
from skillbus.core.certificate import Incarnation
from skillbus.core.heartbeat import Heartbeat
from skillbus.errors import SkillbusError

_POLL_S = 0.5
"""Seconds between looks at every missing pod: what fences a silent one is time, and time sends no event."""

_MANY = 100
"""More missing pods than that are looked at without waiting for their hints."""

_ANSWER_S = 50e-6
"""Seconds of its one thread that Redis needs for a pod's answer, at the least (docs/bench.md)."""


@dataclass(slots=True)
class Beats:
    """The last heartbeat seen of each incarnation. What was seen once is remembered, for a hash expires."""

    _beats: dict[Incarnation, Heartbeat] = field(default_factory=dict)

    async def look(self, bus: OperatorBus, ids: Sequence[str]) -> int:
        """Read the evidence of ``ids``; the server's clock in ms.

        Raises:
            RetryLater, NeedsHuman: it cannot be read.
        """
        now_ms, found = await bus.heartbeats(ids)
        self._beats |= {(pod_id, beat.incarnation): beat for pod_id, beats in found.items() for beat in beats}
        return now_ms

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
    """

    bus: OperatorBus
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
            await asyncio.sleep(min(pods_count * _ANSWER_S, _POLL_S))

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

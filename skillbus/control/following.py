"""Following pods by their evidence: what a kill and a drill wait with. Subscribe-then-read; a hint is no evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from skillbus.bus.operator_bus import OperatorBus
from skillbus.bus.subscription import RedisSubscription
from skillbus.core.certificate import Incarnation
from skillbus.core.heartbeat import Heartbeat
from skillbus.errors import SkillbusError


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


async def hints(bus: OperatorBus) -> RedisSubscription | None:
    """The channel on which pods tell that their hash has changed; None if it cannot be heard."""
    with suppress(SkillbusError):
        return await bus.subscribe([bus.fleet.events_channel])
    return None


async def hint(subscription: RedisSubscription | None, timeout_s: float) -> None:
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

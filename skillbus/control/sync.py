"""Ask every pod for a pass now, and see which have made one. A killed fleet is not asked."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import boottime_s
from skillbus.core.heartbeat import PassLine
from skillbus.core.latch import LATCHED
from skillbus.core.orders import KillRecord
from skillbus.core.roster import Presence, view
from skillbus.errors import NeedsHuman


class FleetIsKilled(NeedsHuman):
    """A killed fleet does not reconcile."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What became of a sync: the pass of each pod that made one, and who has not answered."""

    id: str
    passes: tuple[tuple[str, PassLine], ...]
    missing: tuple[str, ...]


async def sync(bus: OperatorBus, *, by: str, timeout_s: float) -> SyncReport:
    """Publish a sync and wait until every live pod has ended a pass for it, or ``timeout_s`` is over.

    Raises:
        FleetIsKilled: the fleet's record stands.
    """
    stored = (await bus.read([bus.fleet.scope])).scopes[bus.fleet.scope].record
    if stored is not None:
        record = KillRecord.parse(stored)
        raise FleetIsKilled(f"fleet '{bus.fleet.name}' is killed: {record.sentence()}: nothing reconciles until reset")
    name = uuid.uuid4().hex[:12]
    ids = await bus.pod_ids()
    await bus.audit({"kind": "sync", "scope": "fleet", "by": by, "via": "cli", "id": name})
    await bus.publish(bus.fleet.sync_channel, {"v": 1, "id": name, "by": by})
    deadline_s = boottime_s() + timeout_s
    while True:
        report = await _look(bus, name, ids)
        if not report.missing or boottime_s() >= deadline_s:
            return report
        await asyncio.sleep(0.2)


async def _look(bus: OperatorBus, name: str, ids: list[str]) -> SyncReport:
    now_ms, beats = await bus.heartbeats(ids)
    passes, missing = [], []
    for pod in view(now_ms, beats):
        lives = [life for life in pod.lives if life.presence in (Presence.LIVE, Presence.LATE)]
        last = [life.beat.last_pass for life in lives if life.beat.last_pass is not None]
        done = [line for line in last if line.trigger == name]
        if done:
            passes.append((pod.pod_id, done[0]))
        elif any(life.beat.state not in LATCHED for life in lives):
            missing.append(pod.pod_id)
    return SyncReport(name, tuple(passes), tuple(missing))

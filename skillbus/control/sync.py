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
    """What became of a sync: the pass of each pod that made one, who has not answered, and who is stopped."""

    id: str
    passes: tuple[tuple[str, PassLine], ...]
    missing: tuple[str, ...]
    stopped: tuple[str, ...] = ()


async def sync(bus: OperatorBus, *, by: str, timeout_s: float) -> SyncReport:
    """Publish a sync and wait until every live pod has ended a pass for it, or ``timeout_s`` is over.

    Raises:
        FleetIsKilled: the fleet's record stands, or every live pod is stopped.
    """
    stored = (await bus.read([bus.fleet.scope])).scopes[bus.fleet.scope].record
    if stored is not None:
        record = KillRecord.parse(stored)
        raise FleetIsKilled(f"fleet '{bus.fleet.name}' is killed: {record.sentence()}: nothing reconciles until reset")
    name = uuid.uuid4().hex[:12]
    ids = await bus.pod_ids()
    _demand_somebody(await _look(bus, name, ids, None))
    await bus.audit({"kind": "sync", "scope": "fleet", "by": by, "via": "cli", "id": name})
    await bus.publish(bus.fleet.sync_channel, {"v": 1, "id": name, "by": by})
    published_ms = await bus.now_ms()
    deadline_s = boottime_s() + timeout_s
    while True:
        report = await _look(bus, name, ids, published_ms)
        _demand_somebody(report)
        if not report.missing or boottime_s() >= deadline_s:
            return report
        await asyncio.sleep(0.2)


def _demand_somebody(report: SyncReport) -> None:
    if report.stopped and not report.passes and not report.missing:
        raise FleetIsKilled(f"all {len(report.stopped)} pods are stopped: nothing reconciles")


async def _look(bus: OperatorBus, name: str, ids: list[str], since_ms: int | None) -> SyncReport:
    """Who has made a pass for ``name`` or, for a pod makes one pass for many syncs, one begun after ``since_ms``."""
    now_ms, beats = await bus.heartbeats(ids)
    passes, missing, stopped = [], [], []
    for pod in view(now_ms, beats):
        lives = [life for life in pod.lives if life.presence in (Presence.LIVE, Presence.LATE)]
        last = [life.beat.last_pass for life in lives if life.beat.last_pass is not None]
        done = [line for line in last if line.trigger == name or (since_ms and line.began_at_ms > since_ms)]
        if done:
            passes.append((pod.pod_id, done[0]))
        elif any(life.beat.state not in LATCHED for life in lives):
            missing.append(pod.pod_id)
        elif lives:
            stopped.append(pod.pod_id)
    return SyncReport(name, tuple(passes), tuple(missing), tuple(stopped))

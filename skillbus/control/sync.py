"""Ask every pod for a pass now, and see which have made one. A killed fleet is not asked."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import boottime_s
from skillbus.core.heartbeat import PassLine
from skillbus.core.latch import LATCHED
from skillbus.core.orders import KillRecord
from skillbus.core.roster import view
from skillbus.errors import BadSettings, NeedsHuman

_AT_ONCE_COUNT = 50
_SPREAD_S = 10.0
_WORKS = "works"
"""What a pass is at that says nothing of it: a program's, or that of an older version."""


class FleetIsKilled(NeedsHuman):
    """A killed fleet does not reconcile."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What became of a sync so far.

    Attributes:
        passes: the pass of each pod that made one.
        missing: who has not answered, those who rest included.
        stopped: who need not be asked.
        resting: who leaves a source alone that asked for it, and until when (server time, ms). They make no pass
            before that, whoever asks.
        doing: what each of the missing says that its pass is at, as of its last beat; none of who has not begun. Two
            beats are a second apart, or two, so a pass may do much that is never told.
        within_s: the time over which the pods were told to spread their passes.
        took_s: since the sync was published.
    """

    id: str
    passes: tuple[tuple[str, PassLine], ...]
    missing: tuple[str, ...]
    stopped: tuple[str, ...] = ()
    resting: tuple[tuple[str, int], ...] = ()
    doing: tuple[tuple[str, str], ...] = ()
    within_s: float = 0.0
    took_s: float = 0.0


async def sync(
    bus: OperatorBus,
    *,
    by: str,
    timeout_s: float,
    within_s: float | None = None,
    via: str = "cli",
    on_progress: Callable[[SyncReport], None] = lambda report: None,
) -> SyncReport:
    """Publish a sync and wait until every live pod has ended a pass for it, or ``timeout_s`` is over.

    Args:
        within_s: over which the pods spread their passes; None: at once for up to 50 of them, else 10 s.

    Raises:
        FleetIsKilled: the fleet's record stands, or every live pod is stopped.
        BadSettings: ``within_s`` is not less than ``timeout_s``.
    """
    stored = (await bus.read([bus.fleet.scope])).scopes[bus.fleet.scope].record
    if stored is not None:
        record = KillRecord.parse(stored)
        await bus.audit({"kind": "refused", "what": "sync", "scope": "fleet", "by": by, "via": via, "why": "killed"})
        raise FleetIsKilled(f"fleet '{bus.fleet.name}' is killed: {record.sentence()}: nothing reconciles until reset")
    name = uuid.uuid4().hex[:12]
    ids = await bus.pod_ids()
    report = await _look(bus, name, ids, None)
    _demand_somebody(report)
    within_s = _within_s(len(report.missing)) if within_s is None else within_s
    if 0 < timeout_s <= within_s:
        raise BadSettings(
            f"the pods begin within {within_s:g} s, and you wait for {timeout_s:g} s: make --timeout longer than that"
        )
    await bus.audit({"kind": "sync", "scope": "fleet", "by": by, "via": via, "id": name})
    await bus.publish(bus.fleet.sync_channel, {"v": 1, "id": name, "by": by, "within_s": within_s})
    began_at_s = boottime_s()
    published_ms = await bus.now_ms()
    while True:
        report = replace(await _look(bus, name, ids, published_ms), within_s=within_s, took_s=boottime_s() - began_at_s)
        _demand_somebody(report)
        on_progress(report)
        if not _can_change(report, published_ms + timeout_s * 1000) or report.took_s >= timeout_s:
            return report
        await asyncio.sleep(0.2)


def _within_s(pods_count: int) -> float:
    """A source of skills serves so many pods at once; more are spread, so that none is turned away."""
    return 0.0 if pods_count <= _AT_ONCE_COUNT else _SPREAD_S


def _can_change(report: SyncReport, until_ms: float) -> bool:
    """Whether anybody may still answer in time."""
    late = {pod_id for pod_id, rests_until_ms in report.resting if rests_until_ms > until_ms}
    return any(pod_id not in late for pod_id in report.missing)


def _demand_somebody(report: SyncReport) -> None:
    if report.stopped and not report.passes and not report.missing:
        raise FleetIsKilled(f"all {len(report.stopped)} pods are stopped: nothing reconciles")


async def _look(bus: OperatorBus, name: str, ids: list[str], since_ms: int | None) -> SyncReport:
    """Who has made a pass for ``name`` or, for a pod makes one pass for many syncs, one begun after ``since_ms``."""
    now_ms, beats = await bus.heartbeats(ids)
    passes, missing, stopped, resting, doing = [], [], [], [], []
    for pod in view(now_ms, beats):
        lives = pod.current
        last = [life.beat.last_pass for life in lives if life.beat.last_pass is not None]
        done = [line for line in last if line.trigger == name or (since_ms and line.began_at_ms > since_ms)]
        active = [life.beat for life in lives if life.beat.state not in LATCHED]
        if done:
            passes.append((pod.pod_id, done[0]))
        elif active:
            missing.append(pod.pod_id)
            resting += [(pod.pod_id, beat.rests_until_ms) for beat in active[:1] if beat.rests_until_ms > now_ms]
            doing += [(pod.pod_id, beat.doing or _WORKS) for beat in active if not beat.quiet][:1]
        elif lives:
            stopped.append(pod.pod_id)
    return SyncReport(name, tuple(passes), tuple(missing), tuple(stopped), tuple(resting), tuple(doing))

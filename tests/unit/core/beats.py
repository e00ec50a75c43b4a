"""Heartbeats for tests."""

from __future__ import annotations

from typing import Any

from skillbus.core.heartbeat import CauseLine, Heartbeat
from skillbus.core.latch import CauseKind, State

T0 = 1_700_000_000_000


def beat(incarnation: str = "i1", state: State = State.RUNNING, beat_at_ms: int = T0, **more: Any) -> Heartbeat:
    """A heartbeat as of ``T0``, of a pod that started an hour before."""
    fields = {"started_at_ms": T0 - 3_600_000, **more}
    return Heartbeat(incarnation=incarnation, state=state, beat_at_ms=beat_at_ms, **fields)


def obeying(record_id: str, **more: Any) -> dict[str, Any]:
    """The fields of a pod that is stopped by that record, quiet since ``T0 + 300`` ms."""
    causes = (CauseLine(kind=CauseKind.RECORD, scope="fleet", record_id=record_id),)
    return {"state": State.STOPPED, "causes": causes, "quiet": True, "quiet_at_ms": T0 + 300, **more}

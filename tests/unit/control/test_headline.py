"""The one sentence of ``skillbus status``: it says what was observed, and nothing more."""

from __future__ import annotations

from typing import Any

from skillbus.control.status import Pods, Status
from skillbus.control.telling import headline
from skillbus.core.heartbeat import CauseLine, Heartbeat
from skillbus.core.latch import State
from skillbus.core.orders import KillRecord
from skillbus.core.roster import view
from skillbus.core.scope import Fleet, Scope
from tests.unit.core.beats import T0, beat

PROD = Fleet("prod")
RECORD = KillRecord(id="r1", reason="leak")
KILLED = CauseLine(kind="record", scope="fleet", record_id="r1")


def seen(*beats: Heartbeat, kills: tuple[Scope, ...] = (), armed: bool = True, now_ms: int = T0) -> Status:
    """A fleet of one pod for each heartbeat."""
    pods = view(now_ms, {f"p{index}": [one] for index, one in enumerate(beats)})
    return Status("prod", now_ms, armed, tuple((scope, RECORD) for scope in kills), Pods(pods))


def stopped(*causes: CauseLine, **fields: Any) -> Heartbeat:
    """The heartbeat of a stopped, quiet pod."""
    return beat(state=State.STOPPED, quiet=True, causes=causes, **fields)


def test_a_standing_group_kill_is_no_reset() -> None:
    """Pods stopped by a record that stands do not wait for a restart."""
    group = CauseLine(kind="record", scope="group:batch", record_id="r1")
    assert headline(seen(stopped(group), kills=(PROD.group("batch"),))) == "fleet 'prod': RUNNING 0 (1 stopped)"


def test_a_local_kill_is_no_reset() -> None:
    """Nor do pods that stopped for reasons of their own."""
    assert "reset" not in headline(seen(stopped(CauseLine(kind="local"))))


def test_a_reset_kill_waits_for_a_restart() -> None:
    """Only if every cause of every stopped pod was lifted."""
    lifted = KILLED.model_copy(update={"lifted": True})
    assert headline(seen(stopped(lifted))) == "fleet 'prod': RUNNING 0 (1 stopped: reset, they wait for a restart)"
    assert "reset" not in headline(seen(stopped(lifted), stopped(KILLED)))


def test_a_killed_fleet_is_stopped_only_once_nobody_is_open() -> None:
    """A pod that is unconfirmed keeps the word STOPPED away, also when nobody else is alive."""
    silent = beat(vouched=False)
    assert "STOPPING 0/1" in headline(seen(silent, kills=(PROD.scope,), now_ms=T0 + 60_000))
    assert "STOPPING 1/2" in headline(seen(stopped(KILLED), beat(state=State.RUNNING), kills=(PROD.scope,)))
    assert "STOPPED 1" in headline(seen(stopped(KILLED), kills=(PROD.scope,)))


def test_a_silent_twin_that_cannot_vouch_is_not_hidden() -> None:
    """An id is not stopped while one of its lives may have left work behind."""
    pods = view(T0 + 60_000, {"p": [beat(vouched=False), stopped(KILLED, incarnation="i2", beat_at_ms=T0 + 59_000)]})
    assert [pod.word for pod in pods] == ["unconfirmed"]

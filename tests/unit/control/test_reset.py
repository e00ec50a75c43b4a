"""Reset and arm: what they refuse, what they move, and what they never touch."""

from __future__ import annotations

from typing import Any

import pytest

from skillbus.bus.operator_bus import OperatorBus
from skillbus.control.reset import Reset, ResetRefused, arm
from skillbus.core.heartbeat import CauseLine
from skillbus.core.latch import State
from skillbus.core.orders import KillRecord, iso
from skillbus.core.ports import Reading
from skillbus.core.scope import Scope
from skillbus.errors import BusNotReady, SkillbusError
from tests.unit.control.operators import FLEET, GROUP, PROD, Redis

RECORD = KillRecord(id="k1", reason="first", by="oncall", via="cli")


def killed(redis: Redis, scope: Scope = FLEET) -> None:
    """The scope is killed, in an armed fleet."""
    redis.hand.setnx(FLEET.epoch_key, 0)
    redis.hand.set(scope.killed_key, RECORD.to_bytes())


def reset(bus: OperatorBus, scope: Scope = FLEET, **more: Any) -> Reset:
    """A reset of ours."""
    return Reset(bus, scope, reason="mended", by="admin", **more)


def test_a_reset_moves_the_epoch_to_the_servers_time_and_deletes_the_record() -> None:
    """To ``max(epoch + 1, TIME)``, audited, and of its scope alone."""
    redis = Redis()
    killed(redis)
    killed(redis, GROUP)
    redis.hand.set(FLEET.epoch_key, 0)
    before_ms = redis.now_ms
    report = redis.run(lambda bus: reset(bus).do(0))
    assert before_ms <= report.epoch <= redis.now_ms
    assert int(redis.hand.get(FLEET.epoch_key)) == report.epoch
    assert redis.hand.get(FLEET.killed_key) is None
    assert redis.hand.get(GROUP.killed_key) == RECORD.to_bytes()
    assert redis.hand.get(GROUP.epoch_key) is None
    assert [(order.record_id, order.by) for order in report.lifted] == [("k1", "oncall")]
    assert [entry["kind"] for entry in redis.audit()] == ["reset-asked", "reset"]
    assert [entry["lifted"] for entry in redis.audit()] == ["k1", "k1"]
    assert redis.audit()[1]["epoch"] == str(report.epoch)


def test_an_epoch_ahead_of_the_clock_still_moves() -> None:
    """A server whose clock went back: one more than before."""
    redis = Redis()
    killed(redis)
    ahead = redis.now_ms + 10**9
    redis.hand.set(FLEET.epoch_key, ahead)
    assert redis.run(lambda bus: reset(bus).do(0)).epoch == ahead + 1


def test_a_scope_that_is_not_killed_is_refused() -> None:
    """Without ``force`` nothing moves; with it the epoch does."""
    redis = Redis()
    redis.hand.set(FLEET.epoch_key, 0)
    with pytest.raises(ResetRefused, match="not killed"):
        redis.run(lambda bus: reset(bus).do(0))
    assert redis.hand.get(FLEET.epoch_key) == b"0"
    (refused,) = redis.audit()
    assert (refused["kind"], refused["what"], refused["by"], refused["reason"]) == (
        "refused",
        "reset",
        "admin",
        "mended",
    )
    assert "not killed" in refused["why"]
    assert "@" in refused["from"]
    assert redis.run(lambda bus: reset(bus, force=True).do(0)).epoch > 0


def test_a_reset_that_cannot_be_audited_lifts_nothing() -> None:
    """Audited first."""
    redis = Redis()
    killed(redis)
    redis.hand.set(PROD.audit_key, "no stream")
    with pytest.raises(SkillbusError):
        redis.run(lambda bus: reset(bus).do(0))
    assert redis.hand.get(FLEET.killed_key) == RECORD.to_bytes()
    assert redis.hand.get(FLEET.epoch_key) == b"0"


def test_a_recent_further_order_is_refused() -> None:
    """Somebody still wants the stop: their name and reason are in the text; ``even_recent`` overrules it."""
    redis = Redis()
    killed(redis)
    redis.hand.xadd(PROD.audit_key, {"kind": "kill", "scope": "fleet", "record": "k2", "by": "alice", "reason": "why"})
    with pytest.raises(ResetRefused, match=r'by alice \("why"\)'):
        redis.run(lambda bus: reset(bus).do(0))
    report = redis.run(lambda bus: reset(bus, even_recent=True).do(0))
    assert {order.record_id for order in report.lifted} == {"k1", "k2"}


def test_only_orders_of_the_scope_since_its_last_reset_are_lifted() -> None:
    """Not those of other scopes, nor those before."""
    redis = Redis()
    killed(redis)
    for kind, scope, record in [
        ("kill", "fleet", "old"),
        ("reset", "fleet", ""),
        ("kill", "group:eu", "other"),
        ("reset", "group:eu", ""),
        ("kill", "fleet", "k1"),
    ]:
        redis.hand.xadd(PROD.audit_key, {"kind": kind, "scope": scope, "record": record})
    lifted = redis.run(lambda bus: reset(bus).orders())
    assert [order.record_id for order in lifted] == ["k1"]


def test_a_kill_that_comes_back_is_told() -> None:
    """Somebody heard an old order late."""
    redis = Redis()
    killed(redis)

    async def test(bus: OperatorBus) -> KillRecord | None:
        report = await reset(bus).do(0, on_watch=lambda: killed(redis))
        return report.killed_again

    assert redis.run(test) == RECORD


def test_who_waits_for_a_restart_is_named() -> None:
    """Pods that are stopped by this scope and still there."""
    redis = Redis()
    killed(redis, GROUP)
    redis.pod("a", State.STOPPED, groups=("eu",))
    redis.pod("b", State.STOPPING, groups=("eu",))
    redis.pod("c", State.RUNNING, groups=("eu",))
    redis.pod("d", State.STOPPED)
    redis.pod("e", State.STOPPED, groups=("eu",), age_ms=60_000)
    assert set(redis.run(lambda bus: reset(bus, GROUP).do(0)).waiting) == {"a", "b"}


@pytest.mark.parametrize("epoch", [None, b"0", b"1700000000000"])
def test_arming_can_never_pass_for_a_reset(epoch: bytes | None) -> None:
    """``SETNX epoch 0``: an epoch that is there stays, and a record too."""
    redis = Redis()
    killed(redis)
    redis.hand.delete(FLEET.epoch_key)
    if epoch is not None:
        redis.hand.set(FLEET.epoch_key, epoch)
    assert redis.run(lambda bus: arm(bus, "admin")) is (epoch is None)
    assert redis.hand.get(FLEET.epoch_key) == (epoch or b"0")
    assert redis.hand.get(FLEET.killed_key) == RECORD.to_bytes()


@pytest.mark.parametrize("scope", [FLEET, GROUP])
@pytest.mark.parametrize("force", [False, True])
def test_a_fleet_that_is_not_armed_is_not_armed_by_a_reset(scope: Scope, force: bool) -> None:
    """Only ``arm`` does that: nothing moves."""
    redis = Redis()
    killed(redis, scope)
    redis.hand.delete(FLEET.epoch_key)
    with pytest.raises(ResetRefused, match="fleet 'prod' is not armed: run skillbus arm first"):
        redis.run(lambda bus: reset(bus, scope, force=force).do(0))
    assert redis.hand.get(scope.epoch_key) is None
    assert [entry["kind"] for entry in redis.audit()] == ["refused"]


def test_force_stops_no_healthy_fleet_by_accident() -> None:
    """Who runs takes a moved epoch for a missed kill: refused by name, unless it is meant."""
    redis = Redis()
    redis.hand.set(FLEET.epoch_key, 0)
    redis.pod("a", State.RUNNING)
    redis.pod("b", State.STOPPED)
    with pytest.raises(ResetRefused, match=r"1 of its pods are not stopped \(a\).*--even-running"):
        redis.run(lambda bus: reset(bus, force=True).do(0))
    assert redis.hand.get(FLEET.epoch_key) == b"0"
    assert redis.run(lambda bus: reset(bus, force=True, even_running=True).do(0)).epoch > 0


def test_a_reset_that_was_refused_hides_no_order_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that comes between asking and doing ends the reset; the next one names them both."""
    redis = Redis()
    killed(redis)
    further = {"kind": "kill", "scope": "fleet", "record": "k2", "by": "alice", "reason": "why"}
    audit = OperatorBus.audit

    async def and_an_order(bus: OperatorBus, entry: dict[str, str]) -> str:
        done = await audit(bus, entry)
        if entry["kind"] == "reset-asked":
            redis.hand.xadd(PROD.audit_key, further)
        return done

    monkeypatch.setattr(OperatorBus, "audit", and_an_order)
    with pytest.raises(BusNotReady, match="ordered again meanwhile: look and try again"):
        redis.run(lambda bus: reset(bus).do(0))
    assert redis.hand.get(FLEET.killed_key) == RECORD.to_bytes()
    monkeypatch.undo()
    report = redis.run(lambda bus: reset(bus, even_recent=True).do(0))
    assert [order.record_id for order in report.lifted] == ["k1", "k2"]


def test_an_entry_of_another_kind_meanwhile_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit is watched up to the EXEC: what was written under the WATCH is looked at, and then it is done."""
    redis = Redis()
    killed(redis)
    read = OperatorBus._read_watched
    entries = iter([{"kind": "sync", "scope": "fleet"}])

    async def and_an_entry(bus: OperatorBus, pipe: object, scope: Scope) -> Reading:
        for entry in entries:
            redis.hand.xadd(PROD.audit_key, entry)
        return await read(bus, pipe, scope)

    monkeypatch.setattr(OperatorBus, "_read_watched", and_an_entry)
    redis.run(lambda bus: reset(bus).do(0))
    assert [entry["kind"] for entry in redis.audit()] == ["reset-asked", "sync", "reset"]
    assert redis.hand.get(FLEET.killed_key) is None


def test_a_record_of_another_type_can_be_reset() -> None:
    """It kills, so it can be lifted."""
    redis = Redis()
    redis.hand.set(FLEET.epoch_key, 0)
    redis.hand.rpush(FLEET.killed_key, "x")
    assert redis.run(lambda bus: reset(bus).do(0)).epoch > 0
    assert not redis.hand.exists(FLEET.killed_key)


# -- whose word counts --------------------------------------------------------------------------------------------


def test_a_bots_order_counts_as_anybodys() -> None:
    """It lies in the bot's own stream: named, refused while it is recent, and not named again after the reset."""
    redis = Redis()
    killed(redis)
    bot = PROD.bot_audit_key("slack")
    redis.hand.xadd(bot, {"kind": "kill", "scope": "fleet", "record": "k2", "by": "carol", "reason": "still leaking"})
    redis.hand.xadd(bot, {"kind": "kill", "scope": "group:eu", "record": "k3"})
    with pytest.raises(ResetRefused, match=r'by carol \("still leaking"\)'):
        redis.run(lambda bus: reset(bus).do(0))
    report = redis.run(lambda bus: reset(bus, even_recent=True).do(0))
    assert [(order.record_id, order.source) for order in report.lifted] == [("k1", "record"), ("k2", "bot:slack")]
    later_ms = int(redis.hand.xrevrange(PROD.audit_key, count=1)[0][0].split(b"-")[0]) + 1
    redis.hand.xadd(bot, {"kind": "kill", "scope": "fleet", "record": "k4"}, id=f"{later_ms}-0")
    killed(redis)
    assert [order.record_id for order in redis.run(lambda bus: reset(bus, even_recent=True).orders())] == ["k1", "k4"]


def test_a_bots_order_between_the_look_and_the_deed_ends_the_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from a bot that nobody had heard of before."""
    redis = Redis()
    killed(redis)
    audit = OperatorBus.audit

    async def and_an_order(bus: OperatorBus, entry: dict[str, str]) -> str:
        if entry["kind"] == "reset-asked":
            redis.hand.xadd(PROD.bot_audit_key("new"), {"kind": "kill", "scope": "fleet", "record": "k2"})
        return await audit(bus, entry)

    monkeypatch.setattr(OperatorBus, "audit", and_an_order)
    with pytest.raises(BusNotReady, match="ordered again meanwhile"):
        redis.run(lambda bus: reset(bus).do(0))
    assert redis.hand.get(FLEET.killed_key) == RECORD.to_bytes()
    assert [entry["kind"] for entry in redis.audit()] == ["reset-asked", "refused"]


def test_an_order_that_only_a_pod_heard_counts() -> None:
    """A raw PUBLISH: no stream tells of it. What was lifted, and what a pod said before the last reset, does not."""
    redis = Redis()
    killed(redis)
    redis.hand.set(FLEET.epoch_key, redis.now_ms - 30_000)
    now, old = iso(redis.now_ms), iso(redis.now_ms - 40_000)
    line = {"kind": "order", "scope": "fleet", "by": "", "reason": "by hand"}
    causes = [
        CauseLine(record_id="k1", at=now, **line),
        CauseLine(record_id="raw", at=now, **line),
        CauseLine(record_id="lifted", at=now, lifted=True, **line),
        CauseLine(record_id="old", at=old, **line),
    ]
    redis.pod("a", State.STOPPED, causes=tuple(causes))
    redis.pod("b", State.STOPPED, causes=(CauseLine(record_id="stale", at=now, **line),), age_ms=40_000)
    with pytest.raises(ResetRefused, match=r'by somebody \("by hand"\)'):
        redis.run(lambda bus: reset(bus).do(0))
    lifted = redis.run(lambda bus: reset(bus, even_recent=True).orders())
    assert [(order.record_id, order.source) for order in lifted] == [("k1", "record"), ("raw", "pods")]


def test_a_reset_that_lies_deep_is_found() -> None:
    """However many entries came since: every page is read, back to it, and no further."""
    redis = Redis()
    killed(redis)
    pipe = redis.hand.pipeline()
    for record in ("before", "k1"):
        pipe.xadd(PROD.audit_key, {"kind": "kill", "scope": "fleet", "record": record, "by": record}, id="*")
        if record == "before":
            pipe.xadd(PROD.audit_key, {"kind": "reset", "scope": "fleet"})
    for _ in range(2500):
        pipe.xadd(PROD.audit_key, {"kind": "sync", "scope": "fleet"})
    pipe.execute()
    assert [order.record_id for order in redis.run(lambda bus: reset(bus).orders())] == ["k1"]


def test_of_very_many_orders_the_oldest_are_counted() -> None:
    """Memory is bounded, and nobody is told that there were fewer."""
    redis = Redis()
    killed(redis)
    pipe = redis.hand.pipeline()
    for number in range(1200):
        pipe.xadd(PROD.audit_key, {"kind": "kill", "scope": "fleet", "record": f"r{number}"})
    pipe.execute()
    report = redis.run(lambda bus: reset(bus, even_recent=True).do(0))
    assert (len(report.lifted), report.left_out_count) == (1001, 200)
    assert (report.lifted[0].record_id, report.lifted[-1].record_id) == ("k1", "r1199")

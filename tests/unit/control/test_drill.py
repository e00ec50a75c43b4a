"""A drill by an operator: sent, followed, audited; and when the last good one was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from skillbus.bus.operator_bus import OperatorBus
from skillbus.control.drill import Drill, DrillOutcome, is_good_drill, last_good_drill
from skillbus.control.status import status
from skillbus.core.drill import DrillReport, Heard
from skillbus.core.heartbeat import DrillLine
from skillbus.core.latch import State
from skillbus.core.orders import DrillOrder
from skillbus.core.scope import Scope
from skillbus.errors import BusUnreachable, SkillbusError
from tests.unit.control.operators import FLEET, GROUP, PROD, Redis

GOOD = {"kind": "drill-result", "ok": "1", "scope": "fleet", "id": "d1", "by": "oncall", "sentence": "3 of 3 answered"}


class Answering:
    """Pods that answer as soon as somebody looks for the first time."""

    def __init__(self, redis: Redis, *pods: str, **more: Any) -> None:
        self.redis, self.pods, self.more = redis, pods, more
        self.seen: list[DrillReport] = []

    def __call__(self, report: DrillReport) -> None:
        if not self.seen:
            for pod_id in self.pods:
                answer(self.redis, pod_id, report.id, **self.more)
        self.seen.append(report)


def answer(redis: Redis, pod_id: str, name: str, **more: Any) -> None:
    """The pod's evidence, with its answer."""
    now_ms = redis.now_ms
    channels = tuple(scope.kill_channel for scope in PROD.scopes_of(pod_id, ()))
    instants = {"heard_at_ms": now_ms, "gate_at_ms": now_ms, "loop_at_ms": now_ms, "answered_at_ms": now_ms}
    fields: dict[str, Any] = {"trips": True, "lease": True, "channels": channels, **instants, **more}
    redis.pod(pod_id, drill=DrillLine(id=name, **fields))


def run(redis: Redis, scope: Scope = FLEET, timeout_s: float = 1.5, show: Any = None) -> DrillOutcome:
    """One drill."""
    return redis.run(lambda bus: Drill(bus, scope, "oncall", timeout_s, show or (lambda report: None)).run())


def test_every_pod_answers() -> None:
    """What is sent is a drill; who answered, and how fast; both entries stand in the audit."""
    redis = Redis()
    ear = redis.hand.pubsub()
    ear.subscribe(PROD.drill_channel)
    ear.get_message(timeout=1)
    redis.pod("a")
    redis.pod("b", State.STOPPED)
    outcome = run(redis, show=Answering(redis, "a", "b"))
    assert outcome.good
    assert outcome.report is not None
    assert (outcome.receivers, outcome.drill_count, outcome.kill_count, outcome.report.live_count) == (1, 1, 0, 2)
    heard = ear.get_message(timeout=1)
    assert DrillOrder.parse(heard["data"]) == outcome.order
    sent, result = redis.audit()
    assert (sent["kind"], sent["by"], sent["scope"], sent["id"]) == ("drill", "oncall", "fleet", outcome.order.id)
    assert (result["kind"], result["ok"], result["asked"], result["answered"]) == ("drill-result", "1", "2", "2")
    assert (result["missing"], result["lacking"]) == ("", "")
    assert int(result["answered_p50_ms"]) <= int(result["answered_p99_ms"]) <= int(result["answered_max_ms"])
    assert redis.hand.get(FLEET.killed_key) is None
    ear.close()


def test_who_did_not_answer_is_named() -> None:
    """Here and in the audit; the answer of another drill is none."""
    redis = Redis()
    redis.pod("a")
    answer(redis, "b", "another")
    outcome = run(redis, timeout_s=0.3, show=Answering(redis, "a"))
    assert outcome.report is not None
    assert not outcome.good
    assert [reply.pod_id for reply in outcome.report.missing] == ["b"]
    assert (redis.audit()[1]["ok"], redis.audit()[1]["missing"]) == ("0", "b")


def test_a_pod_that_lacks_a_channel_is_an_answer_and_not_good() -> None:
    """Nobody waits for it any longer, and the audit names it."""
    redis = Redis()
    redis.pod("a")
    outcome = run(redis, timeout_s=30.0, show=Answering(redis, "a", channels=()))
    assert outcome.report is not None
    assert ([reply.heard for reply in outcome.report.replies], outcome.good) == ([Heard.LACKS], False)
    assert (redis.audit()[1]["ok"], redis.audit()[1]["lacking"]) == ("0", "a")


def test_no_pod_is_known() -> None:
    """A drill that nobody had to answer is not good."""
    redis = Redis()
    redis.pod("gone", age_ms=60_000)
    outcome = run(redis, timeout_s=30.0)
    assert outcome.report is not None
    assert (outcome.good, outcome.report.sentence()) == (False, "no live pod is known in fleet 'prod'")
    assert redis.audit()[1]["ok"] == "0"


def test_only_the_group_is_asked() -> None:
    """The message names it; and its good result is not the fleet's."""
    redis = Redis()
    redis.pod("a")
    redis.pod("b", groups=("eu",))

    def show(report: DrillReport) -> None:
        channels = tuple(scope.kill_channel for scope in PROD.scopes_of("b", ("eu",)))
        now_ms = redis.now_ms
        line = DrillLine(id=report.id, heard_at_ms=now_ms, loop_at_ms=now_ms, answered_at_ms=now_ms, trips=True)
        redis.pod("b", groups=("eu",), drill=line.model_copy(update={"channels": channels}))

    outcome = run(redis, GROUP, show=show)
    assert outcome.report is not None
    assert (outcome.good, len(outcome.report.replies), outcome.report.live_count) == (True, 1, 2)
    assert outcome.order.scope == "group:eu"
    assert (redis.audit()[1]["ok"], redis.audit()[1]["scope"]) == ("1", "group:eu")
    assert redis.run(last_good_drill) is None


def test_many_missing_names_are_bounded() -> None:
    """An entry of the audit stays small, however large the fleet is."""
    redis = Redis()
    for number in range(200):
        redis.pod(f"pod-{number:03}-{'x' * 50}")
    run(redis, timeout_s=0.0)
    result = redis.audit()[1]
    assert (result["asked"], result["answered"]) == ("200", "0")
    assert result["missing"].endswith(" and 150 more")
    assert len(result["missing"]) < 4000
    assert len(result["sentence"]) <= 1024


def test_redis_that_goes_away_in_between() -> None:
    """It is asked again until the time is over; what was last seen is told, and why there is nothing newer."""
    redis = Redis()
    redis.pod("a")
    redis.pod("b")

    async def test(bus: OperatorBus) -> DrillOutcome:
        original, calls = bus.heartbeats, 0

        async def sometimes(pod_ids: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls in (1, 3):
                raise BusUnreachable("no answer")
            return await original(pod_ids)

        bus.heartbeats = sometimes  # type: ignore[method-assign]
        return await Drill(bus, FLEET, "oncall", 2.0, Answering(redis, "a", "b")).run()

    outcome = redis.run(test)
    assert (outcome.good, outcome.not_seen) == (True, None)


def test_nothing_could_be_seen() -> None:
    """No report, and the audit says so."""
    redis = Redis()
    redis.hand.set(PROD.roster_key, "no set")
    outcome = run(redis, timeout_s=0.2)
    assert (outcome.report, outcome.good) == (None, False)
    assert isinstance(outcome.not_seen, SkillbusError)
    assert "nothing could be seen" in redis.audit()[1]["sentence"]


def test_a_drill_that_cannot_be_audited_is_told() -> None:
    """Who answered is told all the same."""
    redis = Redis()
    redis.hand.set(PROD.audit_key, "no stream")
    redis.pod("a")
    outcome = run(redis, show=Answering(redis, "a"))
    assert outcome.good
    assert isinstance(outcome.audited, SkillbusError)


# -- the last good one -------------------------------------------------------------------------------------------------


def test_the_last_good_drill() -> None:
    """The youngest that is good, of the whole fleet; what came behind it does not hide it."""
    redis = Redis()
    assert redis.run(last_good_drill) is None
    redis.hand.xadd(PROD.audit_key, {**GOOD, "id": "old"}, id="1000-0")
    redis.hand.xadd(PROD.audit_key, GOOD, id="2000-0")
    redis.hand.xadd(PROD.audit_key, {**GOOD, "ok": "0"}, id="3000-0")
    redis.hand.xadd(PROD.audit_key, {**GOOD, "scope": "group:eu"}, id="4000-0")
    for number in range(250):
        redis.hand.xadd(PROD.audit_key, {"kind": "sync"}, id=f"5000-{number}")
    found = redis.run(last_good_drill)
    assert found is not None
    assert (found.at_ms, found.id, found.by) == (2000, "d1", "oncall")
    seen = redis.run(status)
    assert seen.drill == found


def test_it_is_not_looked_for_without_end() -> None:
    """Behind the youngest thousand entries nobody looks."""
    redis = Redis()
    redis.hand.xadd(PROD.audit_key, GOOD, id="1-0")
    with redis.hand.pipeline() as pipe:
        for number in range(1000):
            pipe.xadd(PROD.audit_key, {"kind": "sync"}, id=f"2-{number}")
        pipe.execute()
    assert redis.run(last_good_drill) is None


def test_status_is_told_without_the_audit() -> None:
    """Who may not read it sees the fleet all the same."""
    redis = Redis()
    redis.hand.set(PROD.audit_key, "no stream")
    redis.pod("a")
    seen = redis.run(status)
    assert isinstance(seen.drill, SkillbusError)
    assert seen.counts() == {"running": 1}


@pytest.mark.parametrize("fields", [{}, {"kind": "drill"}, {**GOOD, "ok": ""}, {**GOOD, "scope": "pod:a"}])
def test_what_is_no_good_drill(fields: dict[str, str]) -> None:
    """Neither its beginning, nor a part of the fleet."""
    assert not is_good_drill(fields)
    assert is_good_drill(GOOD)


def test_two_at_once() -> None:
    """Two operators: each sees its own answers, also where the other's came last."""
    redis = Redis()
    redis.pod("a")

    async def test(bus: OperatorBus) -> list[DrillOutcome]:
        names: list[str] = []

        def show(report: DrillReport) -> None:
            if report.id not in names:
                names.append(report.id)
            if len(names) == 2:
                now_ms = redis.now_ms
                channels = tuple(scope.kill_channel for scope in PROD.scopes_of("a", ()))
                lines = [
                    DrillLine(id=name, heard_at_ms=now_ms, answered_at_ms=now_ms, trips=True, channels=channels)
                    for name in names
                ]
                redis.pod("a", drill=lines[1], drills_before=(lines[0],))

        async with OperatorBus(PROD, bus.endpoint) as other:
            drills = (Drill(one, FLEET, "x", 5.0, show).run() for one in (bus, other))
            return list(await asyncio.gather(*drills))

    assert [outcome.good for outcome in redis.run(test)] == [True, True]

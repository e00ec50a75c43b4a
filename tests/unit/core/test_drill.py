"""What is a drill, and what the pods' evidence says of one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from skillbus.core.drill import DrillReport, Heard, asked_of, names_of, report_of
from skillbus.core.heartbeat import DrillLine, Heartbeat
from skillbus.core.latch import State
from skillbus.core.orders import DrillOrder, KillOrder
from skillbus.core.scope import Fleet
from tests.unit.core.beats import T0, beat

PROD = Fleet("prod")
FLEET, EU = PROD.scope, PROD.group("eu")
ORDER = DrillOrder("d1", by="oncall")


def line(pod_id: str, name: str = "d1", took_ms: int = 20, **more: Any) -> DrillLine:
    """An answer that left ``took_ms`` behind the order."""
    at_ms = T0 + took_ms
    channels = tuple(scope.kill_channel for scope in PROD.scopes_of(pod_id, ()))
    fields: dict[str, Any] = {"heard_at_ms": at_ms - 5, "gate_at_ms": at_ms - 5, "loop_at_ms": at_ms - 1}
    return DrillLine(
        **{"id": name, "answered_at_ms": at_ms, "trips": True, "lease": True, "channels": channels, **fields, **more}
    )


def report(**beats: Heartbeat) -> DrillReport:
    """Of these pods, all of them asked."""
    found = {pod_id: [one] for pod_id, one in beats.items()}
    who = frozenset((pod_id, one.incarnation) for pod_id, one in beats.items())
    return report_of(ORDER, FLEET, T0, who, T0 + 1000, found)


# -- the message -------------------------------------------------------------------------------------------------------


def test_a_drill_is_read_as_it_was_written() -> None:
    """Also one whose sender's name is no text."""
    order = DrillOrder("d-1", "oncall", 2.5, "group:eu")
    assert DrillOrder.parse(order.to_bytes()) == order
    assert DrillOrder.parse(DrillOrder("d1", by="\udcff").to_bytes()) is not None
    newer = json.dumps({"v": 9, "id": "d1", "timeout_s": 10, "signed": {"by": "k"}}).encode()
    assert DrillOrder.parse(newer) == DrillOrder("d1")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"drill",
        b"\xff\xfe",
        b"[]",
        b'{"timeout_s": 1}',
        b'{"id": "d1"}',
        b'{"id": 7, "timeout_s": 1}',
        b'{"id": "", "timeout_s": 1}',
        b'{"id": "a b", "timeout_s": 1}',
        b'{"id": "\\ud800", "timeout_s": 1}',
        b'{"id": "d1", "timeout_s": true}',
        b'{"id": "d1", "timeout_s": -1}',
        b'{"id": "d1", "timeout_s": NaN}',
        b'{"id": "d1", "timeout_s": Infinity}',
        b'{"id": "d1", "timeout_s": "10"}',
        b'{"id": "' + b"d" * 65 + b'", "timeout_s": 1}',
        b'{"a":' * 10_000,
        b'{"id": "d1", "timeout_s": 1, "by": "' + b"x" * (1 << 20) + b'"}',
        KillOrder(id="k1", by="oncall", via="cli", reason="stop").to_bytes(),
    ],
    ids=lambda payload: f"{payload[:24]!r}",
)
def test_what_is_not_exactly_a_drill_is_none(payload: bytes) -> None:
    """A kill order is none either."""
    assert DrillOrder.parse(payload) is None


# -- who is asked ------------------------------------------------------------------------------------------------------


def test_the_live_are_asked() -> None:
    """Who lived when it was sent: not the ended, the silent, who began since; nor who is dead and could not vouch."""
    beats = {
        "live": [beat()],
        "late": [beat(beat_at_ms=T0 - 6000)],
        "stopped": [beat(state=State.STOPPED, quiet=True)],
        "twin": [beat("i1"), beat("i2")],
        "ends-later": [beat(ended_at_ms=T0 + 50)],
        "ended": [beat(ended_at_ms=T0 - 1)],
        "silent": [beat(beat_at_ms=T0 - 8000)],
        "dead": [beat(beat_at_ms=T0 - 8000, vouched=False)],
        "new": [beat(started_at_ms=T0 + 1)],
        "eu": [beat(groups=("eu",))],
    }
    asked = asked_of(T0, beats, FLEET)
    assert {pod_id for pod_id, _ in asked} == {"live", "late", "stopped", "twin", "ends-later", "eu"}
    assert len(asked) == 7
    assert asked_of(T0, beats, EU) == {("eu", "i1")}
    assert asked_of(T0, beats, PROD.pod("twin")) == {("twin", "i1"), ("twin", "i2")}


# -- what is said of them ----------------------------------------------------------------------------------------------


def test_every_live_pod_answered() -> None:
    """Whatever its state; the times are the pods' own, from the order."""
    found = report(a=beat(drill=line("a", took_ms=10)), b=beat(state=State.STOPPED, drill=line("b", took_ms=40)))
    assert found.good
    assert [(reply.heard, reply.heard_s, reply.answered_s) for reply in found.replies] == [
        (Heard.ANSWERED, 0.005, 0.010),
        (Heard.ANSWERED, 0.035, 0.040),
    ]
    assert found.sentence() == "2 of 2 answered: p50 10 ms, p99 40 ms, max 40 ms"


def test_a_missing_kill_channel_is_not_good() -> None:
    """The pod answered, and a kill of the fleet would not reach it: it is named with the channel."""
    own = (PROD.pod("a").kill_channel,)
    found = report(a=beat(drill=line("a", channels=own)), b=beat(drill=line("b")))
    (reply,) = found.of(Heard.LACKS)
    assert (found.good, found.missing, reply.lacking) == (False, (), ("skillbus:prod:kill",))
    assert "1 lack a kill channel: a" in found.sentence()


def test_the_groups_channels_count() -> None:
    """A pod that says it is in a group must hear that group's kills."""
    found = report(a=beat(groups=("eu",), drill=line("a")))
    assert found.replies[0].lacking == ("skillbus:prod:kill:group:eu",)


@pytest.mark.parametrize(
    ("of", "note"),
    [
        (beat(drill=line("a", "d0")), "running, last heard of 1 s ago"),
        (
            Heartbeat.model_validate_json(
                b'{"incarnation":"i1","state":"running","beat_at_ms":%d,"version":"0.0.9"}' % T0
            ),
            "its version (0.0.9) knows no drills",
        ),
        (beat(drill=None, armed=False), "it says itself that it is deaf"),
        (beat(drill=None, armed=True, beat_at_ms=T0 - 6500), "it is gone, or frozen"),
    ],
    ids=["another drill's answer", "an old version", "deaf", "gone"],
)
def test_who_is_silent_is_named_with_what_is_known(of: Heartbeat, note: str) -> None:
    """An answer to another drill is none."""
    (reply,) = report(a=of.model_copy(update={"armed": True}) if "running" in note else of).replies
    assert (reply.heard, note in reply.note) == (Heard.SILENT, True), reply


def test_heard_and_stuck() -> None:
    """It heard the drill, but its loop has not turned: that is no answer."""
    found = report(a=beat(drill=line("a", loop_at_ms=0, answered_at_ms=0)))
    assert ([reply.heard for reply in found.missing], found.good) == ([Heard.STUCK], False)
    assert "1 heard it and are stuck: a" in found.sentence()


def test_a_gate_that_would_let_a_kill_through_is_not_good() -> None:
    """Whatever else it says."""
    found = report(a=beat(drill=line("a", trips=False)))
    assert (found.good, found.missing[0].heard) == (False, Heard.STUCK)


def test_an_earlier_answer_counts() -> None:
    """Another drill came in between: the answer stands behind it."""
    assert report(a=beat(drill=line("a", "d2"), drills_before=(line("a"),))).good


def test_who_ended_since_is_nobodys_fault() -> None:
    """And if there is nobody else, nothing was shown."""
    ended = beat(ended_at_ms=T0 + 10)
    assert report(a=ended, b=beat(drill=line("b"))).good
    alone = report(a=ended)
    assert (alone.good, alone.missing, alone.sentence()) == (False, (), "no live pod is known in fleet 'prod'")


def test_evidence_that_vanished_is_no_answer() -> None:
    """A hash can expire under us."""
    found = report_of(ORDER, FLEET, T0, frozenset({("a", "i1")}), T0, {})
    assert [reply.note for reply in found.missing] == ["its evidence is gone"]


def test_a_clock_that_runs_behind_makes_no_negative_time() -> None:
    """A pod's reckoning is rounded: never before the order. And an instant that it did not know is none."""
    found = report(a=beat(drill=line("a", took_ms=-3)), b=beat(drill=line("b", heard_at_ms=0)))
    assert [reply.heard_s for reply in found.replies] == [0.0, None]
    assert found.answered_s(50) == 0.0
    assert DrillReport("d1", FLEET, T0, ()).answered_s(99) is None


def test_percentiles_are_nearest_rank() -> None:
    """Of a hundred, p99 is the ninety-ninth."""
    beats = {f"p{i:03}": beat(drill=line(f"p{i:03}", took_ms=i)) for i in range(1, 101)}
    found = report(**beats)
    assert [found.answered_s(percent) for percent in (50, 99, 100)] == [0.050, 0.099, 0.100]
    assert names_of(found.replies) == "p001, p002, p003, p004, p005, p006, p007, p008, p009, p010 and 90 more"

"""Heartbeats: a reader tolerates what it does not know, and evidence that cannot be read is no evidence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.core.heartbeat import CauseLine, Heartbeat, PassLine
from skillbus.core.latch import CauseKind, State
from skillbus.core.roster import presence_of, view
from tests import profiles
from tests.unit.core.beats import T0, beat

assert profiles

LEAST = {"incarnation": "i1", "state": "running", "beat_at_ms": T0}


def test_a_heartbeat_round_trips() -> None:
    """Everything a pod wrote is read."""
    line = PassLine(id="x", outcome="failed", began_at_ms=T0, took_s=0.5, counts={"added": 1}, errors=("no",))
    cause = CauseLine(kind=CauseKind.ORDER, scope="fleet", record_id="k", reason="grüße", recorded=False)
    full = beat(causes=(cause,), last_pass=line, hears=("a", "b"), groups=("eu",), vouched=False, why="grüße")
    assert Heartbeat.parse(full.to_bytes()) == full


def test_the_least_that_is_evidence() -> None:
    """Who, what and when; the rest has defaults."""
    found = Heartbeat.parse(json.dumps(LEAST).encode())
    assert found == Heartbeat(incarnation="i1", state=State.RUNNING, beat_at_ms=T0)


@pytest.mark.parametrize("name", LEAST)
def test_without_who_what_or_when_it_is_no_evidence(name: str) -> None:
    """None instead of a guess."""
    assert Heartbeat.parse(json.dumps({key: value for key, value in LEAST.items() if key != name}).encode()) is None


def test_unknown_fields_are_ignored() -> None:
    """A newer pod's evidence is read by an older reader."""
    newer = LEAST | {"v": 2, "mood": "fine", "last_pass": None, "causes": [{"kind": "record", "new": 1}]}
    found = Heartbeat.parse(json.dumps(newer).encode())
    assert found is not None
    assert found.causes == (CauseLine(kind=CauseKind.RECORD),)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff", b"null", b"[]", b"7", b'"x"', b"{", b"[" * 100_000, b'{"a":' * 50_000, b"\x00" * 10]
    + [
        json.dumps(LEAST | change).encode()
        for change in (
            {"state": "dancing"},
            {"beat_at_ms": "soon"},
            {"beat_at_ms": None},
            {"incarnation": 7},
            {"beat_at_ms": 10**30},
            {"beat_at_ms": -(10**30)},
            {"ended_at_ms": 10**30},
            {"quiet_at_ms": 10**30},
            {"lease_s": float("inf")},
            {"lease_s": float("nan")},
            {"lease_s": 1e300},
            {"lease_s": -1e6},
            {"causes": [7]},
        )
    ],
    ids=lambda raw: raw[-40:].decode("latin-1"),
)
def test_garbage_is_no_evidence(raw: bytes) -> None:
    """Neither a type, a depth nor a number that nobody can reckon with ever raises."""
    assert Heartbeat.parse(raw) is None


@given(
    st.fixed_dictionaries(
        {"incarnation": st.text(), "state": st.sampled_from(State), "beat_at_ms": st.integers() | st.floats()},
        optional={
            "lease_s": st.floats() | st.integers(),
            "ended_at_ms": st.integers(),
            "quiet_at_ms": st.integers(),
            "causes": st.lists(st.dictionaries(st.text(), st.text())),
            "vouched": st.booleans(),
        },
    )
)
def test_no_evidence_breaks_a_roster(fields: dict[str, object]) -> None:
    """Whatever a pod wrote: it is read or not, and a fleet's view is never lost over it."""
    found = Heartbeat.parse(json.dumps(fields).encode())
    if found is not None:
        presence_of(found, T0)
        view(T0, {"p": [found]})


def test_a_pod_obeys_what_it_names() -> None:
    """By the record's id, among all its causes."""
    causes = (CauseLine(kind=CauseKind.LOCAL), CauseLine(kind=CauseKind.RECORD, record_id="k1"))
    assert beat(causes=causes).obeys("k1")
    assert not beat(causes=causes).obeys("k2")
    assert not beat().obeys("k1")

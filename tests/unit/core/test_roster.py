"""Heartbeats and the server's time -> who is live, late, fenced, ended. A silent pod is never ``stopped``."""

from __future__ import annotations

import pytest

from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import State
from skillbus.core.roster import Life, PodView, Presence, fenced_at_ms, in_scope, presence_of, view
from skillbus.core.scope import Fleet
from tests.unit.core.beats import T0, beat

PROD = Fleet("prod")


@pytest.mark.parametrize(
    ("age_ms", "presence"),
    [
        (-5000, Presence.LIVE),
        (0, Presence.LIVE),
        (3000, Presence.LIVE),
        (3001, Presence.LATE),
        (6999, Presence.LATE),
        (7000, Presence.FENCED),
        (10**9, Presence.FENCED),
    ],
)
def test_silence_becomes_late_and_then_fenced(age_ms: int, presence: Presence) -> None:
    """Late after one and a half heartbeats, fenced at last beat + lease + 1 s, to the millisecond."""
    assert presence_of(beat(), T0 + age_ms) is presence


def test_the_fence_follows_the_pods_own_lease() -> None:
    """A longer lease is fenced later."""
    assert fenced_at_ms(beat(lease_s=6.0)) == T0 + 7000
    assert fenced_at_ms(beat(lease_s=0.6)) == T0 + 1600
    assert presence_of(beat(lease_s=60.0), T0 + 60_999) is Presence.LATE
    assert presence_of(beat(lease_s=60.0), T0 + 61_000) is Presence.FENCED


def test_who_said_goodbye_has_ended() -> None:
    """However fresh or old the last beat is."""
    assert presence_of(beat(ended_at_ms=T0), T0) is Presence.ENDED
    assert presence_of(beat(ended_at_ms=T0), T0 + 10**9) is Presence.ENDED


def pod(*beats: Heartbeat, now_ms: int = T0) -> PodView:
    """One pod as seen at ``now_ms``."""
    (found,) = view(now_ms, {"p": beats})
    return found


@pytest.mark.parametrize("state", list(State))
def test_a_live_pod_is_what_it_says(state: State) -> None:
    """Its own state is its word."""
    assert pod(beat(state=state)).word == str(state)


@pytest.mark.parametrize("state", list(State))
def test_a_silent_pod_is_never_what_it_last_said(state: State) -> None:
    """It is fenced; if the end of its work cannot be vouched for, it is unconfirmed."""
    assert pod(beat(state=state), now_ms=T0 + 7000).word == "fenced"
    assert pod(beat(state=state, vouched=False), now_ms=T0 + 7000).word == "unconfirmed"


def test_a_pod_without_evidence_is_lost() -> None:
    """The roster knows it and its hash is gone."""
    assert pod().word == "lost"


def test_the_worst_life_speaks_for_a_twin() -> None:
    """Two live processes under one id: a twin, stopped only when both are."""
    running, stopped = beat("a"), beat("b", State.STOPPED)
    assert pod(running, stopped).twin
    assert pod(running, stopped).word == "running"
    assert pod(stopped, beat("c", State.STOPPING)).word == "stopping"
    assert pod(stopped, beat("c", State.STOPPED)).word == "stopped"


def test_who_may_act_and_does_not_hear_is_deaf() -> None:
    """Running or holding; a pod that just starts, or has stopped, is what it says; a silent one is not heard from."""
    words = {state: pod(beat(state=state, deaf_since_ms=T0 - 1)).word for state in State}
    assert words == {
        State.STARTING: "starting",
        State.RUNNING: "deaf",
        State.HOLDING: "deaf",
        State.STOPPING: "stopping",
        State.STOPPED: "stopped",
    }
    assert pod(beat("a"), beat("b", deaf_since_ms=T0 - 1)).word == "deaf"
    assert pod(beat(deaf_since_ms=T0 - 1), now_ms=T0 + 7000).word == "fenced"
    assert [found.pod_id for found in view(T0, {"a": [beat()], "b": [beat(deaf_since_ms=1)]})] == ["b", "a"]


def test_an_earlier_life_is_no_twin() -> None:
    """Who ended or is fenced does not speak beside who lives."""
    fenced = beat("a", beat_at_ms=T0 - 60_000)
    ended = beat("b", ended_at_ms=T0)
    seen = pod(fenced, ended, beat("c", State.STOPPED))
    assert not seen.twin
    assert seen.word == "stopped"
    assert [life.beat.incarnation for life in seen.current] == ["c"]


def test_of_the_dead_the_last_speaks() -> None:
    """A goodbye after a fenced life: ended. A fenced life after a goodbye: fenced."""
    old = beat("a", beat_at_ms=T0 - 60_000)
    assert pod(old, beat("b", ended_at_ms=T0)).word == "ended"
    assert pod(beat("a", beat_at_ms=T0 - 90_000, ended_at_ms=T0 - 90_000), old).word == "fenced"


def test_stragglers_come_first() -> None:
    """The order in which an operator cares, and by name within it."""
    beats = {
        "z-running": [beat()],
        "a-running": [beat()],
        "stopped": [beat(state=State.STOPPED)],
        "stopping": [beat(state=State.STOPPING)],
        "holding": [beat(state=State.HOLDING)],
        "starting": [beat(state=State.STARTING)],
        "fenced": [beat(beat_at_ms=T0 - 7000)],
        "unconfirmed": [beat(beat_at_ms=T0 - 7000, vouched=False)],
        "ended": [beat(ended_at_ms=T0)],
        "lost": [],
    }
    assert [seen.pod_id for seen in view(T0, beats)] == [
        "a-running",
        "z-running",
        "stopping",
        "starting",
        "holding",
        "unconfirmed",
        "fenced",
        "stopped",
        "ended",
        "lost",
    ]


def test_a_life_knows_its_age() -> None:
    """Seconds since its last beat; a clock that ran ahead makes no negative age."""
    assert pod(beat(), now_ms=T0 + 2500).lives == (Life("p", beat(), Presence.LIVE, 2.5),)
    assert pod(beat(), now_ms=T0 - 100).lives[0].age_s == 0.0
    assert fenced_at_ms(beat()) == T0 + 7000


def test_an_order_reaches_whom_it_names() -> None:
    """The fleet everybody, a group its members, a pod itself."""
    member = beat(groups=("batch", "eu"))
    assert in_scope(member, "web-1", PROD.scope)
    assert in_scope(member, "web-1", PROD.group("eu"))
    assert not in_scope(member, "web-1", PROD.group("web-1"))
    assert in_scope(member, "web-1", PROD.pod("web-1"))
    assert not in_scope(member, "web-1", PROD.pod("eu"))

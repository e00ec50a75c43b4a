"""A kill and the pods' evidence -> what is proved: each column, and that nobody lands in ``stopped`` by silence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.core.certificate import Certificate, Held, Line, Proof, certify, expected, is_settled
from skillbus.core.heartbeat import CauseLine, Heartbeat
from skillbus.core.latch import CauseKind, State
from skillbus.core.orders import KillRecord
from skillbus.core.scope import Fleet
from tests import profiles
from tests.unit.core.beats import T0, beat, obeying

assert profiles

PROD = Fleet("prod")
RECORD = KillRecord(id="k1", reason="r")
WHO = frozenset({("p", "i1")})


def line(found: Heartbeat | None, *, after_ms: int = 1000, writable: bool = True) -> Line:
    """The line of pod ``p``'s incarnation ``i1``, ``after_ms`` after the order at ``T0``."""
    beats = {"p": [found] if found else []}
    (one,) = certify(RECORD, PROD.scope, T0, WHO, T0 + after_ms, beats, writable=writable).lines
    return one


# -- stopped ------------------------------------------------------------------------------------------------------


def test_quiet_for_this_kill_is_stopped() -> None:
    """Its own hash says so: stopped, and how long after the order, by the server's time."""
    assert line(
        beat(
            **obeying("k1"),
        )
    ) == Line("p", "i1", Proof.STOPPED, 0.3, T0 + 300, T0)


def test_who_was_quiet_before_took_no_time() -> None:
    """Never a negative second."""
    assert line(beat(**obeying("k1", quiet_at_ms=T0 - 5000))).seconds == 0.0


def test_stopped_stays_proved_in_silence() -> None:
    """What was observed does not become untrue when the pod dies."""
    assert line(beat(**obeying("k1")), after_ms=10**7).proof is Proof.STOPPED


@pytest.mark.parametrize(
    "change",
    [
        {"quiet": False},
        {"state": State.STOPPING},
        {"state": State.RUNNING},
        {"state": State.HOLDING},
        {"causes": ()},
        {"causes": (CauseLine(kind=CauseKind.RECORD, record_id="another"),)},
        {"causes": (CauseLine(kind=CauseKind.LOCAL),)},
        {"vouched": False},
    ],
)
def test_never_stopped_before_quiet_for_this_kill_and_vouched(change: dict[str, Any]) -> None:
    """Each part of the proof is needed; without it the pod is unconfirmed, and must be looked at again."""
    assert line(beat(**obeying("k1") | change)).proof is Proof.UNCONFIRMED
    assert not is_settled([beat(**obeying("k1") | change)], "k1", T0)


def test_a_pod_is_settled_once_nothing_it_may_say_changes_its_lines() -> None:
    """Every incarnation in its hash stopped for this kill, or had ended at its order. A hash without any: never."""
    stopped, over = beat(**obeying("k1")), beat(incarnation="i0", ended_at_ms=T0)
    assert is_settled([stopped], "k1", T0)
    assert is_settled([over, stopped], "k1", T0)
    assert not is_settled([stopped, beat(incarnation="i2")], "k1", T0), "a twin still runs"
    assert not is_settled([stopped, beat(incarnation="i0", ended_at_ms=T0 + 1, quiet=False)], "k1", T0)
    assert not is_settled([], "k1", T0)


def test_a_quiet_goodbye_is_stopped() -> None:
    """A process that ended by itself, quiet, needs no kill to be over."""
    found = line(beat(state=State.HOLDING, quiet=True, ended_at_ms=T0 + 2000))
    assert (found.proof, found.seconds, found.at_ms) == (Proof.STOPPED, 2.0, T0 + 2000)


@pytest.mark.parametrize("change", [{"quiet": False}, {"vouched": False}])
def test_a_goodbye_that_is_not_quiet_proves_nothing(change: dict[str, Any]) -> None:
    """It ended, and its work may not have."""
    found = beat(**{"quiet": True, "ended_at_ms": T0 + 2000} | change)
    assert line(found, after_ms=10**7).proof is Proof.UNCONFIRMED


# -- fenced -------------------------------------------------------------------------------------------------------


def test_silence_is_fenced_when_the_lease_has_certainly_run_out() -> None:
    """At last beat + lease + 1 s, to the millisecond, and not before."""
    assert line(beat(), after_ms=6999).proof is Proof.UNCONFIRMED
    fenced = line(beat(), after_ms=7000)
    assert (fenced.proof, fenced.at_ms, fenced.last_beat_ms) == (Proof.FENCED, T0 + 7000, T0)


def test_silence_that_cannot_be_vouched_for_stays_unconfirmed() -> None:
    """A program without a guard may go on when its pod is silent: somebody must look."""
    found = line(beat(vouched=False), after_ms=10**7)
    assert found.proof is Proof.UNCONFIRMED
    assert "by hand" in found.note


def test_silence_proves_nothing_on_a_server_that_takes_no_writes() -> None:
    """A pod may beat in vain there."""
    found = line(beat(), after_ms=10**7, writable=False)
    assert found.proof is Proof.UNCONFIRMED
    assert "no writes" in found.note


# -- unconfirmed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.HOLDING, State.STOPPING])
def test_who_still_speaks_and_is_not_stopped_is_unconfirmed(state: State) -> None:
    """Its last word is shown."""
    found = line(beat(state=state))
    assert found.proof is Proof.UNCONFIRMED
    assert found.note == f"last said: {state}"


def test_who_left_no_evidence_is_unconfirmed() -> None:
    """A hash that is gone proves nothing."""
    assert line(None, after_ms=10**9).proof is Proof.UNCONFIRMED


BEATS = st.builds(
    lambda state, age_ms, quiet, vouched, record_id, ended_ms: beat(
        state=state,
        beat_at_ms=T0 - age_ms,
        quiet=quiet,
        quiet_at_ms=T0 - age_ms,
        vouched=vouched,
        causes=(CauseLine(kind=CauseKind.RECORD, record_id=record_id),) if record_id else (),
        ended_at_ms=ended_ms,
    ),
    st.sampled_from(State),
    st.integers(0, 20_000),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "k1", "k2"]),
    st.sampled_from([0, T0 - 1]),
)


@given(BEATS, st.integers(0, 60_000), st.booleans())
def test_what_is_proved_was_observed(found: Heartbeat, after_ms: int, writable: bool) -> None:
    """For any evidence: stopped means quiet and vouched, and fenced means silent past the lease and vouched."""
    proof = line(found, after_ms=after_ms, writable=writable).proof
    if proof is Proof.STOPPED:
        assert found.quiet
        assert found.vouched
        assert found.ended_at_ms or (found.state is State.STOPPED and found.obeys("k1"))
    if proof is Proof.FENCED:
        assert found.vouched
        assert writable
        assert T0 + after_ms >= found.beat_at_ms + 7000


# -- who must answer ----------------------------------------------------------------------------------------------


def test_expected_is_whose_lease_may_have_run() -> None:
    """By incarnation: who beat lately, and whose silence proves nothing; not who was fenced or had ended before."""
    beats = {
        "live": [beat()],
        "twin": [beat("a"), beat("b")],
        "late": [beat(beat_at_ms=T0 - 6999)],
        "fenced": [beat(beat_at_ms=T0 - 7000)],
        "unvouched": [beat(beat_at_ms=T0 - 10**6, vouched=False)],
        "ended": [beat(ended_at_ms=T0 - 1)],
        "ended-since": [beat(ended_at_ms=T0 + 1)],
        "started-since": [beat(started_at_ms=T0 + 1)],
        "lost": [],
    }
    assert expected(T0, beats, PROD.scope) == {
        ("live", "i1"),
        ("twin", "a"),
        ("twin", "b"),
        ("late", "i1"),
        ("unvouched", "i1"),
        ("ended-since", "i1"),
    }


def test_expected_is_whom_the_scope_reaches() -> None:
    """A group's kill waits for its members, a pod's for that pod."""
    beats = {"a": [beat(groups=("eu",))], "b": [beat()]}
    assert expected(T0, beats, PROD.group("eu")) == {("a", "i1")}
    assert expected(T0, beats, PROD.pod("b")) == {("b", "i1")}
    assert expected(T0, beats, PROD.group("us")) == frozenset()


# -- what is read out ---------------------------------------------------------------------------------------------


def certificate(*lines: Line) -> Certificate:
    """A certificate of these lines."""
    return Certificate(RECORD, PROD.scope, lines)


def proved(pod_id: str, proof: Proof, seconds: float = 0.0, at_ms: int = 0) -> Line:
    """What is proved of one pod."""
    return Line(pod_id, "i1", proof, seconds, at_ms, T0)


def test_the_sentence_names_the_missing() -> None:
    """Counts, the time of the last one, when the silent ones were fenced, and who is missing."""
    stopped = [proved(f"p{number}", Proof.STOPPED, number / 10) for number in range(4)]
    fenced = proved("q", Proof.FENCED, at_ms=1_769_868_131_123)
    missing = proved("pod-17", Proof.UNCONFIRMED)
    assert certificate(*stopped, fenced, missing).sentence() == (
        "4 of 6 stopped in 0.3 s; 1 fenced at 2026-01-31T14:02:11Z; 1 unconfirmed: pod-17"
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "0 ms"), (0.007, "7 ms"), (0.0994, "99 ms"), (0.1, "0.1 s"), (0.3, "0.3 s"), (12, "12.0 s")],
)
def test_a_short_time_is_told_in_ms(seconds: float, said: str) -> None:
    """Never ``0.0 s``."""
    assert certificate(proved("p", Proof.STOPPED, seconds)).sentence() == f"1 of 1 stopped in {said}"


def test_the_sentence_stays_short() -> None:
    """Ten names at most."""
    many = [proved(f"p{number}", Proof.UNCONFIRMED) for number in range(12)]
    assert certificate(*many).sentence().endswith("p9 and 2 more")
    assert certificate(*many).sentence().startswith("0 of 12 stopped; ")


def test_nobody_is_not_everybody() -> None:
    """A kill that nobody was expected to answer is not complete."""
    assert not certificate().complete
    assert certificate().sentence() == "no pod is known in fleet 'prod'"
    assert certificate(proved("p", Proof.STOPPED), proved("q", Proof.FENCED)).complete
    assert not certificate(proved("p", Proof.STOPPED), proved("q", Proof.UNCONFIRMED)).complete


def test_percentiles_are_by_nearest_rank() -> None:
    """Of the stopped ones alone."""
    found = certificate(*(proved(f"p{n}", Proof.STOPPED, float(n)) for n in range(1, 11)), proved("f", Proof.FENCED))
    assert [found.percentile_s(percent) for percent in (1, 10, 11, 50, 95, 100)] == [1.0, 1.0, 2.0, 5.0, 10.0, 10.0]
    assert certificate(proved("f", Proof.FENCED)).percentile_s(50) is None


def test_without_the_servers_time_no_time_is_claimed() -> None:
    """Who stopped is proved all the same."""
    found = Certificate(RECORD, PROD.scope, (proved("p", Proof.STOPPED, 1.0),), T0, timed=False)
    assert found.percentile_s(50) is None
    assert found.sentence() == "1 of 1 stopped"


# -- somebody else's list -----------------------------------------------------------------------------------------


def test_whom_a_list_names_and_redis_does_not_know_is_unknown() -> None:
    """Not proved, whatever else is: never complete, and named in the sentence."""
    beats = {"p": [beat(**obeying("k1"))], "empty": []}
    found = certify(RECORD, PROD.scope, T0, WHO, T0 + 10**7, beats, roster=frozenset({"p", "ghost", "empty"}))
    assert [(one.pod_id, one.proof) for one in found.lines] == [
        ("p", Proof.STOPPED),
        ("empty", Proof.UNKNOWN),
        ("ghost", Proof.UNKNOWN),
    ]
    assert not found.complete
    assert found.unconfirmed == ()
    assert found.sentence().endswith("; 2 unknown: empty, ghost")


def test_whom_a_list_names_is_asked_about_also_if_it_was_over_before_the_order() -> None:
    """By its last life: ended, fenced, or begun since; and who is of another group was not reached."""
    beats = {
        "p": [beat(**obeying("k1"))],
        "ended": [beat("old", beat_at_ms=T0 - 9000), beat("new", quiet=True, ended_at_ms=T0 - 5000)],
        "silent": [beat(beat_at_ms=T0 - 8000)],
        "since": [beat(started_at_ms=T0 + 1, **obeying("k1"))],
    }
    found = certify(RECORD, PROD.scope, T0, WHO, T0 + 1000, beats, roster=frozenset(beats))
    assert {one.pod_id: (one.proof, one.incarnation) for one in found.lines} == {
        "p": (Proof.STOPPED, "i1"),
        "ended": (Proof.STOPPED, "new"),
        "silent": (Proof.FENCED, "i1"),
        "since": (Proof.STOPPED, "i1"),
    }
    (other,) = certify(RECORD, PROD.group("eu"), T0, frozenset(), T0, beats, roster=frozenset({"p"})).lines
    assert (other.proof, other.note) == (Proof.UNKNOWN, "it is not in group 'eu' of fleet 'prod', as far as it says")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (Held(), "on the master; whether any replica holds it is not known"),
        (Held(0, 0), "on the master alone: a crash of it now can lose the order"),
        (Held(0, 0, False, 0), "on the master alone, not fsynced yet: a crash of it now can lose the order"),
        (Held(0, 0, True, 0), "on the master alone, fsynced there: the loss of its disk now can lose the order"),
        (Held(1, 1), "on the master and 1 replica"),
        (Held(1, 1, False, 1), "on the master and 1 replica; fsynced on 1"),
        (Held(2, 3, True, 2), "on the master and 2 replicas; fsynced on 3 (1 connected replica did not confirm)"),
    ],
)
def test_what_holds_the_record_is_said_as_it_is(held: Held, said: str) -> None:
    """Nothing that was not asked is claimed, and a lone master is called what it is."""
    assert held.sentence() == said


# -- one look after the other -------------------------------------------------------------------------------------


def test_who_was_stopped_is_stopped_in_every_later_certificate() -> None:
    """Nobody reads it again; who was silent is looked at anew."""
    who = frozenset({("p", "i1"), ("q", "i1")})
    first = certify(RECORD, PROD.scope, T0, who, T0 + 100, {"p": [beat(**obeying("k1"))], "q": [beat()]})
    late = T0 + 10**6
    then = certify(RECORD, PROD.scope, T0, who, late, {"q": [beat()]}, before=first)
    assert [one.proof for one in first.lines] == [Proof.STOPPED, Proof.UNCONFIRMED]
    assert [one.proof for one in then.lines] == [Proof.STOPPED, Proof.FENCED]
    back = certify(RECORD, PROD.scope, T0, who, late, {"q": [beat(beat_at_ms=late)]}, before=then)
    assert [one.proof for one in back.lines] == [Proof.STOPPED, Proof.UNCONFIRMED], "it is there again, and says so"

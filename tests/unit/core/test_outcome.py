"""What a pass came to, and exactly how long until the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.core.outcome import (
    RETRY_AFTER_LIMIT_S,
    Outcome,
    Pace,
    PassResult,
    next_delay_s,
    outcome_of,
    share_of,
)
from tests import profiles

assert profiles

DAY_S = 86400.0


def test_a_pass_with_an_error_failed() -> None:
    """Whatever else it did; without one it is ok, reverted changes or not."""
    assert outcome_of(PassResult()) is Outcome.OK
    assert outcome_of(PassResult(counts={"added": 3}, reverted=("a",))) is Outcome.OK
    assert outcome_of(PassResult(counts={"added": 3}, errors=("no",))) is Outcome.FAILED


def test_after_a_good_pass_the_interval() -> None:
    """Exactly the interval, however often it failed before."""
    assert next_delay_s(Outcome.OK, 0, DAY_S) == DAY_S
    assert next_delay_s(Outcome.OK, 5, 0.0) == 0.0


def test_after_an_aborted_pass_at_once() -> None:
    """It is due as soon as the pod may run again."""
    assert next_delay_s(Outcome.ABORTED, 7, DAY_S) == 0.0


def test_failed_passes_back_off() -> None:
    """5 s, doubling, five minutes at most."""
    delays = [next_delay_s(Outcome.FAILED, count, DAY_S) for count in range(1, 10)]
    assert delays == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


@pytest.mark.parametrize(("interval_s", "delays"), [(30.0, [5.0, 10.0, 20.0, 30.0, 30.0]), (2.0, [2.0] * 5)])
def test_a_failed_pass_never_waits_longer_than_the_interval(interval_s: float, delays: list[float]) -> None:
    """A short interval is a short back-off."""
    assert [next_delay_s(Outcome.FAILED, count, interval_s) for count in range(1, 6)] == delays


@given(st.integers(1, 10**9), st.floats(0, 1e9))
def test_no_number_of_failures_overflows(count: int, interval_s: float) -> None:
    """However long it has been failing, the delay is between 0 and five minutes and never above the interval."""
    assert 0 <= next_delay_s(Outcome.FAILED, count, interval_s) <= min(300.0, interval_s)


# -- pace -------------------------------------------------------------------------------------------------------------


OUTCOMES = st.sampled_from(Outcome)
WORDS = st.text(max_size=20)


def test_without_a_spread_every_time_is_exact() -> None:
    """The first pass at once, then exactly what ``next_delay_s`` says."""
    pace = Pace(60.0, pod_id="web-1", incarnation="i1")
    assert pace.first_delay_s() == 0.0
    assert [pace.delay_s(Outcome.OK, 0, count) for count in range(1, 4)] == [(60.0, 0.0)] * 3
    assert pace.delay_s(Outcome.FAILED, 2, 7) == (10.0, 0.0)
    assert pace.delay_s(Outcome.ABORTED, 0, 7) == (0.0, 0.0)


def test_a_source_is_left_alone_for_as_long_as_it_asked() -> None:
    """Whatever else the delay would be, and an hour at most; a longer delay of our own stays."""
    pace = Pace(60.0)
    assert pace.delay_s(Outcome.FAILED, 1, 1, retry_after_s=42.0) == (42.0, 42.0)
    assert pace.delay_s(Outcome.OK, 0, 1, retry_after_s=42.0) == (60.0, 42.0)
    assert pace.delay_s(Outcome.ABORTED, 0, 1, retry_after_s=42.0) == (42.0, 42.0)
    assert pace.delay_s(Outcome.FAILED, 1, 1, retry_after_s=1e12) == (RETRY_AFTER_LIMIT_S, RETRY_AFTER_LIMIT_S)


def test_shares_are_fixed_for_ever() -> None:
    """Equal words, equal share, on every machine: these are golden."""
    assert share_of("web-1", "1") == pytest.approx(0.6078587788497813)
    assert share_of("a" * 32) == pytest.approx(0.2329705926200134)
    assert share_of("a", "bc") != share_of("ab", "c")


@given(WORDS, WORDS)
def test_a_share_is_less_than_one(one: str, other: str) -> None:
    """Never 1 itself, never negative, for any text."""
    assert 0.0 <= share_of(one, other) < 1.0


def test_a_fleet_is_spread_evenly() -> None:
    """Of 1,000 pods about as many begin in each tenth of the spread, and in each part of an interval."""
    paces = [Pace(3600.0, 30.0, f"web-{n}", f"i{n}") for n in range(1000)]
    first = [int(pace.first_delay_s() / 3.0) for pace in paces]
    assert all(70 <= first.count(tenth) <= 130 for tenth in range(10))
    second = [int((pace.delay_s(Outcome.OK, 0, 1)[0] - 3240.0) / 72.0) for pace in paces]
    assert all(70 <= second.count(tenth) <= 130 for tenth in range(10))


@given(OUTCOMES, st.integers(1, 20), st.integers(0, 1000), st.floats(0, 1e5), st.floats(0.001, 1e4), WORDS)
def test_an_interval_differs_by_a_tenth_at_most(
    outcome: Outcome, failures: int, passes: int, every_s: float, spread_s: float, pod_id: str
) -> None:
    """Longer or shorter, for any pod and any pass; by the same amount if asked again."""
    pace = Pace(every_s, spread_s, pod_id, "i")
    exact_s = next_delay_s(outcome, failures, every_s)
    delay_s, rest_s = pace.delay_s(outcome, failures, passes)
    assert 0.9 * exact_s - 1e-6 <= delay_s <= 1.1 * exact_s + 1e-6
    assert (delay_s, rest_s) == pace.delay_s(outcome, failures, passes)
    assert 0.0 <= pace.first_delay_s() <= spread_s


@given(st.integers(0, 1000), st.floats(0, 3600), WORDS)
def test_a_source_is_never_asked_too_early(passes: int, asked_s: float, pod_id: str) -> None:
    """A fleet that was told one instant comes back spread behind it, by a tenth at most."""
    _, rest_s = Pace(60.0, 30.0, pod_id, "i").delay_s(Outcome.FAILED, 1, passes, asked_s)
    assert asked_s <= rest_s <= 1.1 * asked_s + 1e-6

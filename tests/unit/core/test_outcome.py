"""What a pass came to, and exactly how long until the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.core.outcome import Outcome, PassResult, next_delay_s, outcome_of
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

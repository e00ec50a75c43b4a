"""Figures -> Prometheus' text: every name from the first scrape on, and nothing foreign in it."""

from __future__ import annotations

import pytest

from skillbus.core.latch import State
from skillbus.core.metrics import Figures, exposition
from tests.exposition import parsed

NAMES = {
    "skillbus_stopped": "gauge",
    "skillbus_state": "gauge",
    "skillbus_last_contact_timestamp_seconds": "gauge",
    "skillbus_heard_timestamp_seconds": "gauge",
    "skillbus_kill_to_quiet_seconds": "gauge",
    "skillbus_pass_duration_seconds": "gauge",
    "skillbus_passes_total": "counter",
    "skillbus_last_drill_timestamp_seconds": "gauge",
}


def test_every_name_is_there_from_the_first_scrape_on() -> None:
    """With each label's every value, at zero: a counter that appears at one hides its first event."""
    families = parsed(exposition(Figures(State.STARTING)))
    assert {name: family.kind for name, family in families.items()} == NAMES
    assert families["skillbus_passes_total"].by("outcome") == {"ok": 0, "failed": 0, "aborted": 0}
    assert families["skillbus_state"].by("state") == {str(state): state is State.STARTING for state in State}
    timestamps = [family.value for name, family in families.items() if name.endswith("_timestamp_seconds")]
    assert timestamps == [0, 0, 0]


@pytest.mark.parametrize("state", list(State))
def test_exactly_one_state_is_one(state: State) -> None:
    """And ``stopped`` only what was observed quiet: a pass that winds down has not stopped."""
    families = parsed(exposition(Figures(state)))
    assert [name for name, value in families["skillbus_state"].by("state").items() if value] == [str(state)]
    assert families["skillbus_stopped"].value == (state is State.STOPPED)


def test_figures_keep_their_precision() -> None:
    """Milliseconds of an instant survive; floats are not shortened to fewer digits than they need."""
    figures = Figures(
        State.STOPPED, 1_700_000_000_123, 1_700_000_001_007, 0.0421, 86_400.5, {"ok": 3, "failed": 2}, 1_600_000_000_000
    )
    families = parsed(exposition(figures))
    assert {name: family.value for name, family in families.items() if () in family.samples} == {
        "skillbus_stopped": 1,
        "skillbus_last_contact_timestamp_seconds": 1_700_000_000.123,
        "skillbus_heard_timestamp_seconds": 1_700_000_001.007,
        "skillbus_kill_to_quiet_seconds": 0.0421,
        "skillbus_pass_duration_seconds": 86_400.5,
        "skillbus_last_drill_timestamp_seconds": 1_600_000_000,
    }
    assert families["skillbus_passes_total"].by("outcome") == {"ok": 3, "failed": 2, "aborted": 0}


def test_each_instant_says_by_which_clock() -> None:
    """An age is only meaningful between two readings of one clock."""
    families = parsed(exposition(Figures(State.RUNNING)))
    told = [family.told for name, family in families.items() if name.endswith("_timestamp_seconds")]
    assert len(told) == 3
    assert all("clock of the Redis server" in text for text in told)


def test_the_reader_of_these_tests_is_strict() -> None:
    """Each of these breaks a rule of the format, and is refused."""
    good = exposition(Figures(State.RUNNING))
    head, tail = "# HELP a b\n# TYPE a gauge\n", "a 1\n"
    assert parsed(head + tail)["a"].value == 1
    for bad in (
        good + good,
        good.removesuffix("\n"),
        tail,
        head,
        head + "a 1 \n",
        head + "a one\n",
        head + "a 1\na 1\n",
        head + "b 1\n",
        head + 'a{x="1} 1\n',
        head + "a{x=1} 1\n",
        head + "\n",
        "# HELP a_total b\n# TYPE a_total gauge\na_total 1\n",
    ):
        with pytest.raises(AssertionError):
            parsed(bad)

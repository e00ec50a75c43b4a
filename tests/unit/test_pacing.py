"""Whose passes are spread: a fleet's of skills pods, and nobody's who is watched or asked for one pass."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from skillbus import foreground
from skillbus.core.outcome import Outcome, PassResult
from skillbus.foreground import summary
from skillbus.settings import Settings
from skillbus.wiring import command_pod, embed, skills_pod


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of whoever runs the tests, and no terminal."""
    for name in ("SKILLBUS_SPREAD", "SKILLBUS_SPREAD_S", "SKILLBUS_EVERY", "SKILLBUS_EVERY_S"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)


def of_skills(**given: Any) -> float | None:
    """The spread of a skills pod with these settings."""
    settings = Settings.load(skills_manifest=("m.yaml",), **given)
    return skills_pod(settings)._settings.spread_s


@pytest.mark.parametrize(
    ("given", "spread_s"),
    [
        ({}, 30.0),
        ({"every_s": "5m"}, 30.0),
        ({"every_s": "1m"}, 6.0),
        ({"skills_interval_s": "10s"}, 1.0),
        ({"spread_s": "10m"}, 600.0),
        ({"spread_s": 0}, 0.0),
    ],
    ids=str,
)
def test_a_skills_pod_spreads(given: dict[str, Any], spread_s: float) -> None:
    """30 s, or a tenth of the interval; what was set is what holds."""
    assert of_skills(**given) == spread_s


def test_nobody_else_does() -> None:
    """A function's or a program's times are exact, unless it was set."""
    settings = Settings.load()
    assert embed(lambda: None, settings=settings)._settings.spread_s is None
    assert command_pod(settings, ["true"])._settings.spread_s is None
    assert command_pod(Settings.load(spread_s=5), ["true"])._settings.spread_s == 5.0


@pytest.mark.parametrize(
    ("once", "terminal", "given", "spread_s"),
    [
        (False, False, {}, None),
        (False, True, {}, 0.0),
        (True, False, {}, 0.0),
        (True, False, {"spread_s": 60}, 0.0),
        (False, True, {"spread_s": 60}, 60.0),
    ],
)
def test_who_looks_on_does_not_wait(
    monkeypatch: pytest.MonkeyPatch, once: bool, terminal: bool, given: dict[str, Any], spread_s: float | None
) -> None:
    """One pass is wanted now, whatever is set; at a terminal a spread must be asked for."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert foreground._paced(Settings.load(**given), once).pod.spread_s == spread_s


@pytest.mark.parametrize(
    ("outcome", "result", "text"),
    [
        (Outcome.OK, PassResult(), "done in 3.2 s\n"),
        (Outcome.OK, PassResult({"added": 2, "updated": 0, "unchanged": 14}), "2 added, 14 unchanged in 3.2 s\n"),
        (
            Outcome.FAILED,
            PassResult({"added": 1}, ("pdf: no answer\x1b[31m", "x: gone"), ("old",)),
            "error: pdf: no answer [31m\nerror: x: gone\nundone: old\n1 added, 2 errors in 3.2 s\n",
        ),
        (Outcome.FAILED, PassResult(errors=("no",)), "error: no\nnothing done, 1 error in 3.2 s\n"),
        (Outcome.OK, PassResult({"added": 1}, warnings=("long\x1b",)), "warning: long \n1 added in 3.2 s\n"),
        (Outcome.ABORTED, PassResult({"added": 1}), "aborted: 1 added in 3.2 s\n"),
    ],
    ids=range(6),
)
def test_one_pass_in_one_line(outcome: Outcome, result: PassResult, text: str) -> None:
    """Counts, errors and time; each warning and error in a line of its own, and nothing that moves a terminal."""
    assert summary(outcome, result, 3.21) == text

"""The sentence of the first paint and of every later one are the same, word for word."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from skillbus.console import shapes
from skillbus.console.banner import banner_of
from tests.browser.visits import Desk, Visits

NOW_MS = 1_769_868_200_000
RECORD = {"id": "r", "at": "2026-01-31T14:02:11.123Z", "by": "oncall", "via": "slack", "reason": "token leaked"}
KILL = {"scope": "fleet", "record": RECORD, "sentence": ""}
GROUP = {"scope": "group:eu", "record": {"id": "g", "at": "2026-01-02T03:04:05Z"}, "sentence": ""}

CASES: dict[str, dict[str, Any]] = {
    "RUNNING 44": {"counts": {"running": 44}},
    "RUNNING 42": {"counts": {"running": 42, "deaf": 1, "holding": 1}, "kills": [GROUP]},
    "RUNNING 0": {"counts": {"stopped": 44}, "headline": "(44 stopped: reset, they wait for a restart)"},
    "HOLDING 44": {"counts": {"holding": 44}},
    "NOT ARMED": {"is_armed": False, "counts": {"holding": 2}},
    'STOPPING 41/44 since 14:02:11Z by oncall via slack: "token leaked"': {
        "counts": {"stopped": 41, "running": 2, "stopping": 1, "lost": 3},
        "kills": [KILL],
    },
    'STOPPED since 14:02:11Z by oncall via slack: "token leaked"': {"counts": {"stopped": 44}, "kills": [KILL]},
    "STOPPED": {"kills": [{"scope": "fleet", "record": {"id": "r"}, "sentence": ""}]},
    "UNKNOWN: no answer from Redis for 38 s": {
        "blind": {
            "since_ms": NOW_MS - 38_000,
            "seen_at_ms": NOW_MS - 39_000,
            "why": "no answer from redis://x",
        }
    },
    "UNKNOWN: the fleet cannot be seen for 0 s": {"blind": {"since_ms": NOW_MS + 9, "seen_at_ms": 0, "why": "denied"}},
}


def test_both_say_the_same(visits: Visits, desk: Desk) -> None:
    """One status, one sentence, in Python and in the browser."""
    page = visits.open(desk.url)
    script = "async ([status, now]) => (await import('/static/banner.js')).bannerOf(status, now)"
    for sentence, case in CASES.items():
        given = {"fleet": "prod", "word": "", "headline": "", "now_ms": NOW_MS, "is_armed": True, **case}
        given["pods_count"] = sum(given.get("counts", {}).values())
        status = shapes.Status.model_validate(given)
        banner = banner_of(status, NOW_MS)
        assert banner.sentence == sentence
        said = page.evaluate(script, [status.model_dump(mode="json"), NOW_MS])
        assert said == {**asdict(banner), "asides": list(banner.asides)}

"""The first thing a newcomer runs: a whole fleet on this machine, stopped, kept stopped, and reset."""

from __future__ import annotations

from tests.pods import environ_of, skillbus


def test_the_demo_tells_its_whole_story() -> None:
    """Without a terminal it plays by itself, and each step of it was observed."""
    told = skillbus("demo", "--auto", "-o", "json", env=environ_of("redis://127.0.0.1:1"))
    assert told.code == 0, told
    assert told.json["ok"] is True
    assert len(told.json["steps"]) >= 7
    assert told.json["console"].startswith("http://127.0.0.1:")

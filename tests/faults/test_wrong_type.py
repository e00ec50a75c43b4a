"""If the key exists, the scope is killed: of whatever type, and however long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pods import FAST, FLEET, WatchedPod, arm
from tests.servers import RealServer

VALUES: dict[str, list[str]] = {
    "hash": ["HSET", FLEET.killed_key, "a", "b"],
    "list": ["LPUSH", FLEET.killed_key, "x"],
    "set": ["SADD", FLEET.killed_key, "x"],
    "stream": ["XADD", FLEET.killed_key, "*", "a", "b"],
    "an empty string": ["SET", FLEET.killed_key, ""],
    "50 MB": ["SETRANGE", FLEET.killed_key, "50000000", "x"],
    "an expiring string": ["SET", FLEET.killed_key, "soon gone", "EX", "100"],
}


@pytest.mark.parametrize("value", VALUES)
def test_any_value_kills(redis_server: RealServer, tmp_path: Path, value: str) -> None:
    """A running pod obeys it at its next heartbeat, and a fresh one does no work."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, **FAST) as pod:
        pod.until_works()
        redis_server.cli(*VALUES[value])
        pod.until_latched()
        assert len(pod.why) < 2000
    with WatchedPod(redis_server, tmp_path, "fresh", **FAST) as fresh:
        fresh.until_latched()
        assert fresh.works_count == 0

"""The bench's simulated pods against a real one: what Redis sees of both is the same, command for command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.fleet_pods import FLEET
from skillbus.core.latch import State
from skillbus.core.orders import KillOrder, iso
from tests.pods import Complaining, WatchedPod, eventually
from tests.servers import RawClient, RealServer

REAL, SIMULATED = "pod-99999", "pod-00000"
OWN = ("incarnation", "id", "pid", "host", "began_at_ms", "took_s", "started_at_ms", "hears_since_ms")
"""What differs between any two pods. Beside them only instants do, and they must be there in both or in neither."""


@contextmanager
def simulated(url: str) -> Iterator[None]:
    """One simulated pod."""
    words = [sys.executable, "-m", "bench.fleet_pods", url, "0", "1"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as pod:
        try:
            assert pod.stdout is not None
            assert b"ready" in pod.stdout.readline()
            yield
        finally:
            pod.kill()


def kill(server: RealServer) -> None:
    """As ``skillbus kill`` does it."""
    order = KillOrder(id="k" * 32, at=iso(1), by="test", via="cli", reason="a test")
    server.cli("SETNX", FLEET.scope.killed_key, order.record(fallback_id="", now_ms=0).to_bytes())
    server.publish(FLEET.scope.kill_channel, order.to_bytes())


class Monitor:
    """Every command that a server is given, by the name of the connection's pod."""

    def __init__(self, server: RealServer) -> None:
        self._server = server
        self._client = RawClient(server.port)
        assert self._client.call("MONITOR") == b"OK"

    def until_beats(self, counts: dict[str, int]) -> dict[str, list[list[str]]]:
        """Read on until each of these pods has begun so many heartbeats more: its commands since now, up to that."""
        found: dict[str, list[list[str]]] = {pod_id: [] for pod_id in counts}
        names = self._names()
        while any(beats(found[pod_id]) < count for pod_id, count in counts.items()):
            line = self._client.read()
            assert isinstance(line, bytes)
            where = re.search(rb"\[\d+ (\S+)\]", line)
            pod_id = names.get(where[1] if where else b"", "")
            if pod_id in found and beats(found[pod_id]) < counts[pod_id]:
                words = re.findall(rb'"((?:[^"\\]|\\.)*)"', line[line.index(b"]") :])
                found[pod_id].append([word.decode("unicode_escape") for word in words])
        return found

    def _names(self) -> dict[bytes, str]:
        listed = self._server.cli("CLIENT", "LIST")
        assert isinstance(listed, bytes)
        pairs = re.findall(rb" addr=(\S+) .*? name=skillbus-pod-(\S+)", listed)
        return {address: name.decode() for address, name in pairs}

    def close(self) -> None:
        self._client.close()


def beats(commands: list[list[str]]) -> int:
    """Heartbeats begin with TIME; the one that is still coming in counts."""
    return sum(words[0] == "TIME" for words in commands)


def plain(pod_id: str, words: list[str]) -> Any:
    """A command without what is the pod's own: names, instants, counters."""
    if words[0] == "HSET":
        evidence = json.loads(words[3])
        return ["HSET", words[1].replace(pod_id, "ID"), _plain(evidence)]
    text = " ".join(words).replace(pod_id, "ID")
    return re.sub(r"[0-9a-f]{32}:\d+", "ECHO", re.sub(r"\b\d{13}\b", "INSTANT", text))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "own" if key in OWN else _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return value.replace(REAL, "ID").replace(SIMULATED, "ID")
    return "INSTANT" if isinstance(value, int) and value > 10**12 else value


@pytest.mark.parametrize("kind", ["idle", "killed"])
def test_a_simulated_pod_is_seen_as_a_real_one_is(real_server: RealServer, tmp_path: Path, kind: str) -> None:
    """Two idle heartbeats; or the one that tells of a kill, and the next: same commands, same order, same evidence."""
    real_server.cli("SETNX", FLEET.scope.epoch_key, 0)
    with (
        WatchedPod(real_server, tmp_path, REAL, fleet=FLEET.name, reconciler=Complaining()) as real,
        simulated(real_server.url),
    ):
        real.until(lambda: real.state is State.RUNNING, "it runs")
        monitor = Monitor(real_server)
        try:
            monitor.until_beats(dict.fromkeys((REAL, SIMULATED), 3))  # armed by now, and the pass has been told
            if kind == "killed":
                kill(real_server)
            seen = monitor.until_beats(dict.fromkeys((REAL, SIMULATED), 3))
        finally:
            monitor.close()
    commands = {pod_id: [plain(pod_id, words) for words in _whole(seen[pod_id])] for pod_id in seen}
    assert commands[REAL] == commands[SIMULATED]
    said = [one for one in commands[REAL] if one[0] == "HSET"]
    assert len(said) == 2
    if kind == "killed":
        assert [(one[2]["state"], one[2]["causes"][0]["recorded"]) for one in said] == [
            ("stopped", False),
            ("stopped", True),
        ]
        eventually(lambda: real.state is State.STOPPED, "it stopped")


def _whole(commands: list[list[str]]) -> list[list[str]]:
    """Whole heartbeats alone: from the first TIME up to the last one."""
    at = [index for index, words in enumerate(commands) if words[0] == "TIME"]
    return commands[at[0] : at[-1]]

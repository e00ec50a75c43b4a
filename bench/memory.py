"""Resident memory of an idle pod, before and after its first pass, against a bare subscriber. Limit: 1.5x.

And round trips: a heartbeat's commands are pipelined, so the server reads from the socket once per heartbeat.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench.server import Server

_BEATS = 10


def _says_ready(line: str) -> bool:
    return line.strip() == "ready"


def _has_passed(line: str) -> bool:
    said = json.loads(line)
    if said["event"] == "pass" and said["outcome"] != "ok":
        raise RuntimeError(f"the first pass went wrong: {said}")
    return bool(said["event"] == "pass")


def resident_mib(command: list[str], settle_s: float, is_ready: Callable[[str], bool] = _says_ready) -> float:
    """MiB resident of a process once it has said that it is ready, and has settled."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not any(is_ready(line) for line in process.stdout):
            raise RuntimeError(f"it ended before it was ready: {command}")
        time.sleep(settle_s)
        return float(psutil.Process(process.pid).memory_info().rss) / 2**20
    finally:
        process.kill()
        process.communicate()


def run(server: Server, folder: Path) -> list[tuple[str, float, float]]:
    """``(what, ratio, limit)``."""
    server.call("FLUSHALL")
    server.call("SETNX", "skillbus:{bench}:epoch", "0")
    bare = resident_mib([sys.executable, "-m", "bench.bare", server.url, "x"], 1.0)
    pod = [sys.executable, "-m", "bench.pod", server.url, "m1", str(folder / "m1")]
    idle = resident_mib([*pod, "idle"], 3.0)
    skills = _skills_pod_mib(server, folder)
    print(f"  resident: bare {bare:.1f} MiB, idle pod {idle:.1f} MiB, skills pod after a pass {skills:.1f} MiB")
    return [
        ("resident memory of an idle pod / bare subscriber", idle / bare, 1.5),
        ("resident memory of a skills pod after its first pass / bare subscriber", skills / bare, 1.5),
        ("Redis round trips of an idle pod / heartbeats", _round_trips_per_beat(server, pod), 1.01),
    ]


def _round_trips_per_beat(server: Server, pod: list[str]) -> float:
    process = subprocess.Popen([*pod, "idle"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        time.sleep(3.0)
        before = server.reads_count()
        time.sleep(_BEATS * 2.0)
        return (server.reads_count() - before - 1) / _BEATS  # one of the reads was ours
    finally:
        process.kill()
        process.communicate()


def _skills_pod_mib(server: Server, folder: Path) -> float:
    manifest = Path(__file__).parent.parent / "examples" / "manifest.yaml"
    target = folder / "skills"
    command = [sys.executable, "-m", "bench.skills_pod", server.url, str(folder / "m2"), str(manifest), str(target)]
    return resident_mib(command, 3.0, _has_passed)

"""PUBLISH to the last of 8 pods observed quiet, against 8 bare subscribers that exit upon the message. Limit: 2x."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.server import Server

PODS = 8
ROUNDS = 9


def measure(server: Server, folder: Path, kind: str) -> float:
    """Seconds from PUBLISH to the last ``quiet``, of one round of fresh processes."""
    server.call("FLUSHALL")
    server.call("SETNX", "skillbus:{bench}:epoch", "0")
    channel = "skillbus:bench:kill"
    processes = []
    for n in range(PODS):
        if kind == "bare":
            command = [sys.executable, "-m", "bench.bare", server.url, channel]
        else:
            command = [sys.executable, "-m", "bench.pod", server.url, f"p{n}", str(folder / f"{time.time_ns()}"), kind]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
    time.sleep(1.0)  # let every first heartbeat and first pass be over, or well under way
    began_s = time.perf_counter()
    server.call("PUBLISH", channel, "stop")
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "quiet"
    took_s = time.perf_counter() - began_s
    for process in processes:
        process.communicate()
    return took_s


def run(server: Server, folder: Path) -> list[tuple[str, float, float]]:
    """``(what, ratio, limit)`` for idle and busy pods; rounds alternate, so that noise falls on all alike."""
    taken: dict[str, list[float]] = {"bare": [], "idle": [], "busy": []}
    for _ in range(ROUNDS):
        for kind, times in taken.items():
            times.append(measure(server, folder, kind))
    for kind, times in taken.items():
        print(f"  fan-out {kind:5} median {statistics.median(times) * 1000:6.1f} ms  max {max(times) * 1000:6.1f} ms")
    rows = []
    for kind in ("idle", "busy"):
        ratio = statistics.median(a / b for a, b in zip(taken[kind], taken["bare"], strict=True))
        rows.append((f"PUBLISH to last of {PODS} {kind} pods quiet / bare subscribers", ratio, 2.0))
    return rows

"""A simulated fleet on one Redis (AOF on): what its idling costs, how fast it is seen, and proved stopped.

    idle       CPU of the server at the default heartbeat, per 1,000 pods              limit: 6 % of a core
    status     ``skillbus status``, a process of its own, of the whole fleet           limit: 1 s
    kill       skillbus.control.kill until its certificate is complete                 limit: 3x a bare fan-out
    listeners  10,000 listening connections of pods                                    beside as many bare ones

All processes share the machine's cores with their Redis, which a real fleet's pods do not. A bare fan-out is PUBLISH to
the last of as many redis-py subscribers (``bare``; ``raw``: on bare sockets), in as many processes, while the pods' own
heartbeats pause; rounds alternate.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.fleet_pods import FLEET, HEARTBEAT_S, raise_descriptors
from bench.server import Server
from skillbus.bus.connect import Endpoint
from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import boottime_s
from skillbus.control.kill import Kill
from skillbus.control.status import status
from skillbus.core.certificate import Certificate
from skillbus.core.orders import KillOrder
from skillbus.core.scope import Fleet

PODS = 4_500
LISTENERS = 10_000
PROCESSES = 3
ROUNDS = 5
IDLE_S = 20.0
_MAXCLIENTS = 19_000
"""Below the descriptors that one process may have here."""

_NO_LIMIT = float("inf")
"""Measured to be told; nothing is promised."""

Row = tuple[str, float, float]


class Crowd:
    """Simulated pods, or subscribers, in several processes (bench/fleet_pods.py, bench/fleet_listeners.py)."""

    def __init__(self, kind: str, url: str, count: int) -> None:
        self.count = count
        each = count // PROCESSES
        self._processes = []
        for n in range(PROCESSES):
            share = each if n else count - each * (PROCESSES - 1)
            words = ["bench.fleet_pods"] if kind == "pods" else ["bench.fleet_listeners", kind]
            words = [sys.executable, "-m", *words, url, str(n * count), str(share)]
            self._processes.append(
                subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
            )

    def hear(self, event: str) -> float:
        """Wait until every process has told of it; the last instant that any of them told with it (boot-time clock)."""
        last_s = 0.0
        for process in self._processes:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline() or "{}")
            if said.get("event") != event:
                raise RuntimeError(f"waited for {event}, and a process of simulated pods said {said}")
            last_s = max(last_s, said.get("at_s", 0.0))
        return last_s

    def tell(self, order: str) -> None:
        """``pause``, ``go`` or ``renew``, carried out when this returns."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{order}\n")
        self.hear(order)

    def end(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()


@contextmanager
def crowds(server: Server, **counts: int) -> Iterator[list[Crowd]]:
    """One of each kind, ready."""
    made: list[Crowd] = []
    try:
        for kind, count in counts.items():
            made.append(Crowd(kind, server.url, count))
            made[-1].hear("ready")
        yield made
    finally:
        for crowd in made:
            crowd.end()


def load() -> str:
    """What else the machine had to do, to be said beside a figure."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def _fresh(server: Server) -> None:
    server.call("FLUSHALL")
    server.call("SETNX", FLEET.scope.epoch_key, "0")


def _bus(server: Server) -> OperatorBus:
    return OperatorBus(Fleet(FLEET.name), Endpoint(server.url))


def _spread(name: str, taken_s: list[float]) -> str:
    low, middle, high = min(taken_s), statistics.median(taken_s), max(taken_s)
    return f"{name} {middle * 1000:.0f} ms ({low * 1000:.0f} to {high * 1000:.0f})"


# -- idle -------------------------------------------------------------------------------------------------------------


def _info(server: Server, section: str) -> dict[str, str]:
    lines = server.call("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _cpu_s(server: Server) -> tuple[float, float]:
    """Seconds of CPU that the server took, and those that its children took, which rewrite the AOF."""
    told = _info(server, "cpu")
    own = float(told["used_cpu_sys"]) + float(told["used_cpu_user"])
    return own, float(told["used_cpu_sys_children"]) + float(told["used_cpu_user_children"])


def idle(server: Server) -> list[Row]:
    """``(what, share of a core per 1,000 pods / 6 %, limit)``. It says how many beats there were: they must be all."""
    before, beats_before, began_s = _cpu_s(server), _beats_count(server), boottime_s()
    time.sleep(IDLE_S)
    after, beats_after, took_s = _cpu_s(server), _beats_count(server), boottime_s() - began_s
    own, children = ((b - a) / took_s / PODS * 1000 for a, b in zip(before, after, strict=True))
    due = (beats_after - beats_before) / (PODS * took_s / HEARTBEAT_S)
    print(
        f"  idle: Redis took {own * 100:.1f} % of a core per 1,000 pods, children of it (AOF) {children * 100:.1f} % "
        f"beside; {due * 100:.0f} % of the beats that were due; {load()}"
    )
    return [("fleet: Redis' share of a core per 1,000 idle pods / 6 %", (own + children) / 0.06, 1.0)]


def _beats_count(server: Server) -> int:
    return int(_info(server, "commandstats")["cmdstat_hset"].split("calls=")[1].split(",")[0])


# -- status -----------------------------------------------------------------------------------------------------------


async def _plain_s(server: Server) -> float:
    """The same hashes, read by redis-py in pipelines and not looked at."""
    client = Endpoint(server.url).client("bench")
    began_s = boottime_s()
    names = await client.zrange(FLEET.roster_key, 0, -1)
    for start in range(0, len(names), 500):
        async with client.pipeline(transaction=False) as pipe:
            for name in names[start : start + 500]:
                pipe.hgetall(FLEET.pod_key(name.decode()))
            await pipe.execute()
    took_s = boottime_s() - began_s
    await client.aclose()
    return took_s


async def _seen_s(server: Server) -> float:
    async with _bus(server) as bus:
        began_s = boottime_s()
        seen = await status(bus)
        took_s = boottime_s() - began_s
    assert seen.counts()["running"] == PODS, seen.counts()
    return took_s


def _verb_s(server: Server, folder: Path, *words: str) -> float:
    env = os.environ | {"SKILLBUS_REDIS_URL": server.url, "SKILLBUS_FLEET": FLEET.name}
    env["PYTHONPYCACHEPREFIX"] = str(folder / "pycache")  # compiled once, as an installed program is
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    began_s = boottime_s()
    subprocess.run([sys.executable, "-m", "skillbus", *words], env=env, stdout=subprocess.DEVNULL, check=True)
    return boottime_s() - began_s


def statuses(server: Server, folder: Path) -> list[Row]:
    """``(what, seconds or ratio, limit)``."""
    taken: dict[str, list[float]] = {"plain reads": [], "control": [], "skillbus status": [], "-o json": [], "help": []}
    _verb_s(server, folder, "status")
    for _ in range(ROUNDS):
        taken["plain reads"].append(asyncio.run(_plain_s(server)))
        taken["control"].append(asyncio.run(_seen_s(server)))
        taken["skillbus status"].append(_verb_s(server, folder, "status"))
        taken["-o json"].append(_verb_s(server, folder, "status", "-o", "json"))
        taken["help"].append(_verb_s(server, folder, "--help"))
    print(f"  status: {', '.join(_spread(name, times) for name, times in taken.items())}; {load()}")
    ratio = statistics.median(a / b for a, b in zip(taken["control"], taken["plain reads"], strict=True))
    return [
        (f"fleet: seconds of `skillbus status`, {PODS} pods", statistics.median(taken["skillbus status"]), 1.0),
        (f"fleet: status of {PODS} pods inside a process / plain pipelined reads of their hashes", ratio, _NO_LIMIT),
    ]


# -- kill -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Taken:
    """Seconds, by round."""

    bare: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    complete: list[float] = field(default_factory=list)
    given: list[float] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)


def _fan_out_s(server: Server, crowd: Crowd, channel: str, payload: str = "stop") -> float:
    began_s = boottime_s()
    server.call("PUBLISH", channel, payload)
    return crowd.hear("heard") - began_s


async def _kill(server: Server, taken: Taken) -> None:
    done_at_s: list[float] = []
    looks_count = [0]

    def progress(certificate: Certificate) -> None:
        looks_count[0] += 1
        if certificate.complete:
            done_at_s.append(boottime_s())

    async with _bus(server) as bus:
        await bus.now_ms()  # connected, as the server's own connection for PUBLISH is
        began_s = boottime_s()
        kill = Kill(bus, FLEET.scope, KillOrder(by="bench", via="cli", reason="bench"), on_progress=progress)
        report = await kill.give()
        taken.given.append(boottime_s() - began_s)
    assert report.certificate is not None
    certificate = report.certificate
    assert certificate.complete, certificate.sentence()
    assert len(certificate.lines) == PODS, certificate.sentence()
    taken.complete.append(done_at_s[0] - began_s)
    taken.quiet.append(certificate.percentile_s(100) or 0.0)
    taken.looks.append(looks_count[0])


def kills(server: Server, pods: Crowd) -> list[Row]:
    """``(what, ratio, limit)`` of certificates against bare fan-outs."""
    taken = Taken()
    with crowds(server, bare=PODS, raw=PODS) as (bare, raw):
        for _ in range(ROUNDS):
            pods.tell("pause")
            time.sleep(0.5)
            taken.bare.append(_fan_out_s(server, bare, "bench:bare"))
            taken.raw.append(_fan_out_s(server, raw, "bench:raw"))
            _fresh(server)
            pods.tell("renew")
            time.sleep(HEARTBEAT_S * 2)
            asyncio.run(_kill(server, taken))
            pods.hear("stopped")
    named = {name: getattr(taken, name) for name in ("bare", "raw", "quiet", "complete", "given")}
    print(f"  kill: {', '.join(_spread(name, times) for name, times in named.items())}; {load()}")
    print(f"  kill: looks at the evidence {taken.looks}")
    ratios = {
        name: statistics.median(a / b for a, b in zip(taken.complete, getattr(taken, name), strict=True))
        for name in ("bare", "raw")
    }
    return [
        (f"fleet: certificate of {PODS} pods / fan-out to as many redis-py subscribers", ratios["bare"], 3.0),
        (f"fleet: certificate of {PODS} pods / fan-out to as many bare sockets", ratios["raw"], _NO_LIMIT),
    ]


# -- listeners --------------------------------------------------------------------------------------------------------


def listeners(server: Server) -> list[Row]:
    """``(what, ratio, limit)`` of a fan-out to the listening connections of pods, against as many bare ones."""
    order = KillOrder(id="1", by="bench", via="cli", reason="bench").to_bytes().decode()
    taken: dict[str, list[float]] = {}
    for kind, channel in (("bare", "bench:bare"), ("raw", "bench:raw"), ("watch", FLEET.scope.kill_channel)):
        with crowds(server, **{kind: LISTENERS}) as (crowd,):
            taken[kind] = [_fan_out_s(server, crowd, channel, order) for _ in range(ROUNDS)]
    print(f"  {LISTENERS} listeners: {', '.join(_spread(name, times) for name, times in taken.items())}; {load()}")
    ratio = statistics.median(taken["watch"]) / statistics.median(taken["bare"])
    return [(f"fleet: fan-out to {LISTENERS} listening pods / to as many redis-py subscribers", ratio, _NO_LIMIT)]


def run(server: Server, folder: Path) -> list[Row]:
    """``(what, ratio, limit)``."""
    raise_descriptors()
    server.call("CONFIG", "SET", "maxclients", str(_MAXCLIENTS))
    _fresh(server)
    rows: list[Row] = []
    with crowds(server, pods=PODS) as (pods,):
        time.sleep(HEARTBEAT_S * 3)
        rows += idle(server)
        rows += statuses(server, folder)
        rows += kills(server, pods)
    return [*rows, *listeners(server)]

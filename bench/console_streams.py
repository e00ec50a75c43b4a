"""A hundred open streams of a console against one: what they cost it in processor time, memory, and a kill's time, and
how soon its keeper records what was only published.

The fleet is written (tests/browser/written_fleet.py), its heartbeats go on, and in each second some pods change. Both
figures of a ratio come from the same console, one after the other.
"""

from __future__ import annotations

import math
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from bench.console_keeper import TELLS_OF_KEYS, until_recorded_s
from bench.server import Server
from skillbus.console.tokens import Role, line_of
from skillbus.core.latch import State
from tests.browser.written_fleet import WrittenFleet
from tests.consoles import Console, serving
from tests.pods import arm, eventually
from tests.servers import RealServer, server_binary

PODS_COUNT = 2000
STREAMS_COUNT = 100
WATCH_S = 15.0
KILLS_COUNT = 20
RAW_COUNT = 40
CHANGED_COUNT = 100
TOKEN = "skillbus_bench"

Row = tuple[str, float, float]


def run(server: Server, folder: Path) -> list[Row]:
    """Rows of the bench. The server of the other benches is left alone."""
    place = folder / "console-streams"
    place.mkdir()
    tokens = place / "tokens"
    tokens.write_text(line_of("bench", Role.ADMIN, TOKEN, ()) + "\n")
    with (
        RealServer(server_binary(), place / "redis", TELLS_OF_KEYS) as own,
        WrittenFleet(own, "prod", PODS_COUNT) as fleet,
        serving(own, place, "--tokens", str(tokens)) as console,
    ):
        arm(own)
        with _readers(console, 1) as one:
            eventually(lambda: one.bytes_count > PODS_COUNT * 50, "the fleet is seen")
            few = _measured(console, fleet)
            raw = until_recorded_s(own.port, (f"one-{number}" for number in range(RAW_COUNT)))
        with _readers(console, STREAMS_COUNT) as many:
            eventually(lambda: many.snapshots_count == STREAMS_COUNT, "every stream has its snapshot")
            lots = _measured(console, fleet)
            raw_lots = until_recorded_s(own.port, (f"many-{number}" for number in range(RAW_COUNT)))
    pods = f"{STREAMS_COUNT} streams of {PODS_COUNT} pods against one: the console's"
    more = (lots[0] - few[0]) / WATCH_S
    return [
        (
            f"{pods} processor, {more:.0%} of one more ({lots[0]:.1f}, {few[0]:.1f} s of {WATCH_S:g}) / 10 %",
            more / 0.1,
            1.0,
        ),
        (f"{pods} memory ({lots[1]:.0f} MiB, {few[1]:.0f} MiB)", lots[1] / few[1], 1.5),
        (f"{pods} answer to a kill ({lots[2] * 1000:.0f} ms, {few[2] * 1000:.0f} ms)", lots[2] / few[2], 2.0),
        (f"… the slowest of {KILLS_COUNT} ({lots[3] * 1000:.0f} ms)", lots[3] / few[3], math.inf),
        _raw_row("a raw PUBLISH to its record, by the keeper of a console with one stream", raw),
        _raw_row(f"… with {STREAMS_COUNT} streams", raw_lots),
    ]


def _raw_row(what: str, taken_s: list[float]) -> Row:
    median_ms = statistics.median(taken_s) * 1000
    p95_ms = taken_s[round(len(taken_s) * 0.95) - 1] * 1000
    told = f"{what} ({median_ms:.1f} ms; p95 {p95_ms:.1f}, slowest {taken_s[-1] * 1000:.1f} ms) / 10 ms"
    return told, median_ms / 10, 1.0


def _measured(console: Console, fleet: WrittenFleet) -> tuple[float, float, float, float]:
    """Seconds of the processor, MiB, and seconds of a kill's answer: median and slowest."""
    process = psutil.Process(console.process.pid)
    before = process.cpu_times()
    until_s, turn = time.monotonic() + WATCH_S, 0
    while time.monotonic() < until_s:
        state = State.HOLDING if turn % 2 else State.RUNNING
        fleet.change(fleet.ids[:CHANGED_COUNT], state=state)
        time.sleep(1.0)
        turn += 1
    after = process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    taken_s = []
    for number in range(KILLS_COUNT):
        began_s = time.monotonic()
        answer = console.post("/api/v1/kill", b'{"pod": "nobody-%d"}' % number, headers)
        taken_s.append(time.monotonic() - began_s)
        assert answer.status == 200, answer
    return used_s, process.memory_info().rss / 2**20, statistics.median(taken_s), max(taken_s)


class _Readers:
    """Streams that are read and thrown away, by one thread."""

    def __init__(self, console: Console, count: int) -> None:
        place = urlsplit(console.url)
        head = f"GET /api/v1/events HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        self.bytes_count = self.snapshots_count = 0
        self._selector = selectors.DefaultSelector()
        self._ends = threading.Event()
        for _ in range(count):
            one = socket.create_connection((str(place.hostname), place.port))
            one.sendall(head.encode())
            one.setblocking(False)
            self._selector.register(one, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        while not self._ends.is_set():
            for key, _ in self._selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(1 << 20)
                self.bytes_count += len(data)
                self.snapshots_count += data.count(b"event: snapshot")

    def end(self) -> None:
        self._ends.set()
        self.thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


@contextmanager
def _readers(console: Console, count: int) -> Iterator[_Readers]:
    found = _Readers(console, count)
    found.thread.start()
    try:
        yield found
    finally:
        found.end()

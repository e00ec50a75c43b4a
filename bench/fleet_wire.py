"""The wire of simulated pods: commands as redis-py sends them, answers as Redis gives them, and one loop for all.

The loop is the smallest that does it: epoll, sockets, one timer for each of its members. Thousands of them must fit on
two cores beside their Redis; a task, a stream and a timeout for each answer do not.
"""

from __future__ import annotations

import heapq
import os
import re
import select
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from skillbus.bus.bulk import Cutter
from skillbus.clock import boottime_s


def packed(*words: str | bytes | int) -> bytes:
    """A command as redis-py sends it."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def bulk(word: str) -> bytes:
    """One word of a command."""
    return b"$%d\r\n%b\r\n" % (len(word), word.encode())


class Script:
    """What ``queue_reads`` queues on a pipeline, as bytes."""

    def __init__(self) -> None:
        self.raw = b""
        self.count = 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *words: self.add(name.upper(), *words)

    def add(self, *words: str | bytes | int) -> None:
        """One more command."""
        self.raw += packed(*words)
        self.count += 1


_READ_BYTES = 8192
_TIME = re.compile(rb"\*2\r\n\$\d+\r\n(\d+)\r\n\$\d+\r\n(\d+)\r\n")


@lru_cache(maxsize=256)
def _known(came: bytes) -> tuple[Any, ...] | None:
    """The answers in it; None: it is cut off."""
    cutter = Cutter()
    cutter.feed(came)
    return tuple(cutter.answers) if cutter.clean else None


class Wire:
    """One connection: bytes out, one call for each answer or message that comes in."""

    def __init__(self, loop: Loop, url: str, hear: Callable[[Any], None], name: str) -> None:
        """Connect as an ``Endpoint``'s client does."""
        parts = urlsplit(url)
        self._hear = hear
        self._cutter = Cutter()
        self._named = False
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        loop.watch(self._socket.fileno(), self._ready)
        self.send(packed("CLIENT", "SETNAME", name))

    def _ready(self) -> None:
        came = self._socket.recv(_READ_BYTES)
        if not came:
            raise RuntimeError("the server closed a connection")
        for answer in self._cut(came):
            if isinstance(answer, Exception):
                raise answer
            if self._named:
                self._hear(answer)
            self._named = True

    def _cut(self, came: bytes) -> Sequence[Any]:
        """The answers in it. Thousands of pods are told the same but for the time: that is cut once for all."""
        cutter = self._cutter
        if cutter.clean:
            time = _TIME.match(came)
            same = _known(came[time.end() :] if time else came)
            if same is not None:
                return ([time[1], time[2]], *same) if time else same
        cutter.feed(came)
        answers, cutter.answers = cutter.answers, []
        return answers

    def send(self, raw: bytes) -> None:
        """Send it, in one write as redis-py does."""
        if self._socket.send(raw) != len(raw):
            raise RuntimeError("a command did not fit into its socket")


class Loop:
    """epoll, and one timer for each of its members."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._due_at_s: dict[int, float] = {}

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever there is something to read."""
        self._ready[descriptor] = ready
        self._epoll.register(descriptor, select.EPOLLIN)

    def at(self, member: int, at_s: float | None, then: Callable[[], None]) -> None:
        """The one timer of ``member``, instead of the last (boot-time clock); None: there is none."""
        self._due_at_s[member] = -1.0 if at_s is None else at_s
        if at_s is not None:
            heapq.heappush(self._due, (at_s, member, then))

    def turn(self) -> None:
        """Wait for something, and do it."""
        due_s = self._due[0][0] - boottime_s() if self._due else 3600.0
        for descriptor, _ in self._epoll.poll(max(0.0, due_s)):
            self._ready[descriptor]()
        while self._due and self._due[0][0] <= boottime_s():
            at_s, member, then = heapq.heappop(self._due)
            if self._due_at_s[member] == at_s:
                then()


class Lines:
    """What comes on stdin, line by line."""

    def __init__(self, loop: Loop, hear: Callable[[str], None]) -> None:
        self._hear = hear
        self._rest = b""
        loop.watch(0, self._ready)

    def _ready(self) -> None:
        came = os.read(0, 4096)
        if not came:
            os._exit(0)  # thousands of connections need not be closed one by one
        *lines, self._rest = (self._rest + came).split(b"\n")
        for line in lines:
            self._hear(line.decode())

"""A pod's own little HTTP server: whether it lives, whether it may work, and its figures for Prometheus.

It is off unless asked for. It turns in the pod's own loop, so that an answer of ``/livez`` proves that the loop turns,
and asks nobody: nothing here waits for Redis. It speaks just enough HTTP for a probe and a scrape: GET, one request for
each connection, no body. Whatever else comes is refused or dropped, within bounds of size, time and number, and reaches
neither the latch nor the loop.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable

from skillbus.clock import Clock
from skillbus.core.latch import LATCHED, State
from skillbus.core.metrics import CONTENT_TYPE, Figures, exposition
from skillbus.core.text import harmless
from skillbus.errors import BadSettings
from skillbus.pod.evidence import Evidence
from skillbus.pod.listening import Ears
from skillbus.pod.switch import Switch

log = logging.getLogger(__name__)

_HEAD_LIMIT = 4096
"""Bytes of a request that are kept: ten times what a scrape sends."""

_DISCARD_LIMIT = 65536
"""Bytes that are read and dropped behind an answer, so that it arrives before the connection is reset."""

_TIME_LIMIT_S = 5.0
"""Seconds that a connection may last. A probe takes milliseconds."""

_CONNECTIONS_LIMIT = 16
"""Connections at a time. One more pushes out the oldest: who dawdles must not keep a probe away."""

_REQUEST = re.compile(rb"([A-Za-z]{1,20}) (/[!-~]*) HTTP/1\.[01]")

_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

Answer = tuple[int, str, str]
"""Status, content type, body."""

_PLAIN = "text/plain; charset=utf-8"


def listener(host: str, port: int) -> socket.socket:
    """A listening socket. Port 0: the system picks one.

    Raises:
        BadSettings: it cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_CONNECTIONS_LIMIT)
    except (OSError, UnicodeError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BadSettings(
            f"cannot listen on {host}:{port}: {harmless(said)}: give --http (SKILLBUS_HTTP) another address"
        ) from error


class Probes:
    """What a pod answers to those who ask it by HTTP."""

    def __init__(
        self, switch: Switch, evidence: Evidence, ears: Ears, clock: Clock, is_ending: Callable[[], bool]
    ) -> None:
        self._switch = switch
        self._evidence = evidence
        self._ears = ears
        self._clock = clock
        self._is_ending = is_ending

    async def run(self, door: socket.socket) -> None:
        """Answer on ``door`` until cancelled. Closes it, and every connection."""
        loop = asyncio.get_running_loop()
        open_ones: dict[_Connection, None] = {}
        server = await loop.create_server(lambda: _Connection(self.answer, open_ones), sock=door)
        host, port, *_ = door.getsockname()
        log.info("probes listen url=http://%s:%d", f"[{host}]" if ":" in host else host, port)
        try:
            await loop.create_future()
        finally:
            server.close()
            for connection in list(open_ones):
                connection.drop()

    def answer(self, path: str) -> Answer:
        """What is said to a GET of ``path``."""
        if path == "/livez":
            return 200, _PLAIN, "this pod's thread turns\n"
        if path == "/readyz":
            why = self.why_not_ready()
            return (
                (503, _PLAIN, f"{why}\n") if why else (200, _PLAIN, "ready: running, armed, hears, holds its lease\n")
            )
        if path == "/metrics":
            return 200, CONTENT_TYPE, exposition(self.figures())
        return 404, _PLAIN, "there is /livez, /readyz and /metrics\n"

    def why_not_ready(self) -> str:
        """One sentence; empty if the pod is ready: it runs, is armed, hears, and holds its lease."""
        standing = self._switch.standing
        if standing.state is not State.RUNNING:
            why = standing.why or self._evidence.last_error or "it has not heard from Redis yet"
            return harmless(f"{standing.state}: {why}", 1000)
        if self._is_ending():
            return "ending: this pod was told to end"
        if not self._ears.armed or self._ears.overdue:
            return "deaf: this pod does not hear its own voice, so it would not hear a kill at once"
        return ""

    def figures(self) -> Figures:
        """For Prometheus."""
        evidence, standing = self._evidence, self._switch.standing
        kill_to_quiet_s = 0.0
        if standing.state in LATCHED and standing.tripped_at_s is not None:
            until_s = self._clock.now_s() if standing.quiet_at_s is None else standing.quiet_at_s
            kill_to_quiet_s = max(0.0, until_s - standing.tripped_at_s)
        return Figures(
            state=standing.state,
            contact_at_ms=evidence.contact_at_ms,
            heard_at_ms=evidence.ms_at(self._ears.last_heard_at_s),
            kill_to_quiet_s=kill_to_quiet_s,
            pass_took_s=evidence.last_pass.took_s if evidence.last_pass else 0.0,
            passes=evidence.outcomes,
            drill_at_ms=evidence.last_drill_at_ms,
        )


class _Connection(asyncio.Protocol):
    """One request and its answer. It holds no task, so nothing of it can outlive the loop's turn."""

    def __init__(self, answer: Callable[[str], Answer], open_ones: dict[_Connection, None]) -> None:
        self._answer = answer
        self._open_ones = open_ones
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head = b""
        self._has_answered = False
        self._discarded_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (what create_server makes)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_TIME_LIMIT_S, self.drop)
        self._open_ones[self] = None
        if len(self._open_ones) > _CONNECTIONS_LIMIT:
            next(iter(self._open_ones)).drop()

    def data_received(self, data: bytes) -> None:
        if self._has_answered:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > _DISCARD_LIMIT:
                self.drop()
            return
        self._head += data[: _HEAD_LIMIT + 1]
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if end and len(head) <= _HEAD_LIMIT:
            self._say(*self._answer_to(head.partition(b"\r\n")[0]))
        elif len(self._head) > _HEAD_LIMIT:
            self._say(431, _PLAIN, "this request is too long\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def drop(self) -> None:
        """End it now, whatever it was at."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        self._open_ones.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def _answer_to(self, line: bytes) -> Answer:
        request = _REQUEST.fullmatch(line)
        if request is None:
            return 400, _PLAIN, "this is no HTTP/1.1 request\n"
        if request[1] != b"GET":
            return 405, _PLAIN, "here one can only GET\n"
        try:
            return self._answer(request[2].partition(b"?")[0].decode("ascii"))
        except Exception:
            log.exception("a probe failed")
            return 500, _PLAIN, "this pod cannot say; its log has why\n"

    def _say(self, status: int, kind: str, text: str) -> None:
        """The answer, and the end of our side. What else the other side says is dropped until it ends, too."""
        assert self._transport is not None  # noqa: S101 (made before anything was received)
        self._has_answered = True
        self._head = b""
        body = text.encode("utf-8", "replace")
        lines = [
            f"HTTP/1.1 {status} {_PHRASES[status]}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            *(["Allow: GET"] if status == 405 else []),
            "Connection: close",
        ]
        self._transport.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body)
        self._transport.write_eof()

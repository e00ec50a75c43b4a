"""The wire of simulated pods: commands as redis-py sends them, answers as Redis gives them, and no task in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit


def packed(*words: str | bytes | int) -> bytes:
    """A command as redis-py sends it."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


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


class _Incomplete(Exception):
    """The rest of an answer is still to come."""


def _answer(data: bytes, at: int) -> tuple[Any, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete
    mark, rest, at = data[at : at + 1], data[at + 1 : end], end + 2
    if mark == b":":
        return int(rest), at
    if mark == b"$":
        if rest == b"-1":
            return None, at
        end = at + int(rest)
        if len(data) < end + 2:
            raise _Incomplete
        return data[at:end], end + 2
    if mark == b"*":
        found = []
        for _ in range(int(rest)):
            one, at = _answer(data, at)
            found.append(one)
        return found, at
    if mark == b"+":
        return rest, at
    raise RuntimeError(f"the server refuses: {rest!r}")


class Wire(asyncio.Protocol):
    """One connection: bytes out, one call for each answer or message that comes in."""

    def __init__(self, hear: Callable[[Any], None]) -> None:
        self._hear = hear
        self._rest = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data, at = self._rest + data, 0
        try:
            while at < len(data):
                answer, at = _answer(data, at)
                self._hear(answer)
        except _Incomplete:
            pass
        self._rest = data[at:]

    def send(self, raw: bytes) -> None:
        """Send it, in one write as redis-py does."""
        self._transport.write(raw)

    @classmethod
    async def open(cls, url: str, hear: Callable[[Any], None], name: str) -> Wire:
        """Connect as an ``Endpoint``'s client does."""
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: cls(hear), parts.hostname or "", parts.port or 0)
        wire.send(packed("CLIENT", "SETNAME", name))
        return wire

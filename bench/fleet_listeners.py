"""A process full of subscribers, which note that a message came. JSON lines on stdout tell of it.

bare     redis-py asyncio subscribers, as bench/bare.py
raw      subscribers on bare sockets, the least that asyncio can do
watch    the listening connection of a pod alone, which reads the order as a pod does
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bench.fleet_pods import Count, channels_of, raise_descriptors, say
from bench.fleet_wire import packed
from skillbus.bus.bulk import Cutter
from skillbus.core.orders import KillOrder

_CONNECTING = 50
"""Connections opened at the same time: few enough that none waits for its turn until it gives up."""


class Stream(asyncio.Protocol):
    """One connection: bytes out, one call for each answer or message that comes in."""

    def __init__(self, hear: Callable[[Any], None]) -> None:
        self._hear = hear
        self._cutter = Cutter()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._cutter.feed(data)
        answers, self._cutter.answers = self._cutter.answers, []
        for answer in answers:
            self._hear(answer)

    def send(self, raw: bytes) -> None:
        """Send it, in one write as redis-py does."""
        self._transport.write(raw)

    @classmethod
    async def open(cls, url: str, hear: Callable[[Any], None], name: str) -> Stream:
        """Connect as an ``Endpoint``'s client does."""
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: cls(hear), parts.hostname or "", parts.port or 0)
        stream.send(packed("CLIENT", "SETNAME", name))
        return stream


class Listening:
    """A subscriber on a bare socket. ``parses``: it reads the order, as a pod does."""

    def __init__(self, channels: list[str], heard: Count, *, parses: bool) -> None:
        self._channels, self._heard, self._parses = channels, heard, parses
        self._confirmed_count = 0
        self.ready = asyncio.Event()

    async def open(self, url: str) -> None:
        """Subscribe, and wait for the confirmations."""
        self._wire = await Stream.open(url, self._message, "bench")
        self._wire.send(packed("SUBSCRIBE", *self._channels))
        await self.ready.wait()

    def _message(self, message: Any) -> None:
        if isinstance(message, list) and message[0] == b"message":
            if self._parses:
                KillOrder.parse(message[2]).record(fallback_id="", now_ms=0)
            self._heard.one()
        elif isinstance(message, list):
            self._confirmed_count += 1
            if self._confirmed_count == len(self._channels):
                self.ready.set()


class Bare:
    """A redis-py asyncio subscriber, as bench/bare.py is one."""

    def __init__(self, channel: str, heard: Count) -> None:
        self._channel, self._heard = channel, heard
        self._ready = asyncio.Event()

    async def open(self, url: str) -> None:
        """Subscribe, and wait for the confirmation."""
        self._task = asyncio.create_task(self._listen(url))
        self._task.add_done_callback(_broke)
        await self._ready.wait()

    async def _listen(self, url: str) -> None:
        from redis.asyncio import Redis

        pubsub = Redis.from_url(url, socket_timeout=60, socket_connect_timeout=60).pubsub()  # thousands at a time
        await pubsub.subscribe(self._channel)
        async for message in pubsub.listen():
            if message["type"] == "subscribe":
                self._ready.set()
            else:
                self._heard.one()


def _broke(task: asyncio.Task[None]) -> None:
    print(f"a subscriber broke: {task}", file=sys.stderr, flush=True)
    os._exit(1)


def _crowd(kind: str, first: int, count: int) -> list[Any]:
    heard = Count("heard", count)
    if kind == "bare":
        return [Bare("bench:bare", heard) for _ in range(count)]
    if kind == "watch":
        return [Listening(channels_of(f"pod-{first + n:05d}"), heard, parses=True) for n in range(count)]
    return [Listening(["bench:raw"], heard, parses=False) for _ in range(count)]


async def main(kind: str, url: str, first: int, count: int) -> None:
    raise_descriptors()
    crowd = _crowd(kind, first, count)
    for start in range(0, count, _CONNECTING):
        await asyncio.gather(*(one.open(url) for one in crowd[start : start + _CONNECTING]))
    say(event="ready")
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    os._exit(0)  # thousands of connections need not be closed one by one


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))

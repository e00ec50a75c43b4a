"""Thousands of small answers at a time: what an operator reads of a fleet, cut out of the stream of its connection.

The client takes about 80 us of CPU for each hash of a pipeline, most of it one coroutine and one timeout for each line
of an answer. A kill of 4,500 pods and a status of them would take most of their time in there. Here the bytes are cut
as they come, at about a tenth of that. Connecting, logging in and sending stay the client's business.

What it deliberately does not do: retry, stay connected after a fault, decode text, or speak anything but RESP2. The
reader of a connection is a private name of the client: where it is not there, its own pipeline is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions as wire

from skillbus.bus.connect import Client

Command = tuple[str, ...]

_READ_BYTES = 1 << 18


async def ask_many(client: Client, commands: Sequence[Command], timeout_s: float) -> list[Any]:
    """The answer to each of ``commands``, sent in one go: bytes, a number, None, a list, or the server's error.

    Args:
        timeout_s: how long the server may be silent.

    Raises:
        redis.exceptions.RedisError, TimeoutError: the connection is gone, and so is what it would have answered.
    """
    found: list[Any] = []
    await ask_by_turns(client, [commands], found.extend, timeout_s)
    return found


async def ask_by_turns(
    client: Client, turns: Sequence[Sequence[Command]], take: Callable[[list[Any]], None], timeout_s: float
) -> None:
    """The same for more commands than should be under way at once: ``take`` is given the answers of each turn.

    The next turn is sent before the answers of the last are waited for, so that the server is at work while they are
    taken.
    """
    pool = client.connection_pool
    connection = await pool.get_connection()
    try:
        stream = getattr(connection, "_reader", None)
        if isinstance(stream, asyncio.StreamReader):
            cutter = Cutter()
            for asked, next_turn in zip((None, *turns), (*turns, None), strict=True):
                if next_turn is not None:
                    await connection.send_packed_command(b"".join(map(_packed, next_turn)), check_health=False)
                if asked is not None:
                    take(await _answers(stream, cutter, len(asked), timeout_s))
            if cutter.answers or not cutter.clean:
                raise wire.InvalidResponse("more answers than questions")
            return
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)
    for turn in turns:
        async with client.pipeline(transaction=False) as pipe:
            for command in turn:
                pipe.execute_command(*command, NEVER_DECODE=True)
            take([_flat(answer) for answer in await pipe.execute(raise_on_error=False)])


def pairs(answer: Any) -> dict[bytes, bytes]:
    """A hash in the answer to HGETALL; what is none is empty."""
    return dict(zip(answer[::2], answer[1::2], strict=False)) if isinstance(answer, list) else {}


def _packed(command: Command) -> bytes:
    words = [word.encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _flat(answer: Any) -> Any:
    """What the client made a mapping of, as it came."""
    return [part for pair in answer.items() for part in pair] if isinstance(answer, dict) else answer


async def _answers(stream: asyncio.StreamReader, cutter: Cutter, count: int, timeout_s: float) -> list[Any]:
    """The next ``count`` of them. What came behind them stays with the cutter."""
    while len(cutter.answers) < count:
        async with asyncio.timeout(timeout_s):
            came = await stream.read(_READ_BYTES)
        if not came:
            raise wire.ConnectionError("connection closed by server")
        cutter.feed(came)
    answers, cutter.answers = cutter.answers[:count], cutter.answers[count:]
    return answers


class Cutter:
    """Bytes in, answers out. What is cut off waits for the rest."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self._data = b""
        self._open: list[tuple[list[Any], int]] = []

    @property
    def clean(self) -> bool:
        """Whether nothing is left of what came."""
        return not self._data and not self._open

    def feed(self, came: bytes) -> None:
        """More bytes."""
        data, at = self._data + came, 0
        while (end := data.find(b"\r\n", at)) >= 0:
            mark, rest, after = data[at], data[at + 1 : end], end + 2
            if mark == _BULK:
                length = int(rest)
                after_bulk = after + length + 2 if length >= 0 else after
                if len(data) < after_bulk:
                    break
                self._add(data[after : after + length] if length >= 0 else None)
                at = after_bulk
                continue
            at = after
            if mark == _ARRAY and int(rest) > 0:
                self._open.append(([], int(rest)))
            else:
                self._add(_short(mark, rest))
        self._data = data[at:]

    def _add(self, answer: Any) -> None:
        while self._open:
            parts, wanted_count = self._open[-1]
            parts.append(answer)
            if len(parts) < wanted_count:
                return
            answer, _ = self._open.pop()
        self.answers.append(answer)


_BULK, _ARRAY, _NUMBER, _ERROR, _SIMPLE = b"$*:-+"


def _short(mark: int, rest: bytes) -> Any:
    """An answer of one line."""
    if mark == _NUMBER:
        return int(rest)
    if mark == _SIMPLE:
        return rest
    if mark == _ARRAY:
        return []
    if mark != _ERROR:
        raise wire.InvalidResponse("no answer begins like that")
    said = rest.decode("utf-8", "replace")
    word, _, words = said.partition(" ")
    return wire.NoPermissionError(words) if word == "NOPERM" else wire.ResponseError(said)

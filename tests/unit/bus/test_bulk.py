"""Answers cut out of a stream: whatever way it comes in pieces, each whole, in order, and none too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from redis import exceptions as wire

from skillbus.bus.bulk import Cutter, ask_by_turns, ask_many, pairs
from skillbus.bus.connect import Client, Endpoint, translated
from skillbus.errors import BusUnreachable
from tests.pods import freeze
from tests.servers import RealServer

T = TypeVar("T")

STREAM = b"*4\r\n$1\r\na\r\n$4\r\n\r\n\r\n\r\n$0\r\n\r\n$-1\r\n:-7\r\n*0\r\n+OK\r\n*2\r\n*1\r\n:1\r\n$2\r\nxy\r\n"
ANSWERS = [[b"a", b"\r\n\r\n", b"", None], -7, [], b"OK", [[1], b"xy"]]


@pytest.mark.parametrize("size", [*range(1, 20), len(STREAM)])
def test_every_way_to_cut_it_gives_the_same_answers(size: int) -> None:
    """In pieces of any size."""
    cutter = Cutter()
    for at in range(0, len(STREAM), size):
        cutter.feed(STREAM[at : at + size])
    assert cutter.answers == ANSWERS
    assert cutter.clean


def test_an_error_is_an_answer() -> None:
    """A refusal by the ACL is told from any other."""
    cutter = Cutter()
    cutter.feed(b"-NOPERM not you\r\n-WRONGTYPE no hash\r\n:1\r\n")
    denied, wrong, number = cutter.answers
    assert isinstance(denied, wire.NoPermissionError)
    assert not isinstance(wrong, wire.NoPermissionError)
    assert isinstance(wrong, wire.ResponseError)
    assert number == 1


def test_what_is_no_answer_is_refused() -> None:
    """Nonsense is never taken for one."""
    with pytest.raises(wire.InvalidResponse):
        Cutter().feed(b"?1\r\n")


def run(server: RealServer, test: Callable[[Client], Awaitable[T]]) -> T:
    """Run ``test`` with a client of the server's."""

    async def main() -> T:
        client = Endpoint(server.url, timeout_s=0.3).client("test")
        try:
            return await test(client)
        finally:
            await client.aclose()

    return asyncio.run(main())


def test_it_answers_as_the_client_does(real_server: RealServer) -> None:
    """Hashes large and small, absent ones, and a key of another type: each in its place, twice on one connection."""
    for number in range(700):
        real_server.cli("HSET", f"h{number}", "a", "x" * (number * 7), "b", "\r\n")
    real_server.cli("SET", "h3", "no hash")
    names = [f"h{number}" for number in range(705)]

    async def test(client: Client) -> None:
        for _ in range(2):
            answers = await ask_many(client, [("HGETALL", name) for name in names], 5.0)
            expected: Sequence[Any] = []
            async with client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hgetall(name)
                expected = await pipe.execute(raise_on_error=False)
            assert isinstance(answers.pop(3), wire.ResponseError)
            expected = [answer for answer in expected if not isinstance(answer, Exception)]
            assert [pairs(answer) for answer in answers] == expected
        assert (await client.client_id(), len(await client.client_list())) == (await client.client_id(), 1)

    run(real_server, test)


def test_a_server_that_falls_silent_leaves_no_answer_behind(real_server: RealServer) -> None:
    """Frozen while it is asked: unreachable within the timeout; what it answers later answers no other question."""
    real_server.cli("HSET", "h", "a", "old")

    async def test(client: Client) -> list[Any]:
        assert await client.ping()
        freeze(real_server)
        with pytest.raises(BusUnreachable), translated(Endpoint(real_server.url)):
            await ask_many(client, [("HGETALL", "h")], 0.3)
        real_server.thaw()
        return await ask_many(client, [("ECHO", "new")], 5.0)

    assert run(real_server, test) == [b"new"]


def test_a_connection_that_is_closed_is_an_error(real_server: RealServer) -> None:
    """Never an answer of nothing."""

    async def test(client: Client) -> None:
        assert await client.ping()
        with pytest.raises(wire.ConnectionError):
            await ask_many(client, [("CLIENT", "KILL", "SKIPME", "no", "TYPE", "normal"), ("PING",)], 5.0)

    run(real_server, test)


def test_turns_are_taken_each_by_itself_and_in_order(real_server: RealServer) -> None:
    """However much has come of the next when one is taken; one without a question brings no answer."""

    async def test(client: Client) -> None:
        turns = [[("ECHO", f"{turn}-{n}" * 500) for n in range(turn * 40)] for turn in range(8)]
        taken: list[list[Any]] = []
        await ask_by_turns(client, turns, taken.append, 5.0)
        assert taken == [[word.encode() for _, word in turn] for turn in turns]

    run(real_server, test)


def test_who_cannot_take_an_answer_leaves_none_behind(real_server: RealServer) -> None:
    """The next turn was asked already: its answer answers no later question."""

    def refuse(answers: list[Any]) -> None:
        raise LookupError(answers)

    async def test(client: Client) -> list[Any]:
        with pytest.raises(LookupError):
            await ask_by_turns(client, [[("ECHO", "a")], [("ECHO", "b")]], refuse, 5.0)
        return await ask_many(client, [("ECHO", "new")], 5.0)

    assert run(real_server, test) == [b"new"]

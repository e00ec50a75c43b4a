"""Limits on a still clock: failures, refusals, keys, slow readers. Memory is bounded in each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi.responses import Response

from skillbus.console import limits
from skillbus.console.feed import Listener
from skillbus.console.idempotency import Idempotency
from skillbus.console.limits import BodyLimit, Failures
from skillbus.console.problems import Refused
from skillbus.console.refusals import Refusals
from tests.fakes.clock import FakeClock


def test_failures_are_forgiven_one_by_one() -> None:
    """Ten at once; then each 6 s one more; the wait that is told is the true one."""
    clock = FakeClock()
    failures = Failures(clock)
    assert [failures.note("192.0.2.1") for _ in range(10)] == [0.0] * 10
    assert failures.note("192.0.2.1") == 6.0
    asyncio.run(clock.advance(12.0))
    assert failures.note("192.0.2.1") == 0.0
    assert failures.note("192.0.2.1") > 0
    assert failures.note("192.0.2.2") == 0.0


def test_a_flood_from_anywhere_takes_bounded_memory_and_one_network_counts_as_one() -> None:
    """Twenty thousand addresses leave ten thousand; the addresses of one IPv6 customer are one."""
    failures = Failures(FakeClock())
    for number in range(20_000):
        failures.note(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures._full_at_s) == 10_000
    assert [bool(failures.note(f"2001:db8::{number:x}")) for number in range(12)] == [False] * 10 + [True] * 2


def test_a_flood_of_refusals_is_told_in_few_entries_and_counted() -> None:
    """One kind: at once, then one in ten seconds with the count; many kinds: a burst, then one in ten seconds."""

    async def run() -> None:
        clock = FakeClock()
        refusals = Refusals(lambda: pytest.fail("nothing is written here"), clock)
        for _ in range(1000):
            await refusals.refuse(what="kill", why="no token", via="http", by="192.0.2.1")
        assert refusals._queue.qsize() == 1
        await clock.advance(11.0)
        await refusals.refuse(what="kill", why="no token", via="http")
        assert refusals._queue.qsize() == 2
        entries = [refusals._queue.get_nowait() for _ in range(2)]
        assert entries[1]["why"] == "no token (and 999 more like it)"
        for number in range(10_000):
            await refusals.refuse(what=f"path {number}", why="no token", via="http")
        assert refusals._queue.qsize() <= 20
        assert len(refusals._kinds) <= 256
        assert refusals.count == 11_001

    asyncio.run(run())


def test_the_same_key_does_it_once_even_at_the_same_time() -> None:
    """Two requests at once: one is carried out, both get its answer; a failure of ours is not kept."""

    async def run() -> None:
        keys, done = Idempotency(), []

        async def do() -> Response:
            done.append(1)
            await asyncio.sleep(0)
            return Response(f"{len(done)}", 200, media_type="text/plain")

        async def fail() -> Response:
            return Response("down", 503)

        both = await asyncio.gather(*(keys.once("a", "k", b"x", do) for _ in range(2)))
        assert [bytes(answer.body) for answer in both] == [b"1", b"1"]
        with pytest.raises(Refused):
            await keys.once("a", "k", b"y", do)
        assert (await keys.once("b", "k", b"y", do)).body == b"2"
        assert (await keys.once("a", "", b"y", do)).body == b"3"
        assert (await keys.once("a", "f", b"x", fail)).status_code == 503
        assert (await keys.once("a", "f", b"x", do)).body == b"4"

    asyncio.run(run())


def test_keys_are_kept_in_bounded_number() -> None:
    """The oldest is forgotten."""

    async def run() -> None:
        keys = Idempotency()

        async def do() -> Response:
            return Response("x")

        for number in range(3000):
            await keys.once("a", f"k{number}", b"x", do)
        assert len(keys._kept) == 1000

    asyncio.run(run())


def test_a_slow_reader_gets_a_snapshot_instead_of_what_it_missed() -> None:
    """However much comes, little is kept; what it reads next is everything, afresh."""

    async def run() -> None:
        listener = Listener()
        assert listener.needs_snapshot
        listener.needs_snapshot = False
        for _ in range(100_000):
            listener.put(b"x" * 1000)
        assert listener.needs_snapshot
        assert listener._size == 0
        assert await listener.take(0.01) == b""

    asyncio.run(run())


def test_a_body_that_comes_too_slowly_or_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """408 within the limit, 413 at the limit; the rest is never read."""
    monkeypatch.setattr(limits, "_BODY_S", 0.05)

    def asked(parts: list[bytes], *, stalls: bool) -> int:
        sent: list[Any] = []
        left = list(parts)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while (await receive()).get("more_body"):
                pass

        async def receive() -> Any:
            if not left:
                assert stalls
                await asyncio.sleep(10)
            return {"type": "http.request", "body": left.pop(0), "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(BodyLimit(app)({"type": "http", "headers": []}, receive, send))
        return int(sent[0]["status"])

    assert asked([b"{"], stalls=True) == 408
    assert asked([b"x" * 600_000] * 3, stalls=False) == 413

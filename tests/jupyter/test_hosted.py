"""The pod's life within a server's: a stop while it is being made, and an end that waits for nothing that hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skillbus import embed
from skillbus.jupyter import hosted as room
from skillbus.jupyter.hosted import BEGINNING, HostedPod, Made
from skillbus.jupyter.routes import managed
from skillbus.settings import Settings


class Making:
    """A pod that takes as long to be made as a test wants."""

    def __init__(self, environment: Path) -> None:
        self.may_end = threading.Event()
        self.began = threading.Event()
        self.passes: list[str] = []

    def __call__(self) -> Made:
        self.began.set()
        self.may_end.wait(60)
        return Made(embed(lambda checkpoint: self.passes.append("one"), settings=Settings.load()), ())


@pytest.fixture
def making(environment: Path) -> Iterator[Making]:
    """Ended at the end, at any cost."""
    one = Making(environment)
    yield one
    one.may_end.set()


async def test_a_stop_while_the_pod_is_made_is_a_stop(making: Making) -> None:
    """It is not claimed before that is known; then there is no pod, ever, and no pass."""
    hosted = HostedPod(making)
    hosted.start()
    making.began.wait(20)
    assert hosted.stop("too early") is False
    assert (hosted.account().state, hosted.account().stopped) == (BEGINNING, False)
    assert not await hosted.until(lambda: hosted.account().stopped, 0.2)
    making.may_end.set()
    assert await hosted.until(lambda: hosted.account().stopped, 20)
    assert "too early" in hosted.account().why
    await asyncio.to_thread(hosted.end)
    assert making.passes == []


async def test_the_servers_end_does_not_wait_for_a_pod_that_is_never_made(
    making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that hangs: the server ends all the same, and what is made later does not begin."""
    monkeypatch.setattr(room, "_END_S", 0.3)
    hosted = HostedPod(making)
    hosted.start()
    making.began.wait(20)
    began_s = time.monotonic()
    async with asyncio.timeout(20):
        await asyncio.to_thread(hosted.end)
    assert time.monotonic() - began_s < 10
    making.may_end.set()
    assert await hosted.until(lambda: hosted.account().state != BEGINNING, 20)
    assert hosted.pod is None


async def test_streams_end_before_the_pod_does(making: Making) -> None:
    """Who follows the account is told at once that the server ends, not when its pod has ended."""
    hosted = HostedPod(making)
    hosted.start()
    making.began.wait(20)
    rung = hosted.bell.next()
    ending = threading.Thread(target=hosted.end)
    ending.start()
    async with asyncio.timeout(10):
        await rung.wait()
    assert hosted.ended
    making.may_end.set()
    await asyncio.to_thread(ending.join)


def test_a_root_that_cannot_be_looked_into_is_told(making: Making) -> None:
    """Whatever the system says of one folder, the status says it, and answers."""
    hosted = HostedPod(making)
    hosted.roots = (Path("/" + "x" * 300),)
    found = managed(hosted)
    assert found["skills"] == []
    assert "xxx" in found["errors"][0]

"""A checkpoint that does as it is told, and a lifeline by which the end of a program's descendants is observed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from skillbus.clock import boottime_s
from skillbus.core.ports import Permit
from skillbus.errors import PassAborted

HELD_S = 15.0
"""How long a test waits for what must come soon, on a machine that is busy with other things."""


class ScriptedCheckpoint:
    """Gives leave until ``refusal`` is set; its lease ends at ``lease_ends_at_s``, by default in an hour."""

    def __init__(self, lease_ends_at_s: float | None = None) -> None:
        self.lease_ends_at_s = boottime_s() + 3600 if lease_ends_at_s is None else lease_ends_at_s
        self.refusal = ""
        self.leave_count = 10**9
        self.asked_count = 0
        self.told: list[str] = []
        self.settled_in: list[asyncio.AbstractEventLoop] = []

    def __call__(self) -> Permit:
        self.asked_count += 1
        if self.refusal or self.asked_count > self.leave_count:
            raise PassAborted(self.refusal or "no more leave")
        return Permit(boottime_s())

    def tell(self, text: str) -> None:
        self.told.append(text)

    async def settle(self, permit: Permit) -> None:
        self.settled_in.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        if self.refusal:
            raise PassAborted(self.refusal)


class Lifeline:
    """A FIFO that a program opens for writing and passes on to all its descendants, as only an open file is passed on.

    While any of them lives it is held; so its end is the end of them all, whatever became of their ids and parents.
    What they write into it is heard line by line.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    async def line(self) -> str:
        """The next line somebody writes."""
        async with asyncio.timeout(HELD_S):
            while b"\n" not in self._unread:
                await self._readable()
                self._take()
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def is_held(self) -> bool:
        """Whether anybody who holds it lives, at this moment."""
        while True:
            try:
                if not self._take():
                    return False
            except BlockingIOError:
                return True

    async def released(self) -> None:
        """Wait until nobody holds it."""
        async with asyncio.timeout(HELD_S):
            while self.is_held():
                await self._readable()

    def _take(self) -> bool:
        data = os.read(self._handle, 65536)
        self._unread += data
        return bool(data)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._handle, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._handle)


async def ended(pid: int) -> None:
    """Wait until the process with this id is gone (or a zombie)."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        async with asyncio.timeout(HELD_S):
            await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)

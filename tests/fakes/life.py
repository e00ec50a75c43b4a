"""One life on the test's own loop and a clock that stands still: begun and ended by ``async with``."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from tests.fakes.clock import FakeClock

T0_S = 1000.0
"""Where the clock begins, so that an instant is told from a span."""


class Reachable(Protocol):
    """A bus that can be cut off."""

    unreachable: bool


class Life:
    """What a pod's and a keeper's life have in common. Whoever has one says in ``begin`` what it consists of."""

    def __init__(self, clock: FakeClock, bus: Reachable) -> None:
        self.clock = clock
        self._reachable = bus
        self._life: asyncio.Task[None] | None = None

    def begin(self) -> Coroutine[Any, Any, None]:
        """Its life, about to begin."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._life = asyncio.create_task(self.begin())
        await self.clock.advance(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    async def end(self) -> None:
        """SIGTERM: it finishes what is on its way, a pod with a last heartbeat."""
        if self._life is not None:
            life, self._life = self._life, None
            life.cancel()
            while not life.done():
                await self.clock.advance(0.1)
            if not life.cancelled() and (error := life.exception()):
                raise error

    async def die(self) -> None:
        """SIGKILL, as far as a task can: no goodbye reaches the server."""
        self._reachable.unreachable = True
        await self.end()

    async def until(self, at_s: float) -> None:
        """Let time pass until ``at_s`` seconds after the test began."""
        await self.clock.advance(T0_S + at_s - self.clock.now_s())

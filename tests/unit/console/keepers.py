"""A keeper on the test's own loop and a clock that stands still: the real pieces over a store in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from skillbus.console.keeper import Keeper
from skillbus.core.scope import Fleet
from tests.fakes.clock import FakeClock
from tests.fakes.memory_bus import MemoryStore
from tests.fakes.memory_keeper import MemoryKeeperBus
from tests.unit.pod.rig import AtOnce

PROD = Fleet("prod")
FLEET, GROUP, POD = PROD.scope, PROD.group("eu"), PROD.pod("web-1")
T0_S = 1000.0


class KeeperRig:
    """One life of a keeper. ``async with`` starts and ends it."""

    def __init__(self, folder: Path, store: MemoryStore, clock: FakeClock, name: str = "one") -> None:
        self.store = store
        self.clock = clock
        self.bus = MemoryKeeperBus(PROD, store)
        self.folder = folder / name
        self.keeper = Keeper(PROD, name, self.bus, self.folder, clock)
        self._life: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_default_executor(AtOnce())  # what it would leave to a thread is done at once
        self._life = asyncio.create_task(self.keeper.keep())
        await self.clock.advance(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    async def end(self) -> None:
        """Told to end: it finishes what is on its way."""
        if self._life is not None:
            life, self._life = self._life, None
            life.cancel()
            while not life.done():
                await self.clock.advance(0.1)
            if not life.cancelled() and (failure := life.exception()):
                raise failure

    async def die(self) -> None:
        """SIGKILL, as far as a task can: nothing more reaches the server."""
        self.bus.unreachable = True
        await self.end()

    async def until(self, at_s: float) -> None:
        """Let time pass until ``at_s`` seconds after the test began."""
        await self.clock.advance(T0_S + at_s - self.clock.now_s())

    @property
    def standing(self) -> Any:
        """A ``KeeperStanding``; loosely typed, for mypy believes that a property once seen never changes."""
        return self.keeper.standing

    @property
    def hears(self) -> Any:
        return self.keeper.standing.hears

    @property
    def tombstones(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "keeper" / "tombstones").iterdir())

    def told(self, kind: str) -> list[dict[str, str]]:
        """The entries of that kind in the audit."""
        return [fields for _, fields in self.store.audit if fields["kind"] == kind]

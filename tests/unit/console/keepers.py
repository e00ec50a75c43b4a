"""A keeper on the test's own loop and a clock that stands still: the real pieces over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from skillbus.console.keeper import Keeper
from skillbus.core.scope import Fleet
from tests.fakes.clock import FakeClock
from tests.fakes.life import Life
from tests.fakes.memory_bus import MemoryStore
from tests.fakes.memory_keeper import MemoryKeeperBus
from tests.unit.pod.rig import AtOnce

PROD = Fleet("prod")
FLEET, GROUP, POD = PROD.scope, PROD.group("eu"), PROD.pod("web-1")


class KeeperRig(Life):
    """One life of a keeper. ``async with`` starts and ends it."""

    def __init__(self, folder: Path, store: MemoryStore, clock: FakeClock, name: str = "one") -> None:
        self.store = store
        self.bus = MemoryKeeperBus(PROD, store)
        super().__init__(clock, self.bus)
        self.folder = folder / name
        self.keeper = Keeper(PROD, name, self.bus, self.folder, clock)

    def begin(self) -> Coroutine[Any, Any, None]:
        asyncio.get_running_loop().set_default_executor(AtOnce())  # what it would leave to a thread is done at once
        return self.keeper.keep()

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

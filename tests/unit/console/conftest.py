"""Fixtures for keepers on a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.life import T0_S
from tests.fakes.memory_bus import MemoryStore
from tests.unit.console.keepers import PROD, KeeperRig


@pytest.fixture
def clock() -> FakeClock:
    """It moves only when a test says so."""
    return FakeClock(T0_S)


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    """A server with an armed fleet."""
    store = MemoryStore(clock)
    store.arm(PROD)
    return store


@pytest.fixture
def rig(
    tmp_path: Path, store: MemoryStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., KeeperRig]:
    """Makes keepers over one store and one clock. Retries wait as long as they ever would."""
    monkeypatch.setattr("tenacity.wait.random.uniform", lambda least, most: most)

    def make(name: str = "one") -> KeeperRig:
        return KeeperRig(tmp_path, store, clock, name)

    return make

"""Fixtures for pods on a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.life import T0_S
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import PROD, AtOnce, Rig, Script


@pytest.fixture(autouse=True)
def _exact_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait as long as they ever would: no chance in exact seconds."""
    monkeypatch.setattr("tenacity.wait.random.uniform", lambda least, most: most)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pod would leave to a thread is done at once."""
    monkeypatch.setattr("skillbus.pod.pod.ThreadPoolExecutor", AtOnce)


@pytest.fixture(autouse=True)
def _no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests stops no pod."""
    for name in ("SKILLBUS_POLICY", "NBI_SKILLS_MANAGEMENT_POLICY", "SKILLBUS_POLICY_FILE", "SKILLBUS_POD_ID"):
        monkeypatch.delenv(name, raising=False)


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
def rig(tmp_path: Path, store: MemoryStore, clock: FakeClock) -> Callable[..., Rig]:
    """Makes pods over one store and one clock."""

    def make(script: Script | None = None, **more: Any) -> Rig:
        return Rig(tmp_path, store, clock, script, **more)

    return make

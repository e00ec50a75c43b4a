"""A world for each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.skills.world import Server, World, fake_child, server


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Sources, a manifest and a root, empty."""
    return World(tmp_path)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder whose fsync costs nothing, where there is one: for tests of many passes, and of no power cut."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared, prefix="skillbus-test-") as folder:
        yield Path(folder)


@pytest.fixture
def in_process() -> Iterator[list[dict[str, Any]]]:
    """Passes use the fake child. The jobs that it is given."""
    with fake_child() as jobs:
        yield jobs


@pytest.fixture
def web() -> Iterator[Server]:
    """A server on loopback."""
    with server() as running:
        yield running

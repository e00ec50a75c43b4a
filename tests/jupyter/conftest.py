"""A notebook server with a pod in it, on a real Redis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jupyter.hubs import ADMIN_PASSWORD, Hub
from tests.pods import eventually
from tests.servers import RealServer, fill, server_binary

MANIFEST = "skills:\n  - url: ./one\n"


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A real server, with fleet ``prod`` armed."""
    with RealServer(server_binary(), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def armed(redis: RealServer) -> RealServer:
    """An empty Redis on which the fleet is armed."""
    fill(redis, [("FLUSHALL",), ("SET", "skillbus:{prod}:epoch", "0")])
    return redis


@pytest.fixture
def environs() -> dict[str, str]:
    """What a test sets besides, before the server starts: parametrise it."""
    return {}


@pytest.fixture
def environment(armed: RealServer, environs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a hub sets for a user's server: a manifest of one skill, and where Redis is; the skills root."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "SKILL.md").write_text("---\nname: one\ndescription: one\n---\n")
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    for name in ("NBI_SKILLS_MANAGEMENT_POLICY", "SKILLBUS_POLICY"):
        monkeypatch.delenv(name, raising=False)
    values = {
        "REDIS_URL": armed.url,
        "FLEET": "prod",
        "POD_ID": "ada",
        "SKILLS_MANIFEST": str(tmp_path / "manifest.yaml"),
        "SKILLS_TARGETS": str(tmp_path / "root"),
        "STATE_DIR": str(tmp_path / "state"),
        "SPREAD": "0",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"SKILLBUS_{name}", value)
    for name, value in environs.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "root"


@pytest.fixture
def jp_server_config() -> dict[str, Any]:
    """The extension is enabled, as its file in the wheel does."""
    return {"ServerApp": {"jpserver_extensions": {"skillbus.jupyter": True}}}


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[RealServer]:
    """A Redis whose stock user is off; ``root`` administers it."""
    users = ("user default off", f"user root on >{ADMIN_PASSWORD} ~* &* +@all")
    with RealServer(server_binary("redis-server"), tmp_path / "redis", *users) as server:
        server.cli("SET", "skillbus:{prod}:epoch", "0", user="root", password=ADMIN_PASSWORD)
        for role in ("console", "admin"):
            words = ["acl", "--role", role, "--fleet", "prod", "--hash-from-stdin", "--format", "setuser"]
            argv = [sys.executable, "-m", "skillbus", *words]
            lines = subprocess.run(argv, input=role, text=True, check=True, capture_output=True).stdout.splitlines()
            own = next(line for line in lines if line.startswith(f"ACL SETUSER {role}"))
            root = server.url.replace("//", f"//root:{ADMIN_PASSWORD}@")
            subprocess.run(["redis-cli", "-u", root], input=own, text=True, check=True, capture_output=True)
        yield server


@pytest.fixture
def hub(locked: RealServer, tmp_path: Path) -> Iterator[Hub]:
    """A hub that answers, with a manifest of one skill."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "SKILL.md").write_text("---\nname: one\ndescription: one\n---\n")
    (tmp_path / "manifest.yaml").write_text("skills:\n  - url: ./one\n")
    running = Hub(tmp_path / "hub", locked, tmp_path / "manifest.yaml")
    try:
        eventually(lambda: running.call("GET", "/hub/api/")[0] == 200, f"the hub answers\n{running.log}", 150)
        yield running
    finally:
        running.stop()

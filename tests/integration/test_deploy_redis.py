"""The Redis of docker-compose.yml, without a container: its settings, its script and its users, on a real server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from skillbus.bus.embedded import ServerBinary
from skillbus.control.acl import Role
from tests.servers import RealServer, Refused


def test_the_containers_redis_starts_from_its_own_files(real_server_binary: ServerBinary, tmp_path: Path) -> None:
    """deploy/redis: the settings and the users that its script writes are accepted, and its viewer answers."""
    deploy = Path(__file__).parents[2] / "deploy" / "redis"
    passwords = {f"SKILLBUS_{role.name}_PASSWORD": role.value for role in Role}
    places = {"SKILLBUS_ACL_TEMPLATE": str(deploy / "users.acl.in"), "SKILLBUS_ACL_FOLDER": str(tmp_path / "run")}
    names = {"SKILLBUS_FLEET": "prod", "SKILLBUS_TENANT_POD_ID": "one"}
    subprocess.run(
        ["sh", str(deploy / "start.sh")], env={**os.environ, **passwords, **places, **names}, check=True, timeout=30
    )
    server = RealServer(real_server_binary, tmp_path / "server", f"include {deploy / 'redis.conf'}", "bind 127.0.0.1")
    server.config = (*server.config, f"port {server.port}", f"aclfile {tmp_path / 'run' / 'users.acl'}")
    record = "skillbus:{prod}:killed"
    with server:
        assert server.cli("PING", user="viewer", password="viewer") == b"PONG"
        assert server.cli("SETNX", record, "why", user="bot", password="bot") == 1
        with pytest.raises(Refused, match="NOAUTH"):
            server.cli("GET", record)

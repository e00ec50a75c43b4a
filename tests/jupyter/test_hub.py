"""A real JupyterHub with two users: each server's pod stops with the fleet, and no tenant can stop another's."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skillbus.bus.embedded import free_port, tied_to_us
from tests.pods import eventually
from tests.servers import RawClient, RealServer, Refused, server_binary

ROOT = Path(__file__).parents[2]
TOKEN, ADMIN_PASSWORD, SECRET = "hub-s3same", "root-s3same", b"0123456789abcdef0123456789abcdef"


pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[RealServer]:
    """A Redis whose stock user is off; ``root`` administers it."""
    users = ("user default off", f"user root on >{ADMIN_PASSWORD} ~* &* +@all")
    with RealServer(server_binary("redis-server"), tmp_path / "redis", *users) as server:
        server.cli("SET", "skillbus:{prod}:epoch", "0", user="root", password=ADMIN_PASSWORD)
        yield server


class Hub:
    """A hub as a process, spoken to over its API."""

    def __init__(self, folder: Path, redis: RealServer, manifest: Path) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir()
        (folder / "secret").write_bytes(SECRET)
        self._environ = {
            "HUB_FOLDER": str(folder),
            "HUB_EXAMPLE": str(ROOT / "examples" / "jupyterhub" / "jupyterhub_config.py"),
            "HUB_PORT": str(self.port),
            "HUB_OWN_PORT": str(free_port()),
            "HUB_PROXY_PORT": str(free_port()),
            "HUB_TOKEN": TOKEN,
            "SKILLBUS_REDIS_URL": redis.url,
            "SKILLBUS_ACL_ADMIN_URL": redis.url.replace("//", f"//root:{ADMIN_PASSWORD}@"),
            "SKILLBUS_HUB_SECRET_FILE": str(folder / "secret"),
            "SKILLBUS_SKILLS_MANIFEST": str(manifest),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with (folder / "hub.log").open("ab") as log:
            self.process = subprocess.Popen(
                tied_to_us([sys.executable, "-m", "jupyterhub", "-f", str(ROOT / "tests/jupyter/hub_config.py")]),
                cwd=folder,
                env={k: v for k, v in os.environ.items() if not k.startswith(("SKILLBUS_", "JP"))} | self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """What it printed."""
        return (self.folder / "hub.log").read_text(errors="replace")

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """``(status, body)``; status 0: nobody answers."""
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/base{path}", method=method, data=data)
        request.add_header("Authorization", f"token {TOKEN}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            text = error.read()
            error.close()
            return error.code, text
        except OSError:
            assert self.process.poll() is None, self.log
            return 0, None

    def spawn(self, user: str, **options: str) -> None:
        """Start a user's server, and wait until it is ready."""
        self.call("POST", f"/hub/api/users/{user}")
        code, said = self.call("POST", f"/hub/api/users/{user}/server", options)
        assert code in (201, 202), (said, self.log)
        eventually(lambda: self._ready(user), f"the server of {user} is ready\n{self.log}", patience_s=150)

    def status(self, user: str) -> dict[str, Any]:
        """What the extension in a user's server says of its pod."""
        code, said = self.call("GET", f"/user/{user}/skillbus/status")
        assert code == 200, (code, said, self.log)
        assert isinstance(said, dict)
        return said

    def stop(self) -> None:
        """End the hub, and with it its servers and its proxy."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _ready(self, user: str) -> bool:
        code, said = self.call("GET", f"/hub/api/users/{user}")
        return code == 200 and bool(said["servers"].get("", {}).get("ready"))


@pytest.fixture
def hub(locked: RealServer, tmp_path: Path) -> Iterator[Hub]:
    """A hub that answers, with a manifest of one skill."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "SKILL.md").write_text("---\nname: one\ndescription: one\n---\n")
    (tmp_path / "manifest.yaml").write_text("skills:\n  - url: ./one\n")
    running = Hub(tmp_path / "hub", locked, tmp_path / "manifest.yaml")
    try:
        eventually(lambda: running.call("GET", "/hub/api/")[0] == 200, f"the hub answers\n{running.log}", 60)
        yield running
    finally:
        running.stop()


def login_of(locked: RealServer, pod_id: str) -> RawClient:
    """A connection with the very login that a tenant's server was given: the tenant can read it, too."""
    password = hmac.new(SECRET, pod_id.encode(), hashlib.sha256).hexdigest()
    return RawClient(locked.port, user=f"tenant-pod-{pod_id}", password=password)


def test_tenants_stop_with_the_fleet_and_cannot_stop_each_other(hub: Hub, locked: RealServer) -> None:
    """Two users; one tries what his login lets him; then one message of the fleet's stops both."""
    hub.spawn("ada")
    hub.spawn("bob", profile="gpu")
    for user in ("ada", "bob"):
        eventually(lambda u=user: hub.status(u)["state"] == "running", f"{user}'s pod runs\n{hub.log}")
    ada, bob = (hub.status(user)["pod"] for user in ("ada", "bob"))
    assert ada != bob
    assert hub.status("bob")["groups"] == ["notebooks", "gpu"]
    with login_of(locked, ada) as mine:
        for words in (
            ("SETNX", f"skillbus:{{prod}}:killed:pod:{bob}", "x"),
            ("SETNX", "skillbus:{prod}:killed", "x"),
            ("PUBLISH", "skillbus:prod:kill", "x"),
            ("PUBLISH", f"skillbus:prod:kill:pod:{bob}", "x"),
            ("HSET", f"skillbus:{{prod}}:pod:{bob}", "a", "b"),
            ("SET", "skillbus:{prod}:epoch", "9"),
        ):
            with pytest.raises(Refused, match="NOPERM"):
                mine.call(*words)
    locked.publish("skillbus:prod:kill", "token leaked", user="root", password=ADMIN_PASSWORD)
    for user in ("ada", "bob"):
        eventually(lambda u=user: hub.status(u)["state"] == "stopped", f"{user}'s pod is observed stopped")
    with login_of(locked, ada) as mine:
        for key in (f"skillbus:{{prod}}:killed:pod:{ada}", "skillbus:{prod}:killed"):
            with pytest.raises(Refused, match="NOPERM"):
                mine.call("DEL", key)


def test_a_tenant_can_stop_himself_for_good(hub: Hub, locked: RealServer) -> None:
    """``persist=true`` through the hub: his record stands, written with his own login; the other goes on."""
    hub.spawn("ada")
    hub.spawn("bob")
    for user in ("ada", "bob"):
        eventually(lambda u=user: hub.status(u)["state"] == "running", f"{user}'s pod runs\n{hub.log}")
    code, said = hub.call("POST", "/user/ada/skillbus/reconciler/stop?persist=true")
    assert (code, said) == (200, {"stopped": True, "was_running": True})
    key = f"skillbus:{{prod}}:killed:pod:{hub.status('ada')['pod']}"
    assert locked.cli("EXISTS", key, user="root", password=ADMIN_PASSWORD) == 1
    assert hub.status("bob")["state"] == "running"

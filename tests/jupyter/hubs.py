"""A real hub as a process, spoken to over its API as its administrator, and with a browser's cookies as anybody."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import httpx

from skillbus.bus.embedded import free_port, tied_to_us
from tests.pods import eventually
from tests.servers import RealServer

ROOT = Path(__file__).parents[2]
SERVICE = "/base/services/skillbus/"
GROUPS = {"skillbus-viewers": ["vera"], "skillbus-oncall": ["olga"], "skillbus-admins": ["ruth"]}
CONSOLE_TOKEN = "skillbus_on-paper"
TOKEN, ADMIN_PASSWORD, SECRET = "hub-s3same", "root-s3same", b"0123456789abcdef0123456789abcdef"


class Hub:
    """A hub as a process, spoken to over its API."""

    def __init__(self, folder: Path, redis: RealServer, manifest: Path) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir()
        (folder / "secret").write_bytes(SECRET)
        for role in ("console", "admin"):
            (folder / f"{role}-url").write_text(redis.url.replace("//", f"//{role}:{role}@"))
        digest = hashlib.sha256(CONSOLE_TOKEN.encode()).hexdigest()
        (folder / "tokens").write_text(f"paper operator sha256:{digest}\n")
        self._environ = {
            "HUB_FOLDER": str(folder),
            "HUB_EXAMPLE": str(ROOT / "examples" / "jupyterhub" / "jupyterhub_config.py"),
            "HUB_PORT": str(self.port),
            "HUB_OWN_PORT": str(free_port()),
            "HUB_PROXY_PORT": str(free_port()),
            "HUB_TOKEN": TOKEN,
            "HUB_CONSOLE_PORT": str(free_port()),
            "HUB_GROUPS": json.dumps(GROUPS),
            "SKILLBUS_HUB_CONSOLE_URL_FILE": str(folder / "console-url"),
            "SKILLBUS_HUB_ADMIN_URL_FILE": str(folder / "admin-url"),
            "SKILLBUS_HUB_TOKENS_FILE": str(folder / "tokens"),
            "SKILLBUS_HUB_STATE_DIR": str(folder / "state"),
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
        data = None if method == "GET" else json.dumps(body or {}).encode()
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

    @property
    def root(self) -> str:
        """Where people reach it."""
        return f"http://127.0.0.1:{self.port}"

    def until(self, user: str, state: str) -> None:
        """Wait until a user's pod says that it is in that state."""
        eventually(lambda: self.status(user)["state"] == state, f"{user}'s pod is {state}\n{self.log}")

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


class Browser(httpx.Client):
    """What a browser is to the hub and the console: cookies, redirects, and the forms of the pages."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(base_url=hub.root, follow_redirects=True, trust_env=False, timeout=60.0)

    def log_in(self, user: str, wanted: str = "") -> httpx.Response:
        """From the console to the hub, and as far as that leads."""
        form = self.get(f"{SERVICE}hub_login", params={"next": wanted} if wanted else None)
        found = re.search(r'name="_xsrf" value="([^"]+)"', form.text)
        assert found, (form.url, form.text)
        return self.post(form.url, data={"username": user, "password": "x", "_xsrf": found[1]})

    def page(self, path: str = "") -> httpx.Response:
        """A page of the console."""
        return self.get(SERVICE + path)

    def submit(self, path: str, **fields: str) -> httpx.Response:
        """A form of the console, with what its pages of this session bear."""
        found = re.search(r'name="csrf" content="([^"]*)"', self.page().text)
        assert found
        return self.post(SERVICE + path, data={"csrf": found[1], **fields})

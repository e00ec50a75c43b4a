"""The demo's console: a real ``skillbus serve`` as a process of its own, with a token for whoever looks on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from skillbus.clock import boottime_s
from skillbus.console.tokens import Role, line_of, new_token
from skillbus.demo.fleet import FLEET, ended

_PATIENCE_S = 20.0


class DemoConsole:
    """The fleet's web face.

    Attributes:
        token: of an admin, for this demo alone.
        url: where it is; empty: it is not installed, or has not started.
    """

    def __init__(self, folder: Path, redis_url: str, port: int = 0) -> None:
        self._folder = folder / "console"
        self._redis_url = redis_url
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.token = new_token()
        self.url = ""

    @property
    def can_be(self) -> bool:
        """Whether its parts are installed."""
        return all(find_spec(name) is not None for name in ("fastapi", "uvicorn", "jinja2"))

    def start(self) -> None:
        """Start it. It needs a moment; the pods begin meanwhile."""
        if not self.can_be:
            return
        self._folder.mkdir()
        tokens = self._folder / "tokens"
        tokens.touch(mode=0o600)
        tokens.write_text(line_of("demo", Role.ADMIN, self.token, ()) + "\n")
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SKILLBUS_", "NBI_"))}
        environ = own | {
            "SKILLBUS_REDIS_URL": self._redis_url,
            "SKILLBUS_FLEET": FLEET,
            "SKILLBUS_STATE_DIR": str(self._folder / "state"),
        }
        command = [sys.executable, "-m", "skillbus", "serve", "--listen", f"127.0.0.1:{self._port}"]
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--tokens", str(tokens)],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def await_url(self) -> str:
        """Where it is, once it listens; empty: it does not."""
        until_s = boottime_s() + _PATIENCE_S
        while self._process is not None and self._process.poll() is None and boottime_s() < until_s:
            match = re.search(r"^console: (\S+)$", self._said(), re.MULTILINE)
            if match:
                self.url = match[1]
                break
            try:
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        return self.url

    def _said(self) -> str:
        return (self._folder / "log.txt").read_text("utf-8", "replace")

    def last_words(self) -> str:
        """The last line of its log, for a person who wonders."""
        return (self._said().strip().splitlines() or ["(its log is empty)"])[-1] if self._process else "not installed"

    def end(self, timeout_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self._process is not None:
            ended(self._process, timeout_s)
        self._process = None

"""A real notebook server as a process, spoken to over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from skillbus.bus.embedded import free_port, tied_to_us
from tests.pods import eventually

TOKEN = "s3same"


@dataclass
class NotebookServer:
    """``jupyter server`` (or ``lab``) in ``folder``, with these variables set besides. Use it as a context."""

    folder: Path
    environ: dict[str, str]
    app: str = "server"
    python: str = sys.executable
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it printed."""
        return (self.folder / "jupyter.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = (f"--port={self.port}", "--no-browser", f"--IdentityProvider.token={TOKEN}", "--allow-root")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SKILLBUS_", "NBI_", "JP"))}
        own = {f"JUPYTER_{kind}_DIR": str(self.folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
        with (self.folder / "jupyter.log").open("ab") as log:
            self.process = subprocess.Popen(
                tied_to_us([self.python, "-m", "jupyter", self.app, *options, *self.options]),
                cwd=self.folder,
                env=kept | own | self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._answers, f"the notebook server answers\n{self.log}", patience_s=60)

    def stop(self) -> int:
        """End it as a person does; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def call(self, method: str, path: str, token: str = TOKEN) -> tuple[int, Any]:
        """``(status, body)`` of one request."""
        request = urllib.request.Request(self.url + path, method=method, data=b"" if method == "POST" else None)
        request.add_header("Authorization", f"token {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            body = error.read()
            error.close()
            return error.code, json.loads(body) if body.startswith(b"{") else body

    def status(self) -> dict[str, Any]:
        """What the extension says of its pod."""
        code, said = self.call("GET", "/skillbus/status")
        assert code == 200, said
        assert isinstance(said, dict)
        return said

    def latency_s(self) -> float:
        """Seconds that the server's own API takes to answer."""
        began_s = time.perf_counter()
        assert self.call("GET", "/api/status")[0] == 200
        return time.perf_counter() - began_s

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return self.call("GET", "/api/status")[0] == 200
        except OSError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

"""The demo's pods: real processes, each with its own skills folder, state folder and log."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

FLEET = "demo"


class DemoPod:
    """One pod as a process of its own; ``start`` again after ``end`` is a restart under the same id."""

    def __init__(self, folder: Path, pod_id: str, redis_url: str, manifest_url: str) -> None:
        self.pod_id = pod_id
        self.skills = folder / pod_id / "skills"
        self._folder = folder / pod_id
        self._redis_url = redis_url
        self._manifest_url = manifest_url
        self._process: subprocess.Popen[bytes] | None = None
        self.skills.mkdir(parents=True)

    def start(self) -> None:
        """Start the process."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SKILLBUS_", "NBI_"))}
        environ = own | {
            "SKILLBUS_REDIS_URL": self._redis_url,
            "SKILLBUS_FLEET": FLEET,
            "SKILLBUS_POD_ID": self.pod_id,
            "SKILLBUS_STATE_DIR": str(self._folder / "state"),
            "SKILLBUS_SKILLS_LOCAL_HOSTS": "127.0.0.1",
            "SKILLBUS_SPREAD": "0",  # nobody who looks on waits for half a minute
        }
        command = [sys.executable, "-m", "skillbus", "run", "--every", "1h"]
        command += ["--manifest", self._manifest_url, "--target", str(self.skills)]
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def end(self, timeout_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self._process is not None:
            ended(self._process, timeout_s)
        self._process = None

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def last_words(self) -> str:
        """The last line of its log, for a person who wonders."""
        lines = (self._folder / "log.txt").read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "(its log is empty)"

    def editions(self) -> dict[str, str]:
        """What is on disk: the edition of each skill, by name. A skill that is just being swapped may be missing."""
        found = {}
        for path in sorted(self.skills.glob("*/EDITION.txt")):
            with suppress(FileNotFoundError):
                found[path.parent.name] = path.read_text().strip()
        return found

    def newest_change_ms(self) -> int:
        """When anything under the skills folder was last changed, by the machine's clock; which is Redis' here, too."""
        paths = [self.skills, *self.skills.rglob("*")]
        return max(path.lstat().st_ctime_ns for path in paths) // 1_000_000

    def picture(self) -> str:
        """A digest of every name and byte under the skills folder: equal pictures, equal disk."""
        digest = hashlib.sha256()
        for path in sorted(self.skills.rglob("*")):
            digest.update(str(path.relative_to(self.skills)).encode() + b"\0")
            digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()


def ended(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """SIGTERM, and SIGKILL if that does not help."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

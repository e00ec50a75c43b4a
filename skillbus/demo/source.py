"""The organisation's server, as the demo plays it: a manifest and archives of skills over HTTP on loopback.

It can publish a new manifest, and it can be slow, so that a kill finds every pod in the middle of a pass. Real HTTP,
real archives; nothing of it is used outside the demo.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_CHUNKS = 12


class SkillsServer:
    """Serves ``/manifest.yaml`` and ``/<edition>/<skill>.tar.gz``."""

    def __init__(self, skills: list[Path]) -> None:
        self._skills = skills
        self._documents: dict[str, bytes] = {}
        self._pace_s = 0.0
        self._hurry = threading.Event()
        self.under_way = threading.Semaphore(0)
        server = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def manifest_url(self) -> str:
        """What goes into ``--manifest``."""
        return f"{self.url}/manifest.yaml"

    @property
    def count(self) -> int:
        """How many skills the manifest names."""
        return len(self._skills)

    def start(self) -> None:
        """Serve from a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and let nobody wait for a slow answer."""
        self.hurry()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def publish(self, edition: str, pace_s: float = 0.0) -> None:
        """Publish an edition of every skill, each archive in pieces with ``pace_s`` seconds between them."""
        documents = {}
        entries = []
        for skill in self._skills:
            path = f"/{edition}/{skill.name}.tar.gz"
            documents[path] = _archive(skill, edition)
            entries.append({"url": f"{self.url}{path}", "name": skill.name})
        documents["/manifest.yaml"] = json.dumps({"skills": entries}).encode()
        self._pace_s = pace_s
        self._hurry.clear()
        self._documents = documents

    def hurry(self) -> None:
        """Be slow no longer, also with the answers that are under way."""
        self._pace_s = 0.0
        self._hurry.set()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = self._documents.get(request.path.split("?", 1)[0])
        if body is None:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        is_archive = request.path.endswith(".tar.gz")
        if is_archive:
            self.under_way.release()
        step = -(-len(body) // _CHUNKS) if is_archive and self._pace_s else len(body)
        try:
            for start in range(0, len(body), step):
                request.wfile.write(body[start : start + step])
                request.wfile.flush()
                if self._pace_s:
                    self._hurry.wait(self._pace_s)
        except OSError:
            pass  # the pod that asked was stopped


def _archive(skill: Path, edition: str) -> bytes:
    """``skill`` as a tar.gz that unpacks to one folder; a later edition says so in one more file."""
    with tempfile.TemporaryDirectory(prefix="skillbus-demo-") as folder:
        copy = Path(folder) / "in" / skill.name
        shutil.copytree(skill, copy)
        (copy / "EDITION.txt").write_text(f"edition {edition}\n")
        made = shutil.make_archive(str(Path(folder) / "out"), "gztar", copy.parent, skill.name)
        return Path(made).read_bytes()

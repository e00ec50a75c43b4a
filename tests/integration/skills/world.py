"""A small world for the reconciler: skills, manifests, roots, a scripted checkpoint, a server, and a fake child.

The fake child answers in this process (the real ``Fetcher``, without the process around it): for tests that run many
passes and are about the parent. The real child is used wherever the child itself matters.
"""

from __future__ import annotations

import asyncio
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from skillbus.clock import BootClock, Clock
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Permit
from skillbus.errors import PassAborted
from skillbus.skills import passing
from skillbus.skills.child import Child, OnLine
from skillbus.skills.fetcher import Fetcher
from skillbus.skills.options import SkillsOptions
from skillbus.skills.reconciler import SkillsReconciler

COUNTS = ("added", "updated", "repaired", "removed", "unchanged")
Tree = dict[str, bytes]


def skill_text(name: str, text: str = "text") -> bytes:
    """A SKILL.md."""
    return f"---\nname: {name}\ndescription: About {name}.\n---\n{text}\n".encode()


class ScriptedCheckpoint:
    """Lets a pass through until told otherwise.

    Attributes:
        calls: how often it was asked.
        settles: how often it judged.
        told: what the pass said that it is at.
        permits: what it judged; a permit's ``at_s`` is the number of the call that gave it.
    """

    def __init__(self, *, trip_at: int | None = None, trip_at_settle: int | None = None) -> None:
        self.calls = 0
        self.settles = 0
        self.permits: list[Permit] = []
        self.told: list[str] = []
        self.tripped = False
        self.before: Callable[[], None] = lambda: None
        self.settled: Callable[[], None] = lambda: None
        self._trip_at = trip_at
        self._trip_at_settle = trip_at_settle
        self.lease_ends_at_s = float("inf")

    def __call__(self) -> Permit:
        self.before()
        self.calls += 1
        if self.calls == self._trip_at:
            self.tripped = True
        self._judge()
        return Permit(float(self.calls))

    async def settle(self, permit: Permit) -> None:
        self.permits.append(permit)
        self.settles += 1
        if self.settles == self._trip_at_settle:
            self.tripped = True
        self._judge()
        self.settled()

    def tell(self, text: str) -> None:
        self.told.append(text)

    def trip(self) -> None:
        """From now on nothing may go on."""
        self.tripped = True

    def _judge(self) -> None:
        if self.tripped:
            raise PassAborted("killed")


class FakeChild(Child):
    """The real fetcher's answers, given in this process, each line as it would come through the pipe.

    Attributes:
        jobs: every job that any of them was given, in order; ``fake_child`` begins a new list.
    """

    jobs: ClassVar[list[dict[str, Any]]] = []

    async def ask(self, job: dict[str, Any], on_line: OnLine = lambda kind, said: None) -> dict[str, Any]:
        self.jobs.append(job)
        lines: list[dict[str, Any]] = []
        Fetcher(self.hello(), lines.append).serve({"id": 0, **job})
        await asyncio.sleep(0)
        for line in lines:
            said = json.loads(json.dumps(line))
            for kind in ("progress", "landed"):
                if kind in said:
                    on_line(kind, said[kind])
            if "error" in said:
                raise self.error(said["error"])
            if "ok" in said:
                return dict(said["ok"])
        raise AssertionError("the fetcher said no last word")


@dataclass
class World:
    """A folder with sources, a manifest and roots."""

    folder: Path
    root: Path = field(init=False)
    manifest: Path = field(init=False)

    def __post_init__(self) -> None:
        self.root = self.folder / "root"
        self.manifest = self.folder / "team.yaml"

    def skill(self, name: str, text: str = "text", files: Mapping[str, bytes] | None = None) -> Path:
        """A skill as a folder source."""
        folder = self.folder / "skills" / name
        write_tree(folder, {"SKILL.md": skill_text(name, text), **(files or {})})
        return folder

    def list(self, *entries: str) -> None:
        """The manifest: each entry is a url, or ``url, key: value`` lines."""
        lines = [f"  - url: {entry}" for entry in entries]
        self.manifest.write_text("skills:\n" + "\n".join(lines) + "\n" if entries else "skills: []\n")

    def options(self, **others: Any) -> SkillsOptions:
        """Options for this world."""
        return SkillsOptions(**{"manifests": (str(self.manifest),), "targets": (self.root,), **others})

    def run(self, checkpoint: ScriptedCheckpoint | None = None, **others: Any) -> PassResult:
        """One pass, to its end."""
        reconciler = SkillsReconciler(self.options(**others), BootClock())
        return asyncio.run(reconciler.reconcile(checkpoint or ScriptedCheckpoint()))

    def reconciler(self, clock: Clock | None = None, **others: Any) -> SkillsReconciler:
        """One that remembers from pass to pass, as a pod's does."""
        return SkillsReconciler(self.options(**others), clock or BootClock())

    def visible(self) -> Tree:
        """What agents can see in the root, and the lock."""
        return visible(self.root)


@contextmanager
def fake_child() -> Iterator[list[dict[str, Any]]]:
    """Passes in here use the fake child. The jobs that it is given."""
    jobs: list[dict[str, Any]] = []
    with mock.patch.object(passing, "Child", FakeChild), mock.patch.object(FakeChild, "jobs", jobs):
        yield jobs


def one_pass(reconciler: SkillsReconciler, checkpoint: ScriptedCheckpoint | None = None) -> PassResult:
    """A pass of ``reconciler``, to its end."""
    return asyncio.run(reconciler.reconcile(checkpoint or ScriptedCheckpoint()))


def counts(result: PassResult) -> dict[str, int]:
    """What is not zero of the counts, all five of which must be there."""
    assert tuple(result.counts) == COUNTS
    return {word: count for word, count in result.counts.items() if count}


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files; one whose name ends in ``.sh`` may be executed."""
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(0o755 if path.endswith(".sh") else 0o644)


def visible(root: Path) -> Tree:
    """Every file under ``root`` but our own folder's, with ``*`` behind the path of an executable one."""
    found = {}
    for path in sorted(root.rglob("*")) if root.exists() else []:
        name = str(path.relative_to(root))
        if name.split("/")[0] == ".skillbus":
            continue
        if path.is_symlink():
            found[name] = b"-> " + str(path.readlink()).encode()
        elif path.is_file():
            found[name + ("*" if path.stat().st_mode & 0o111 else "")] = path.read_bytes()
    return found


def everything(root: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and change time of all there is: equal only if nothing at all was written."""
    return {
        str(path): (info.st_ino, info.st_size, info.st_ctime_ns)
        for path in (root, *sorted(root.rglob("*")))
        for info in [path.lstat()]
    }


def tarball(files: Mapping[str, bytes], top: str = "") -> bytes:
    """A tar.gz of ``files``."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(top + path)
            info.size = len(data)
            info.mode = 0o755 if path.endswith(".sh") else 0o644
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


@dataclass
class Request:
    """What the server saw."""

    path: str
    headers: dict[str, str]


class Server:
    """A web server on loopback. Routes: path -> (status, headers, body), or a function that gets the handler.

    Attributes:
        seen: every request, in order.
    """

    def __init__(self) -> None:
        self.routes: dict[str, Any] = {}
        self.seen: list[Request] = []
        self.asked = threading.Event()
        self.release = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append(Request(self.path, dict(self.headers)))
                outer.asked.set()
                route = outer.routes.get(self.path.split("?")[0], (404, {}, b""))
                if callable(route):
                    route(self)
                    return
                status, headers, body = route
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def server() -> Iterator[Server]:
    """A running server."""
    running = Server()
    try:
        yield running
    finally:
        running.close()

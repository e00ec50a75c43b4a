"""GitHub on loopback: a real HTTP server with repositories made of commits, for tests and measurements.

It answers as an Enterprise server does (pages at ``/``, the API at ``/api/v3``), with git's own ids, and counts what it
is asked:

    with FakeGitHub() as github:
        repo = github.repo("org/skills")
        commit = repo.commit({"skills/pdf/SKILL.md": b"…", "skills/pdf/run.sh": File(b"…", executable=True)})
        …                                    # https://… urls: github.page("org/skills", "tree/main/skills/pdf")
        assert github.count("commits") == 1

What is odd about the real thing is odd here: a tarball is a redirect to another place, its one folder is called
``org-skills-1a2b3c4``, a pax header holds the commit, a listing calls the commit it was asked by its ``sha``, a missing
ref is 422 and a repository that may not be seen 404.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.repository import BEGAN_AT, Commit, Content, File, Link, Repo

__all__ = ["API", "BEGAN_AT", "Content", "FakeGitHub", "Fault", "File", "Link", "Repo", "Seen"]

API = "/api/v3"


@dataclass(slots=True)
class Fault:
    """How one kind of request goes wrong. What is not set stays as it should be.

    Attributes:
        status: answered instead, with ``headers`` and ``body``.
        location: a redirect to there.
        times: for how many requests; None for all.
        gate: waited for before anything is said.
        dribble_s: seconds between any two bytes of the body.
        cut_after: bytes of the body after which the connection is closed.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"message": "made to fail"}'
    location: str | None = None
    times: int | None = None
    gate: threading.Event | None = None
    dribble_s: float | None = None
    cut_after: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A request: ``commits``, ``trees``, ``tarball``, ``codeload`` or ``other``, and its path with the query."""

    kind: str
    path: str
    headers: dict[str, str]
    at_s: float


@dataclass(slots=True)
class _Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class FakeGitHub:
    """The server; a context manager.

    Attributes:
        host: ``127.0.0.1:<port>``; of pages, API and downloads alike.
        token: who bears another one gets 401; None takes all.
        codeload_url: where tarballs are redirected to: a second fake's ``url`` puts them on another host.
        latency_s: seconds before each answer.
        requests: what was asked, in order.
        authorizations: for each request the Host header and the Authorization header, or None.
        asked: set by each request, before it is answered.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        latency_s: float = 0.0,
        keep_alive: bool = False,
        repos: dict[str, Repo] | None = None,
    ) -> None:
        """``repos``: another fake's, to serve the same."""
        self.token = token
        self.latency_s = latency_s
        self.keep_alive = keep_alive
        self.repos: dict[str, Repo] = {} if repos is None else repos
        self.faults: dict[str, Fault] = {}
        self.requests: list[Seen] = []
        self.authorizations: list[tuple[str, str | None]] = []
        self.asked = threading.Event()
        self._closing = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self.api = f"{self.url}{API}"
        self.codeload_url = self.url

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for fault in self.faults.values():
            if fault.gate is not None:
                fault.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def options(self) -> dict[str, Any]:
        """The fields of ``SkillsOptions`` with which a reconciler takes it for a GitHub."""
        return {"local_hosts": (self.host,), "github": {self.host: self.api}}

    def repo(self, name: str) -> Repo:
        """The repository ``owner/name``, made if it is not there."""
        return self.repos.setdefault(name, Repo(name))

    def page(self, name: str, rest: str = "") -> str:
        """The url of a page: ``page("org/skills", "tree/main/a")``."""
        return f"{self.url}/{name}" + (f"/{rest}" if rest else "")

    def count(self, kind: str) -> int:
        """How many requests of one kind there were."""
        return sum(one.kind == kind for one in self.requests)

    def fault(self, kind: str, **how: Any) -> Fault:
        """From now on, requests of ``kind`` go wrong (``Fault``)."""
        self.faults[kind] = Fault(**how)
        return self.faults[kind]

    def rate_limit(self, kind: str, wait_s: int, *, status: int = 403, by_reset: bool = True, **how: Any) -> Fault:
        """From now on, requests of ``kind`` are too many: told by the reset's instant, or by ``Retry-After``."""
        reset = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(self._now() + wait_s)}
        headers = reset if by_reset else {"Retry-After": str(wait_s)}
        return self.fault(kind, status=status, headers=headers, **how)

    # ---- answering -------------------------------------------------------------------------------------------------

    @staticmethod
    def _now() -> int:
        """The server's clock, which nobody else need agree with."""
        return BEGAN_AT

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        parts = urlsplit(handler.path)
        words = [unquote(word) for word in parts.path.split("/") if word]
        kind = _kind(words)
        authorization = handler.headers.get("Authorization")
        self.requests.append(Seen(kind, handler.path, dict(handler.headers), time.monotonic()))
        self.authorizations.append((handler.headers.get("Host", ""), authorization))
        self.asked.set()
        if self.latency_s:
            self._closing.wait(self.latency_s)
        fault = self._fault_now(kind)
        if fault.gate is not None:
            fault.gate.wait()
        if fault.location is not None:
            reply = _Reply(302, {"Location": fault.location}, b"")
        elif fault.status is not None:
            reply = _Reply(fault.status, {"Content-Type": "application/json", **fault.headers}, fault.body)
        else:
            reply = self._reply(kind, words, parse_qs(parts.query), handler.headers, authorization)
        self._send(handler, reply, fault)

    def _fault_now(self, kind: str) -> Fault:
        fault = self.faults.get(kind)
        if fault is None:
            return Fault()
        if fault.times is not None:
            fault.times -= 1
            if fault.times < 0:
                del self.faults[kind]
                return Fault()
        return fault

    def _reply(self, kind: str, words: list[str], query: Mapping[str, Any], headers: Any, auth: str | None) -> _Reply:
        if kind == "codeload":
            return self._codeload(words)
        if self.token is not None and auth not in {None, f"Bearer {self.token}", f"token {self.token}"}:
            return _told(401, "Bad credentials")
        repo = self.repos.get("/".join(words[3:5]))
        if kind == "other" or repo is None or (repo.private and auth is None):
            return _told(404, "Not Found")
        ref = "/".join(words[7:]) if kind == "trees" else "/".join(words[6:])
        if not repo.commits:
            return _told(409, "Git Repository is empty.")
        if kind == "trees":
            return self._listing(repo, ref, recursive="recursive" in query)
        commit = repo.found(ref)
        if commit is None:
            return _told(404, "Not Found") if kind == "tarball" else _told(422, f"No commit found for SHA: {ref}")
        if kind == "tarball":
            target = f"{self.codeload_url}/codeload/{repo.name}/legacy.tar.gz/{commit.id}"
            return _Reply(302, {"Location": target}, b"")
        return _commit(commit, headers)

    def _listing(self, repo: Repo, asked: str, *, recursive: bool) -> _Reply:
        commit = repo.found(asked)
        folder: str | None = ""
        if commit is None:
            places = ((one, path) for one in repo.commits.values() for path, i in one.tree_ids.items() if i == asked)
            commit, folder = next(places, (None, None))
        if commit is None or folder is None:
            return _told(404, "Not Found")
        whole_commit = recursive and not folder and asked == commit.id and not repo.truncated
        if whole_commit and commit.listing is not None:
            return _Reply(200, {"Content-Type": "application/json"}, commit.listing)
        prefix = f"{folder}/" if folder else ""
        if recursive:
            under = (one for path, tree in sorted(commit.trees.items()) for one in tree if _is_in(path, folder))
            entries = sorted(under, key=lambda one: one.path)
        else:
            entries = commit.trees[folder]
        cut = recursive and repo.truncated
        lines = [
            {
                "path": one.path.removeprefix(prefix),
                "mode": one.mode,
                "type": one.kind,
                "sha": one.id,
                **({"size": one.size} if one.kind == "blob" else {}),
                "url": f"{self.api}/repos/{repo.name}/git/{one.kind}s/{one.id}",
            }
            for one in (entries[: len(entries) // 2] if cut else entries)
        ]
        whole = {"sha": asked, "url": f"{self.api}/repos/{repo.name}/git/trees/{asked}", "tree": lines}
        body = json.dumps({**whole, "truncated": cut}).encode()
        if whole_commit:
            commit.listing = body
        return _Reply(200, {"Content-Type": "application/json"}, body)

    def _codeload(self, words: list[str]) -> _Reply:
        repo = self.repos.get("/".join(words[1:3]))
        commit = repo.found("/".join(words[4:])) if repo else None
        if repo is None or commit is None:
            return _told(404, "Not Found")
        return _Reply(200, {"Content-Type": "application/x-gzip", "ETag": f'W/"{commit.id}"'}, repo.tarball(commit))

    def _send(self, handler: BaseHTTPRequestHandler, reply: _Reply, fault: Fault) -> None:
        try:
            handler.send_response_only(reply.status)
            handler.send_header("Date", formatdate(self._now(), usegmt=True))
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            if reply.status != 304:
                handler.send_header("Content-Length", str(len(reply.body)))
            if not self.keep_alive:
                handler.send_header("Connection", "close")
                handler.close_connection = True
            handler.end_headers()
            self._send_body(handler, reply.body, fault)
        except OSError:  # The client has gone, which is its right.
            handler.close_connection = True

    def _send_body(self, handler: BaseHTTPRequestHandler, body: bytes, fault: Fault) -> None:
        if fault.cut_after is not None:
            body = body[: fault.cut_after]
            handler.close_connection = True
        if fault.dribble_s is None:
            handler.wfile.write(body)
            return
        for at in range(len(body)):
            handler.wfile.write(body[at : at + 1])
            handler.wfile.flush()
            if self._closing.wait(fault.dribble_s):
                return


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # So that closing waits for each.
    request_queue_size = 128

    def __init__(self, github: FakeGitHub) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                github.serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # A client that ended its connection.


def _kind(words: list[str]) -> str:
    if words[:1] == ["codeload"]:
        return "codeload"
    if words[:3] != ["api", "v3", "repos"] or len(words) < 7:
        return "other"
    if words[5:7] == ["git", "trees"]:
        return "trees"
    return words[5] if words[5] in {"commits", "tarball"} else "other"


def _told(status: int, message: str) -> _Reply:
    return _Reply(status, {"Content-Type": "application/json"}, json.dumps({"message": message}).encode())


def _commit(commit: Commit, headers: Any) -> _Reply:
    etag = {"ETag": f'"{commit.id}"'}
    if headers.get("If-None-Match") == etag["ETag"]:
        return _Reply(304, etag, b"")
    if headers.get("Accept") != "application/vnd.github.sha":
        return _Reply(200, {"Content-Type": "application/json", **etag}, json.dumps({"sha": commit.id}).encode())
    return _Reply(200, {"Content-Type": "application/vnd.github.sha; charset=utf-8", **etag}, commit.id.encode())


def _is_in(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")

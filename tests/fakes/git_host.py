"""A host of git repositories: real ones, made by git with fixed dates, served by git's own http-backend on loopback.

It is not fake in what it speaks, but in where it stands: it can want a login, stall, redirect, or be an old server.
"""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

Blobs = Mapping[str, bytes]


@contextmanager
def own_home(folder: Path) -> Iterator[Path]:
    """An empty HOME, so that this machine's own git settings do not matter."""
    folder.mkdir(exist_ok=True)
    names = [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]
    with mock.patch.dict(os.environ, {"HOME": str(folder)}):
        for name in names:
            del os.environ[name]
        os.environ["GIT_CONFIG_NOSYSTEM"] = "1"
        yield folder


class Repository:
    """A repository with a work tree.

    Attributes:
        folder: its work tree.
        url: ``file://`` and the path of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file://{folder}"
        self._commits = 0
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", ".")

    def git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """What git says."""
        stamp = f"2024-01-01T00:00:{self._commits:02d}Z"
        env = os.environ | {
            "GIT_AUTHOR_DATE": stamp,
            "GIT_COMMITTER_DATE": stamp,
            **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        done = subprocess.run(
            ["git", "-c", "core.autocrlf=false", "-c", "core.safecrlf=false", "-C", str(self.folder), *arguments],
            input=stdin,
            env=env,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def commit(self, files: Blobs, *, executable: tuple[str, ...] = ()) -> str:
        """One more commit; its id. What is stored are the very bytes, whatever a .gitattributes says."""
        self._commits += 1
        for path, data in files.items():
            blob = self.git("hash-object", "-w", "--no-filters", "--stdin", stdin=data).decode().strip()
            self.add("100755" if path in executable else "100644", blob, path)
        return self.commit_index()

    def add(self, mode: str, one: str, path: str) -> None:
        """Put an object into the index."""
        self.git("update-index", "--add", "--cacheinfo", f"{mode},{one},{path}")

    def commit_index(self) -> str:
        """Commit what is in the index; the commit's id."""
        self.git("commit", "--quiet", "--allow-empty", "-m", "one more")
        return self.git("rev-parse", "HEAD").decode().strip()

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link into the index."""
        self.add("120000", self.git("hash-object", "-w", "--stdin", stdin=target.encode()).decode().strip(), path)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What proves who a server is: its chain and key, for the server; its authority, for who shall believe it."""

    chain: Path
    key: Path
    authority: Path


def certificate(folder: Path, names: str) -> Certificate:
    """One for ``names`` (as in ``IP:127.0.0.1``) by an authority that nobody knows. Without openssl the test skips."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, so no certificate can be made")
    folder.mkdir()

    def run(words: str, *more: str) -> None:
        subprocess.run([openssl, *words.split(), *more], cwd=folder, check=True, capture_output=True)

    new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    run(f"req -x509 {new} -days 2 -keyout ca.key -out ca.pem", "-subj", "/CN=an authority of this test")
    run(f"req {new} -keyout key.pem -out request.pem", "-subj", "/CN=a server of this test")
    (folder / "names").write_text(f"subjectAltName={names}\n")
    run("x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out chain.pem")
    return Certificate(folder / "chain.pem", folder / "key.pem", folder / "ca.pem")


class GitHost:
    """Serves every repository under a folder.

    Attributes:
        url: ``http://127.0.0.1:port``, or https.
        host: ``127.0.0.1:port``.
        requests: "GET /path" of every request, in order, a query included.
        logins: the Authorization header of each, or "".
        login: ``user:password`` that is wanted; empty for none.
        old: whether it speaks git's first protocol only, which gives out no commit by its id.
        redirect: where every request is sent instead; empty for nowhere.
        stalls: requests whose query or path holds this are never answered, until ``release``.
    """

    def __init__(self, folder: Path, tls: Certificate | None = None) -> None:
        self.requests: list[str] = []
        self.logins: list[str] = []
        self.login = ""
        self.old = False
        self.redirect = ""
        self.stalls = ""
        self.stalled = threading.Event()
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                outer._serve(self, folder)

            def do_POST(self) -> None:
                outer._serve(self, folder)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.chain, tls.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http{'s' if tls else ''}://{self.host}"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, asked: BaseHTTPRequestHandler, folder: Path) -> None:
        self.requests.append(f"{asked.command} {asked.path}")
        self.logins.append(asked.headers.get("Authorization", ""))
        body = _body(asked)
        if self.stalls and self.stalls in asked.path:
            self.stalled.set()
            self.release.wait()
            asked.close_connection = True
            return
        wanted = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and asked.headers.get("Authorization") != wanted:
            _answer(asked, 401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        elif self.redirect:
            _answer(asked, 302, {"Location": self.redirect + asked.path}, b"")
        else:
            _answer(asked, *self._told(asked, folder, body))

    def _told(self, asked: BaseHTTPRequestHandler, folder: Path, body: bytes) -> tuple[int, dict[str, str], bytes]:
        path, _, query = asked.path.partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": str(folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": asked.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": asked.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": asked.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        if not self.old:
            env |= {
                "GIT_PROTOCOL": asked.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "uploadpack.allowFilter",
                "GIT_CONFIG_VALUE_0": "true",
            }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        status = int(headers.pop("Status", "200 OK").split()[0])
        return status, headers, answer


def _body(asked: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in asked.headers.get("Transfer-Encoding", ""):
        return asked.rfile.read(int(asked.headers.get("Content-Length", 0)))
    body = b""
    while size := int(asked.rfile.readline(), 16):
        body += asked.rfile.read(size)
        asked.rfile.readline()
    asked.rfile.readline()
    return body


def _answer(asked: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes) -> None:
    asked.send_response(status)
    for key, value in {**headers, "Content-Length": str(len(body))}.items():
        asked.send_header(key, value)
    asked.end_headers()
    asked.wfile.write(body)


@contextmanager
def git_host(folder: Path, tls: Certificate | None = None) -> Iterator[GitHost]:
    """A running host of the repositories under ``folder``."""
    running = GitHost(folder, tls)
    try:
        yield running
    finally:
        running.close()

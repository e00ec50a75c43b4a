"""Consoles for tests: the real program as a real process, and plain HTTP to it.

HTTP is the standard library's client, so that every byte of a body and every header goes out as a test gives it.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from skillbus.bus.embedded import HOST, tied_to_us
from tests.pods import Ran, end, ended, environ_of, eventually
from tests.servers import RealServer

ANSWER_S = 30.0

START_S = 90.0
"""For the start alone: two seconds of a processor, on a machine that runs many at once."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the console said."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Console:
    """A console that serves on loopback.

    Attributes:
        url: its address, without a slash at its end.
        process: to be frozen, measured, or ended before its time.
    """

    url: str
    process: subprocess.Popen[bytes]

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answered:
        """GET."""
        return self._ask("GET", path, None, headers or {}, chunked=False)

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, chunked: bool = False) -> Answered:
        """POST these bytes. ``chunked``: without saying beforehand how many they are."""
        return self._ask("POST", path, body, headers, chunked=chunked)

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, chunked: bool
    ) -> Answered:
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=ANSWER_S)
        sent = iter([body[:1000], body[1000:]]) if chunked and body is not None else body
        encoded = {name: value.encode() for name, value in headers.items()}
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it need not read to its end what is too large
                connection.request(method, place.path + path, sent, encoded, encode_chunked=chunked)
            answer = connection.getresponse()
            return Answered(answer.status, answer.read())
        finally:
            connection.close()


@contextmanager
def serving(server: RealServer | str, folder: Path, *words: str, **given: str) -> Iterator[Console]:
    """``skillbus serve WORDS…`` on a free port of loopback, once it listens. Ended at the end, at any cost.

    What it says goes to ``console.txt`` in ``folder``. The fleet is ``prod``.
    """
    with (folder / "console.txt").open("ab") as log:
        began = log.tell()
        env = _env(server, folder, given)
        process = subprocess.Popen(tied_to_us(_argv(words)), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        eventually(
            lambda: _url(folder, began) or process.poll() is not None, "the console listens, or has ended", START_S
        )
        url = _url(folder, began)
        assert url is not None, "the console ended before it listened"
        yield Console(url, process)
    except BaseException:
        print((folder / "console.txt").read_text(errors="replace")[-5000:])
        raise
    finally:
        end(process)


def _url(folder: Path, began: int) -> str | None:
    """Where it says that it listens, without a slash at its end."""
    said = (folder / "console.txt").read_bytes()[began:]
    match = re.search(rb"^console: (http\S+?)/?\n", said, re.MULTILINE)
    return match[1].decode() if match else None


def fails_to_start(server: RealServer, folder: Path, *words: str, **given: str) -> Ran:
    """How ``skillbus serve WORDS…`` ends that cannot begin."""
    argv, env, pipe = _argv(words), _env(server, folder, given), subprocess.PIPE
    return ended(subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe))


def _argv(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "skillbus", "serve", "--listen", f"{HOST}:0", *words]


def _env(server: RealServer | str, folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    return environ_of(server, SKILLBUS_STATE_DIR=str(folder / "console-state"), **given)

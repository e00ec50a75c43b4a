"""A console to be asked over real HTTP: a server, a file of tokens, and a client for each role."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from skillbus.console.tokens import line_of
from tests.consoles import START_S, Console, serving
from tests.pods import PATIENCE_S, eventually, own_server
from tests.servers import RealServer

TOKENS = {name: f"skillbus_token-of-{name}" for name in ("viewer", "bot", "operator", "admin")}
BOUND = "skillbus_token-of-bound"
"""Of a bot that is bound to group eu."""


def write_tokens(path: Path) -> Path:
    """A file with a token of each role, and one that is bound."""
    lines = [line_of(role, role, token, ()) for role, token in TOKENS.items()]
    path.write_text("\n".join([*lines, line_of("bound", "bot", BOUND, ("group:eu",))]) + "\n")
    return path


@dataclass(frozen=True, slots=True)
class Api:
    """A console, and a hand on its Redis."""

    server: RealServer
    console: Console
    tokens: Path

    def client(self, token: str = "", **headers: str) -> httpx.Client:
        """A client with that token; to be closed."""
        own = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.console.url, headers=own | headers, timeout=30.0, trust_env=False)

    def ask(self, role: str, method: str, path: str, **more: Any) -> httpx.Response:
        """One request with that role's token; an empty role has none."""
        with self.client(TOKENS[role] if role else "") as client:
            return client.request(method, path, **more)

    def get(self, path: str, role: str = "admin", **more: Any) -> httpx.Response:
        """GET."""
        return self.ask(role, "GET", path, **more)

    def post(self, path: str, body: Any = None, role: str = "admin", **headers: str) -> httpx.Response:
        """POST of a JSON object."""
        return self.ask(role, "POST", path, json={} if body is None else body, headers=headers)

    def until_sees(self, is_so: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """Wait until the status is so, and give it back."""
        found: dict[str, Any] = {}

        def look() -> bool:
            found.update(self.get("/api/v1/status").json())
            return bool(is_so(found))

        eventually(look, what)
        return found

    def audit(self) -> list[dict[str, str]]:
        """The fields of every entry of control's stream, straight from Redis, the oldest first."""
        rows = self.server.cli("XRANGE", "skillbus:{prod}:audit", "-", "+")
        assert isinstance(rows, list)
        return [_fields(row) for row in rows]

    def audited(self, kind: str, **fields: str) -> list[dict[str, str]]:
        """Those of a kind with these fields."""
        return [one for one in self.audit() if one["kind"] == kind and all(one.get(k) == v for k, v in fields.items())]


def _fields(row: Any) -> dict[str, str]:
    flat = [word.decode() for word in row[1]]
    return dict(zip(flat[::2], flat[1::2], strict=True))


@contextmanager
def api(folder: Path, *config: str, words: tuple[str, ...] = (), armed: bool = True, **env: str) -> Iterator[Api]:
    """A server of its own, and a console on it that sees the fleet."""
    with ExitStack() as stack:
        server = stack.enter_context(own_server(folder, *config, armed=armed))
        tokens = write_tokens(folder / "tokens")
        console = stack.enter_context(serving(server, folder, "--tokens", str(tokens), *words, **env))
        found = Api(server, console, tokens)
        eventually(
            lambda: httpx.get(console.url + "/readyz", trust_env=False).status_code == 200, "it is ready", START_S
        )
        yield found


class Events:
    """A stream of events, read in a thread of its own."""

    def __init__(self, api: Api, role: str = "viewer", last_event_id: str = "") -> None:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        self._client = api.client(TOKENS[role] if role else "", **headers)
        self.seen: list[tuple[str, str, Any]] = []
        self.has_ended = threading.Event()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        try:
            with self._client.stream("GET", "/api/v1/events", timeout=httpx.Timeout(30.0)) as response:
                event = event_id = ""
                for line in response.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        event, event_id = value, ""
                    elif name == "id":
                        event_id = value
                    elif name == "data":
                        with self._news:
                            self.seen.append((event, event_id, json.loads(value)))
                            self._news.notify_all()
        except httpx.HTTPError:
            pass
        finally:
            self.has_ended.set()
            with self._news:
                self._news.notify_all()

    def until(self, event: str, is_so: Callable[[Any], Any] = lambda data: True) -> tuple[str, Any]:
        """``(id, data)`` of the first such event."""
        give_up_at_s = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                for name, event_id, data in self.seen:
                    if name == event and is_so(data):
                        return event_id, data
                left_s = give_up_at_s - time.monotonic()
                if left_s <= 0 or (self.has_ended.is_set() and left_s <= PATIENCE_S - 1):
                    raise AssertionError(f"no such {event} event: {[name for name, _, _ in self.seen]}")
                self._news.wait(min(left_s, 0.5))

    def __enter__(self) -> Events:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._thread.join(20)

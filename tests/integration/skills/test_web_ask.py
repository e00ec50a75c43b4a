"""HTTP from the pod's process: conditional questions, rate limits, proxies, and an end at once when it is cancelled."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from skillbus.errors import BadManifest, RateLimited, SkillbusError, SourceUnavailable
from skillbus.skills.sources.web import Told, Trust, Web
from tests.integration.skills.world import Server

TOKEN = "canary-token-91bc"
QUERY = "?sig=canary-query-22aa"
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"  # 1700000000
AT_ONCE_S = 0.5
"""Seconds within which what is cancelled must have ended: a hundred times what it takes, for a loaded machine."""


def _web(*local: str, token: str | None = None) -> Web:
    return Web(Trust(token, frozenset(local) if token else frozenset(), frozenset(local)))


def _ask(client: Web, url: str, **how: Any) -> Told:
    return asyncio.run(client.ask(url, **{"max_bytes": 1000, **how}))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def _silent() -> Iterator[tuple[str, threading.Event]]:
    """A host that accepts and says nothing, and an event for when it was connected to."""
    connected, over = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            one, _ = listening.accept()
            with one:
                connected.set()
                over.wait()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", connected
        finally:
            over.set()
            if not connected.is_set():
                socket.create_connection(listening.getsockname()).close()
            thread.join()


# ---- what is asked, and what is told ---------------------------------------------------------------------------------


def test_what_did_not_change_is_not_sent_again(web: Server) -> None:
    """The ETag goes back as it came; 304 has no body. Likewise with Last-Modified, where there is no ETag."""

    def route(handler: Any) -> None:
        same = handler.headers.get("If-None-Match") == 'W/"1"' or handler.headers.get("If-Modified-Since") == DATE
        handler.send_response(304 if same else 200)
        for name, value in (("ETag", 'W/"1"'), ("Last-Modified", DATE), ("Content-Length", "0" if same else "4")):
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"" if same else b"body")

    web.routes["/a"] = route
    client, url = _web(web.host), f"{web.url}/a"
    first = _ask(client, url)
    assert first == Told(200, changed=True, etag='W/"1"', modified=DATE, body=b"body")
    assert _ask(client, url, etag=first.etag) == Told(304, changed=False, etag='W/"1"')
    assert _ask(client, url, modified=DATE) == Told(304, changed=False, modified=DATE)
    assert _ask(client, url, etag='"other"').changed
    assert _ask(client, url, headers_only=True).body == b""


def test_nobody_asked_for_a_304(web: Server) -> None:
    """Without a condition it is an error, not an empty manifest."""
    web.routes["/a"] = (304, {}, b"")
    with pytest.raises(SourceUnavailable, match="304"):
        _ask(_web(web.host), f"{web.url}/a")


def test_an_etag_that_cannot_be_sent_back_is_none(web: Server) -> None:
    """Too long, or with letters that a header cannot have."""
    for bad in ('"' + "x" * 300 + '"', '"\xe9"'):
        web.routes["/a"] = (200, {"ETag": bad}, b"x")
        assert _ask(_web(web.host), f"{web.url}/a").etag == ""


def test_a_long_body_is_an_error(web: Server) -> None:
    """At most ``max_bytes`` are taken, and the manifest's owner is told so."""
    web.routes["/a"] = (200, {}, b"x" * 3000)
    with pytest.raises(SourceUnavailable, match="longer than 2 KB"):
        _ask(_web(web.host), f"{web.url}/a", max_bytes=2048)
    with pytest.raises(BadManifest, match="longer than 2 KB"):
        _ask(_web(), f"{web.url}/a{QUERY}", max_bytes=2048, own=True)


def test_the_operators_manifest_may_lie_here_and_may_not_move(web: Server) -> None:
    """Loopback without being named; a redirect is refused; what is not the operator's is not so free."""
    web.routes["/a"] = (200, {}, b"skills: []")
    web.routes["/moved"] = (302, {"Location": "/a"}, b"")
    assert _ask(_web(), f"{web.url}/a", own=True).body == b"skills: []"
    with pytest.raises(BadManifest, match="redirects, which a manifest may not") as caught:
        _ask(_web(), f"{web.url}/moved{QUERY}", own=True)
    assert "canary" not in str(caught.value)
    with pytest.raises(BadManifest, match="SKILLBUS_SKILLS_LOCAL_HOSTS"):
        _ask(_web(), f"{web.url}/a")


def test_plain_http_to_elsewhere_is_not_for_manifests_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads beyond this machine needs TLS, or to be named."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: [(2, 1, 6, "", ("8.8.8.8", port))])
    with pytest.raises(BadManifest, match="plain http only to this machine"):
        _ask(_web(), "http://h.example/m", own=True)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "127.0.0.1"])
def test_loopback_is_refused_whatever_it_is_called(web: Server, host: str) -> None:
    """The same rule as for downloads."""
    with pytest.raises(SkillbusError):
        _ask(_web("other"), f"https://{host}:{web.host.split(':')[1]}/a")
    assert web.seen == []


def test_a_redirect_is_followed_by_the_rules(web: Server) -> None:
    """The last answer is the one that is told."""
    web.routes["/a"] = (302, {"Location": "/b"}, b"")
    web.routes["/b"] = (200, {"ETag": '"b"'}, b"body")
    assert _ask(_web(web.host), f"{web.url}/a").etag == '"b"'


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 418, 500, 503])
def test_a_bad_status_is_an_error_without_secrets(web: Server, status: int) -> None:
    """It names the status and the path; no query, no token, no body. 5xx says that it is tried again."""
    web.routes["/a"] = (status, {}, b"" if status == 204 else b"canary-body")
    with pytest.raises(SourceUnavailable, match=str(status)) as caught:
        _ask(_web(web.host, token=TOKEN), f"{web.url}/a{QUERY}")
    assert not isinstance(caught.value, RateLimited)
    assert "canary" not in str(caught.value)
    assert ("tried again" in str(caught.value)) == (status >= 500 or status == 204)
    assert ("SKILLBUS_SKILLS_TOKEN" in str(caught.value)) == (status in {401, 403})
    assert _ask(_web(web.host), f"{web.url}/a", allowed=frozenset({status})) == Told(status, changed=True)


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {}, 60),
        (429, {"Retry-After": "7"}, 7),
        (403, {"Retry-After": "7"}, 7),
        (403, {"Retry-After": "Tue, 14 Nov 2023 22:15:00 GMT"}, 100),
        (403, {"Retry-After": "soon"}, 60),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000042"}, 42),
        (429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000042"}, 42),
        (403, {"x-ratelimit-remaining": "0"}, 60),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "never"}, 60),
        (429, {"Retry-After": "0"}, 1),
        (429, {"Retry-After": "999999999999"}, 3600),
        (429, {"Retry-After": "-5"}, 60),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1600000000"}, 1),
    ],
)
def test_how_long_a_server_wants_to_be_left_alone(
    web: Server, status: int, headers: dict[str, str], wait_s: float
) -> None:
    """As it says, by its own clock, between a second and an hour; a minute if it does not say."""

    def route(handler: Any) -> None:
        handler.send_response_only(status)
        for name, value in {"Date": DATE, "Content-Length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()

    web.routes["/a"] = route
    with pytest.raises(RateLimited) as caught:
        _ask(_web(web.host, token=TOKEN), f"{web.url}/a{QUERY}")
    assert caught.value.wait_s == wait_s
    assert "canary" not in str(caught.value)
    with pytest.raises(RateLimited), _web(web.host).get(f"{web.url}/a"):
        pass


def test_a_403_that_speaks_of_a_limit_is_one(web: Server) -> None:
    """GitHub's secondary limits may come without any header; other words are about the token."""
    web.routes["/a"] = (403, {}, b'{"message": "You have exceeded a secondary rate limit."}')
    web.routes["/b"] = (403, {"x-ratelimit-remaining": "12"}, b'{"message": "Resource not accessible"}')
    with pytest.raises(RateLimited):
        _ask(_web(web.host), f"{web.url}/a")
    with pytest.raises(SourceUnavailable, match="token") as caught:
        _ask(_web(web.host), f"{web.url}/b")
    assert not isinstance(caught.value, RateLimited)


def test_without_the_servers_date_no_instant_means_anything(web: Server) -> None:
    """This machine's clock is not asked instead."""

    def route(handler: Any) -> None:
        handler.send_response_only(403)
        handler.send_header("x-ratelimit-remaining", "0")
        handler.send_header("x-ratelimit-reset", str(int(time.time()) + 5))
        handler.end_headers()

    web.routes["/a"] = route
    with pytest.raises(RateLimited) as caught:
        _ask(_web(web.host), f"{web.url}/a")
    assert caught.value.wait_s == 60


def test_rubbish_instead_of_http() -> None:
    """An error in words, whatever comes."""
    for said in (
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200,
        b"\xff" * 70_000,
    ):
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def answer(listening: socket.socket = listening, said: bytes = said) -> None:
                one, _ = listening.accept()
                with one:
                    one.recv(1000)
                    with suppress(OSError):  # it may have heard enough before the end
                        one.sendall(said)
                        one.shutdown(socket.SHUT_WR)
                        while one.recv(1000):
                            pass

            thread = threading.Thread(target=answer)
            thread.start()
            host = f"127.0.0.1:{listening.getsockname()[1]}"
            with pytest.raises(SourceUnavailable, match="broke off"):
                _ask(_web(host), f"http://{host}/a{QUERY}")
            thread.join()


# ---- cancelled -------------------------------------------------------------------------------------------------------


def _cancelled_after(asking: Any, ready: threading.Event) -> float:
    """Seconds from a cancellation, once ``ready``, to the question's end."""

    async def main() -> float:
        task = asyncio.create_task(asking())
        await asyncio.to_thread(ready.wait)
        began_s = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began_s

    return asyncio.run(main())


def test_cancelled_while_the_server_says_nothing() -> None:
    """The question is over at once, and its thread has come back by then."""
    with _silent() as (host, connected):
        before = set(threading.enumerate())

        async def asking() -> None:
            try:
                await _web(host).ask(f"http://{host}/a", max_bytes=10)
            finally:
                assert not [one for one in set(threading.enumerate()) - before if one.name == "skills.web"]

        assert _cancelled_after(asking, connected) < AT_ONCE_S


def test_cancelled_in_the_tls_handshake() -> None:
    """TLS is begun by us, and the other side says nothing."""
    with _silent() as (host, connected):
        assert _cancelled_after(lambda: _web(host).ask(f"https://{host}/a", max_bytes=10), connected) < AT_ONCE_S


def test_cancelled_while_the_body_dribbles(web: Server) -> None:
    """A byte now and then keeps no question alive."""
    begun = threading.Event()

    def route(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        begun.set()
        while not web.release.wait(0.02):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    web.routes["/a"] = route
    asking = lambda: _web(web.host).ask(f"{web.url}/a", max_bytes=2_000_000)  # noqa: E731
    assert _cancelled_after(asking, begun) < AT_ONCE_S


def test_cancelled_while_the_connection_hangs() -> None:
    """A host whose queue is full answers no SYN: the connect is given up at once."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            host = f"127.0.0.1:{full.getsockname()[1]}"
            ready = threading.Event()

            async def asking() -> None:
                asyncio.get_running_loop().call_later(0.1, ready.set)
                await _web(host).ask(f"http://{host}/a", max_bytes=10)

            assert _cancelled_after(asking, ready) < AT_ONCE_S
        finally:
            for one in waiting:
                one.close()


def test_cancelled_while_the_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that hangs holds neither the question nor the loop's end; its thread alone waits for it."""
    asked, release = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        asked.set()
        release.wait()
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began_s = time.monotonic()
    try:
        assert _cancelled_after(lambda: _web().ask("https://h.example/", max_bytes=10), asked) < AT_ONCE_S
        assert time.monotonic() - began_s < 2 * AT_ONCE_S
    finally:
        release.set()


def test_silence_and_dribbling_have_an_end(monkeypatch: pytest.MonkeyPatch, web: Server) -> None:
    """Neither a silent server nor one that sends a byte now and then holds a question beyond its time."""
    monkeypatch.setattr("skillbus.skills.sources.wire.SILENCE_S", 0.1)
    with _silent() as (host, _), pytest.raises(SourceUnavailable, match="in time"):
        _ask(_web(host), f"http://{host}/a")
    monkeypatch.setattr("skillbus.skills.sources.web.ASK_S", 0.3)
    monkeypatch.setattr("skillbus.skills.sources.web.TOTAL_S", 0.3)

    def route(handler: Any) -> None:
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nA: ")  # Even in the headers.
            while not web.release.wait(0.02):
                handler.wfile.write(b"H")

    web.routes["/a"] = route
    with pytest.raises(SourceUnavailable, match="in time"):
        _ask(_web(web.host), f"{web.url}/a")
    with pytest.raises(SourceUnavailable, match="in time"), _web(web.host).get(f"{web.url}/a"):
        pass


# ---- proxies ---------------------------------------------------------------------------------------------------------


@contextmanager
def _proxy(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that says ``answer`` to one CONNECT, and what it was asked."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            one, _ = listening.accept()
            with one:
                seen.append(one.recv(4000))
                one.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", seen
        finally:
            with socket.socket() as last:
                last.connect_ex(listening.getsockname())
            thread.join()


def test_a_proxy_is_asked_to_connect_to_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """By CONNECT with its own password; our token is not for its eyes, and its refusal is an error without secrets."""
    with _proxy(b"HTTP/1.1 403 no\r\n\r\n") as (host, seen):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:canary-pw@{host}")
        with pytest.raises(SourceUnavailable, match="proxy refused") as caught:
            _ask(Web(Trust(TOKEN, frozenset({"h.example"}), frozenset())), f"https://h.example/a{QUERY}")
    assert seen[0].startswith(b"CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\nProxy-Authorization: Basic ")
    assert b"canary" not in seen[0]
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["localhost", "a.localhost", "127.0.0.1", "127.1", "0x7f.1", "[::1]", "169.254.169.254"]
)
def test_a_proxy_is_not_asked_for_its_own_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Names that plainly mean it are refused, for a proxy would look them up by itself."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(BadManifest, match="this machine"):
        _ask(_web(), f"https://{host}/a")


def test_who_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch, web: Server) -> None:
    """Local hosts, and those in NO_PROXY."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    web.routes["/a"] = (200, {}, b"body")
    assert _ask(_web(web.host), f"{web.url}/a").body == b"body"
    monkeypatch.setenv("NO_PROXY", "h.example")
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: [(2, 1, 6, "", ("127.0.0.1", port))])
    with pytest.raises(BadManifest, match="leads to this machine"):  # The pinned way, with its checks.
        _ask(_web(), "https://h.example/a")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://h:1")
    with pytest.raises(SourceUnavailable, match="HTTPS_PROXY"):
        _ask(_web(), "https://other.example/a")


def test_importing_it_is_cheap() -> None:
    """No HTTP library is loaded before the first question."""
    code = """
        import sys
        import redis.asyncio
        before = set(sys.modules)
        import skillbus.skills.sources
        skillbus.skills.sources.sources()
        new = set(sys.modules) - before
        heavy = {"httptools", "http.client", "urllib.request", "tarfile", "zipfile", "yaml", "email.message"}
        print(sorted(new & heavy))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""HTTP: hosts, addresses, redirects, tokens, and what errors may show."""

from __future__ import annotations

import asyncio
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from skillbus.errors import BadManifest, SkillbusError, SourceUnavailable
from skillbus.skills.sources.route import is_inside, taken_apart
from skillbus.skills.sources.web import Trust, Web
from tests.integration.skills.world import Server, server

TOKEN = "canary-token-91bc"
QUERY = "?sig=canary-query-22aa"


Names = tuple[str, ...]


def _web(*, token: str | None = None, token_hosts: Names = (), local: Names = (), redirect: Names = ()) -> Web:
    return Web(Trust(token, frozenset(token_hosts), frozenset(local), frozenset(redirect)))


def _body(client: Web, url: str) -> bytes:
    with client.get(url) as answer:
        return b"".join(answer.chunks())


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h.example/x",
        "file:///etc/passwd",
        "http://h.example/x",
        "https://user:pw@h.example/x",
        "https:///x",
        "https://h.example:99999/x",
        "https://hé.example/x",
        "https://h.example/a\r\nHost: evil",
        "https://h.example/a b",
    ],
)
def test_a_url_that_is_not_fetched(url: str) -> None:
    """Only https, no password, no trick with spaces and line ends."""
    with pytest.raises(BadManifest), _web().get(url):
        pass


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ),
        *("::1", "::", "::ffff:127.0.0.1", "::ffff:169.254.1.1", "fe80::1%eth0", "64:ff9b::7f00:1", "2002:7f00:1::"),
        *("::7f00:1", "ff02::1"),
    ],
)
def test_an_address_of_this_machine_or_its_link(address: str) -> None:
    """In whatever dress it comes."""
    assert is_inside(address)


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "192.168.1.1", "8.8.8.8", "2606:4700::1", "fd00::1", "64:ff9b::808:808"]
)
def test_an_address_that_may_be_fetched_from(address: str) -> None:
    """The net of a company is no secret from its own manifests."""
    assert not is_inside(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0", "[::ffff:127.0.0.1]"])
def test_loopback_is_refused_whatever_it_is_called(web: Server, host: str) -> None:
    """Each of these reaches loopback by a naive client; here none does."""
    port = web.host.split(":")[1]
    with pytest.raises(SkillbusError), _web().get(f"https://{host}:{port}/"):
        pass
    with pytest.raises(SkillbusError), _web(local=("other",)).get(f"http://{host}:{port}/"):
        pass
    assert web.seen == []


def test_one_bad_address_among_good_ones_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a public and a loopback address is refused, and nothing is asked twice."""
    asked = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("8.8.8.8", port)), (2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(BadManifest, match="this machine"), _web().get("https://h.example/"):
        pass
    assert asked == ["h.example"]


def test_the_token_goes_to_its_hosts_alone(web: Server) -> None:
    """By scheme, host and port; on a redirect to another host it stays behind, on the way back it is there again."""
    with server() as other:
        web.routes["/a"] = (302, {"Location": f"{other.url}/b"}, b"")
        other.routes["/b"] = (302, {"Location": f"{web.url}/c"}, b"")
        web.routes["/c"] = (200, {}, b"body")
        hosts = (web.host, other.host)
        client = _web(token=TOKEN, token_hosts=hosts, local=hosts, redirect=hosts)
        assert _body(client, f"{web.url}/a") == b"body"
        assert [one.headers.get("Authorization") for one in web.seen] == [f"Bearer {TOKEN}"] * 2
        assert TOKEN not in str(other.seen)
        by_name = _web(token=TOKEN, token_hosts=("127.0.0.1",), local=(web.host,))
        assert _body(by_name, f"{web.url}/c") == b"body"  # Without a port it means https on 443.
        assert "Authorization" not in web.seen[-1].headers
        assert TOKEN not in repr(client.trust)


def test_a_redirect_leads_to_the_same_host_or_one_that_was_named(web: Server) -> None:
    """Another host, or another port of this one, only by ``redirect_hosts``: it is not even connected to."""
    with server() as other:
        web.routes["/a"] = (302, {"Location": f"{other.url}/b{QUERY}"}, b"")
        web.routes["/same"] = (307, {"Location": "b"}, b"")
        web.routes["/b"] = other.routes["/b"] = (200, {}, b"body")
        hosts = (web.host, other.host)
        assert _body(_web(local=hosts), f"{web.url}/same") == b"body"
        with pytest.raises(BadManifest, match="SKILLBUS_SKILLS_REDIRECT_HOSTS") as caught:
            _body(_web(local=hosts), f"{web.url}/a")
        assert other.host in str(caught.value)
        assert "canary" not in str(caught.value)
        assert other.seen == []
        assert _body(_web(local=hosts, redirect=(other.host,)), f"{web.url}/a") == b"body"


@pytest.mark.parametrize(("hops", "good"), [(5, True), (6, False)])
def test_five_redirects_are_enough(web: Server, hops: int, good: bool) -> None:
    """One more is an error."""
    for hop in range(hops):
        web.routes[f"/{hop}"] = (301, {"Location": f"/{hop + 1}"}, b"")
    web.routes[f"/{hops}"] = (200, {}, b"body")
    client = _web(local=(web.host,))
    if good:
        assert _body(client, f"{web.url}/0") == b"body"
    else:
        with pytest.raises(SourceUnavailable, match="more than 5 redirects"):
            _body(client, f"{web.url}/0")
    assert len(web.seen) == 6


@pytest.mark.parametrize("status", [401, 403, 404, 500, 204])
def test_a_bad_status_is_an_error_without_secrets(web: Server, status: int) -> None:
    """It names the status and the path; no query, no token, no body."""
    web.routes["/a"] = (status, {}, b"")
    client = _web(token=TOKEN, token_hosts=(web.host,), local=(web.host,))
    with pytest.raises(SourceUnavailable, match=str(status)) as caught:
        _body(client, f"{web.url}/a{QUERY}")
    assert f"{web.url}/a" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:1/", "https://127.0.0.1:1/", "http://h.example/", "file:///etc/passwd", "ftp://h/", "//[", ""],
)
def test_a_redirect_is_checked_like_a_first_url(web: Server, target: str) -> None:
    """Into this machine, to plain http, to another scheme, to nowhere, or for ever: refused."""
    web.routes["/a"] = (302, {"Location": target}, b"")
    with pytest.raises(SkillbusError):
        _body(_web(local=(web.host,)), f"{web.url}/a")
    assert len(web.seen) <= 6


def test_an_answer_that_breaks_off_is_an_error(web: Server) -> None:
    """Less than was promised is not taken for all."""

    def short(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 10)

    web.routes["/a"] = short
    with pytest.raises(SourceUnavailable, match="broke off"):
        _body(_web(local=(web.host,)), f"{web.url}/a")


def test_nobody_there() -> None:
    """No connection: one sentence with host and port."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SourceUnavailable, match="no connection"):
            _body(_web(local=(host,)), f"http://{host}/a")


def test_the_host_header_is_the_name(web: Server) -> None:
    """We connect to the address, and speak to the name."""
    web.routes["/a"] = (200, {}, b"x")
    port = web.host.split(":")[1]
    assert _body(_web(local=("localhost",)), f"http://localhost:{port}/a") == b"x"
    assert web.seen[0].headers["Host"] == f"localhost:{port}"
    assert taken_apart("https://H.Example./x").host == "h.example"


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """An https server for the name ``skills.test``, and its root certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, so no certificate can be made")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout {key} -out {cert}"
    name = ("-subj", "/CN=skills.test", "-addext", "subjectAltName=DNS:skills.test")
    subprocess.run([openssl, *words.split(), *name], check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass

    running = Quiet(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    running.socket = context.wrap_socket(running.socket, server_side=True)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running.server_port, cert
    running.shutdown()
    running.server_close()
    thread.join()


def test_tls_is_checked_for_the_name_though_we_connect_to_the_address(
    tls: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good certificate for the name is taken; another name, or an unknown root, is refused."""
    port, cert = tls
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: real("127.0.0.1", *a, **k))
    local = ("skills.test", "other.test")
    with pytest.raises(SourceUnavailable, match="certificate"):
        _body(_web(local=local), f"https://skills.test:{port}/")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    client = _web(local=local)
    assert _body(client, f"https://skills.test:{port}/") == b"ok"
    assert asyncio.run(client.ask(f"https://skills.test:{port}/", max_bytes=10)).body == b"ok"
    with pytest.raises(SourceUnavailable, match="certificate"):
        _body(client, f"https://other.test:{port}/")


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that connects to loopback whatever the name, and the first line of each request to it."""
    asked: list[bytes] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().strip())
            while self.rfile.readline().strip():
                pass
            port = int(asked[-1].split()[1].rpartition(b":")[2])
            with socket.create_connection(("127.0.0.1", port)) as beyond:
                self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=pump, args=(beyond, self.connection))
                back.start()
                pump(self.connection, beyond)
                back.join()

    running = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}", asked
    running.shutdown()
    running.server_close()
    thread.join()


def test_through_a_proxy_tls_is_spoken_with_the_host_itself(
    tls: tuple[int, Path], proxy: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is the proxy's to look up; the certificate is checked by us, and the token is in the tunnel."""
    port, cert = tls
    monkeypatch.setenv("HTTPS_PROXY", proxy[0])
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    client = _web(token=TOKEN, token_hosts=(f"skills.test:{port}",))
    assert _body(client, f"https://skills.test:{port}/a") == b"ok"
    assert asyncio.run(client.ask(f"https://skills.test:{port}/a", max_bytes=10)).body == b"ok"
    with pytest.raises(SourceUnavailable, match="certificate"):
        _body(client, f"https://other.test:{port}/a")
    assert proxy[1][0] == f"CONNECT skills.test:{port} HTTP/1.1".encode()
    assert len(proxy[1]) == 3

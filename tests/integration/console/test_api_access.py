"""Who may do what over the API: tokens, roles, scopes, rotation, limits; and that every refusal is audited."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from skillbus.console.tokens import line_of
from tests.consoles import fails_to_start, serving
from tests.integration.console.apis import BOUND, TOKENS, Api, Events, api
from tests.pods import eventually, own_server, record_of

READS = ["status", "pods", "audit", "inventory", "me"]
WRITES = {
    "kill": {},
    "drill": {"timeout_s": 0.1},
    "sync": {"timeout_s": 1},
    "reset": {"confirm": "prod", "reason": "r"},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A console for tests that change nothing."""
    with api(tmp_path_factory.mktemp("shared")) as found:
        yield found


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A console for tests that do not care whether the fleet is stopped."""
    with api(tmp_path_factory.mktemp("used")) as found:
        yield found


@pytest.mark.parametrize("path", [*READS, "events", "kills/abcdef"])
def test_nothing_is_seen_without_a_token(shared: Api, path: str) -> None:
    """401, as a problem, with what to do; for a missing, a wrong and another kind of proof."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}):
        with shared.client() as client:
            answer = client.get(f"/api/v1/{path}", headers=headers)
        assert answer.status_code in (401, 429)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("viewer", {*READS, "metrics"}),
        ("bot", {"me", "kill"}),
        ("operator", {*READS, "metrics", "kill", "drill", "sync"}),
        ("admin", {*READS, "metrics", *WRITES}),
    ],
)
def test_each_role_may_do_exactly_that(used: Api, role: str, allowed: set[str]) -> None:
    """The table of roles, line by line: what is allowed is not 403, everything else is."""
    refused = {name for name in READS if used.get(f"/api/v1/{name}", role).status_code == 403}
    refused |= {"metrics"} if used.get("/metrics", role).status_code == 403 else set()
    refused |= {name for name, body in WRITES.items() if used.post(f"/api/v1/{name}", body, role).status_code == 403}
    assert refused == {*READS, "metrics", *WRITES} - allowed


def test_a_bot_follows_the_kill_that_it_gave(used: Api) -> None:
    """It may look at a kill's story, and at nothing else."""
    given = used.post("/api/v1/kill", {"reason": "x"}, "bot").json()
    assert used.get(f"/api/v1/{given['url']}", "bot").status_code == 200


def test_a_bound_token_reaches_its_scope_alone(tmp_path: Path) -> None:
    """Neither the fleet, nor another group, nor a pod; each refusal is audited."""
    with api(tmp_path) as found, found.client(BOUND) as client:
        for body in ({}, {"group": "us"}, {"pod": "one"}):
            assert client.post("/api/v1/kill", json=body).status_code == 403
        assert record_of(found.server) is None
        assert client.post("/api/v1/kill", json={"group": "eu"}).status_code == 200
        eventually(lambda: len(found.audited("refused", by="bound")) >= 1, "the refusals are audited")
        assert found.server.cli("EXISTS", "skillbus:{prod}:killed") == 0


def test_tokens_are_rotated_without_a_restart(tmp_path: Path) -> None:
    """A new line lets in and a removed one shuts out; a stream that its token opened ends with it."""
    with api(tmp_path) as found:
        with found.client("fresh") as client:
            assert client.get("/api/v1/me").status_code == 401
            with found.tokens.open("a") as file:
                file.write(line_of("new", "viewer", "fresh", ()) + "\n")
            eventually(lambda: client.get("/api/v1/me").status_code == 200, "the new token is taken")
        kept = [line for line in found.tokens.read_text().splitlines() if not line.startswith("viewer ")]
        found.tokens.write_text("\n".join(kept) + "\n")
        eventually(lambda: found.get("/api/v1/me", "viewer").status_code in (401, 429), "the old one is not")


def test_a_damaged_file_of_tokens_takes_nobodys_kill_away(tmp_path: Path) -> None:
    """A line that is none is left out, the others stand; a file that is gone leaves all as it was."""
    with api(tmp_path) as found:
        text = found.tokens.read_text()
        found.tokens.write_text("nonsense\n" + text + line_of("late", "viewer", "late", ()) + "\n")
        with found.client("late") as client:
            eventually(lambda: client.get("/api/v1/me").status_code == 200, "the good lines of a damaged file are read")
            found.tokens.unlink()
            eventually(lambda: "cannot be read" in (tmp_path / "console.txt").read_text(), "it is told")
            assert client.get("/api/v1/me").status_code == 200


def test_a_directory_of_tokens_is_read_like_a_mounted_secret(tmp_path: Path) -> None:
    """Every visible file of it; what is hidden belongs to the mount."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "people").write_text(line_of("one", "viewer", "first", ()))
    (tmp_path / "secret" / "bots").write_text(line_of("two", "bot", "second", ()))
    (tmp_path / "secret" / "..data").mkdir()
    with own_server(tmp_path) as server, serving(server, tmp_path, "--tokens", str(tmp_path / "secret")) as console:
        for token, name in (("first", "one"), ("second", "two")):
            headers = {"Authorization": f"Bearer {token}"}
            told = httpx.get(console.url + "/api/v1/me", headers=headers, trust_env=False).json()
            assert told["name"] == name


def test_too_many_failures_wait_and_a_valid_token_never_does(tmp_path: Path) -> None:
    """429 with Retry-After after ten failures from one address; the right token is taken from there all the same."""
    with api(tmp_path) as found, found.client("wrong") as client:
        codes = [client.get("/api/v1/status").status_code for _ in range(15)]
        assert codes[:10] == [401] * 10
        assert codes[-1] == 429
        assert int(client.get("/api/v1/status").headers["retry-after"]) > 0
        assert found.get("/api/v1/status").status_code == 200
        assert found.post("/api/v1/kill", {}, "bot").status_code == 200


def test_a_flood_of_refusals_leaves_the_audit_short(tmp_path: Path) -> None:
    """Five hundred bad requests of several kinds make a handful of entries, and the orders among them are there."""
    with api(tmp_path) as found:
        with found.client("wrong") as client:
            for number in range(500):
                client.get(f"/api/v1/{['status', 'pods', 'audit'][number % 3]}")
        found.post("/api/v1/kill", {"reason": "in the flood"})
        eventually(lambda: found.audited("refused"), "it is audited that somebody was refused")
        assert 1 <= len(found.audited("refused")) <= 25
        assert len(found.audited("kill", reason="in the flood")) == 1


def test_whom_a_proxy_speaks_for_counts_only_if_it_is_trusted(tmp_path: Path) -> None:
    """A stranger cannot spread failures over invented addresses; behind a trusted proxy each client has its own."""
    for trusted, last in (("", 429), ("127.0.0.1", 401)):
        folder = tmp_path / (trusted or "none")
        folder.mkdir()
        with api(folder, SKILLBUS_CONSOLE_TRUSTED_PROXIES=trusted) as found, found.client("wrong") as client:
            codes = [
                client.get("/api/v1/me", headers={"X-Forwarded-For": f"192.0.2.{number}"}).status_code
                for number in range(15)
            ]
        assert codes[-1] == last


def test_on_loopback_without_tokens_everybody_looks_and_nobody_orders(tmp_path: Path) -> None:
    """GETs are open; every order needs a token, so there is none. Not through a proxy, nor under a foreign name."""
    with own_server(tmp_path) as server, serving(server, tmp_path) as console:
        ask = httpx.Client(base_url=console.url, trust_env=False)
        with ask:
            assert ask.get("/api/v1/status").status_code == 200
            assert ask.get("/api/v1/me").json()["powers"] == ["see"]
            assert ask.get("/api/v1/status", headers={"Host": "evil.example"}).status_code == 401
            assert ask.get("/api/v1/status", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 401
            for name, body in WRITES.items():
                assert ask.post(f"/api/v1/{name}", json=body).status_code in (401, 429), name
        assert record_of(server) is None


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_beyond_loopback_it_does_not_listen_without_tokens(tmp_path: Path, listen: str) -> None:
    """One sentence, exit code 2."""
    with own_server(tmp_path) as server:
        ran = fails_to_start(server, tmp_path, "--listen", listen)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert "no file of tokens is given" in ran.err


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """And exit code 2, not a traceback."""
    with own_server(tmp_path) as server:
        ran = fails_to_start(server, tmp_path, "--listen", f"127.0.0.1:{server.port}")
    assert (ran.code, "is it taken?" in ran.err) == (2, True)
    assert "Traceback" not in ran.err


def test_every_answer_bears_the_headers(shared: Api) -> None:
    """A strict CSP, nosniff, no framing, nothing cached: on answers, on problems, on what is not there."""
    for path in ("/livez", "/api/v1/status", "/nothing/here", "/openapi.json"):
        headers = shared.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_what_is_not_there_is_a_problem(shared: Api) -> None:
    """404 and 405, with the right type, whoever asks."""
    assert (shared.get("/api/v1/nothing").status_code, shared.get("/api/v1/kill").status_code) == (404, 405)
    assert shared.get("/api/v1/nothing").headers["content-type"] == "application/problem+json"


def test_another_fleet_is_not_found(shared: Api) -> None:
    """404 on every route that is asked for it, and nothing is done."""
    assert shared.get("/api/v1/status", params={"fleet": "prod"}).status_code == 200
    for path in READS:
        assert shared.get(f"/api/v1/{path}", params={"fleet": "other"}).status_code == 404
    assert shared.ask("admin", "POST", "/api/v1/kill", json={}, params={"fleet": "other"}).status_code == 404
    assert record_of(shared.server) is None


def test_a_path_prefix_is_honoured(tmp_path: Path) -> None:
    """Whether the proxy strips it or not, and whether it is set or named by a trusted proxy."""
    words = ("--root-path", "/services/skillbus")
    with api(tmp_path, words=words, SKILLBUS_CONSOLE_TRUSTED_PROXIES="127.0.0.0/8") as found:
        assert found.get("/services/skillbus/api/v1/status").status_code == 200
        assert found.get("/api/v1/status").status_code == 200
        with found.client(TOKENS["admin"], **{"X-Forwarded-Prefix": "/elsewhere"}) as client:
            assert client.get("/elsewhere/api/v1/status").status_code == 200


def test_livez_never_asks_redis_and_readyz_does(tmp_path: Path) -> None:
    """With Redis gone: alive at once, and not ready; why not is told to those alone who may look."""
    with api(tmp_path) as found:
        found.server.kill()
        eventually(lambda: found.get("/readyz", "").status_code == 503, "it is not ready")
        assert found.get("/livez", "").text == "alive\n"
        assert found.get("/readyz", "").text == "not ready\n"
        assert "127.0.0.1" in found.get("/readyz", "viewer").text


def test_who_says_nothing_is_shut_out(shared: Api) -> None:
    """A connection that sends half a request's head, and one that sends none, are closed within seconds."""
    place = urlsplit(shared.console.url)
    for head in (b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n"):
        with socket.create_connection((place.hostname, place.port), timeout=25) as slow:
            slow.sendall(head)
            assert slow.recv(1000) == b""


def test_a_huge_head_is_refused(shared: Api) -> None:
    """400 (or a closed door), and the console goes on."""
    with shared.client() as client, suppress(httpx.HTTPError):
        assert client.get("/livez", headers={"X-Huge": "x" * 200_000}).status_code == 400
    assert shared.get("/livez").status_code == 200


def test_a_stream_ends_with_its_token(tmp_path: Path) -> None:
    """Within a ping of the token's end, and not before."""
    with api(tmp_path) as found, Events(found) as events:
        events.until("snapshot")
        found.tokens.write_text("")
        assert events.has_ended.wait(25)

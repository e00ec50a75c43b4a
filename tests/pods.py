"""Pods for tests: in this process or as processes, watched from outside; the command line; a path that misbehaves.

A watched pod is the real one (``skillbus.wiring.pod_of``) around a reconciler that notes each change it makes.
What a test asserts is what was noted, never how long something took: a bound of the protocol is held against the
boot-time clock at which the disturbance was certainly over.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from skillbus.clock import boottime_s
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import LATCHED, CauseKind, State
from skillbus.core.orders import KillOrder, KillRecord
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint, Reconciler
from skillbus.core.scope import Fleet, Scope
from skillbus.errors import PassAborted
from skillbus.pod.loop import Ended
from skillbus.pod.pod import Pod
from skillbus.pod.switch import Standing
from skillbus.settings import Settings
from skillbus.wiring import pod_of
from tests.servers import RawClient, RealServer, Reply, server_binary

PROD = Fleet("prod")
FLEET, GROUP = PROD.scope, PROD.group("eu")

PATIENCE_S = 30.0
"""How long a test waits for what must happen. Reached only when it does not."""

FAST: dict[str, Any] = {"heartbeat_s": 0.2, "lease_s": 0.6, "echo_s": 0.4, "command_timeout_s": 0.2}
"""The protocol's times, a tenth as long: for faults that must outlast the lease."""


def eventually(is_so: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until ``is_so()`` is true, and give back what it said. ``what`` is told if it never is."""
    give_up_at_s = boottime_s() + patience_s
    while not (said := is_so()):
        if boottime_s() >= give_up_at_s:
            raise AssertionError(f"not within {patience_s:g} s: {what}")
        time.sleep(0.01)
    return said


def outlast(seconds: float, since_s: float) -> None:
    """Return once ``seconds`` have certainly passed since an instant of the boot-time clock: what must *not* happen."""
    eventually(lambda: boottime_s() > since_s + seconds, "time passes")


# -- pods in this process ----------------------------------------------------------------------------------------------


class Complaining:
    """A reconciler whose passes end at once, with these words as their errors."""

    vouched = True

    def __init__(self, *errors: str) -> None:
        self._errors = errors

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One pass."""
        checkpoint()
        return PassResult(dict.fromkeys(self._errors, 1), self._errors)


class Holding:
    """A reconciler that finds this set of skills on its disk."""

    vouched = True

    def __init__(self, skills: Mapping[str, str]) -> None:
        self._skills = skills

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One pass."""
        checkpoint()
        return PassResult({"unchanged": len(self._skills)}, installed=dict(self._skills))


class Worker:
    """A reconciler that makes one change after the other, each behind its own checkpoint, for as long as it may.

    Attributes:
        changes: boot-time instants of the changes that stayed.
        reverted_count: changes that were taken back because ``settle`` said so.
    """

    vouched = True

    def __init__(self, pace_s: float = 0.01, changes_count: int = 0) -> None:
        """``changes_count``: end each pass well after so many, which it tells; 0: go on until the pod may not."""
        self._pace_s = pace_s
        self._changes_count = changes_count
        self.changes: list[float] = []
        self.reverted_count = 0

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One pass."""
        made_count = 0
        while not self._changes_count or made_count < self._changes_count:
            if self._changes_count:
                checkpoint.tell(f"changes {made_count + 1} of {self._changes_count}: thing")
            permit = checkpoint()
            self.changes.append(boottime_s())
            try:
                await checkpoint.settle(permit)
            except PassAborted:
                self.changes.pop()
                self.reverted_count += 1
                raise
            made_count += 1
            await asyncio.sleep(self._pace_s)
        return PassResult({"changed": made_count})


class WatchedPod:
    """A real pod in this process, and all that was seen of it."""

    def __init__(self, server: RealServer | str, folder: Path, pod_id: str = "one", **given: Any) -> None:
        """Not started yet. ``given``: settings by name, and ``worker``; the folder keeps its tombstones."""
        self.worker: Worker = given.pop("worker", None) or Worker()
        reconciler: Reconciler = given.pop("reconciler", self.worker)
        url = server if isinstance(server, str) else server.url
        fields = {"fleet": "prod", "every_s": 3600.0, "state_dir": folder / pod_id, **given}
        settings = Settings.load(redis_url=url, pod_id=pod_id, **fields)
        self.pod_id = pod_id
        self.folder = folder / pod_id / "tombstones"
        self.pod: Pod = pod_of(settings, reconciler, work="test")
        self.standings: list[Standing] = []
        self.passes: list[Ended] = []
        self._seen = threading.Condition()
        self.pod.on_change(self._note)
        self.pod.on_pass(self._note_pass)

    def _note(self, standing: Standing) -> None:
        with self._seen:
            self.standings.append(standing)
            self._seen.notify_all()

    def _note_pass(self, ended: Ended) -> None:
        with self._seen:
            self.passes.append(ended)
            self._seen.notify_all()

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until something about this pod is so. Woken by its own news, so this costs no polling to speak of."""
        give_up_at_s = boottime_s() + PATIENCE_S
        with self._seen:
            while not is_so():
                if boottime_s() >= give_up_at_s:
                    raise AssertionError(f"{self.pod_id}: not within {PATIENCE_S:g} s: {what}; {self.told()}")
                self._seen.wait(0.02)

    def until_state(self, *states: State) -> None:
        """Wait until the pod is in one of these states."""
        self.until(lambda: self.pod.standing.state in states, f"one of {', '.join(states)}")

    def until_works(self) -> None:
        """Wait until it makes a change after this call."""
        count = len(self.worker.changes)
        self.until(lambda: self.pod.standing.state is State.RUNNING and len(self.worker.changes) > count, "it works")

    def until_latched(self) -> None:
        """Wait until the latch is set and the pod is quiet."""
        self.until_state(State.STOPPED)

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.pod.standing.state

    @property
    def why(self) -> str:
        """In one sentence."""
        return self.pod.standing.why

    @property
    def works_count(self) -> int:
        """How many changes it made and kept."""
        return len(self.worker.changes)

    def kinds(self) -> set[CauseKind]:
        """The kinds of causes of its own."""
        return {cause.kind for cause in self.pod.switch.causes}

    def tombstones(self) -> list[str]:
        """The names of its tombstones on disk."""
        return sorted(path.name for path in self.folder.glob("*.json"))

    def was_ever_latched(self) -> bool:
        """Whether any standing seen was latched."""
        return any(standing.state in LATCHED for standing in self.standings)

    def told(self) -> str:
        """For messages."""
        return f"it is {self.state} ({self.why}), after {[str(standing.state) for standing in self.standings[-8:]]}"

    def start(self) -> Self:
        """Start it."""
        self.pod.start()
        return self

    def stop(self) -> None:
        """End its life, and see that it ended."""
        assert self.pod.stop(10.0), f"{self.pod_id} did not end"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        has_ended = self.pod.stop(10.0)
        assert has_ended or error is not None, f"{self.pod_id} did not end"


@contextmanager
def own_server(folder: Path, *config: str, armed: bool = True) -> Iterator[RealServer]:
    """A server of this test's own, to mistreat; of the first kind that this machine has."""
    with RealServer(server_binary(), folder / "server", *config) as server:
        if armed:
            arm(server)
        yield server


# -- Redis from outside ------------------------------------------------------------------------------------------------


def arm(server: RealServer) -> None:
    """Arm the fleet, as ``skillbus arm`` does."""
    server.cli("SETNX", FLEET.epoch_key, 0)


def order(server: RealServer, scope: Scope = FLEET, reason: str = "a test", *, record_id: str = "r1") -> None:
    """A kill as ``skillbus kill`` gives it: SETNX and PUBLISH in one write, in this order, not in MULTI."""
    given = KillOrder(id=record_id, by="test", via="cli", reason=reason)
    record = given.record(fallback_id=record_id, now_ms=0).to_bytes()
    with RawClient(server.port) as client:
        client.send("SETNX", scope.killed_key, record)
        client.send("PUBLISH", scope.kill_channel, given.to_bytes())
        client.read()
        client.read()


def reset(server: RealServer, scope: Scope = FLEET) -> int:
    """A reset as PROTOCOL.md §4 has it; the new epoch."""
    with RawClient(server.port) as client:
        time_now, epoch = client.call("TIME"), client.call("GET", scope.epoch_key)
        assert isinstance(time_now, list)
        seconds, micros = time_now
        assert isinstance(seconds, bytes)
        assert isinstance(micros, bytes)
        new = max(int(epoch if isinstance(epoch, bytes) else 0) + 1, int(seconds) * 1000 + int(micros) // 1000)
        client.call("MULTI")
        client.call("SET", scope.epoch_key, new)
        client.call("DEL", scope.killed_key)
        client.call("EXEC")
    return new


def record_of(server: RealServer, scope: Scope = FLEET) -> KillRecord | None:
    """The record of a scope, if there is one."""
    if not server.cli("EXISTS", scope.killed_key):
        return None
    value = server.cli("GET", scope.killed_key)
    return KillRecord.parse(value if isinstance(value, bytes) else b"")


def evidence_of(server: RealServer, pod_id: str = "one") -> list[Heartbeat]:
    """What a pod's incarnations left in its hash."""
    raw = server.cli("HVALS", PROD.pod_key(pod_id))
    assert isinstance(raw, list)
    found = [Heartbeat.parse(value) for value in raw if isinstance(value, bytes)]
    return [heartbeat for heartbeat in found if heartbeat is not None]


def freeze(server: RealServer) -> float:
    """SIGSTOP; returns once it is certainly frozen, with that instant. No later read of it can be good."""
    server.freeze()
    assert server.pid is not None
    process = psutil.Process(server.pid)
    eventually(lambda: process.status() == psutil.STATUS_STOPPED, "the server is frozen")
    return boottime_s()


def subscriber_ids(server: RealServer) -> list[bytes]:
    """CLIENT IDs of all subscriber connections."""
    listed = server.cli("CLIENT", "LIST", "TYPE", "PUBSUB")
    assert isinstance(listed, bytes)
    return [line.split()[0].removeprefix(b"id=") for line in listed.splitlines() if line]


def text_of(reply: Reply) -> str:
    """A bulk reply as text."""
    assert isinstance(reply, bytes), reply
    return reply.decode()


# -- a path that misbehaves --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Pair:
    pod: socket.socket
    server: socket.socket
    subscribes: bool = False


class Path2Redis:
    """A loopback TCP proxy in front of a server, one thread. Nothing is torn: what it swallows is simply never heard.

    Attributes:
        deafens: swallow what the server says on connections that have subscribed.
        cuts: swallow everything, both ways: a partition.
    """

    def __init__(self, server: RealServer) -> None:
        self._target = ("127.0.0.1", server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[_Pair] = []
        self._thread = threading.Thread(target=self._run, name="path-to-redis", daemon=True)
        self._ending = threading.Event()
        self.deafens = False
        self.cuts = False
        self.subscriptions_count = 0

    @property
    def url(self) -> str:
        """For a pod's settings."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def tear(self) -> None:
        """Close every connection, as a path that comes back does to those that it forgot."""
        for pair in list(self._pairs):
            with suppress(OSError):
                pair.pod.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while not self._ending.is_set():
            sockets = [self._listener, *(end for pair in self._pairs for end in (pair.pod, pair.server))]
            readable, _, _ = select.select(sockets, [], [], 0.02)
            if self._listener in readable:
                self._accept()
            for pair in list(self._pairs):
                if not all(self._carry(pair, end) for end in (pair.pod, pair.server) if end in readable):
                    self._drop(pair)

    def _accept(self) -> None:
        pod, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            pod.close()
            return
        self._pairs.append(_Pair(pod, server))

    def _carry(self, pair: _Pair, source: socket.socket) -> bool:
        try:
            data = source.recv(65536)
            if source is pair.pod and b"SUBSCRIBE\r\n" in data:
                pair.subscribes = True
                self.subscriptions_count += 1
            swallowed = self.cuts or (self.deafens and source is pair.server and pair.subscribes)
            if data and not swallowed:
                (pair.server if source is pair.pod else pair.pod).sendall(data)
        except OSError:
            return False
        return bool(data)

    def _drop(self, pair: _Pair) -> None:
        self._pairs.remove(pair)
        pair.pod.close()
        pair.server.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        for pair in list(self._pairs):
            self._drop(pair)
        self._listener.close()


# -- processes ---------------------------------------------------------------------------------------------------------


def environ_of(server: RealServer | str, **given: str) -> dict[str, str]:
    """The environment of a process of ours: none of this machine's own settings, and no terminal."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SKILLBUS_", "NBI_"))}
    url = server if isinstance(server, str) else server.url
    return own | {"SKILLBUS_REDIS_URL": url, "SKILLBUS_FLEET": "prod", "COLUMNS": "200", "PYTHONWARNINGS": ""} | given


@dataclass(frozen=True, slots=True)
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str
    raw: bytes = field(default=b"", repr=False)

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; stdout holds nothing else."""
        assert self.out.count("\n") == 1, self
        found = json.loads(self.out)
        assert found["schema_version"] == 1
        assert isinstance(found, dict)
        return found


def skillbus(*words: str, env: Mapping[str, str]) -> Ran:
    """``python -m skillbus WORDS…`` as a real process. It never shows a traceback."""
    return ended(launched(*words, env=env))


def skillbus_on_terminal(*words: str, env: Mapping[str, str]) -> Ran:
    """The same, with a terminal of 100 columns for stderr; what it was sent is ``err``."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    settings = {**env, "TERM": "xterm"}
    settings.pop("COLUMNS", None)
    command = [sys.executable, "-m", "skillbus", *words]
    process = subprocess.Popen(command, env=settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # EIO: nobody holds the other end any more
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    return Ran(process.returncode, out.decode(), shown.decode(), out + shown)


def launched(*words: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The same, still going on."""
    return subprocess.Popen(
        [sys.executable, "-m", "skillbus", *words],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[bytes]) -> Ran:
    """What a launched command came to."""
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    ran = Ran(process.returncode, out.decode(), err.decode(), out + err)
    assert "Traceback" not in ran.err, ran
    assert "defect" not in ran.err, ran
    return ran


@contextmanager
def process_pod(
    server: RealServer, folder: Path, argv: Sequence[str], pod_id: str = "one", **given: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A pod as a process of its own; what it says goes to ``log.txt`` in its folder. Ended at the end, at any cost."""
    folder.mkdir(parents=True, exist_ok=True)
    env = environ_of(server, SKILLBUS_POD_ID=pod_id, SKILLBUS_STATE_DIR=str(folder / "state"), **given)
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    except BaseException:
        print((folder / "log.txt").read_text(errors="replace")[-3000:])
        raise
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Politely, even if it is frozen; and if it does not listen, at any cost."""
    for number in (signal.SIGCONT, signal.SIGTERM):
        process.send_signal(number)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

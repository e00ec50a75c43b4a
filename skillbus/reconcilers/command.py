"""A user's program as a reconciler, run under a guard (guard.py, docs/protocol.md §3.10).

Why it exists: most people who have something to stop have a program. A pass is one run of it, and is over when none of
its descendants is left: the guard says so, and only the guard can.

The conversation with the guard takes place in a thread of its own (own_thread.py). Starting a process takes
milliseconds that the pod's loop does not have, and a conversation in plain steps has no place in which a second or
third cancellation could break it.

What it deliberately does not do: read what the program prints (it goes where the pod's own output goes), look for a
program in a shell's way, or restart one within a pass.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skillbus.clock import Clock
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.errors import BadSettings, PassAborted, RetryLater
from skillbus.reconcilers import guard
from skillbus.reconcilers.own_thread import see_out

GUARD_FILE = Path(guard.__file__)
MARK_NAME = "SKILLBUS_PASS"
"""In the environment of every program: which pass it belongs to. What a killed guard left behind is found by it."""
RENEWAL_S = 0.25
"""How often the lease is looked at. It moves every ``heartbeat_s`` (2 s); the guard hears of it this much later."""
_SWEEP_S = 10.0
"""How long a sweep goes on against processes that do not die."""
_SWEEP_PACE_S = 0.05
_PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY)
"""Why a start can fail although nothing is wrong with the settings."""


class CommandReconciler:
    """Runs ``argv`` once per pass. One pass at a time."""

    def __init__(
        self, argv: Sequence[str], stop_grace_s: float, clock: Clock, env: Mapping[str, str] | None = None
    ) -> None:
        """Nothing is started yet.

        Args:
            argv: the program, a path or a name on PATH, and its arguments.
            stop_grace_s: seconds between SIGTERM and SIGKILL; 0: SIGKILL at once.
            env: the program's whole environment; None: this process's own. ``SKILLBUS_PASS`` is added to it.

        Raises:
            BadSettings: no program, an argument that no program can be given, or a grace that is no duration.
        """
        if not argv or not argv[0]:
            raise BadSettings("no program is given: name it behind --, as in: skillbus run -- ./sync-skills --all")
        if any("\0" in argument for argument in argv):
            raise BadSettings(f"an argument of the program {argv[0]!r} holds a NUL character: leave it out")
        if not (math.isfinite(stop_grace_s) and stop_grace_s >= 0):
            raise BadSettings(f"a stop grace of {stop_grace_s} s is no duration: give 0 or more seconds")
        self._argv = tuple(argv)
        self._stop_grace_s = stop_grace_s
        self._clock = clock
        self._env = None if env is None else dict(env)
        self._vouched = True

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One run of the program. Returns or raises when none of its descendants is left.

        A cancellation sends them SIGTERM, and SIGKILL after the grace; the lease is not renewed meanwhile, so its end
        can cut the grace short.

        Raises:
            PassAborted: a checkpoint refused, or the guard ended the program because the lease was over.
            BadSettings: the program cannot be started.
            RetryLater: it could not be started this time.
        """
        checkpoint()
        run = _GuardedRun(self._argv, self._stop_grace_s, self._clock, self._env)
        try:
            return await see_out(lambda: run.see_through(checkpoint), run.stop, "skillbus-command")
        finally:
            run.close()
            self._vouched = self._vouched and run.vouched

    @property
    def vouched(self) -> bool:
        """False from the pass on in which somebody killed the guard: a descendant may have been left then."""
        return self._vouched


class _GuardedRun:
    """One run of a program, as the pod sees it. ``stop`` and ``close`` belong to the loop, the rest to the thread."""

    def __init__(self, argv: tuple[str, ...], stop_grace_s: float, clock: Clock, env: Mapping[str, str] | None) -> None:
        self._argv = argv
        self._stop_grace_s = stop_grace_s
        self._clock = clock
        self._mark = secrets.token_hex(16)
        self._env = {**(os.environ if env is None else env), MARK_NAME: self._mark}
        self._ours, self._theirs = socket.socketpair()
        self._ours.settimeout(RENEWAL_S)
        self._stopping = False
        self._lease_sent_s = -math.inf
        self._heard: dict[str, Any] = {}
        self._aborted: PassAborted | None = None
        self.vouched = True

    # -- in the loop ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the guard to end the program within the grace."""
        self._stopping = True
        self._say(stop=self._stop_grace_s)

    def close(self) -> None:
        """Let go of the guard. Were it still there, this would make it kill everything at once."""
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._ours.close()
        self._theirs.close()

    # -- in the thread --------------------------------------------------------------------------------------------

    def see_through(self, checkpoint: Checkpoint) -> PassResult:
        """Run the program to its end, and the end of all its descendants."""
        process = self._spawn()
        self._converse(process, checkpoint)
        code = process.wait()
        if "quiet" not in self._heard:
            return self._unguarded(code)
        return self._verdict()

    def _spawn(self) -> subprocess.Popen[bytes]:
        if not sys.executable:
            raise BadSettings("this Python does not know its own path (sys.executable), so no guard can be started")
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", str(GUARD_FILE)],
                stdin=self._theirs.fileno(),
                env=self._env,
                start_new_session=True,
            )
        finally:
            self._theirs.close()

    def _converse(self, process: subprocess.Popen[bytes], checkpoint: Checkpoint) -> None:
        """Until the guard closes the socket: by ending, and nothing else."""
        unread = b""
        while True:
            if self._stopping:
                # Somebody may have stopped the guard itself (SIGSTOP); then it would not hear of our stop.
                process.send_signal(signal.SIGCONT)
            elif "ready" in self._heard:
                self._renew(checkpoint)
            try:
                data = self._ours.recv(65536)
            except TimeoutError:
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                self._heard |= json.loads(line)

    def _renew(self, checkpoint: Checkpoint) -> None:
        """Pass the lease on if it has moved. The first time with leave from the checkpoint, and the word to start."""
        until_s = checkpoint.lease_ends_at_s
        if until_s == self._lease_sent_s or self._aborted:
            return
        if self._lease_sent_s == -math.inf:
            try:
                checkpoint()
            except PassAborted as refusal:
                self._aborted = refusal
                self._say(stop=0.0)
                return
            # As bytes they are what this process was given, in whatever encoding; the guard reads them as UTF-8.
            argv = [os.fsencode(argument).decode("utf-8", "surrogateescape") for argument in self._argv]
            self._say(run=argv, grace=self._stop_grace_s, lease=until_s)
        else:
            self._say(lease=until_s)
        self._lease_sent_s = until_s

    def _say(self, **message: object) -> None:
        with contextlib.suppress(OSError):  # A guard that is gone shows in the reading.
            self._ours.sendall(json.dumps(message).encode() + b"\n")

    def _verdict(self) -> PassResult:
        """What the run came to, with all its descendants gone."""
        if self._aborted is not None:
            raise self._aborted
        if "lease_over" in self._heard:
            raise PassAborted(f"the lease was over, so the program {self._argv[0]!r} was killed")
        if "refused" in self._heard:
            raise self._refusal(self._heard["refused"])
        code: int = self._heard.get("exited", 0)
        if code < 0:
            return PassResult(errors=(f"the program {self._argv[0]!r} was killed by {_signal_name(-code)}",))
        if code:
            return PassResult(errors=(f"the program {self._argv[0]!r} ended with exit code {code}",))
        return PassResult()

    def _refusal(self, number: int) -> BadSettings | RetryLater:
        sentence = f"the program {self._argv[0]!r} cannot be started: {os.strerror(number)}"
        if number in _PASSING:
            return RetryLater(f"{sentence}. It is tried again")
        return BadSettings(f"{sentence}. Give the path of a program that may be executed, or a name on PATH")

    def _unguarded(self, code: int) -> PassResult:
        """The guard has ended without proof that all descendants have."""
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        if self._lease_sent_s == -math.inf:
            return PassResult(errors=(f"the guard of {self._argv[0]!r} {how} before it started the program",))
        self.vouched = False
        left_count = self._sweep()
        left = f"{left_count} do not die" if left_count else "none that can be found is left"
        return PassResult(
            errors=(
                f"the guard of {self._argv[0]!r} {how}; the program's processes were killed in its stead, {left}. That "
                "nothing runs on cannot be proved any more: look for it, and start this pod anew",
            )
        )

    def _sweep(self) -> int:
        """SIGKILL all who bear this pass' mark, until none does. How many do not die."""
        until_s = self._clock.now_s() + _SWEEP_S
        while left_count := guard.freeze_and_kill(self._bearers):
            if self._clock.now_s() >= until_s:
                break
            time.sleep(_SWEEP_PACE_S)
        return left_count

    def _bearers(self) -> guard.Found:
        """Who has this pass' mark in the environment it was started with. A process can be started without it."""
        mark = f"{MARK_NAME}={self._mark}".encode()
        found = {}
        for pid, (_, started) in guard.all_processes().items():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found[pid] = started
        return found


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

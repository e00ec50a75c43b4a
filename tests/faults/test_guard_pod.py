"""The pod or the guard is killed or frozen while a program runs: nothing of the program is left, or the pod says so.

The pods here are processes of their own, for they are SIGKILLed and SIGSTOPped.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skillbus.clock import BootClock, boottime_s
from skillbus.core.outcome import PassResult
from skillbus.reconcilers.command import GUARD_FILE, CommandReconciler
from tests.unit.reconcilers.scripted import HELD_S, Lifeline, ScriptedCheckpoint, ended

LONG_S = 60.0
"""A grace that no test waits for."""

POD = """
import asyncio, sys
from skillbus.clock import BootClock, boottime_s
from skillbus.errors import PassAborted
from skillbus.reconcilers.command import CommandReconciler
from tests.unit.reconcilers.scripted import ScriptedCheckpoint

class Renewed(ScriptedCheckpoint):
    lease_ends_at_s = property(lambda self: boottime_s() + float(sys.argv[1]), lambda self, value: None)

try:
    asyncio.run(CommandReconciler(sys.argv[2:], 60.0, BootClock()).reconcile(Renewed()))
except PassAborted as error:
    sys.exit(f"aborted: {error}")
"""


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Lifeline]:
    """The lifeline of the test's program."""
    with Lifeline(tmp_path / "line") as lifeline:
        yield lifeline


def deaf(line: Lifeline) -> list[str]:
    """The program, holding the lifeline."""
    script = """exec 9>"$1"; trap "" TERM
    (setsid sh -c '(echo stayer >&9; exec sleep 3600) &' &)
    echo $PPID >&9; sleep 3600"""
    return ["sh", "-c", script, "sh", line.path]


async def up(line: Lifeline) -> int:
    """Wait until the program and its stayer are there. The guard's id."""
    told = {await line.line(), await line.line()}
    told.remove("stayer")
    return int(told.pop())


@contextmanager
def pod_process(lease_s: float, argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A pod in a process of its own, with one pass under way and a lease renewed for ``lease_s`` at a time."""
    command = [sys.executable, "-c", POD, str(lease_s), *argv]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_pod_that_dies_takes_everything_along(signum: int, line: Lifeline) -> None:
    """However it dies: the guard sees the socket close, kills all at once, and ends itself."""

    async def watch() -> None:
        guard = await up(line)
        process.send_signal(signum)
        await line.released()
        await ended(guard)

    with pod_process(LONG_S, deaf(line)) as process:
        asyncio.run(watch())


def test_a_frozen_pod_loses_its_program_with_its_lease(line: Lifeline) -> None:
    """A pod that is SIGSTOPped renews no lease; at its end the guard kills all. Thawed, the pod says what happened."""
    lease_s = 1.0

    async def watch() -> None:
        guard = await up(line)
        process.send_signal(signal.SIGSTOP)
        frozen_s = boottime_s()
        await line.released()
        await ended(guard)
        assert boottime_s() - frozen_s < lease_s + 5
        process.send_signal(signal.SIGCONT)

    with pod_process(lease_s, deaf(line)) as process:
        asyncio.run(watch())
        _, told = process.communicate(timeout=HELD_S)
    assert told == "aborted: the lease was over, so the program 'sh' was killed\n"
    assert process.returncode == 1


def test_a_killed_guard_is_swept_up_after_and_never_vouched_for_again(line: Lifeline) -> None:
    """The program dies with the guard, strays are found by the pass' mark, and the pod admits the doubt."""

    async def pod() -> None:
        reconciler = CommandReconciler(deaf(line), LONG_S, BootClock())
        reconcile = asyncio.create_task(reconciler.reconcile(ScriptedCheckpoint()))
        os.kill(await up(line), signal.SIGKILL)
        result = await reconcile
        assert not line.is_held()
        assert len(result.errors) == 1
        assert result.errors[0].startswith(
            "the guard of 'sh' was killed by SIGKILL; the program's processes were killed"
        )
        assert "cannot be proved" in result.errors[0]
        assert not reconciler.vouched

    asyncio.run(pod())


def test_the_doubt_stays_when_later_passes_end_well(line: Lifeline, tmp_path: Path) -> None:
    """One pass without proof is enough: somebody may live to this day."""
    script = f"[ -e {tmp_path}/again ] && exit 0; touch {tmp_path}/again; kill -KILL $PPID; sleep 3600"

    async def pod() -> None:
        reconciler = CommandReconciler(["sh", "-c", script], LONG_S, BootClock())
        assert (await reconciler.reconcile(ScriptedCheckpoint())).errors
        assert await reconciler.reconcile(ScriptedCheckpoint()) == PassResult()
        assert not reconciler.vouched

    asyncio.run(pod())


def test_a_killed_guard_in_a_stop_is_no_proof(line: Lifeline) -> None:
    """The pass ends as cancelled, after the sweep; but it is not vouched for, so the pod never says stopped."""

    async def pod() -> None:
        reconciler = CommandReconciler(deaf(line), LONG_S, BootClock())
        reconcile = asyncio.create_task(reconciler.reconcile(ScriptedCheckpoint()))
        guard = await up(line)
        reconcile.cancel()
        await asyncio.sleep(0)
        os.kill(guard, signal.SIGKILL)
        await asyncio.wait((reconcile,))
        assert reconcile.cancelled()
        assert not line.is_held()
        assert not reconciler.vouched

    asyncio.run(pod())


def test_a_frozen_guard_is_woken_for_a_stop(line: Lifeline) -> None:
    """Somebody SIGSTOPs the guard itself: the pod wakes it when it has something to say."""

    async def pod() -> None:
        reconciler = CommandReconciler(deaf(line), 0.0, BootClock())
        reconcile = asyncio.create_task(reconciler.reconcile(ScriptedCheckpoint()))
        os.kill(await up(line), signal.SIGSTOP)
        reconcile.cancel()
        await asyncio.wait((reconcile,))
        assert reconcile.cancelled()
        assert not line.is_held()
        assert reconciler.vouched

    asyncio.run(pod())


def test_a_guard_that_cannot_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was started then, so nothing is in doubt."""
    broken = tmp_path / "guard.py"
    broken.write_text("raise SystemExit(7)")
    monkeypatch.setattr("skillbus.reconcilers.command.GUARD_FILE", broken)
    reconciler = CommandReconciler(["true"], LONG_S, BootClock())
    result = asyncio.run(reconciler.reconcile(ScriptedCheckpoint()))
    assert result.errors == ("the guard of 'true' ended with exit code 7 before it started the program",)
    assert reconciler.vouched


class GuardProcess:
    """A guard that is spoken to word by word."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(HELD_S)
        with theirs:
            self.process = subprocess.Popen([sys.executable, "-I", "-S", str(GUARD_FILE)], stdin=theirs.fileno())
        self._lines = self._ours.makefile("r")

    def say(self, **message: Any) -> None:
        """A line to the guard."""
        self._ours.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """The next line of the guard; empty if it is gone."""
        line = self._lines.readline()
        heard: dict[str, Any] = json.loads(line) if line else {}
        return heard

    def close(self) -> None:
        """Let go of it, and see it end."""
        self._lines.close()
        self._ours.close()
        assert self.process.wait(HELD_S) == 0


@pytest.fixture
def guard() -> Iterator[GuardProcess]:
    """A guard that has said that it is ready."""
    process = GuardProcess()
    assert process.hear() == {"ready": True}
    yield process
    process.close()


def test_a_machine_that_slept_through_its_lease_wakes_without_one(guard: GuardProcess, line: Lifeline) -> None:
    """All froze, and a renewal lies in the guard's socket: the lease is over, and no unread word makes it good."""
    until_s = boottime_s() + 0.5
    guard.say(run=deaf(line), grace=LONG_S, lease=until_s)
    assert asyncio.run(up(line)) == guard.process.pid
    assert "began" in guard.hear()
    guard.process.send_signal(signal.SIGSTOP)
    guard.say(lease=until_s + LONG_S)
    asyncio.run(BootClock().sleep(until_s - boottime_s() + 0.05))
    guard.process.send_signal(signal.SIGCONT)
    assert [guard.hear(), guard.hear(), guard.hear()] == [{"lease_over": True}, {"exited": -9}, {"quiet": True}]
    assert not line.is_held()


def test_a_lease_can_be_taken_back(guard: GuardProcess, line: Lifeline) -> None:
    """The guard believes the last word about the lease, an earlier end too."""
    guard.say(run=deaf(line), grace=LONG_S, lease=boottime_s() + LONG_S)
    asyncio.run(up(line))
    assert "began" in guard.hear()
    guard.say(lease=-1)
    assert [guard.hear(), guard.hear(), guard.hear()] == [{"lease_over": True}, {"exited": -9}, {"quiet": True}]
    assert not line.is_held()

"""A guard with a handicap: looks that see nothing or take long, kills that fail, an old kernel. It is never fooled.

Each guard here is the real one, with one of its means taken away before it starts. What is left must do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skillbus.clock import BootClock, boottime_s
from skillbus.core.outcome import PassResult
from skillbus.errors import PassAborted
from skillbus.reconcilers import guard
from skillbus.reconcilers.command import CommandReconciler
from tests.unit.reconcilers.scripted import Lifeline, ScriptedCheckpoint

FORKS_S = 40
STAYER = """exec 9>"$1"; trap "" TERM; (setsid sh -c '(echo up >&9; exec sleep 3600) &' &)"""
RUNNERS = f"""
import os, signal, sys, time
os.dup2(os.open(sys.argv[1], os.O_WRONLY), 9)
end = time.monotonic() + {FORKS_S}
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2): os.fork()
os.write(9, b"up\\n")
while time.monotonic() < end:
    try:
        if os.fork(): os._exit(0)
        if sys.argv[2] == "apart": os.setsid()
    except OSError:
        pass
"""
LONG_LOOKS = """
look = guard.descendants
def long_look():
    found = look()
    time.sleep(0.15)
    return found
guard.descendants = long_look
"""
NO_GRABBING = "guard.freeze_children = lambda program: None\n"
NO_GROUP = "guard.os.killpg = lambda group, signum: None\n"
FAILING_KILLS = """
kill, tries = guard.freeze_and_kill, []
def failing(find):
    tries.append(1)
    return kill(find) if len(tries) > 3 else 0
guard.freeze_and_kill = failing
"""
BLIND = """
look, looks = guard.descendants, []
def blind_look():
    looks.append(1)
    return look() if len(looks) > 5 else {}
guard.descendants, guard.children = blind_look, set
"""
OLD_KERNEL = """
class Libc:
    prctl = guard._libc.prctl
    timerfd_create = staticmethod(lambda *_: -1)
    timerfd_settime = staticmethod(lambda *_: -1)
guard._libc = Libc
del guard.os.pidfd_open
guard.children = set
"""


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Lifeline]:
    """The lifeline of the test's program."""
    with Lifeline(tmp_path / "line") as lifeline:
        yield lifeline


class Handicap:
    """Puts a guard with a handicap in the place of the real one."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        monkeypatch.setattr("skillbus.reconcilers.command.GUARD_FILE", path)

    def be(self, *changes: str) -> None:
        """Take these means away."""
        begin = f"import sys, time\nsys.path.insert(0, {str(Path(guard.__file__).parent)!r})\nimport guard\n"
        self._path.write_text(begin + "".join(changes) + "guard.main()\n")


@pytest.fixture
def handicap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Handicap:
    """A guard that is yet to lose something."""
    return Handicap(tmp_path / "guard.py", monkeypatch)


async def stopped_pass(argv: list[str], line: Lifeline, grace_s: float = 0.0) -> float:
    """Run a program, stop it when it is up, and see that nothing is left. How long the stop took, seconds."""
    reconciler = CommandReconciler(argv, grace_s, BootClock())
    reconcile = asyncio.create_task(reconciler.reconcile(ScriptedCheckpoint()))
    assert await line.line() == "up"
    cancelled_s = boottime_s()
    reconcile.cancel()
    await asyncio.wait((reconcile,))
    assert reconcile.cancelled()
    assert not line.is_held()
    assert reconciler.vouched
    return boottime_s() - cancelled_s


def test_kills_that_fail_are_tried_until_they_do_not(handicap: Handicap, line: Lifeline) -> None:
    """Having killed is no proof that anybody died: the guard says quiet when nobody is left."""
    handicap.be(FAILING_KILLS, NO_GRABBING, NO_GROUP)
    asyncio.run(stopped_pass(["sh", "-c", STAYER + "; sleep 3600", "sh", line.path], line))


def test_seeing_nobody_is_no_proof(handicap: Handicap, line: Lifeline) -> None:
    """A look at /proc can miss somebody. The kernel is asked for children, and it does not."""
    handicap.be(BLIND, NO_GRABBING, NO_GROUP)
    program = ["sh", "-c", STAYER + "; exit 0", "sh", line.path]
    result = asyncio.run(CommandReconciler(program, 0.0, BootClock()).reconcile(ScriptedCheckpoint()))
    assert result == PassResult()
    assert not line.is_held()


@pytest.mark.parametrize(("how", "missing"), [("apart", NO_GROUP), ("together", NO_GRABBING)])
def test_runners_are_caught_though_every_look_takes_long(
    how: str, missing: str, handicap: Handicap, line: Lifeline
) -> None:
    """On a machine with many processes no look is fast enough for who forks and ends, over and over.

    In one process group they are stopped all at once; apart, they are grabbed as they become orphans.
    """
    handicap.be(LONG_LOOKS, missing)
    program = [sys.executable, "-I", "-S", "-c", RUNNERS, line.path, how]
    assert asyncio.run(stopped_pass(program, line)) < FORKS_S - 2, "they ended by themselves, or nearly so"


def test_an_old_kernel_will_do(handicap: Handicap, line: Lifeline) -> None:
    """Without pidfds, boot-time timers and lists of children: a stop and the end of a lease work all the same."""
    handicap.be(OLD_KERNEL)
    program = ["sh", "-c", STAYER + "; sleep 3600", "sh", line.path]
    assert asyncio.run(stopped_pass(program, line, grace_s=0.3)) >= 0.3
    checkpoint = ScriptedCheckpoint(boottime_s() + 0.5)
    with pytest.raises(PassAborted, match="the lease was over"):
        asyncio.run(CommandReconciler(program, 60.0, BootClock()).reconcile(checkpoint))
    assert not line.is_held()

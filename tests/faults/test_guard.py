"""Programs that do not want to end: each is stopped, with all its descendants, before a pass is over.

The proof is a lifeline: a file that the program opens and every descendant inherits. Nobody holds it any more at the
very moment in which ``reconcile`` ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from skillbus.clock import BootClock, boottime_s
from skillbus.core.outcome import PassResult
from skillbus.reconcilers.command import CommandReconciler
from tests.unit.reconcilers.scripted import Lifeline, ScriptedCheckpoint

LONG_S = 60.0
"""A grace that no test waits for."""


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Lifeline]:
    """The lifeline of the test's program, which opens ``$1`` as its descriptor 9."""
    with Lifeline(tmp_path / "line") as lifeline:
        yield lifeline


def shell(script: str, line: Lifeline) -> list[str]:
    """A program of a few lines, holding the lifeline."""
    return ["sh", "-c", f'exec 9>"$1"; {script}', "sh", line.path]


def python(script: str, line: Lifeline) -> list[str]:
    """The same in Python."""
    opened = "import os, signal, sys, time\nos.dup2(os.open(sys.argv[1], os.O_WRONLY), 9)\n"
    return [sys.executable, "-I", "-S", "-c", opened + script, line.path]


@asynccontextmanager
async def running(argv: list[str], grace_s: float) -> AsyncIterator[asyncio.Task[PassResult]]:
    """A pass under way; over at the end, and then as cancelled."""
    reconciler = CommandReconciler(argv, grace_s, BootClock())
    reconcile = asyncio.create_task(reconciler.reconcile(ScriptedCheckpoint()))
    try:
        yield reconcile
    finally:
        reconcile.cancel()
        await asyncio.wait((reconcile,))
    assert reconcile.cancelled()
    assert reconciler.vouched


STAYERS = {
    "in a session of its own": "setsid sh -c 'echo up >&9; exec sleep 3600' &",
    "forked twice, in a session of its own": "(setsid sh -c '(echo up >&9; exec sleep 3600) &' &)",
    "deaf to SIGTERM": "(trap '' TERM HUP INT; echo up >&9; exec sleep 3600) &",
    "forked twice, deaf, in a session of its own": """
(trap '' TERM; setsid sh -c '(echo up >&9; exec sleep 3600) &' &)""",
    "stopped": """sh -c 'echo up >&9; kill -STOP $$' &""",
    "stopped and deaf, in a session of its own": """setsid sh -c 'trap "" TERM; echo up >&9; kill -STOP $$' &""",
    "without an environment": """env -i setsid sh -c 'echo up >&9; exec sleep 3600' &""",
    "a subreaper with an orphan": f"""exec {sys.executable} -I -S -c '
import ctypes, os, signal, time
ctypes.CDLL(None).prctl(36, 1)
if not os.fork():
    if not os.fork():
        os.setsid()
        os.write(9, b"up\\n")
        time.sleep(3600)
    os._exit(0)
signal.pause()' &""",
    "with its first thread ended": f"""{sys.executable} -I -S -c '
import ctypes, os, threading, time
def live():
    os.write(9, b"up\\n")
    time.sleep(3600)
threading.Thread(target=live).start()
ctypes.CDLL(None).pthread_exit(None)' &""",
}


@pytest.mark.parametrize("stayer", STAYERS.values(), ids=STAYERS)
def test_a_descendant_that_stays_is_killed_with_the_program(stayer: str, line: Lifeline) -> None:
    """Wherever it went, and whatever it ignores: after the grace of a stop, here none at all, it is gone."""

    async def pod() -> None:
        async with running(shell(f"{stayer}\nwait; sleep 3600", line), 0.0):
            assert await line.line() == "up"
        assert not line.is_held()

    asyncio.run(pod())


@pytest.mark.parametrize("stayer", STAYERS.values(), ids=STAYERS)
def test_a_descendant_that_outlives_the_program_is_ended(stayer: str, line: Lifeline) -> None:
    """A pass ends with its program; what that left behind gets SIGTERM, and SIGKILL after the grace."""
    program = shell(f'{stayer}\nread up <"$1.go"; exit 0', line)
    os.mkfifo(f"{line.path}.go")

    async def pod() -> PassResult:
        reconcile = asyncio.create_task(CommandReconciler(program, 0.1, BootClock()).reconcile(ScriptedCheckpoint()))
        assert await line.line() == "up"
        with open(f"{line.path}.go", "w") as go:
            go.write("on\n")
        await asyncio.wait((reconcile,))
        assert not line.is_held()
        return reconcile.result()

    assert asyncio.run(pod()) == PassResult()


def test_a_program_may_clean_up_within_its_grace(line: Lifeline) -> None:
    """A stop is SIGTERM first; a program that ends by itself is not killed, and nobody waits for the grace."""

    async def pod() -> None:
        began_s = boottime_s()
        async with running(
            shell('trap "echo cleaned >&9; exit 0" TERM; echo up >&9; while :; do sleep 1; done', line), LONG_S
        ):
            assert await line.line() == "up"
        assert not line.is_held()
        assert await line.line() == "cleaned"
        assert boottime_s() - began_s < LONG_S / 2

    asyncio.run(pod())


def test_every_descendant_may_clean_up_within_the_grace(line: Lifeline) -> None:
    """SIGTERM goes to all of them, to those in another session and to the stopped ones too."""
    script = """
    setsid sh -c 'trap "echo one >&9; exit" TERM; echo up >&9; while :; do sleep 0.05; done' &
    sh -c 'trap "echo two >&9; exit" TERM; echo up >&9; kill -STOP $$; while :; do sleep 0.05; done' &
    sleep 3600"""

    async def pod() -> None:
        async with running(shell(script, line), LONG_S):
            assert [await line.line(), await line.line()] == ["up", "up"]
        assert not line.is_held()
        assert {await line.line(), await line.line()} == {"one", "two"}

    asyncio.run(pod())


def test_a_program_that_overstays_its_grace_is_killed(line: Lifeline) -> None:
    """It has the whole grace, and not more."""
    grace_s = 0.4

    async def pod() -> None:
        async with running(
            python(
                "def told(*_):\n os.write(9, b'told\\n')\nsignal.signal(15, told)\nos.write(9, b'up\\n')\n"
                "while True: signal.pause()",
                line,
            ),
            grace_s,
        ) as reconcile:
            assert await line.line() == "up"
            reconcile.cancel()
            cancelled_s = boottime_s()
            assert await line.line() == "told"
            assert line.is_held()
        assert not line.is_held()
        assert boottime_s() - cancelled_s >= grace_s

    asyncio.run(pod())


def test_without_a_grace_nobody_is_asked(line: Lifeline) -> None:
    """Grace 0: SIGKILL at once, no SIGTERM that a program could act on."""

    async def pod() -> None:
        async with running(shell('trap "echo told >&9" TERM; echo up >&9; while :; do sleep 0.05; done', line), 0.0):
            assert await line.line() == "up"
        assert not line.is_held()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await line.line()

    asyncio.run(pod())


def test_a_pass_that_is_cancelled_again_and_again_still_waits(line: Lifeline) -> None:
    """No number of cancellations makes the pod believe in a quiet that it has not seen."""

    async def pod() -> None:
        async with running(shell('trap "" TERM; echo up >&9; while :; do sleep 1; done', line), 0.5) as reconcile:
            assert await line.line() == "up"
            for _ in range(20):
                reconcile.cancel()
                await asyncio.sleep(0.01)
                assert not reconcile.done()
                assert line.is_held()
        assert not line.is_held()

    asyncio.run(pod())


def test_the_end_of_the_lease_cuts_the_grace_short(line: Lifeline) -> None:
    """A stop does not renew the lease: when that is over, so is everything, however long the grace."""

    async def pod() -> None:
        checkpoint = ScriptedCheckpoint(boottime_s() + 1.0)
        program = shell('trap "" TERM; echo up >&9; while :; do sleep 1; done', line)
        reconcile = asyncio.create_task(CommandReconciler(program, LONG_S, BootClock()).reconcile(checkpoint))
        assert await line.line() == "up"
        reconcile.cancel()
        await asyncio.wait((reconcile,))
        assert reconcile.cancelled()
        assert not line.is_held()
        assert 0 <= boottime_s() - checkpoint.lease_ends_at_s < LONG_S / 2

    asyncio.run(pod())


# Each bounded three times, should the guard not be up to it: few at a time, so many generations, and all over at END.
FORKS_S = 30
_BEGIN = f"""
END = time.monotonic() + {FORKS_S}
def up():
    os.write(9, b'up\\n')
def go_on():
    if time.monotonic() > END: os._exit(0)
    return True
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
FORKERS = {
    "one that forks as fast as it can": """
count = 0
while go_on():
    if not os.fork():
        time.sleep(0.05)
        os._exit(0)
    count += 1
    while count > 20 and os.waitpid(-1, os.WNOHANG)[0]: pass
    if count == 20: up()""",
    "runners that fork and end, and live no longer than a fork takes": """
for _ in range(2): os.fork()
up()
while go_on():
    if os.fork(): os._exit(0)""",
    "runners, each in a session of its own": """
for _ in range(2): os.fork()
up()
while go_on():
    if os.fork(): os._exit(0)
    os.setsid()""",
    "a bomb of seven generations, each process in a session of its own": """
up()
for _ in range(7):
    time.sleep(0.02)
    if not os.fork(): os.setsid()
time.sleep(END - time.monotonic())""",
}


@pytest.mark.parametrize("grace_s", [0.0, 0.2])
@pytest.mark.parametrize("forker", FORKERS.values(), ids=FORKERS)
def test_whoever_forks_without_end_is_not_fast_enough(forker: str, grace_s: float, line: Lifeline) -> None:
    """Stopped before they are killed, grabbed as they are orphaned, and looked for until the kernel knows no child."""

    async def pod() -> None:
        async with running(python(_BEGIN + forker, line), grace_s):
            assert await line.line() == "up"
            began_s = boottime_s()
        assert not line.is_held()
        assert boottime_s() - began_s < FORKS_S - 2, "they ended by themselves, or nearly so"

    asyncio.run(pod())


def test_orphans_that_end_are_collected_while_the_program_runs(line: Lifeline) -> None:
    """The guard adopts them; a program of many days must not fill the process table with zombies."""
    script = """
    i=0; while [ $i -lt 300 ]; do (true &); i=$((i+1)); done
    while [ "$(cat /proc/$PPID/task/$PPID/children)" != "$$ " ]; do sleep 0.01; done
    echo alone >&9"""

    async def pod() -> PassResult:
        reconcile = asyncio.create_task(
            CommandReconciler(shell(script, line), LONG_S, BootClock()).reconcile(ScriptedCheckpoint())
        )
        assert await line.line() == "alone"
        return await reconcile

    assert asyncio.run(pod()) == PassResult()


def test_signals_do_not_take_the_guard_away(line: Lifeline) -> None:
    """What a terminal, a service manager or a careless pkill sends is ignored: the handle must outlive it."""
    signals = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM TSTP TTIN TTOU"
    script = f"for s in {signals}; do kill -$s $PPID; done; exit 5"
    result = asyncio.run(CommandReconciler(shell(script, line), LONG_S, BootClock()).reconcile(ScriptedCheckpoint()))
    assert result.errors == ("the program 'sh' ended with exit code 5",)

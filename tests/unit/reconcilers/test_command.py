"""A program as a pass: what it is given, what its end becomes, and that nothing of it is left. Real processes."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from skillbus.clock import BootClock, boottime_s
from skillbus.core.outcome import PassResult
from skillbus.errors import BadSettings, PassAborted
from skillbus.reconcilers.command import CommandReconciler
from tests.unit.reconcilers.scripted import Lifeline, ScriptedCheckpoint


def one_pass(
    argv: Sequence[str], checkpoint: ScriptedCheckpoint | None = None, env: Mapping[str, str] | None = None
) -> PassResult:
    """One pass in a loop of its own."""
    return asyncio.run(CommandReconciler(argv, 5.0, BootClock(), env).reconcile(checkpoint or ScriptedCheckpoint()))


def shell(script: str, *arguments: str) -> list[str]:
    """A program of a few lines; its arguments are ``$1`` and so on."""
    return ["sh", "-c", script, "sh", *arguments]


@pytest.mark.parametrize(
    ("script", "errors"),
    [
        ("exit 0", ()),
        ("exit 3", ("the program 'sh' ended with exit code 3",)),
        ("exit 127", ("the program 'sh' ended with exit code 127",)),
        ("kill -SEGV $$", ("the program 'sh' was killed by SIGSEGV",)),
        ("kill -35 $$", ("the program 'sh' was killed by signal 35",)),
    ],
)
def test_the_end_of_the_program_is_the_result(script: str, errors: tuple[str, ...]) -> None:
    """Exit code 0 is a good pass; another one, or a signal, is one sentence that names it."""
    assert one_pass(shell(f"ulimit -c 0; {script}")) == PassResult(errors=errors)


@pytest.mark.parametrize(
    ("name", "contents", "mode", "reason"),
    [
        ("missing", None, 0, "No such file or directory"),
        ("no-program", "#!/bin/sh\n", 0o644, "Permission denied"),
        ("no-format", "exit 0\n", 0o755, "Exec format error"),
        ("no-interpreter", "#!/nowhere/sh\n", 0o755, "No such file or directory"),
    ],
)
def test_what_cannot_be_started_needs_a_human(
    tmp_path: Path, name: str, contents: str | None, mode: int, reason: str
) -> None:
    """Missing, not executable, of no known format: one sentence with the cause and what to do."""
    path = tmp_path / name
    if contents is not None:
        path.write_text(contents)
        path.chmod(mode)
    reconciler = CommandReconciler([str(path)], 5.0, BootClock())
    with pytest.raises(BadSettings, match=f"'{path}' cannot be started: {reason}. Give the path"):
        asyncio.run(reconciler.reconcile(ScriptedCheckpoint()))
    assert reconciler.vouched


def test_a_name_is_looked_up_on_the_path_it_is_given(tmp_path: Path) -> None:
    """PATH of the program's own environment decides; a name that is not there is told."""
    (tmp_path / "sync-it").write_text("#!/bin/sh\nexit 4\n")
    (tmp_path / "sync-it").chmod(0o755)
    result = one_pass(["sync-it"], env={"PATH": f"/nowhere:{tmp_path}"})
    assert result.errors == ("the program 'sync-it' ended with exit code 4",)
    with pytest.raises(BadSettings, match="'sync-it' cannot be started"):
        one_pass(["sync-it"], env={"PATH": "/nowhere"})


@pytest.mark.parametrize(
    ("argv", "grace_s", "complaint"),
    [
        ([], 1.0, "no program is given"),
        ([""], 1.0, "no program is given"),
        (["x", "a\0b"], 1.0, "NUL character"),
        (["x"], -1.0, "stop grace of -1.0 s"),
        (["x"], math.nan, "stop grace of nan s"),
        (["x"], math.inf, "stop grace of inf s"),
    ],
)
def test_bad_arguments_are_told_at_once(argv: list[str], grace_s: float, complaint: str) -> None:
    """A mistake shows when the reconciler is made, not in the first pass."""
    with pytest.raises(BadSettings, match=complaint):
        CommandReconciler(argv, grace_s, BootClock())


_LOOK = """
import os, sys
print(sorted(int(fd) for fd in os.listdir("/proc/self/fd")), os.readlink("/proc/self/fd/0"))
print(os.getsid(0) == os.getpgid(0) == os.getpid(), os.getppid())
print(open("/proc/self/status").read().split("SigBlk:")[1].split()[0],
      open("/proc/self/status").read().split("SigIgn:")[1].split()[0])
print(ascii(sys.argv[1:]))
print(sorted(entry.split(b"=")[0] for entry in open("/proc/self/environ", "rb").read().split(b"\\0") if entry))
"""


def test_what_a_program_finds(tmp_path: Path) -> None:
    """It is as if started by itself.

    No descriptor but 0 (nothing to read), 1 and 2; a session of its own; no signal blocked or ignored, though the pod's
    thread blocked some; its arguments byte by byte; its environment with the pass' mark and nothing else added.
    """
    odd = os.fsdecode(b"\xff\xe9")
    out = tmp_path / "out"
    script = 'exec "$1" -I -S -c "$2" "$3" "" "$4" >"$5"'
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, (signal.SIGTERM, signal.SIGCHLD))
    try:
        result = one_pass(shell(script, sys.executable, _LOOK, odd, "ü", str(out)), env={"A": "1"})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert not result.errors
    files, session, masks, arguments, names = out.read_text().splitlines()
    assert files == "[0, 1, 2, 3] /dev/null"  # 3 is the listing itself.
    assert session.startswith("True ")
    assert masks.split()[0] == "0" * 16
    # Python itself ignores SIGPIPE and SIGXFSZ; 32 to 34 are the C library's own, and come from whoever started us.
    assert int(masks.split()[1], 16) & ~(1 << 12 | 1 << 24 | 0b111 << 31) == 0
    assert arguments == ascii([odd, "", os.fsdecode("ü".encode())])
    assert set(eval(names)) - {b"PWD", b"OLDPWD", b"SHLVL", b"_"} == {b"A", b"SKILLBUS_PASS"}


def test_a_program_ends_before_it_begins_if_the_pod_may_not_act() -> None:
    """A refusing checkpoint starts no guard, and no program."""
    checkpoint = ScriptedCheckpoint()
    checkpoint.refusal = "latched"
    with pytest.raises(PassAborted, match="latched"):
        one_pass(["/nowhere"], checkpoint)


def test_the_checkpoint_is_asked_again_right_before_the_start(tmp_path: Path) -> None:
    """A kill while the guard starts: the program does not."""
    checkpoint = ScriptedCheckpoint()
    checkpoint.leave_count = 1
    with pytest.raises(PassAborted, match="no more leave"):
        one_pass(["touch", str(tmp_path / "touched")], checkpoint)
    assert checkpoint.asked_count == 2
    assert not (tmp_path / "touched").exists()


def test_a_lease_that_is_over_starts_nothing(tmp_path: Path) -> None:
    """The guard looks at the lease itself, right before the start."""
    with pytest.raises(PassAborted, match="the lease was over"):
        one_pass(["touch", str(tmp_path / "touched")], ScriptedCheckpoint(boottime_s() - 1))
    assert not (tmp_path / "touched").exists()


def test_a_cancellation_before_the_start_starts_nothing(tmp_path: Path) -> None:
    """Cancelled while the guard starts, a pass ends as cancelled, and the program never was."""

    async def pod() -> None:
        reconciler = CommandReconciler(["touch", str(tmp_path / "touched")], 5.0, BootClock())
        reconcile = asyncio.create_task(reconciler.reconcile(ScriptedCheckpoint()))
        await asyncio.sleep(0)
        reconcile.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reconcile

    asyncio.run(pod())
    assert not (tmp_path / "touched").exists()


def test_the_lease_is_passed_on_as_it_moves() -> None:
    """A program that takes longer than one lease lives on as long as the lease is renewed."""

    class Renewed(ScriptedCheckpoint):
        @property
        def lease_ends_at_s(self) -> float:
            return boottime_s() + 1.0

        @lease_ends_at_s.setter
        def lease_ends_at_s(self, value: float) -> None: ...

    assert one_pass(["sleep", "1.6"], Renewed()) == PassResult()


def test_a_lease_that_does_not_move_ends_the_program(tmp_path: Path) -> None:
    """The guard kills at the end of the lease by itself, and the pass ends as aborted."""
    with Lifeline(tmp_path / "line") as line:
        checkpoint = ScriptedCheckpoint(boottime_s() + 0.5)
        with pytest.raises(PassAborted, match="the lease was over, so the program 'sh' was killed"):
            one_pass(shell('exec 9>"$1"; trap "" TERM; sleep 3600', line.path), checkpoint)
        assert not line.is_held()
        assert boottime_s() >= checkpoint.lease_ends_at_s


def test_processes_are_started_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes milliseconds, which the pod's loop does not have."""
    started_in = []
    popen = subprocess.Popen.__init__

    def noting(*arguments: Any, **more: Any) -> None:
        started_in.append(threading.current_thread())
        popen(*arguments, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", noting)
    one_pass(["true"])
    assert len(started_in) == 1
    assert started_in[0] is not threading.current_thread()


def test_the_loop_may_run_in_any_thread(tmp_path: Path) -> None:
    """A pod that is embedded runs its loop in a thread of its own; a stop works there just the same."""
    results: list[object] = []

    async def pod() -> None:
        reconciler = CommandReconciler(shell('exec 9>"$1"; echo up >&9; sleep 3600', line.path), 5.0, BootClock())
        reconcile = asyncio.create_task(reconciler.reconcile(ScriptedCheckpoint()))
        results.append(await line.line())
        reconcile.cancel()
        results.extend(await asyncio.gather(reconcile, return_exceptions=True))
        results.append(await CommandReconciler(["true"], 5.0, BootClock()).reconcile(ScriptedCheckpoint()))

    with Lifeline(tmp_path / "line") as line:
        thread = threading.Thread(target=lambda: asyncio.run(pod()))
        thread.start()
        thread.join()
    assert [type(result) for result in results] == [str, asyncio.CancelledError, PassResult]


def test_many_passes_leave_nothing() -> None:
    """Twenty passes, of every kind of end: not one descriptor, thread or process more."""

    def open_files() -> list[Path]:
        return sorted(Path("/proc/self/fd").iterdir())

    def children() -> str:
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text()

    async def pod() -> None:
        good = CommandReconciler(shell("sleep 3600 & exit 0"), 5.0, BootClock())
        missing = CommandReconciler(["/nowhere"], 5.0, BootClock())
        before = open_files(), children(), threading.enumerate()
        for _ in range(10):
            assert await good.reconcile(ScriptedCheckpoint()) == PassResult()
            with pytest.raises(BadSettings):
                await missing.reconcile(ScriptedCheckpoint())
            assert (open_files(), children(), threading.enumerate()) == before
        assert good.vouched
        assert missing.vouched

    asyncio.run(pod())

"""A pod's whole process is frozen (SIGSTOP, a paused machine) between a checkpoint and the change behind it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from skillbus.clock import boottime_s
from skillbus.core.latch import State
from tests.pods import arm, eventually, evidence_of, order, outlast, process_pod, record_of
from tests.servers import RealServer

FREEZES = """
import signal, sys
from pathlib import Path
from skillbus.core.outcome import PassResult
from skillbus.errors import PassAborted
from skillbus.settings import Settings
from skillbus.wiring import pod_of

change, where = Path(sys.argv[1]), sys.argv[2]

class Freezes:
    vouched = True

    async def reconcile(self, checkpoint):
        if where == "before the checkpoint":
            signal.raise_signal(signal.SIGSTOP)
        permit = checkpoint()
        if where == "before the change":
            signal.raise_signal(signal.SIGSTOP)
        change.write_text("made")
        if where == "behind the change":
            signal.raise_signal(signal.SIGSTOP)
        try:
            await checkpoint.settle(permit)
        except PassAborted as error:
            change.unlink()
            error.result = PassResult(reverted=("change",))
            raise
        return PassResult({"changed": 1})

with pod_of(Settings.load(), Freezes(), work="") as pod:
    signal.sigwait([signal.SIGTERM])
"""
NOT_BLOCKED = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"


@contextmanager
def frozen_pod(server: RealServer, folder: Path, where: str, **given: str) -> Iterator[subprocess.Popen[bytes]]:
    """A pod that froze itself in its first pass."""
    argv = [sys.executable, "-c", NOT_BLOCKED + FREEZES, str(folder / "change"), where]
    with process_pod(server, folder, argv, **given) as process:
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, f"it froze {where}")
        yield process


@pytest.mark.parametrize("where", ["before the change", "behind the change"])
def test_a_change_beyond_250_ms_is_reverted_if_a_kill_shows(
    redis_server: RealServer, tmp_path: Path, where: str
) -> None:
    """Thawed within its lease it makes the change, looks again, takes it back, and reports it as reverted."""
    arm(redis_server)
    with frozen_pod(redis_server, tmp_path, where) as process:
        frozen_at_s = boottime_s()
        order(redis_server)
        outlast(0.26, frozen_at_s)
        process.send_signal(signal.SIGCONT)
        eventually(lambda: [b for b in evidence_of(redis_server) if b.state is State.STOPPED], "it has stopped")
        beat = evidence_of(redis_server)[0]
        assert not (tmp_path / "change").exists()
        assert beat.last_pass is not None
        assert (beat.last_pass.outcome, beat.last_pass.reverted) == ("aborted", ("change",))


def test_a_slow_change_without_a_kill_stays(redis_server: RealServer, tmp_path: Path) -> None:
    """Frozen beyond 250 ms, within the lease, and the fresh read shows nothing: the change counts."""
    arm(redis_server)
    with frozen_pod(redis_server, tmp_path, "before the change") as process:
        outlast(0.26, boottime_s())
        process.send_signal(signal.SIGCONT)
        eventually(lambda: [b for b in evidence_of(redis_server) if b.passes_count], "its pass has ended")
        beat = evidence_of(redis_server)[0]
        assert beat.last_pass is not None
        assert (beat.last_pass.outcome, beat.last_pass.counts) == ("ok", {"changed": 1})
        assert (tmp_path / "change").read_text() == "made"


def test_nothing_can_be_read_behind_the_change(tmp_path: Path, real_server: RealServer) -> None:
    """Frozen, and Redis is gone meanwhile: what cannot be proved does not stay."""
    arm(real_server)
    with frozen_pod(real_server, tmp_path, "behind the change", SKILLBUS_COMMAND_TIMEOUT_S="0.2") as process:
        real_server.kill()
        outlast(0.26, boottime_s())
        process.send_signal(signal.SIGCONT)
        eventually(lambda: not (tmp_path / "change").exists(), "the change is taken back")


def test_frozen_beyond_the_lease_there_is_no_permit(redis_server: RealServer, tmp_path: Path) -> None:
    """However fresh the answer in its socket looks: thawed it gets no leave, makes no change, and obeys the kill."""
    arm(redis_server)
    short = {"SKILLBUS_HEARTBEAT_S": "0.2", "SKILLBUS_LEASE_S": "0.6"}
    with frozen_pod(redis_server, tmp_path, "before the checkpoint", **short) as process:
        frozen_at_s = boottime_s()
        order(redis_server)
        outlast(0.6, frozen_at_s)
        process.send_signal(signal.SIGCONT)
        eventually(lambda: [b for b in evidence_of(redis_server) if b.state is State.STOPPED], "it has stopped")
        beat = evidence_of(redis_server)[0]
        assert beat.last_pass is not None
        assert (beat.last_pass.outcome, beat.last_pass.reverted) == ("aborted", ())
        assert not (tmp_path / "change").exists()
        assert record_of(redis_server) is not None

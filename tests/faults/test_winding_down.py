"""A kill that comes behind SIGTERM, while the program still winds down: heard, recorded and remembered."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from skillbus.core.latch import State
from tests.pods import FLEET, arm, eventually, evidence_of, process_pod, record_of
from tests.servers import RealServer

STUBBORN = "trap '' TERM INT; while :; do sleep 1000; done"
RUN = [sys.executable, "-m", "skillbus", "run", "--every", "1h", "--stop-grace", "4s", "--", "sh", "-c", STUBBORN]


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Guard, program and its child, once they are there."""
    assert process.poll() is None, f"it ended by itself, with exit code {process.returncode}"
    children = psutil.Process(process.pid).children(recursive=True)
    return children if len(children) >= 3 else []


def test_a_kill_behind_sigterm_is_obeyed(redis_server: RealServer, tmp_path: Path) -> None:
    """A bare message on the channel, nobody else to keep it: the ending pod writes the record and its tombstone."""
    arm(redis_server)
    with process_pod(redis_server, tmp_path, RUN) as process:
        children = eventually(lambda: family(process), "the program runs")
        eventually(lambda: [beat for beat in evidence_of(redis_server) if beat.armed], "it hears")
        process.send_signal(signal.SIGTERM)
        threading.Event().wait(1.0)  # nothing shows that it has begun to end: that is the point
        assert process.poll() is None
        assert redis_server.publish(FLEET.kill_channel, "behind the signal") >= 1
        eventually(lambda: [beat for beat in evidence_of(redis_server) if beat.causes], "it says so while it ends")
        assert process.wait(15) == 0
        assert psutil.wait_procs(children, timeout=5)[1] == []
    record = record_of(redis_server)
    assert record is not None
    assert record.reason == "behind the signal"
    assert len(list((tmp_path / "state" / "tombstones").iterdir())) == 1
    (beat,) = evidence_of(redis_server)
    assert (beat.state, beat.quiet) == (State.STOPPED, True)
    assert beat.ended_at_ms > 0

"""The goal, end to end: a fleet of processes, one PUBLISH, and everything has stopped; restarts stay stopped.

What the pods say of themselves is read from their own hashes; what they do is seen on disk.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from skillbus.clock import boottime_s
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import State
from tests.pods import FLEET, arm, eventually, evidence_of, process_pod, record_of, reset
from tests.servers import RealServer

PODS_COUNT = 5
PROGRAM = 'i=0; while :; do i=$((i+1)); echo $i > "$0/$i"; sleep 0.02; done'
EMBEDDED = """
import signal, sys, threading
from pathlib import Path
import skillbus

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

def work(checkpoint):
    number, pause = 0, threading.Event()
    while True:
        checkpoint()
        number += 1
        Path(sys.argv[1], str(number)).write_text(str(number))
        pause.wait(0.02)

with skillbus.embed(work, every="1h"):
    signal.sigwait([signal.SIGTERM])
"""


class FleetPod:
    """One pod as a process of its own that writes one file after the other into a folder of its own."""

    def __init__(self, server: RealServer, folder: Path, number: int) -> None:
        self.pod_id = f"pod-{number}"
        self._server = server
        self._folder = folder / self.pod_id
        self.work = self._folder / "work"
        self.work.mkdir(parents=True)
        if number % 2:
            self._argv = [sys.executable, "-c", EMBEDDED, str(self.work)]
        else:
            run = [sys.executable, "-m", "skillbus", "run", "--every", "1h", "--stop-grace", "0"]
            self._argv = [*run, "--", "sh", "-c", PROGRAM, str(self.work)]
        self._stack = ExitStack()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """A new incarnation under the same id."""
        self.process = self._stack.enter_context(
            process_pod(self._server, self._folder, self._argv, self.pod_id, SKILLBUS_HEARTBEAT_S="0.5")
        )

    def end(self) -> None:
        """SIGTERM, and wait."""
        self._stack.close()

    def die(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._stack.close()

    def picture(self) -> frozenset[str]:
        """What is on disk."""
        return frozenset(path.name for path in self.work.iterdir())

    def beat(self) -> Heartbeat | None:
        """What its present incarnation says, once that says anything: each process has its own id."""
        pid = self.process.pid if self.process else 0
        return next((beat for beat in evidence_of(self._server, self.pod_id) if beat.pid == pid), None)

    def is_in(self, state: State) -> bool:
        """Whether its present incarnation says so."""
        beat = self.beat()
        return beat is not None and beat.state is state

    def is_observed_quiet(self) -> bool:
        """Whether its own hash says so, and why."""
        beat = self.beat()
        return beat is not None and beat.state is State.STOPPED and beat.quiet and bool(beat.causes)

    def waits(self) -> bool:
        """Whether it has seen the reset."""
        beat = self.beat()
        return beat is not None and all(cause.lifted for cause in beat.causes)

    def beat_at_ms(self) -> int:
        """When it last beat."""
        beat = self.beat()
        return beat.beat_at_ms if beat else 0


def nothing_moves_for(pods: list[FleetPod], beats_count: int = 2) -> None:
    """Every pod is alive and beats on so many times, and meanwhile the disk stays as it is."""
    before = [pod.picture() for pod in pods]
    for _ in range(beats_count):
        last = [pod.beat_at_ms() for pod in pods]
        for pod, beat_at_ms in zip(pods, last, strict=True):
            eventually(lambda: pod.beat_at_ms() > beat_at_ms, f"{pod.pod_id} beats on")  # noqa: B023
    assert [pod.picture() for pod in pods] == before


def test_one_message_stops_a_fleet(real_server: RealServer, tmp_path: Path) -> None:
    """One PUBLISH: all observed quiet, nothing on disk moves; restarts stay stopped; reset lets a restarted one run."""
    arm(real_server)
    pods = [FleetPod(real_server, tmp_path, number) for number in range(PODS_COUNT)]
    with ExitStack() as stack:
        for pod in pods:
            stack.callback(pod.end)
            pod.start()
        for pod in pods:
            eventually(lambda: pod.picture() and pod.is_in(State.RUNNING), f"{pod.pod_id} works")  # noqa: B023
        eventually(
            lambda: real_server.cli("PUBSUB", "NUMSUB", FLEET.kill_channel) == [b"skillbus:prod:kill", 5], "hear"
        )

        sent_at_s = boottime_s()
        assert real_server.publish(FLEET.kill_channel, "manifest compromised") == PODS_COUNT
        for pod in pods:
            eventually(pod.is_observed_quiet, f"{pod.pod_id} is observed quiet")
        assert boottime_s() - sent_at_s < 10
        nothing_moves_for(pods)
        record = record_of(real_server)
        assert record is not None
        assert (record.reason, record.heard_by in {pod.pod_id for pod in pods}) == ("manifest compromised", True)

        pods[0].end()
        pods[1].die()
        for pod in pods[:2]:
            pod.start()
        for pod in pods[:2]:
            eventually(pod.is_observed_quiet, f"{pod.pod_id} stays stopped")
        nothing_moves_for(pods, 1)

        reset(real_server)
        for pod in pods:
            eventually(pod.waits, f"{pod.pod_id} waits for a restart")
        nothing_moves_for(pods, 1)
        pods[0].end()
        shutil.rmtree(pods[0].work)
        pods[0].work.mkdir()
        pods[0].start()
        eventually(lambda: pods[0].picture() and pods[0].is_in(State.RUNNING), "the restarted one runs and works")
        nothing_moves_for(pods[1:], 1)

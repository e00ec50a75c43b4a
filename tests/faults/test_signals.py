"""Signals end a pod's life and persist nothing: an end is no kill."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from skillbus.core.latch import State
from tests.pods import WatchedPod, arm, eventually, evidence_of, process_pod, record_of
from tests.servers import RealServer

RUN = [sys.executable, "-m", "skillbus", "run", "--every", "1h"]


def descendants(process: subprocess.Popen[bytes], count: int) -> Callable[[], list[psutil.Process]]:
    """Its descendants, once there are so many."""

    def found() -> list[psutil.Process]:
        assert process.poll() is None, f"it ended by itself, with exit code {process.returncode}"
        children = psutil.Process(process.pid).children(recursive=True)
        return children if len(children) >= count else []

    return found


def test_sigterm_ends_a_pod_and_persists_nothing(redis_server: RealServer, tmp_path: Path) -> None:
    """Exit 0 within the grace, program and guard gone, no record, no tombstone; a last beat says that it ended."""
    arm(redis_server)
    with process_pod(redis_server, tmp_path, [*RUN, "--", "sh", "-c", "sleep 1000"]) as process:
        family = eventually(descendants(process, 2), "the guard and the program run")
        eventually(lambda: [b for b in evidence_of(redis_server) if b.state is State.RUNNING], "it says so")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert psutil.wait_procs(family, timeout=1)[1] == []
    (beat,) = evidence_of(redis_server)
    assert beat.ended_at_ms > 0
    assert (beat.causes, beat.quiet) == ((), True)
    assert record_of(redis_server) is None
    assert list((tmp_path / "state" / "tombstones").iterdir()) == []


def test_a_second_interrupt_ends_at_once_and_leaves_nobody(redis_server: RealServer, tmp_path: Path) -> None:
    """A program that will not listen, and an hour of grace: the second Ctrl-C ends the pod, its guard ends the rest."""
    arm(redis_server)
    stubborn = "trap '' TERM INT; while :; do sleep 1000; done"
    with process_pod(redis_server, tmp_path, [*RUN, "--stop-grace", "1h", "--", "sh", "-c", stubborn]) as process:
        family = eventually(descendants(process, 3), "the guard, the program and its child run")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert psutil.wait_procs(family, timeout=10)[1] == []
    assert record_of(redis_server) is None


def test_sigkill_of_the_pod_leaves_nobody(redis_server: RealServer, tmp_path: Path) -> None:
    """The guard holds a pipe to the pod: when that dies, so does every descendant of the program."""
    arm(redis_server)
    with process_pod(redis_server, tmp_path, [*RUN, "--", "sh", "-c", "setsid sleep 1000 & sleep 1000"]) as process:
        family = eventually(descendants(process, 4), "the guard, the program and its children run")
        process.kill()
        process.wait()
        assert psutil.wait_procs(family, timeout=10)[1] == []


def test_a_pod_ends_whenever_it_is_told_to(redis_server: RealServer, tmp_path: Path) -> None:
    """At seeded instants from its start on, amid whatever it says to Redis: its thread ends, and nothing is left.

    Before Python 3.12 ``asyncio.wait_for``, by which redis-py sends, can swallow a cancellation: about one end in ten
    hung.
    """
    arm(redis_server)
    instants = random.Random(3)
    waiting = threading.Event()
    for trial in range(40):
        pod = WatchedPod(redis_server, tmp_path, f"pod-{trial}").start()
        if trial % 2:
            pod.until_works()
        waiting.wait(instants.uniform(0, 0.04))
        assert pod.pod.stop(5.0), f"trial {trial}: it did not end; {pod.told()}"
        assert not pod.was_ever_latched()

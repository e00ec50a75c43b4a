"""Certificates of pods that cannot or will not answer: each lands in its column, and in ``stopped`` only once quiet."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skillbus.clock import boottime_s
from skillbus.control.history import story
from skillbus.control.kill import Kill, KillReport
from skillbus.core.certificate import Certificate, Line, Proof
from skillbus.core.latch import State
from skillbus.core.orders import KillOrder
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.core.scope import Scope
from skillbus.settings import Settings
from skillbus.wiring import operator_bus
from tests.pods import (
    FAST,
    FLEET,
    GROUP,
    PROD,
    Path2Redis,
    WatchedPod,
    eventually,
    evidence_of,
    own_server,
    process_pod,
    record_of,
    reset,
)
from tests.servers import RealServer, Refused

WORKS = """
import asyncio, signal
from skillbus.settings import Settings
from skillbus.wiring import pod_of

class Works:
    vouched = True

    async def reconcile(self, checkpoint):
        while True:
            checkpoint()
            await asyncio.sleep(0.01)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with pod_of(Settings.load(), Works(), work="") as pod:
    signal.sigwait([signal.SIGTERM])
"""
TIMES = {f"SKILLBUS_{name.upper()}": str(value) for name, value in FAST.items()}
FENCE_S = FAST["lease_s"] + 1.0
"""From the last beat on, a silent pod is fenced (P7)."""


def given(server: RealServer, watch: Callable[[Certificate], None], scope: Scope = FLEET) -> KillReport:
    """A kill as an operator gives it, followed to its end; ``watch`` sees each certificate on the way."""

    async def main() -> KillReport:
        async with operator_bus(Settings.load(redis_url=server.url, fleet="prod")) as bus:
            order = KillOrder(by="oncall", via="cli", reason="a fault")
            return await Kill(bus, scope, order, timeout_s=25.0, on_progress=watch, patience_s=0.0).give()

    return asyncio.run(main())


class Progress:
    """Every certificate on the way, and what was so at that moment."""

    def __init__(self, pod_id: str, is_quiet: Callable[[], bool] = lambda: False) -> None:
        """``is_quiet``: the truth about that pod, whatever anybody says."""
        self._pod_id = pod_id
        self._is_quiet = is_quiet
        self.proofs: list[Proof] = []
        self.claimed_early_count = 0

    def __call__(self, certificate: Certificate) -> None:
        proof = line_of(certificate, self._pod_id).proof
        self.proofs.append(proof)
        self.claimed_early_count += proof is Proof.STOPPED and not self._is_quiet()


def line_of(certificate: Certificate | None, pod_id: str) -> Line:
    """A pod's line."""
    assert certificate is not None
    (line,) = (line for line in certificate.lines if line.pod_id == pod_id)
    return line


def is_fenced_and_nothing_else(report: KillReport, progress: Progress, pod_id: str) -> Line:
    """It was unconfirmed until its lease had certainly run out, and was never called stopped."""
    line = line_of(report.certificate, pod_id)
    assert line.proof is Proof.FENCED
    assert line.at_ms == line.last_beat_ms + round(FENCE_S * 1000)
    assert progress.proofs[0] is Proof.UNCONFIRMED
    assert Proof.STOPPED not in progress.proofs
    return line


def works(server: RealServer, pod_id: str) -> None:
    """Wait until a pod says that it runs and hears."""
    eventually(lambda: [b for b in evidence_of(server, pod_id) if b.state is State.RUNNING and b.armed], "it works")


@contextmanager
def working(server: RealServer, folder: Path) -> Iterator[tuple[int, WatchedPod]]:
    """A pod as a process of its own (its pid), and a good one beside it, both at work."""
    argv = [sys.executable, "-c", WORKS]
    with (
        WatchedPod(server, folder, "good", **FAST) as good,
        process_pod(server, folder / "bad", argv, "bad", **TIMES) as process,
    ):
        good.until_works()
        works(server, "bad")
        yield process.pid, good


def test_a_frozen_pod_is_fenced_and_stops_when_it_wakes(tmp_path: Path) -> None:
    """SIGSTOP: it can do nothing, but only its lease proves that it will not; awake again, it obeys the record."""
    with own_server(tmp_path) as server, working(server, tmp_path) as (pid, _):
        progress = Progress("bad")
        os.kill(pid, signal.SIGSTOP)
        report = given(server, progress)
        is_fenced_and_nothing_else(report, progress, "bad")
        assert line_of(report.certificate, "good").proof is Proof.STOPPED
        assert report.certificate is not None
        assert report.certificate.complete
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: [b for b in evidence_of(server, "bad") if b.state is State.STOPPED], "it obeys")


def test_a_killed_pod_is_fenced(tmp_path: Path) -> None:
    """SIGKILL: it says no goodbye, so nobody claims that it stopped; its time is that of its lease."""
    with own_server(tmp_path) as server, working(server, tmp_path) as (pid, _):
        progress = Progress("bad")
        os.kill(pid, signal.SIGKILL)
        report = given(server, progress)
        is_fenced_and_nothing_else(report, progress, "bad")
        assert line_of(report.certificate, "good").proof is Proof.STOPPED


def test_a_partitioned_pod_is_fenced_and_had_stopped_working_by_then(tmp_path: Path) -> None:
    """Nothing passes, either way: it holds by its own lease before the certificate says that it must have."""
    with (
        own_server(tmp_path) as server,
        Path2Redis(server) as path,
        WatchedPod(path.url, tmp_path, "bad", **FAST) as bad,
        WatchedPod(server, tmp_path, "good", **FAST) as good,
    ):
        bad.until_works()
        good.until_works()
        works(server, "bad")
        path.cuts = True
        progress = Progress("bad")
        report = given(server, progress)
        told_at_s = boottime_s()
        is_fenced_and_nothing_else(report, progress, "bad")
        assert max(bad.worker.changes) < told_at_s
        count = bad.works_count
        assert bad.state is State.HOLDING
        path.cuts = False
        path.tear()
        bad.until_latched()
        assert bad.works_count == count, "it worked on behind a certificate that called it fenced"


@contextmanager
def kept_cut(server: RealServer, pod_id: str) -> Iterator[None]:
    """The pod's subscriber connection is cut as soon as it is there, again and again."""
    ending = threading.Event()

    def cut() -> None:
        while not ending.is_set():
            listed = server.cli("CLIENT", "LIST", "TYPE", "PUBSUB")
            assert isinstance(listed, bytes)
            for line in listed.splitlines():
                if f"name=skillbus-pod-{pod_id} ".encode() in line:
                    with suppress(Refused):
                        server.cli("CLIENT", "KILL", "ID", line.split()[0].removeprefix(b"id="))
            ending.wait(0.01)

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def test_a_deaf_pod_is_stopped_by_the_record_and_only_then_said_to_be(tmp_path: Path) -> None:
    """Its subscriber connection is cut while orders are published, and kept cut: its heartbeats find the record."""
    with (
        own_server(tmp_path) as server,
        WatchedPod(server, tmp_path, "bad", **FAST) as bad,
        WatchedPod(server, tmp_path, "good", **FAST) as good,
    ):
        bad.until_works()
        good.until_works()
        works(server, "bad")
        progress = Progress("bad", lambda: bad.state is State.STOPPED)
        with kept_cut(server, "bad"):
            report = given(server, progress)
        told_count = bad.works_count
        line = line_of(report.certificate, "bad")
        assert line.proof is Proof.STOPPED
        assert progress.claimed_early_count == 0
        assert bad.pod.standing.tripped_at_s is not None
        assert max(bad.worker.changes) <= bad.pod.standing.tripped_at_s
        assert bad.works_count == told_count
        assert report.certificate is not None
        assert report.certificate.complete


class Stubborn:
    """A reconciler whose pass ignores its cancellation for so many seconds."""

    vouched = True

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.began = threading.Event()
        self.ended = threading.Event()

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One pass."""
        checkpoint()
        self.began.set()
        cancelled_at_s: float | None = None
        while cancelled_at_s is None or boottime_s() < cancelled_at_s + self._seconds:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                cancelled_at_s = cancelled_at_s or boottime_s()
        self.ended.set()
        return PassResult()


def test_a_slow_pod_is_stopped_when_its_pass_is_over_and_not_before(tmp_path: Path) -> None:
    """A pass that ignores cancellation: unconfirmed, ``stopping``, however long; then stopped, with that time."""
    slow = Stubborn(2.5)
    with (
        own_server(tmp_path) as server,
        WatchedPod(server, tmp_path, "bad", reconciler=slow, **FAST),
        WatchedPod(server, tmp_path, "good", **FAST) as good,
    ):
        good.until_works()
        assert slow.began.wait(20)
        works(server, "bad")
        notes: list[str] = []
        progress = Progress("bad", slow.ended.is_set)

        def watch(certificate: Certificate) -> None:
            progress(certificate)
            notes.append(line_of(certificate, "bad").note)

        report = given(server, watch)
        line = line_of(report.certificate, "bad")
        assert (line.proof, progress.claimed_early_count) == (Proof.STOPPED, 0)
        assert line.seconds >= 2.5
        assert "last said: stopping" in notes
        assert line_of(report.certificate, "good").seconds < 2.5


def test_kills_that_overlap_are_each_proved_by_themselves(tmp_path: Path) -> None:
    """Pod, group and fleet at once: a reset of one leaves the others; each certificate is kept under its own id."""
    with (
        own_server(tmp_path) as server,
        WatchedPod(server, tmp_path, "one", groups=("eu",), **FAST) as one,
        WatchedPod(server, tmp_path, "two", **FAST) as two,
    ):
        one.until_works()
        two.until_works()
        works(server, "one")
        works(server, "two")
        scopes = (PROD.pod("one"), GROUP, FLEET)
        reports = {scope: given(server, lambda _: None, scope) for scope in scopes}
        for scope, names in zip(scopes, (["one"], ["one"], ["one", "two"]), strict=True):
            certificate = reports[scope].certificate
            assert certificate is not None
            assert certificate.complete
            assert [line.pod_id for line in certificate.lines] == names
        (beat,) = evidence_of(server, "one")
        assert {cause.scope: cause.record_id for cause in beat.causes} == {
            scope.label: reports[scope].record.id for scope in scopes
        }
        reset(server, FLEET)
        eventually(lambda: [c for b in evidence_of(server, "two") for c in b.causes if c.lifted], "it saw the reset")
        assert [record_of(server, scope) is None for scope in scopes] == [False, False, True]
        (beat,) = evidence_of(server, "one")
        assert (beat.state, two.state) == (State.STOPPED, State.STOPPED)

        async def kept() -> list[str]:
            async with operator_bus(Settings.load(redis_url=server.url, fleet="prod")) as bus:
                stories = [await story(bus, reports[scope].record.id) for scope in scopes]
            return [found.certificates[-1][1].where for found in stories]

        assert asyncio.run(kept()) == [str(scope) for scope in scopes]

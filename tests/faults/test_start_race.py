"""A kill at any instant around a pod's start: subscribe, confirm, read leaves no gap in which it is missed."""

from __future__ import annotations

import random
from pathlib import Path

from skillbus.clock import boottime_s
from tests.pods import FLEET, WatchedPod, Worker, arm, order
from tests.servers import RealServer

TRIALS_COUNT = 100
BARE_TRIALS_COUNT = 25
DEAF_TO_TIME = {"heartbeat_s": 45.0, "lease_s": 50.0}
"""No later heartbeat helps within a test's patience: what start-up misses stays missed."""


def spin_until(at_s: float) -> None:
    """Return at an instant of the boot-time clock, as exactly as can be had."""
    while boottime_s() < at_s:
        pass


def test_a_kill_around_a_start_is_never_missed(redis_server: RealServer, tmp_path: Path) -> None:
    """SETNX and PUBLISH at seeded instants from before the start to well into the first pass: 0 missed."""
    instants = random.Random(1500)
    for trial in range(TRIALS_COUNT):
        redis_server.cli("FLUSHALL")
        arm(redis_server)
        pod = WatchedPod(redis_server, tmp_path, f"pod-{trial}", worker=Worker(0.001), **DEAF_TO_TIME)
        delay_s = instants.uniform(-0.005, 0.04)
        at_s = boottime_s() + delay_s
        if delay_s < 0:
            order(redis_server)
        with pod:
            if delay_s >= 0:
                spin_until(at_s)
                order(redis_server)
            pod.until(lambda pod=pod: pod.pod.switch.latched, f"trial {trial}: the kill is obeyed")  # type: ignore[misc]
            pod.until_latched()
            tripped_at_s = pod.pod.standing.tripped_at_s
            assert tripped_at_s is not None
            assert all(change <= tripped_at_s for change in pod.worker.changes)


def test_one_hearing_pod_is_enough_for_one_that_starts(redis_server: RealServer, tmp_path: Path) -> None:
    """A bare PUBLISH at seeded instants around a start: the pod that is up records it, so the other one obeys too."""
    instants = random.Random(16)
    for trial in range(BARE_TRIALS_COUNT):
        redis_server.cli("FLUSHALL")
        arm(redis_server)
        given = {"heartbeat_s": 0.2, "lease_s": 20.0}
        up = WatchedPod(redis_server, tmp_path, f"up-{trial}", **given)
        late = WatchedPod(redis_server, tmp_path, f"late-{trial}", **given)
        with up:
            up.until_works()
            with late:
                spin_until(boottime_s() + instants.uniform(0, 0.03))
                redis_server.cli("PUBLISH", FLEET.kill_channel, "manifest compromised")
                up.until_latched()
                late.until_latched()

"""Failover under Sentinel: the master is SIGKILLed, or frozen. Pods hold within the lease, and find the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from skillbus.core.latch import State
from skillbus.core.orders import KillRecord
from tests.pods import FAST, FLEET, WatchedPod, arm, eventually, freeze
from tests.sentinels import Sentinels, sentinels
from tests.servers import RealServer


def replicated(rig: Sentinels) -> bool:
    """Whether the replica has the fleet's epoch."""
    return rig.second.cli("EXISTS", FLEET.epoch_key) == 1


def is_master(server: RealServer) -> bool:
    """Whether it calls itself one. Who changes its role drops its connections."""
    try:
        role = server.cli("ROLE")
    except ConnectionError:
        return False
    assert isinstance(role, list)
    return role[0] == b"master"


def record_at(server: RealServer) -> KillRecord | None:
    """The record that stands on that server."""
    raw = server.cli("GET", FLEET.killed_key)
    return KillRecord.parse(raw) if isinstance(raw, bytes) else None


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_master_is_lost(tmp_path: Path, fault: str) -> None:
    """No change stays beyond the lease. Once the pod runs again, it hears a bare message at the new master at once.

    A master that was frozen still calls itself one when it wakes: the pod has left it.
    """
    with sentinels(tmp_path) as rig:
        arm(rig.first)
        eventually(lambda: replicated(rig), "the replica is armed, too")
        with WatchedPod(rig.url, tmp_path, **FAST) as pod:
            pod.until_works()
            lost_at_s = freeze(rig.first)
            if fault == "killed":
                rig.first.kill()
            pod.until_state(State.HOLDING)
            pod.until(lambda: pod.pod.standing.quiet, "the pass has ended")
            assert max(pod.worker.changes) <= lost_at_s + FAST["lease_s"]
            pod.until_state(State.RUNNING)
            assert rig.second.publish(FLEET.kill_channel, "after the failover") == 1, "it runs, and does not listen"
            pod.until_latched()
            if fault == "frozen":
                rig.first.thaw()
            record = eventually(lambda: record_at(rig.second), "it is recorded at the new master")
            assert record.reason == "after the failover"


def test_a_kill_that_a_failover_lost_is_written_back(tmp_path: Path) -> None:
    """The record never reached the replica, which becomes the master: who obeys it writes it there (protocol §4)."""
    with sentinels(tmp_path) as rig:
        arm(rig.first)
        eventually(lambda: replicated(rig), "the replica is armed, too")
        with WatchedPod(rig.url, tmp_path, **FAST) as pod:
            pod.until_works()
            freeze(rig.second)
            rig.first.publish(FLEET.kill_channel, "soon lost")
            pod.until_latched()
            eventually(lambda: record_at(rig.first), "it is recorded at the old master")
            rig.first.kill()
            rig.second.thaw()  # with what the old one had sent still in its socket, which it would read
            eventually(lambda: is_master(rig.second), "a failover")
            rig.second.cli("DEL", FLEET.killed_key)
            record = eventually(lambda: record_at(rig.second), "it is written back")
            assert record.reason == "soon lost"
            assert pod.state is State.STOPPED

"""SIGSTOP of the server: connections stay open and nobody answers. What counts is the lease."""

from __future__ import annotations

from pathlib import Path

from skillbus.core.latch import State
from tests.pods import FAST, FLEET, WatchedPod, eventually, freeze, own_server, record_of
from tests.servers import RawClient


def test_a_frozen_server_stops_work_within_the_lease(tmp_path: Path) -> None:
    """No change stays that was made later than the lease after the last possible good read; after the thaw it runs."""
    with own_server(tmp_path) as server, WatchedPod(server, tmp_path, **FAST) as pod:
        pod.until_works()
        frozen_at_s = freeze(server)
        pod.until_state(State.HOLDING)
        pod.until(lambda: pod.pod.standing.quiet, "the pass has ended")
        assert max(pod.worker.changes) <= frozen_at_s + FAST["lease_s"]
        assert "no good read for 0.6 s" in pod.why or "deaf" in pod.why
        count = pod.works_count
        server.thaw()
        pod.until_works()
        assert pod.works_count > count
        assert not pod.was_ever_latched()


def test_a_kill_sent_to_a_frozen_server_is_obeyed_after_the_thaw(tmp_path: Path) -> None:
    """PUBLISH waits in the server's socket; by message or by the record that another pod wrote, every pod obeys."""
    with own_server(tmp_path) as server:
        pods = [WatchedPod(server, tmp_path, name, **FAST) for name in ("one", "two")]
        with pods[0], pods[1]:
            for pod in pods:
                pod.until_works()
            frozen_at_s = freeze(server)
            with RawClient(server.port) as client:
                client.send("SETNX", FLEET.killed_key, "sent to a frozen one")
                client.send("PUBLISH", FLEET.kill_channel, "sent to a frozen one")
                for pod in pods:
                    pod.until_state(State.HOLDING)
                server.thaw()
                for pod in pods:
                    pod.until_latched()
                    late = [at_s for at_s in pod.worker.changes if at_s > frozen_at_s + FAST["lease_s"]]
                    tripped_at_s = pod.pod.standing.tripped_at_s
                    assert tripped_at_s is not None
                    assert all(at_s <= tripped_at_s for at_s in late)
            assert eventually(lambda: record_of(server), "it is recorded").reason == "sent to a frozen one"

"""The server is SIGKILLed: with all its data lost, and with an append-only file that it comes back from."""

from __future__ import annotations

from pathlib import Path

from skillbus.core.latch import State
from tests.pods import FAST, FLEET, GROUP, WatchedPod, arm, eventually, order, own_server, record_of
from tests.servers import RawClient


def test_a_server_that_lost_everything(tmp_path: Path) -> None:
    """Who was stopped writes the record back; who was not holds, for nothing is armed; armed, fresh pods adopt it."""
    with own_server(tmp_path) as server:
        stopped = WatchedPod(server, tmp_path, "one", groups=("eu",), **FAST)
        other = WatchedPod(server, tmp_path, "two", **FAST)
        with stopped, other:
            stopped.until_works()
            other.until_works()
            order(server, GROUP, "only them")
            stopped.until_latched()
            server.restart_empty()
            record = eventually(lambda: record_of(server, GROUP), "the stopped pod writes it back")
            assert record.reason == "only them"
            other.until(lambda: "is not armed" in other.why, "the other one holds")
            assert other.state is State.HOLDING
            fresh = WatchedPod(server, tmp_path, "three", groups=("eu",), **FAST)
            apart = WatchedPod(server, tmp_path, "four", **FAST)
            with fresh, apart:
                apart.until(lambda: "is not armed" in apart.why, "a fresh one holds")
                assert apart.works_count == 0
                arm(server)
                fresh.until_latched()
                apart.until_works()
                other.until_works()
                assert fresh.works_count == 0
                assert "only them" in fresh.why
            assert stopped.state is State.STOPPED


def test_a_server_that_comes_back_with_its_data(tmp_path: Path) -> None:
    """Running pods hold and run again; a kill that was recorded before they were back is obeyed without its message."""
    with own_server(tmp_path) as server, WatchedPod(server, tmp_path, **FAST) as pod:
        pod.until_works()
        server.kill()
        pod.until_state(State.HOLDING)
        server.start()
        pod.until_works()
        server.kill()
        server.start()
        with RawClient(server.port) as client:
            client.call("SETNX", FLEET.killed_key, "written in the gap")
        pod.until_latched()
        assert "written in the gap" in pod.why
        tripped_at_s = pod.pod.standing.tripped_at_s
        assert tripped_at_s is not None
        assert max(pod.worker.changes) <= tripped_at_s


def test_a_kill_survives_server_and_pods(tmp_path: Path) -> None:
    """Heard as a bare PUBLISH, recorded by a pod, server and pod both SIGKILLed or gone: a restart stays stopped."""
    with own_server(tmp_path) as server:
        with WatchedPod(server, tmp_path, **FAST) as pod:
            pod.until_works()
            server.publish(FLEET.kill_channel, "leaked")
            eventually(lambda: record_of(server), "it is recorded")
            server.kill()
        server.start()
        with WatchedPod(server, tmp_path, "another", **FAST) as another:
            another.until_latched()
            assert another.works_count == 0

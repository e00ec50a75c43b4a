"""A kill and its reset, both behind a pod's back: it has missed a kill, and stops."""

from __future__ import annotations

from pathlib import Path

from skillbus.core.latch import CauseKind, State
from tests.pods import FAST, GROUP, Path2Redis, WatchedPod, eventually, order, own_server, record_of, reset


def test_a_pod_cut_off_over_kill_and_reset(tmp_path: Path) -> None:
    """Back on the network it finds a moved epoch: latched, cause `missed`, no record, no tombstone, until a restart."""
    with own_server(tmp_path) as server, Path2Redis(server) as path:
        for scope, groups in ((GROUP, ("eu",)), (GROUP, ("eu", "us"))):
            with WatchedPod(path.url, tmp_path, groups=groups, **FAST) as pod:
                pod.until_works()
                path.cuts = True
                pod.until_state(State.HOLDING)
                count = pod.works_count
                order(server, scope)
                reset(server, scope)
                path.tear()
                path.cuts = False
                pod.until_latched()
                assert pod.kinds() == {CauseKind.MISSED}
                assert pod.works_count == count
                assert "a kill was missed" in pod.why
                assert pod.tombstones() == []
                assert record_of(server, scope) is None
            with WatchedPod(path.url, tmp_path, groups=groups, **FAST) as again:
                again.until_works()


def test_a_reset_of_another_scope_is_not_missed(tmp_path: Path) -> None:
    """The epoch of a scope that it does not belong to means nothing to a pod."""
    with own_server(tmp_path) as server, WatchedPod(server, tmp_path, groups=("us",), **FAST) as pod:
        pod.until_works()
        order(server, GROUP)
        reset(server, GROUP)
        lease_ends_at_s = pod.pod.switch.lease_ends_at_s
        eventually(lambda: pod.pod.switch.lease_ends_at_s > lease_ends_at_s + 0.5, "it reads on")
        assert not pod.was_ever_latched()

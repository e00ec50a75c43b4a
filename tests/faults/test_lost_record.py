"""A record that is gone is not a reset: the epoch alone tells the two apart (PROTOCOL.md §4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from skillbus.core.latch import State
from tests.pods import (
    FAST,
    FLEET,
    GROUP,
    PROD,
    Path2Redis,
    WatchedPod,
    arm,
    eventually,
    evidence_of,
    order,
    own_server,
    record_of,
    reset,
)
from tests.servers import RealServer

LOSSES = {
    "DEL": [["DEL", FLEET.killed_key]],
    "FLUSHALL": [["FLUSHALL"]],
    "eviction of everything": [["DEL", FLEET.killed_key, FLEET.epoch_key, PROD.roster_key, PROD.pod_key("one")]],
    "an expiry": [["PEXPIRE", FLEET.killed_key, "1"]],
    "RENAME": [["RENAME", FLEET.killed_key, "elsewhere"]],
    "DEL, and an epoch that went back": [["SET", FLEET.epoch_key, "0"], ["DEL", FLEET.killed_key]],
}


def beats_on(server: RealServer, count: int = 3) -> None:
    """Wait until the pod has beaten so many times more: what it would do, it has done by then."""
    for _ in range(count):
        last_ms = max(beat.beat_at_ms for beat in evidence_of(server))
        eventually(lambda: max(b.beat_at_ms for b in evidence_of(server)) > last_ms, "it beats")  # noqa: B023


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_record_comes_back(redis_server: RealServer, tmp_path: Path, loss: str) -> None:
    """Whatever took it, the pod that obeys it writes it back, unchanged, and stays stopped."""
    redis_server.cli("SET", FLEET.epoch_key, 1000)
    with WatchedPod(redis_server, tmp_path, **FAST) as pod:
        pod.until_works()
        order(redis_server, reason="still wanted")
        pod.until(lambda: "(not recorded yet)" not in pod.why and pod.state is State.STOPPED, "it obeys the record")
        count = pod.works_count
        for words in LOSSES[loss]:
            redis_server.cli(*words)
        eventually(lambda: redis_server.cli("TTL", FLEET.killed_key) == -1, "it comes back, for good")
        record = record_of(redis_server)
        assert record is not None
        assert (record.reason, record.id) == ("still wanted", "r1")
        beats_on(redis_server, 1)
        assert (pod.state, pod.works_count) == (State.STOPPED, count)


def test_a_reset_is_not_a_loss(redis_server: RealServer, tmp_path: Path) -> None:
    """After a reset the record does not come back, whoever deletes it again; the pod stays stopped until a restart."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, **FAST) as pod:
        pod.until_works()
        order(redis_server)
        pod.until_latched()
        eventually(pod.tombstones, "there is a tombstone")
        pod.until(lambda: "not recorded yet" not in pod.why, "it knows the epoch of its kill")
        reset(redis_server)
        pod.until(lambda: "reset, waits for restart" in pod.why, "it sees the reset")
        redis_server.cli("DEL", FLEET.killed_key)
        beats_on(redis_server)
        assert record_of(redis_server) is None
        assert pod.state is State.STOPPED
        eventually(lambda: not pod.tombstones(), "the tombstone is gone")
    with WatchedPod(redis_server, tmp_path, **FAST) as again:
        again.until_works()
        assert not again.was_ever_latched()


def test_a_late_retry_never_undoes_a_reset(tmp_path: Path) -> None:
    """A pod that could not record what it heard, and is cut off over the reset, gives its attempt up."""
    with own_server(tmp_path) as server, Path2Redis(server) as path, WatchedPod(path.url, tmp_path, **FAST) as pod:
        pod.until_works()
        server.cli("CONFIG", "SET", "min-replicas-to-write", 1)
        server.publish(FLEET.kill_channel, "heard, and not recorded")
        pod.until_latched()
        pod.until(lambda: all(o.epoch is not None for o in pod.pod.switch.memory.obeyed.values()), "a refused attempt")
        path.cuts = True
        server.cli("CONFIG", "SET", "min-replicas-to-write", 0)
        server.cli("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
        assert record_of(server) is None
        reset(server)
        path.tear()
        path.cuts = False
        pod.until(lambda: "reset, waits for restart" in pod.why, "it sees the reset")
        beats_on(server)
        assert record_of(server) is None
        eventually(lambda: not pod.tombstones(), "the tombstone is gone")
        assert pod.state is State.STOPPED


def test_a_tombstone_restores_what_redis_lost(redis_server: RealServer, tmp_path: Path) -> None:
    """A pod killed in an earlier life, started against an empty Redis: stopped, the record is back; reset, it runs."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, **FAST) as pod:
        pod.until_works()
        order(redis_server, reason="still wanted")
        pod.until_latched()
        eventually(pod.tombstones, "there is a tombstone")
    redis_server.cli("FLUSHALL")
    with WatchedPod(redis_server, tmp_path, **FAST) as pod:
        pod.until_latched()
        assert eventually(lambda: record_of(redis_server), "it is back").reason == "still wanted"
        assert pod.works_count == 0
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, "fresh", **FAST) as fresh:
        fresh.until_latched()
        assert fresh.works_count == 0
    reset(redis_server)
    with WatchedPod(redis_server, tmp_path, **FAST) as pod:
        pod.until_works()
        eventually(lambda: not pod.tombstones(), "the tombstone is gone")


def test_the_scopes_are_reset_one_by_one(redis_server: RealServer, tmp_path: Path) -> None:
    """Killed as a fleet, as a group and alone: a reset of one leaves the others, after a restart too."""
    arm(redis_server)
    given = FAST | {"groups": ("eu",)}
    scopes = (FLEET, GROUP, PROD.pod("one"))
    with WatchedPod(redis_server, tmp_path, **given) as pod:
        pod.until_works()
        for scope in scopes:
            order(redis_server, scope, f"kill of {scope}", record_id=str(scope))
        pod.until(lambda: len(pod.pod.switch.memory.obeyed) == 3, "it obeys all three")
        eventually(lambda: len(pod.tombstones()) == 3, "a tombstone for each")
    for left, scope in enumerate(scopes):
        reset(redis_server, scope)
        with WatchedPod(redis_server, tmp_path, **given) as pod:
            if left < 2:
                pod.until_latched()
                pod.until(lambda: len(pod.pod.switch.memory.obeyed) == 2 - left, "it obeys the rest")  # noqa: B023
                assert (pod.works_count, f'"kill of {scope}"' in pod.why) == (0, False)
            else:
                pod.until_works()
            eventually(lambda: len(pod.tombstones()) == 2 - left, "a tombstone less")  # noqa: B023
        assert [record_of(redis_server, other) is not None for other in scopes] == [n > left for n in range(3)]

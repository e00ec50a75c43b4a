"""A server that takes no writes still spreads an order: the pods stop, the operator is told, the record comes later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from skillbus.control.kill import Kill, KillReport
from skillbus.core.orders import KillOrder
from skillbus.errors import BusNotReady
from skillbus.settings import Settings
from skillbus.wiring import operator_bus
from tests.pods import FAST, FLEET, WatchedPod, eventually, evidence_of, own_server, record_of
from tests.servers import RealServer, Refused

RDB = ("save 3600 1000000", "stop-writes-on-bgsave-error yes")


def out_of_memory(server: RealServer) -> Callable[[], object]:
    """maxmemory without eviction."""
    server.cli("CONFIG", "SET", "maxmemory", 1)
    return lambda: server.cli("CONFIG", "SET", "maxmemory", 0)


def read_only(server: RealServer) -> Callable[[], object]:
    """It was demoted: a replica of nobody who answers."""
    server.cli("REPLICAOF", "127.0.0.1", 1)
    return lambda: server.cli("REPLICAOF", "NO", "ONE")


def short_of_replicas(server: RealServer) -> Callable[[], object]:
    """NOREPLICAS."""
    server.cli("CONFIG", "SET", "min-replicas-to-write", 1)
    return lambda: server.cli("CONFIG", "SET", "min-replicas-to-write", 0)


def unable_to_save(server: RealServer) -> Callable[[], object]:
    """MISCONF: the snapshot cannot be put in place, for a folder is in its way."""
    (server.folder / "data" / "dump.rdb" / "in the way").mkdir(parents=True)
    server.cli("BGSAVE")

    def refuses() -> bool:
        try:
            server.cli("SET", "probe", 1)
        except Refused as refused:
            return str(refused).startswith("MISCONF")
        return False

    eventually(refuses, "the snapshot has failed")
    return lambda: server.cli("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")


async def give(server: RealServer) -> KillReport:
    """A kill as the command line gives it."""
    async with operator_bus(Settings.load(redis_url=server.url, fleet="prod")) as bus:
        return await Kill(bus, FLEET, KillOrder(by="test", via="cli", reason="no room"), timeout_s=0.5).give()


@pytest.mark.parametrize("refuse", [out_of_memory, read_only, short_of_replicas, unable_to_save])
def test_published_not_recorded(tmp_path: Path, refuse: Callable[[RealServer], Callable[[], object]]) -> None:
    """The answer is `not recorded`, the pods have stopped and say that nothing is recorded; then they record it."""
    config = RDB if refuse is unable_to_save else ()
    with own_server(tmp_path, *config) as server, WatchedPod(server, tmp_path, **FAST) as pod:
        pod.until_works()
        eventually(lambda: evidence_of(server), "it left evidence")
        mend = refuse(server)
        report = asyncio.run(give(server))
        pod.until_latched()
        eventually(pod.tombstones, "there is a tombstone")
        assert isinstance(report.answers.recorded, BusNotReady)
        assert report.answers.receivers == 1
        assert not report.stands
        assert report.certificate is not None
        assert not report.certificate.complete, "a pod that cannot write its evidence is not proved stopped"
        assert "(not recorded yet)" in pod.why
        tripped_at_s = pod.pod.standing.tripped_at_s
        assert tripped_at_s is not None
        assert max(pod.worker.changes) <= tripped_at_s
        mend()
        record = eventually(lambda: record_of(server), "the pod records it")
        assert (record.reason, record.heard_by, record.id) == ("no room", "one", report.record.id)
        pod.until(lambda: "(not recorded yet)" not in pod.why, "it knows")


def test_a_demoted_server_is_no_good_read(tmp_path: Path) -> None:
    """Its answers license nobody: the pod holds within the lease, and runs again with a master."""
    with own_server(tmp_path) as server, WatchedPod(server, tmp_path, **FAST) as pod:
        pod.until_works()
        mend = read_only(server)
        pod.until(lambda: "read-only" in pod.why or "is no master" in pod.why, "it holds")
        mend()
        pod.until_works()


def test_out_of_memory_spoils_the_writes_not_the_read(tmp_path: Path) -> None:
    """A pod works on while the server reads and refuses to write: that is no kill."""
    with own_server(tmp_path) as server, WatchedPod(server, tmp_path, **FAST) as pod:
        pod.until_works()
        out_of_memory(server)
        lease_ends_at_s = pod.pod.switch.lease_ends_at_s
        pod.until(lambda: pod.pod.switch.lease_ends_at_s > lease_ends_at_s + 1, "its lease is renewed all the same")
        pod.until_works()

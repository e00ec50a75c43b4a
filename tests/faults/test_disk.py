"""The disk under the tombstones: not writable at the start, full or gone while latching."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skillbus.errors import DiskRefused
from tests.pods import FAST, FLEET, WatchedPod, arm, eventually, evidence_of
from tests.servers import RealServer


def test_a_pod_that_could_not_remember_does_not_start(redis_server: RealServer, tmp_path: Path) -> None:
    """One sentence that names the folder and the setting; nothing was started."""
    (tmp_path / "one").write_text("a file where the state folder should be")
    pod = WatchedPod(redis_server, tmp_path, **FAST)
    with pytest.raises(DiskRefused, match=r"cannot hold tombstones \(.*\): make it writable .* SKILLBUS_STATE_DIR"):
        pod.start()
    assert pod.pod.wait(0)
    assert not pod.pod.is_running()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root alone; the folder that is gone is tried all the same")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def stops_all_the_same(server: RealServer, pod: WatchedPod) -> None:
    """Killed with a disk that takes nothing: stopped, recorded, and its evidence says that the latch is not durable."""
    server.publish(FLEET.kill_channel, "no room")
    pod.until_latched()
    eventually(lambda: server.cli("EXISTS", FLEET.killed_key), "the record does not wait for the disk")
    eventually(lambda: not evidence_of(server)[0].latch_durable, "its evidence says so")
    assert pod.tombstones() == []


def is_durable_now(server: RealServer, pod: WatchedPod) -> None:
    """The tombstone is there, and the evidence says so."""
    eventually(pod.tombstones, "the tombstone is written")
    eventually(lambda: evidence_of(server)[0].latch_durable, "its evidence says so")


def test_a_full_disk_delays_no_stop(redis_server: RealServer, tiny_disk: Path) -> None:
    """ENOSPC while latching; the tombstone is written once there is room."""
    arm(redis_server)
    with WatchedPod(redis_server, tiny_disk, **FAST) as pod:
        pod.until_works()
        filler = tiny_disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        stops_all_the_same(redis_server, pod)
        filler.unlink()
        is_durable_now(redis_server, pod)


def test_a_folder_that_is_gone_delays_no_stop(redis_server: RealServer, tmp_path: Path) -> None:
    """Somebody removed the state folder while the pod ran; the tombstone is written once it is there again."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, **FAST) as pod:
        pod.until_works()
        pod.folder.rmdir()
        stops_all_the_same(redis_server, pod)
        pod.folder.mkdir()
        is_durable_now(redis_server, pod)


def test_a_tombstone_that_cannot_be_read_still_stops(redis_server: RealServer, tmp_path: Path) -> None:
    """Torn or foreign bytes say that there was a kill: stopped, and the record is written."""
    arm(redis_server)
    folder = tmp_path / "one" / "tombstones"
    folder.mkdir(parents=True)
    (folder / "prod~one~fleet~.json").write_bytes(b'{"epoch": 1, "rec\xff')
    with WatchedPod(redis_server, tmp_path, **FAST) as pod:
        pod.until_latched()
        assert "a tombstone that cannot be read" in pod.why
        eventually(lambda: redis_server.cli("EXISTS", FLEET.killed_key), "it is recorded")
        assert pod.works_count == 0

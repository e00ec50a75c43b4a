"""Tombstones: atomic, one per scope, and garbage still says that there was a kill."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillbus.core.latch import Obeyed, State
from skillbus.core.orders import KillOrder, KillRecord
from skillbus.core.scope import Fleet
from skillbus.errors import DiskRefused
from skillbus.pod.tombstone import Tombstones
from tests import profiles
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import FLEET, GROUP, PROD, Rig, endless

assert profiles

Make = Callable[..., Rig]
OWN = PROD.pod("web-1")
SCOPES = (FLEET, GROUP, OWN)
RECORD = KillRecord(id="k1", reason="grüße", by="oncall")


def at(folder: Path, pod_id: str = "web-1") -> Tombstones:
    """The tombstones of a pod, ready."""
    tombstones = Tombstones(folder, pod_id)
    tombstones.prepare()
    return tombstones


def names(folder: Path) -> list[str]:
    """What lies in the folder."""
    return sorted(path.name for path in (folder / "tombstones").iterdir())


@pytest.mark.parametrize("epoch", [None, 0, 7, 1_700_000_000_000])
def test_what_is_kept_is_found(tmp_path: Path, epoch: int | None) -> None:
    """The scope, the record and the epoch; not recorded, as far as a new life knows."""
    at(tmp_path).keep(Obeyed(GROUP, RECORD, epoch))
    assert at(tmp_path).load(SCOPES) == [Obeyed(GROUP, RECORD, epoch, recorded=False)]


def test_each_scope_has_its_own(tmp_path: Path) -> None:
    """One file per scope, named by fleet, pod and scope."""
    tombstones = at(tmp_path)
    for scope in SCOPES:
        tombstones.keep(Obeyed(scope, RECORD, 7))
    assert names(tmp_path) == ["prod~web-1~fleet~.json", "prod~web-1~group~eu.json", "prod~web-1~pod~web-1.json"]
    tombstones.drop(FLEET)
    assert [found.scope for found in tombstones.load(SCOPES)] == [GROUP, OWN]
    tombstones.drop(FLEET)


def test_pods_and_fleets_share_a_folder(tmp_path: Path) -> None:
    """Nobody finds another's tombstone."""
    at(tmp_path).keep(Obeyed(FLEET, RECORD, 7))
    assert at(tmp_path, "web-2").load((FLEET, PROD.pod("web-2"))) == []
    assert at(tmp_path).load((Fleet("dev").scope,)) == []
    assert at(tmp_path).load(()) == []


def test_the_longest_names_fit(tmp_path: Path) -> None:
    """64 letters each for fleet, pod and group make a file name that Linux takes."""
    fleet, pod_id = Fleet("f" * 64), "p" * 64
    tombstones = at(tmp_path, pod_id)
    scopes = fleet.scopes_of(pod_id, ("g" * 64,))
    for scope in scopes:
        tombstones.keep(Obeyed(scope, RECORD, 7))
    assert len(tombstones.load(scopes)) == 3


GARBAGE = [
    b"",
    b"\x00" * 100,
    b"\xff\xfe",
    b"{",
    b"{}",
    b"[]",
    b"null",
    b'{"epoch": 7}',
    b'{"epoch": "7", "record": "{}"}',
    b'{"epoch": true, "record": "{}"}',
    b'{"epoch": 1.5, "record": "{}"}',
    b'{"epoch": 7, "record": 9}',
    b'{"epoch": 7, "record": "\\ud800"}',
    b'{"\\ud800": "\\ud800"}',
    b"[" * 100_000,
    b'{"epoch": 7, "record": "cut off',
]


@pytest.mark.parametrize("raw", GARBAGE, ids=lambda raw: f"{raw[:24]!r}x{len(raw)}")
def test_garbage_still_kills(tmp_path: Path, raw: bytes) -> None:
    """Whatever the file holds: there was a kill, of an unknown epoch, so nothing but an operator ends it."""
    tombstones = at(tmp_path)
    (tmp_path / "tombstones" / "prod~web-1~fleet~.json").write_bytes(raw)
    (found,) = tombstones.load(SCOPES)
    assert (found.scope, found.epoch) == (FLEET, None)
    assert found.record.reason.startswith("a tombstone that cannot be read")
    assert len(found.record.to_bytes()) <= 1024


def test_a_folder_in_its_place_still_kills(tmp_path: Path) -> None:
    """A file that cannot be opened is there, too."""
    tombstones = at(tmp_path)
    (tmp_path / "tombstones" / "prod~web-1~fleet~.json").mkdir()
    assert [found.epoch for found in tombstones.load(SCOPES)] == [None]


@given(payload=st.binary(max_size=200))
@settings(max_examples=40)
def test_any_order_makes_a_tombstone(tmp_path_factory: pytest.TempPathFactory, payload: bytes) -> None:
    """What was heard, whatever its bytes, is kept and found under the same id."""
    tombstones = at(tmp_path_factory.getbasetemp() / "any")
    record = KillOrder.parse(payload).record(fallback_id="made", now_ms=0)
    tombstones.keep(Obeyed(FLEET, record, 7))
    assert [found.record.id for found in tombstones.load(SCOPES)] == [record.id]


def test_a_crash_in_the_midst_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written beside, fsynced, then renamed: until then the old one stands, and nothing is left of the new one."""
    tombstones = at(tmp_path)
    tombstones.keep(Obeyed(FLEET, RECORD, 7))
    steps: list[str] = []

    def failing(descriptor: int) -> None:
        steps.append("fsync")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="No space"):
            tombstones.keep(Obeyed(FLEET, KillRecord(id="k2"), 9))
    assert steps == ["fsync"]
    assert tombstones.load(SCOPES) == [Obeyed(FLEET, RECORD, 7, recorded=False)]
    assert names(tmp_path) == ["prod~web-1~fleet~.json"]


def test_it_is_on_the_disk_before_it_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync of the file, rename, fsync of the folder."""
    tombstones = at(tmp_path)
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file"
        steps.append(f"fsync {kind}")
        fsync(descriptor)

    def noting_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    tombstones.keep(Obeyed(FLEET, RECORD, 7))
    assert steps == ["fsync file", "rename", "fsync folder"]


def test_it_says_what_it_is_for(tmp_path: Path) -> None:
    """A person who finds the file can read it."""
    at(tmp_path).keep(Obeyed(GROUP, RECORD, 7))
    fields = json.loads((tmp_path / "tombstones" / "prod~web-1~group~eu.json").read_bytes())
    assert (fields["fleet"], fields["scope"], fields["epoch"]) == ("prod", "group:eu", 7)
    assert KillRecord.parse(fields["record"].encode()) == RECORD


@pytest.mark.parametrize("kind", ["file", "proc", "dangling"])
def test_a_folder_that_cannot_remember_is_refused(tmp_path: Path, kind: str) -> None:
    """A pod that cannot remember a kill does not start; the text says what to do."""
    folder = Path("/proc/skillbus") if kind == "proc" else tmp_path / "state"
    if kind == "file":
        folder.write_text("")
    elif kind == "dangling":
        folder.symlink_to("/proc/nowhere/at/all")
    with pytest.raises(DiskRefused, match="SKILLBUS_STATE_DIR"):
        Tombstones(folder, "web-1").prepare()


def test_preparing_leaves_nothing(tmp_path: Path) -> None:
    """The probe is gone, and the folder is ours alone."""
    at(tmp_path / "deep" / "state")
    assert names(tmp_path / "deep" / "state") == []
    assert (tmp_path / "deep" / "state" / "tombstones").stat().st_mode & 0o777 == 0o700


def test_a_pod_obeys_garbage(rig: Make, store: MemoryStore, tmp_path: Path) -> None:
    """Started over a tombstone that cannot be read: stopped, and the kill is in the store for everybody."""
    folder = tmp_path / "web-1" / "tombstones"
    folder.mkdir(parents=True)
    (folder / "prod~web-1~pod~web-1.json").write_bytes(b"\xff")
    store.reset(OWN)

    async def main() -> None:
        async with rig() as pod:
            assert pod.stands(State.STOPPED)
            assert pod.work.began_at_s == []
            assert store.record(OWN) is not None

    asyncio.run(main())


def test_a_full_disk_delays_no_stop(rig: Make, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latch comes first and the record too; the evidence says that the latch is not durable, until it is."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def main() -> None:
        async with rig(endless) as pod:
            await pod.until(4.1)
            with monkeypatch.context() as patch:
                patch.setattr(Tombstones, "keep", full)
                store.publish(FLEET.kill_channel, b"stop")
                await pod.until(6.5)
                assert pod.stands(State.STOPPED)
                assert store.record(FLEET) is not None
                assert not pod.evidence.latch_durable
            await pod.until(10.0)
            assert pod.evidence.latch_durable
            assert pod.tombstones == ["prod~web-1~fleet~.json"]

    asyncio.run(main())

"""Disks that refuse, and links that somebody planted."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skillbus.core.outcome import PassResult
from skillbus.skills import tree
from skillbus.skills.reconciler import SkillsReconciler
from skillbus.skills.root import open_root
from tests.fakes.clock import FakeClock
from tests.integration.skills.world import (
    FakeChild,
    ScriptedCheckpoint,
    World,
    counts,
    everything,
    skill_text,
)

pytestmark = pytest.mark.usefixtures("in_process")

NOBODY = 65534


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A file system of 1 MiB at ``folder``."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(world: World) -> None:
    """One sentence with what to do, the old skill whole, nothing left behind, and the next pass comes to the end."""
    world.skill("a", files={"small": b"x"})
    world.skill("b")
    world.list("./skills/a", "./skills/b")
    with mounted(world.root):
        assert counts(world.run()) == {"added": 2}
        before = world.visible()
        world.skill("a", "new", files={"big": os.urandom(3 * 1024 * 1024)})
        result = world.run()
        assert len(result.errors) == 1
        assert "full: free some space" in result.errors[0]
        assert world.visible() == before
        world.skill("a", "newer", files={"big": b"y"})
        assert counts(world.run()) == {"updated": 1, "unchanged": 1}
        assert list((world.root / ".skillbus/staging").iterdir()) == []


def test_a_read_only_root(world: World) -> None:
    """One sentence; other roots are served all the same."""
    world.skill("a")
    world.list("./skills/a")
    other = world.folder / "other"
    with mounted(world.root):
        world.run()
        world.skill("a", "new")
        subprocess.run(["mount", "-o", "remount,ro", str(world.root)], check=True)
        result = world.run(targets=(world.root, other))
        assert len(result.errors) == 1
        assert "read-only" in result.errors[0]
        assert counts(result) == {"added": 1}
        assert (other / "a/SKILL.md").read_bytes() == skill_text("a", "new")


@pytest.mark.parametrize("what", ["link", "file", "below-a-file", "dangling"])
def test_a_root_that_is_no_folder(world: World, what: str) -> None:
    """A link is not followed, a file not replaced: one sentence that says so."""
    world.skill("a")
    world.list("./skills/a")
    real = world.folder / "real"
    real.mkdir()
    root = world.root
    if what == "link":
        root.symlink_to(real)
    elif what == "dangling":
        root.symlink_to(world.folder / "nowhere")
    elif what == "file":
        root.write_text("x")
    else:
        (world.folder / "file").write_text("x")
        root = world.folder / "file/skills"
    result = world.run(targets=(root,))
    assert counts(result) == {}
    assert len(result.errors) == 1
    assert str(root) in result.errors[0]
    assert list(real.iterdir()) == []
    assert not (world.folder / "nowhere").exists()


@pytest.mark.parametrize(
    "name", [".skillbus", ".skillbus/staging", ".skillbus/undo", ".skillbus/flock", "skillbus.lock"]
)
def test_a_planted_link_is_not_written_through(world: World, name: str) -> None:
    """A repository may bring links in its skills folder: nothing behind them changes, and the pass says why."""
    world.skill("a")
    world.list("./skills/a")
    outside = world.folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    target = outside / "precious" if name.endswith(("flock", "lock")) else outside
    link = world.root / name
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    before = everything(outside)
    result = world.run()
    assert counts(result) == {}
    assert len(result.errors) == 1
    assert everything(outside) == before


def test_a_planted_journal_or_lock_reaches_nothing_outside(world: World) -> None:
    """Names in them are checked: what they say cannot move or remove anything but a skill."""
    (world.root / ".skillbus/undo").mkdir(parents=True)
    (world.folder / "victim").mkdir()
    (world.root / ".skillbus/undo/journal").write_text('{"name": "../victim", "slot": "1", "new": null, "old": 1}')
    world.skill("a")
    world.list("./skills/a")
    result = world.run()
    assert "journal" in result.errors[0]
    assert (world.folder / "victim").is_dir()


@pytest.fixture
def plain_user(in_memory: Path) -> Iterator[World]:
    """A world of a user for whom permissions count, and who we are meanwhile."""
    if os.geteuid() != 0:
        yield World(in_memory)
        return
    warm = World(in_memory / "warm")  # What is imported late may lie where that user cannot read.
    warm.skill("a")
    warm.list("./skills/a")
    warm.run()
    os.chown(in_memory, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        if not os.access(in_memory, os.W_OK, effective_ids=True):
            pytest.skip("this needs a folder that another user can reach")
        yield World(in_memory)
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(("path", "mode"), [("a", 0o555), ("a", 0), ("a/sub", 0o555), ("a/sub", 0), ("a/sub/x", 0)])
def test_a_chmod_in_one_skill_stops_nothing(plain_user: World, path: str, mode: int) -> None:
    """Whatever permission a managed skill lacks, it is replaced like any other that was changed."""
    world = plain_user
    for text in ("one", "two"):
        for name in ("a", "b"):
            world.skill(name, text, {"sub/x": b"1"})
        world.list("./skills/a", "./skills/b")
        if text == "one":
            world.run()
            (world.root / "a/sub/added").write_bytes(b"")  # So it is deleted, and not kept.
            (world.root / path).chmod(mode)
    assert (world.run().errors, world.run().errors) == ((), ())
    for name in ("a", "b"):
        assert (world.root / name / "SKILL.md").read_bytes() == skill_text(name, "two")
    assert list((world.root / ".skillbus/staging").iterdir()) == []


def test_a_permission_that_one_skill_lacks_costs_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be moved is told of, and the others of its batch are changed."""
    for text in ("one", "two"):
        for name in ("a", "b"):
            world.skill(name, text)
        world.list("./skills/a", "./skills/b")
        if text == "one":
            world.run()
    real = tree.exchange

    def refusing(folder: int, name: str, *rest: Any) -> bool:
        if name == "a":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(folder, name, *rest)

    monkeypatch.setattr(tree, "exchange", refusing)
    result = world.run()
    assert counts(result) == {"updated": 1}
    assert len(result.errors) == 1
    assert "permission is missing" in result.errors[0]
    assert (world.root / "a/SKILL.md").read_bytes() == skill_text("a", "one")


def test_what_cannot_be_swept_is_told_and_stands_in_nobodys_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tree that cannot be deleted: an error, the others are gone, and the pass works beside it."""
    world.skill("a")
    world.list("./skills/a")
    world.run()
    for slot in ("1", "2"):
        (world.root / ".skillbus/staging" / slot).mkdir()
    stuck = (world.root / ".skillbus/staging/1").stat().st_ino
    world.skill("a", "new")
    real = tree.remove

    def refusing(parent: int, name: str) -> None:
        if tree.inode(parent, name) == stuck:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(parent, name)

    monkeypatch.setattr(tree, "remove", refusing)
    result = world.run()
    assert counts(result) == {"updated": 1}
    assert result.errors
    assert all("swept" in error for error in result.errors)
    assert [path.stat().st_ino for path in (world.root / ".skillbus/staging").iterdir()] == [stuck]


def test_a_root_in_which_another_pass_hangs_is_left_for_later(world: World) -> None:
    """It is told at once that it waits, and after a minute that it does not any more; other roots are served."""
    world.skill("a")
    world.list("./skills/a")
    world.run()
    other = open_root(world.root, create=True)
    assert other is not None
    assert other.try_flock()
    told: list[str] = []

    async def waiting() -> PassResult:
        clock = FakeClock()
        options = world.options(targets=(world.root, world.folder / "second"))
        task = asyncio.create_task(SkillsReconciler(options, clock, told.append).reconcile(ScriptedCheckpoint()))
        while not any("waits" in sentence for sentence in told):
            await asyncio.sleep(0.01)
        for _ in range(61):
            await clock.advance(1.0)
        return await asyncio.wait_for(task, 10)

    try:
        result = asyncio.run(waiting())
    finally:
        other.close()
    assert [sentence for sentence in told if "waits" in sentence] == [f"waits for another pass: {world.root}"]
    assert result.errors == (f"another pass works in {world.root}: it will be tried again",)
    assert counts(result) == {"added": 1}


def test_a_hard_link_of_a_backup_is_no_drift(world: World) -> None:
    """What is placed may have other names elsewhere: the bytes are what counts."""
    world.skill("a")
    world.list("./skills/a")
    world.run()
    os.link(world.root / "a/SKILL.md", world.folder / "backup")
    assert counts(world.run()) == {"unchanged": 1}


def test_a_staging_path_that_leads_elsewhere_is_not_written_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own folder is swapped for a link right before the child opens it: the child refuses, and nothing is there."""
    world.skill("a")
    world.list("./skills/a")
    outside, own = world.folder / "outside", world.root / ".skillbus"
    (outside / "staging").mkdir(parents=True)
    real = FakeChild.ask

    async def ask(self: FakeChild, job: dict[str, Any], *rest: Any) -> dict[str, Any]:
        if job["job"] == "fetch":
            own.rename(world.root / ".moved")
            own.symlink_to(outside)
        return await real(self, job, *rest)

    monkeypatch.setattr(FakeChild, "ask", ask)
    result = world.run()
    assert counts(result) == {}
    assert "no longer the staging folder" in result.errors[0]
    assert list((outside / "staging").iterdir()) == []

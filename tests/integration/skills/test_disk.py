"""Disks that refuse, and links that somebody planted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.skills.world import World, counts, everything, skill_text

pytestmark = pytest.mark.usefixtures("in_process")


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

"""Whole passes: what is placed, updated, repaired, removed, kept and refused."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path

import pytest

from skillbus.clock import BootClock
from skillbus.skills.reconciler import SkillsReconciler
from tests.integration.skills.world import ScriptedCheckpoint, World, counts, everything, skill_text, visible

pytestmark = pytest.mark.usefixtures("in_process")


def test_the_life_of_a_skill(world: World) -> None:
    """Added, unchanged, updated, repaired, removed: each told once, each visible, receipts in step."""
    folder = world.skill("pdf", files={"run.sh": b"#!/bin/sh\n", "ref/a.md": b"a"})
    world.list("./skills/pdf")
    assert counts(world.run()) == {"added": 1}
    assert set(world.visible()) == {"pdf/SKILL.md", "pdf/run.sh*", "pdf/ref/a.md", "skillbus.lock"}
    assert counts(world.run()) == {"unchanged": 1}

    (folder / "SKILL.md").write_bytes(skill_text("pdf", "new"))
    (folder / "ref/a.md").unlink()
    assert counts(world.run()) == {"updated": 1}
    assert world.visible()["pdf/SKILL.md"] == skill_text("pdf", "new")
    assert "pdf/ref/a.md" not in world.visible()

    (world.root / "pdf/SKILL.md").write_text("edited")
    assert counts(world.run()) == {"repaired": 1}
    assert world.visible()["pdf/SKILL.md"] == skill_text("pdf", "new")

    world.list()
    assert counts(world.run()) == {"removed": 1}
    assert set(world.visible()) == {"skillbus.lock"}
    assert json.loads(world.visible()["skillbus.lock"])["skills"] == {}


@pytest.mark.parametrize("how", ["bit", "extra", "gone", "link", "file", "pipe", "deep"])
def test_every_kind_of_drift_is_repaired(world: World, how: str) -> None:
    """Whatever became of a managed skill, it is put back whole, and what a link points at stays as it is."""
    world.skill("pdf", files={"run.sh": b"#!/bin/sh\n"})
    world.list("./skills/pdf")
    world.run()
    before = world.visible()
    placed = world.root / "pdf"
    outside = world.folder / "outside"
    outside.mkdir()
    (outside / "SKILL.md").write_text("mine")
    if how == "bit":
        (placed / "run.sh").chmod(0o644)
    elif how == "extra":
        (placed / "extra").write_text("x")
    elif how == "pipe":
        os.mkfifo(placed / "pipe")
    elif how == "deep":
        (placed / "/".join("d" * 40)).mkdir(parents=True)
    else:
        placed.rename(world.folder / "away")
        if how == "link":
            placed.symlink_to(outside)
        elif how == "file":
            placed.write_text("x")
    if how == "deep":  # Empty folders are no content, as in git; one with a file in it is.
        (placed / "/".join("d" * 40) / "f").write_text("x")
    assert counts(world.run()) == {"repaired": 1}
    without_time = {path: data for path, data in world.visible().items() if path != "skillbus.lock"}
    assert without_time == {path: data for path, data in before.items() if path != "skillbus.lock"}
    assert (outside / "SKILL.md").read_text() == "mine"


def test_a_pass_with_nothing_to_change_writes_nothing(world: World) -> None:
    """Not a byte, not a time: inode, size and change time of everything stay, our own folder included."""
    world.skill("pdf")
    world.list("./skills/pdf")
    world.run()
    world.run()
    before = everything(world.root)
    assert counts(world.run()) == {"unchanged": 1}
    assert everything(world.root) == before


def test_nothing_is_made_where_nothing_is_wanted(world: World) -> None:
    """An empty manifest does not even create the root."""
    world.list()
    assert counts(world.run()) == {}
    assert not world.root.exists()


def test_the_users_own_folders_are_left_alone(world: World) -> None:
    """A folder that the lock does not name is reported and stays byte for byte, and others are placed all the same."""
    world.root.mkdir()
    (world.root / "pdf").mkdir()
    (world.root / "pdf/SKILL.md").write_text("---\nname: pdf\nmanaged-by: skillbus\n---\n")
    (world.root / "mine").mkdir()
    (world.root / "mine/notes").write_text("x")
    (world.root / "link").symlink_to("/etc")
    before = everything(world.root / "pdf") | everything(world.root / "mine")
    world.skill("pdf")
    world.skill("other")
    world.list("./skills/pdf", "./skills/other")
    result = world.run()
    assert counts(result) == {"added": 1}
    assert len(result.errors) == 1
    assert "team.yaml, skills[0]" in result.errors[0]
    world.list()
    assert counts(world.run()) == {"removed": 1}
    assert everything(world.root / "pdf") | everything(world.root / "mine") == before
    assert (world.root / "link").is_symlink()


def test_a_failed_source_removes_nothing(world: World) -> None:
    """One manifest that does not load keeps every managed skill; the others' skills are still brought in line."""
    world.skill("a")
    world.skill("b")
    world.list("./skills/a")
    second = world.folder / "second.yaml"
    second.write_text("skills: [{url: ./skills/b}]")
    both = (str(world.manifest), str(second))
    assert counts(world.run(manifests=both)) == {"added": 2}
    second.write_text("skills: [")
    world.skill("a", "new")
    result = world.run(manifests=both)
    assert counts(result) == {"updated": 1}
    assert "second.yaml" in result.errors[0]
    assert (world.root / "b").is_dir()
    second.unlink()
    assert counts(world.run(manifests=both)) == {"unchanged": 1}
    assert (world.root / "b").is_dir()
    second.write_text("skills: []")
    assert counts(world.run(manifests=both)) == {"unchanged": 1, "removed": 1}


def test_a_failed_entry_keeps_its_skill(world: World) -> None:
    """A skill that cannot be read now, or whose entry is bad now, stays as it is; others that went are removed."""
    world.skill("a")
    world.skill("b")
    world.skill("c")
    world.list("./skills/a", "./skills/b", "./skills/c")
    world.run()
    (world.folder / "skills/a/SKILL.md").write_text("no frontmatter")
    world.list("./skills/a", "./skills/b\n    scope: nowhere")
    result = world.run()
    assert counts(result) == {"removed": 1}
    assert len(result.errors) == 2
    assert {path.name for path in world.root.iterdir() if not path.name.startswith((".", "skillbus"))} == {"a", "b"}


def test_two_urls_with_one_name(world: World) -> None:
    """The second is dropped with an error that names both places; a given name tells them apart."""
    world.skill("a")
    (world.folder / "skills/b").mkdir()
    (world.folder / "skills/b/SKILL.md").write_bytes(skill_text("a", "other"))
    world.list("./skills/a", "./skills/b")
    result = world.run()
    assert counts(result) == {"added": 1}
    assert "skills[1]" in result.errors[0]
    assert "skills[0]" in result.errors[0]
    world.list("./skills/a", "./skills/b\n    name: b")
    assert counts(world.run()) == {"unchanged": 1, "added": 1}


def test_a_pinned_digest_must_match(world: World) -> None:
    """A mismatch installs nothing and says which digest came; the right one installs."""
    world.skill("a")
    world.list("./skills/a\n    sha256: " + "f" * 64)
    result = world.run()
    assert counts(result) == {}
    digest = result.errors[0].split("digest ")[1][:64]
    world.list(f"./skills/a\n    sha256: {digest}")
    assert counts(world.run()) == {"added": 1}


def test_scopes_and_several_roots(world: World, tmp_path: Path) -> None:
    """User entries go to every user root, project entries to every project root or nowhere, with a word."""
    world.skill("a")
    world.skill("b")
    world.list("./skills/a", "./skills/b\n    scope: project")
    result = world.run()
    assert counts(result) == {"added": 1}
    assert "project" in result.errors[0]
    roots = (world.root, tmp_path / "two")
    result = world.run(targets=roots, project_targets=(tmp_path / "p",))
    assert counts(result) == {"unchanged": 1, "added": 2}
    assert "b/SKILL.md" in visible(tmp_path / "p")
    assert visible(tmp_path / "two")["a/SKILL.md"] == skill_text("a")


def test_one_root_under_two_names_is_one_root(world: World) -> None:
    """A pass does not wait for itself, nor place twice."""
    world.skill("a")
    world.list("./skills/a")
    (world.folder / "alias").symlink_to(world.folder)
    targets = (world.root, world.folder / "alias/root")
    assert counts(world.run(targets=targets)) == {"added": 1}
    assert counts(world.run(targets=targets)) == {"unchanged": 1}


def test_one_pass_at_a_time_per_root(world: World) -> None:
    """A pass waits, changing nothing, while another has the root; its waiting can be cancelled."""
    world.skill("a")
    world.list("./skills/a")
    world.run()
    world.skill("a", "new")
    before = everything(world.root)

    async def waiting() -> None:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        checkpoint = ScriptedCheckpoint()

        def note() -> None:
            loop.call_soon_threadsafe(asked.set)

        checkpoint.before = note
        task = asyncio.create_task(SkillsReconciler(world.options(), BootClock()).reconcile(checkpoint))
        await asked.wait()
        while checkpoint.calls < 3:
            await asyncio.sleep(0.02)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with open(world.root / ".skillbus/flock", "r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        asyncio.run(waiting())
    assert everything(world.root) == before
    assert counts(world.run()) == {"updated": 1}


@pytest.mark.parametrize(
    "lock", [b"", b"{", b"[]", b'{"v": 2, "skills": {}}', b'{"v": 1, "skills": {"../x": {}}}', b"[" * 9999]
)
def test_a_lock_that_cannot_be_understood_stops_the_root(world: World, lock: bytes) -> None:
    """It is never taken for an empty one: nothing is touched, and the error says what to do."""
    world.skill("a")
    world.list("./skills/a")
    world.run()
    (world.root / "skillbus.lock").write_bytes(lock)
    world.list()
    before = world.visible()
    result = world.run()
    assert counts(result) == {}
    assert "skillbus.lock" in result.errors[0]
    assert world.visible() == before


def test_no_manifest_is_an_error_and_removes_nothing(world: World) -> None:
    """An unset setting is not an empty manifest."""
    world.skill("a")
    world.list("./skills/a")
    world.run()
    result = world.run(manifests=())
    assert "SKILLBUS_SKILLS_MANIFEST" in result.errors[0]
    assert (world.root / "a").is_dir()


def test_links_in_a_source_are_refused(world: World) -> None:
    """A folder source with a link inside gives an error, and nothing of it is placed."""
    folder = world.skill("a")
    (folder / "passwd").symlink_to("/etc/passwd")
    world.list("./skills/a")
    result = world.run()
    assert counts(result) == {}
    assert "link" in result.errors[0]
    assert not (world.root / "a").exists()


def test_warnings_are_kept_apart_from_errors(world: World) -> None:
    """A rule of style does not fail the pass; with strict it does."""
    world.skill("a")
    (world.folder / "skills/a/SKILL.md").write_text("---\nname: Not A Name\n---\n")
    world.list("./skills/a")
    reconciler = SkillsReconciler(world.options(), BootClock())
    result = asyncio.run(reconciler.reconcile(ScriptedCheckpoint()))
    assert counts(result) == {"added": 1}
    assert len(reconciler.warnings) == 2
    assert world.run(strict=True).errors
    assert reconciler.vouched


def test_the_examples_are_good_skills(world: World) -> None:
    """The manifest of examples/ places its four skills, in strict mode and without a warning; a script stays one."""
    manifest = Path(__file__).parents[3] / "examples/manifest.yaml"
    reconciler = SkillsReconciler(world.options(manifests=(str(manifest),), strict=True), BootClock())
    result = asyncio.run(reconciler.reconcile(ScriptedCheckpoint()))
    assert counts(result) == {"added": 4}
    assert result.errors == ()
    assert reconciler.warnings == ()
    assert "csv-profile/scripts/csv_profile.py*" in world.visible()
    assert len([path for path in world.visible() if path.startswith("sql-migration-review/references/")]) == 4

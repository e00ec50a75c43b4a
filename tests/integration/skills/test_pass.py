"""Whole passes: what is placed, updated, repaired, removed, kept and refused."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from skillbus.clock import BootClock
from skillbus.skills import history
from skillbus.skills.places import Places
from skillbus.skills.reconciler import SkillsReconciler
from tests.integration.skills.world import (
    FakeChild,
    ScriptedCheckpoint,
    World,
    counts,
    everything,
    one_pass,
    skill_text,
    tarball,
    visible,
    write_tree,
)

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
    """Whatever became of a managed skill, it is repaired whole, and what a link points at stays as it is."""
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
    second.write_text("skills: [{url: https://h.example/")  # what asks the web is imported while it is parsed
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
    """A mismatch places nothing and says which digest came; the right one is placed."""
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
    """A rule of style does not fail the pass; with strict it keeps a skill from being placed."""
    world.skill("a")
    (world.folder / "skills/a/SKILL.md").write_text("---\nname: Not A Name\n---\n")
    world.list("./skills/a")
    strict = world.run(strict=True)
    assert counts(strict) == {}
    assert len(strict.errors) == 1
    reconciler = world.reconciler()
    result = one_pass(reconciler)
    assert counts(result) == {"added": 1}
    assert result.errors == ()
    assert len(result.warnings) == 2
    assert reconciler.vouched


def test_the_examples_are_good_skills(world: World) -> None:
    """The manifest of examples/ places its four skills, in strict mode and without a warning; a script stays one."""
    manifest = Path(__file__).parents[3] / "examples/manifest.yaml"
    reconciler = SkillsReconciler(world.options(manifests=(str(manifest),), strict=True), BootClock())
    result = asyncio.run(reconciler.reconcile(ScriptedCheckpoint()))
    assert counts(result) == {"added": 4}
    assert result.errors == ()
    assert result.warnings == ()
    assert "csv-profile/scripts/csv_profile.py*" in world.visible()
    assert len([path for path in world.visible() if path.startswith("sql-migration-review/references/")]) == 4


def test_one_sentence_for_each_place_that_fails(world: World) -> None:
    """It names the first entry and how many more; the place's skills stay, and the other places' are served."""
    packed = world.folder / "all.tar.gz"
    names = ("a", "b", "c")
    packed.write_bytes(tarball({f"{name}/SKILL.md": skill_text(name) for name in names}))
    world.skill("other")
    inside = [f"./all.tar.gz#subdirectory={name}" for name in names]
    world.list(*inside, "./skills/other")
    assert counts(world.run()) == {"added": 4}
    before = world.visible()
    world.skill("other", "new")
    for broken in (None, b"no archive", packed.read_bytes()[:-40]):
        packed.unlink(missing_ok=True)
        if broken is not None:
            packed.write_bytes(broken)
        result = world.run()
        assert len(result.errors) == 1, result.errors
        assert "skills[0] and 2 more" in result.errors[0]
        assert str(packed) in result.errors[0]
    after = world.visible()
    assert {path for path in before if before[path] != after[path]} == {"other/SKILL.md", "skillbus.lock"}


def test_a_bad_skill_in_a_good_place_has_an_error_of_its_own(world: World) -> None:
    """One folder of an archive that is no skill costs itself alone, and the sentence names it."""
    packed = world.folder / "all.tar.gz"
    packed.write_bytes(tarball({"a/SKILL.md": skill_text("a"), "b/README.md": b"none", "c/SKILL.md": skill_text("c")}))
    world.list(*(f"./all.tar.gz#subdirectory={name}" for name in "abc"))
    result = world.run()
    assert counts(result) == {"added": 2}
    assert len(result.errors) == 1
    assert "skills[1]" in result.errors[0]
    assert "more" not in result.errors[0].split(":")[0]


def test_a_refused_root_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk refuses in one root, be it only at its staging folder, the other root gets its skills."""
    world.skill("a")
    world.list("./skills/a")
    first, second = world.folder / "1", world.folder / "2"
    for bad, good in ((first, second), (second, first)):
        (bad / ".skillbus").mkdir(parents=True)
        (bad / ".skillbus/staging").write_text("a file where the folder should be")
        monkeypatch.setattr(Places, "sweep", lambda *_: None)  # It would find out before anything is fetched.
        result = world.run(targets=(first, second))
        assert counts(result) == {"added": 1}
        assert len(result.errors) == 1
        assert str(bad) in result.errors[0]
        assert "a/SKILL.md" in visible(good)
        for root in (first, second):
            shutil.rmtree(root)


def test_the_summary_says_what_is_installed_or_that_it_does_not_know(world: World) -> None:
    """A pass that saw every root tells each skill's digest; one that did not, tells nothing instead of too little."""
    world.skill("a")
    world.list("./skills/a")
    told = world.run().installed
    assert told is not None
    assert list(told) == ["a"]
    assert world.run().installed == told
    assert world.run(manifests=()).installed is None
    (world.root / "skillbus.lock").write_text("broken")
    assert world.run().installed is None


def test_a_folder_that_goes_away_meanwhile_is_no_crash(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's folder stood in the way when it was decided what to fetch, and is gone when it is planned."""
    world.skill("a")
    world.skill("b")
    world.list("./skills/a")
    one = world.reconciler()
    (world.root / "a").mkdir(parents=True)
    assert one_pass(one).errors
    world.list("./skills/a", "./skills/b")
    real = FakeChild.ask

    async def moving(self: FakeChild, job: dict[str, Any], *more: Any) -> dict[str, Any]:
        if job["job"] == "fetch" and (world.root / "a").exists():
            (world.root / "a").rmdir()
        return await real(self, job, *more)

    monkeypatch.setattr(FakeChild, "ask", moving)
    result = one_pass(one)
    assert counts(result) == {"added": 1}
    assert len(result.errors) == 1
    assert "tried again" in result.errors[0]
    assert counts(one_pass(one)) == {"added": 1, "unchanged": 1}


def test_history_does_not_grow_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of skills that came and went, only so many are remembered."""
    monkeypatch.setattr(history, "MAX_FORGOTTEN", 3)
    names = [f"s{number}" for number in range(8)]
    for name in names:
        world.skill(name)
        world.list(f"./skills/{name}")
        world.run()
    world.list()
    world.run()
    assert len(list((world.root / ".skillbus/history").iterdir())) <= 4


def test_the_users_folders_stay_byte_for_byte(world: World) -> None:
    """Whatever a pass does beside them, no byte and no time of what the user wrote changes."""
    write_tree(
        world.root / "own", {"SKILL.md": skill_text("own"), "deep/er/run.sh": b"#!/bin/sh", "bin": bytes(range(256))}
    )
    (world.root / "notes.txt").write_text("mine")
    (world.root / "own/link").symlink_to("/etc/passwd")
    os.link(world.root / "own/bin", world.root / "own/hard")

    def mine() -> dict[str, tuple[int, int, int]]:
        return everything(world.root / "own") | everything(world.root / "notes.txt")

    before = mine()
    world.skill("a")
    world.skill("b")
    world.list("./skills/a", "./skills/b")
    steps = [counts(world.run())]
    world.skill("a", "new")
    steps.append(counts(world.run()))
    (world.root / "b/SKILL.md").write_text("drift")
    steps.append(counts(world.run()))
    world.list("./skills/a")
    steps.append(counts(world.run()))
    assert [list(step) for step in steps] == [
        ["added"],
        ["updated", "unchanged"],
        ["repaired", "unchanged"],
        ["removed", "unchanged"],
    ]
    assert mine() == before

"""What a pass would do, told without doing it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skillbus.clock import BootClock
from skillbus.skills.plan import Kind
from skillbus.skills.preview import FileChange, Preview, StepPreview, preview
from tests.integration.skills.world import World, counts, everything, skill_text


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary folders have a place of their own, which is empty again at the end."""
    where = tmp_path / "temporary"
    where.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(where))
    yield
    assert list(where.iterdir()) == []


def looked(world: World, **others: Any) -> Preview:
    """What a pass would do."""
    return asyncio.run(preview(world.options(**others), BootClock()))


def steps(found: Preview) -> dict[str, StepPreview]:
    """The steps in the one root, by name."""
    (place,) = found.places
    return {step.name: step for step in place.steps}


def test_nothing_is_made_where_there_was_nothing(world: World) -> None:
    """With the real child: no root, no lock, no folder, and yet every file is told."""
    world.skill("a", files={"run.sh": b"#!/bin/sh\n"})
    world.list("./skills/a")
    before = everything(world.folder / "skills")
    names = set(world.folder.iterdir())
    found = looked(world)
    assert found.errors == ()
    step = steps(found)["a"]
    assert step.kind is Kind.ADD
    assert step.files == (FileChange("SKILL.md", "added"), FileChange("run.sh", "added"))
    assert step.url == str(world.folder / "skills/a")
    assert len(step.digest) == 64
    assert not world.root.exists()
    assert set(world.folder.iterdir()) == names
    assert everything(world.folder / "skills") == before


@pytest.mark.usefixtures("in_process")
def test_each_kind_of_change_is_told_and_none_is_made(world: World) -> None:
    """Files added, changed, removed, or of another mode; skills removed, repaired, kept. No time changes anywhere."""
    world.skill("a", files={"gone": b"1", "same": b"2", "tool.sh": b"3", "text": b"4"})
    for name in ("kept", "drifted", "lost", "goes"):
        world.skill(name, files={"file": b"x"})
    listed = ["./skills/a", "./skills/kept", "./skills/drifted", "./skills/lost"]
    world.list(*listed, "./skills/goes")
    world.run()
    source = world.skill("a", "new", files={"new": b"5"})
    (source / "gone").unlink()
    (source / "tool.sh").chmod(0o644)
    (world.root / "drifted/file").write_text("edited")
    (world.root / "drifted/extra").write_text("more")
    (world.root / "lost").rename(world.folder / "elsewhere")
    (world.root / "mine").mkdir()
    world.skill("mine")
    world.list(*listed, "./skills/mine")
    before = everything(world.root)
    found = looked(world)
    told = {step.name: (step.kind, [(one.path, one.change) for one in step.files]) for step in steps(found).values()}
    assert told == {
        "a": (
            Kind.UPDATE,
            [("SKILL.md", "changed"), ("gone", "removed"), ("new", "added"), ("tool.sh", "mode")],
        ),
        "kept": (Kind.KEEP, []),
        "drifted": (Kind.REPAIR, [("extra", "removed"), ("file", "changed")]),
        "lost": (Kind.REPAIR, [("SKILL.md", "added"), ("file", "added")]),
        "goes": (Kind.REMOVE, [("SKILL.md", "removed"), ("file", "removed")]),
    }
    assert len(found.errors) == 1
    assert "'mine'" in found.errors[0]
    assert everything(world.root) == before
    assert counts(world.run()) == {"updated": 1, "unchanged": 1, "repaired": 2, "removed": 1}
    assert {step.kind for step in steps(looked(world)).values()} == {Kind.KEEP}


@pytest.mark.usefixtures("in_process")
def test_a_failing_source_removes_nothing_in_the_preview_either(world: World) -> None:
    """A manifest that does not load is an error, and no step."""
    world.skill("a")
    world.list("./skills/a")
    world.run()
    world.manifest.write_text("skills: [")
    found = looked(world)
    assert found.places == ()
    assert len(found.errors) == 1


@pytest.mark.usefixtures("in_process")
def test_warnings_and_several_roots(world: World) -> None:
    """Every root has its own steps, those that are not there too; what is odd is told."""
    world.skill("a")
    (world.folder / "skills/a/SKILL.md").write_text("---\nname: a\n---\n")
    world.list("./skills/a")
    world.run()
    other = world.folder / "other"
    found = looked(world, targets=(world.root, other))
    assert {place.path: [step.kind for step in place.steps] for place in found.places} == {
        world.root: [Kind.KEEP],
        other: [Kind.ADD],
    }
    assert len(found.warnings) == 1
    assert not other.exists()


@pytest.mark.usefixtures("in_process")
def test_it_does_not_wait_for_a_pass_that_is_at_work(world: World) -> None:
    """Looking needs no turn: another process may hold the root."""
    import fcntl

    world.skill("a")
    world.list("./skills/a")
    world.run()
    world.skill("a", "new")
    with open(world.root / ".skillbus/flock", "r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert steps(looked(world))["a"].kind is Kind.UPDATE
    assert world.visible()["a/SKILL.md"] == skill_text("a")

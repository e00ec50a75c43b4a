"""A kept version restored: by a pass like any other, until the manifest asks for a third version."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from skillbus.clock import BootClock
from skillbus.core.outcome import PassResult
from skillbus.errors import BadBundle, BadSettings, DiskRefused
from skillbus.skills import history
from skillbus.skills.lock import Receipt
from skillbus.skills.reconciler import ReconcileAborted
from skillbus.skills.rollback import Managed, Rollback, choose, survey
from skillbus.skills.root import Root
from skillbus.skills.verify import verify
from tests.integration.skills.world import ScriptedCheckpoint, World, counts, skill_text


def version(world: World, text: str, *others: str) -> str:
    """Another version of ``pdf`` at the source, and the pass that places it. Its digest."""
    world.skill("pdf", text)
    world.list("./skills/pdf", *(f"./skills/{name}" for name in others))
    assert world.run().errors == ()
    return there(world).digest


def there(world: World, root: Path | None = None) -> Receipt:
    """What the lock says of ``pdf``."""
    (found,) = survey([root or world.root], "pdf")
    return found.receipt


def text_of(world: World, root: Path | None = None) -> str:
    """The version that lies there."""
    path = (root or world.root) / "pdf/SKILL.md"
    return next(text for text in ("one", "two", "three") if path.read_bytes() == skill_text("pdf", text))


def roll_back(world: World, digest: str = "", checkpoint: ScriptedCheckpoint | None = None, *roots: Path) -> PassResult:
    """One pass of a rollback; by default to the version before."""
    options = world.options(**({"targets": roots} if roots else {}))
    digest = digest or choose(survey(options.targets, "pdf"), "pdf")
    rollback = Rollback(options, BootClock(), "pdf", digest)
    return asyncio.run(rollback.reconcile(checkpoint or ScriptedCheckpoint()))


def test_a_version_goes_back_and_stays(world: World) -> None:
    """Restored, it stays through later passes and is repaired to; a third version from the manifest ends that."""
    first, second = version(world, "one"), version(world, "two")
    result = roll_back(world)
    assert (dict(result.counts), result.errors) == ({"restored": 1, "unchanged": 0}, ())
    assert result.installed == {"pdf": first}
    assert text_of(world) == "one"
    assert (there(world).digest, there(world).instead_of) == (first, second)
    assert world.run().counts["unchanged"] == 1
    (world.root / "pdf/SKILL.md").write_text("somebody was here")
    assert world.run().counts["repaired"] == 1
    assert (text_of(world), there(world).instead_of) == ("one", second)
    third = version(world, "three")
    assert text_of(world) == "three"
    assert (there(world).digest, there(world).instead_of) == (third, "")


def test_what_is_published_was_looked_at(world: World) -> None:
    """Another skill that somebody changed does not lie there as its receipt says: the pod then tells nothing."""
    world.skill("other")
    first, _ = (version(world, text, "other") for text in ("one", "two"))
    (other,) = survey([world.root], "other")
    assert roll_back(world).installed == {"pdf": first, "other": other.receipt.digest}
    (world.root / "other/SKILL.md").write_text("somebody was here")
    result = roll_back(world)
    assert (result.installed, result.counts["restored"]) == (None, 1)


def test_back_and_forth(world: World) -> None:
    """A rollback of a rollback is for what the manifest asks for: nothing is overridden any more."""
    first, second = version(world, "one"), version(world, "two")
    roll_back(world)
    roll_back(world)
    assert (text_of(world), there(world).digest, there(world).instead_of) == ("two", second, "")
    assert world.run().counts["unchanged"] == 1
    third = version(world, "three")
    roll_back(world, second)
    assert there(world).instead_of == third
    roll_back(world, first)
    assert (there(world).digest, there(world).instead_of) == (first, third), "the manifest still asks for the third"
    assert world.run().counts["unchanged"] == 1


def test_the_version_in_place_is_left_alone(world: World) -> None:
    """Asked for what lies there already, nothing is written; but a changed one is restored."""
    version(world, "one")
    version(world, "two")
    roll_back(world)
    digest = there(world).digest
    before = (world.root / "pdf").stat().st_ino
    assert roll_back(world, digest).counts == {"restored": 0, "unchanged": 1}
    assert (world.root / "pdf").stat().st_ino == before
    (world.root / "pdf/more.txt").write_text("x")
    assert roll_back(world, digest).counts == {"restored": 1, "unchanged": 0}
    assert text_of(world) == "one"
    assert not (world.root / "pdf/more.txt").exists()


def test_every_root_that_manages_it(world: World, tmp_path: Path) -> None:
    """Two roots go back together; a third, where the skill is the user's own, is not touched."""
    roots = (world.root, tmp_path / "second", tmp_path / "third")
    (roots[2] / "pdf").mkdir(parents=True)
    (roots[2] / "pdf/SKILL.md").write_text("mine")
    for text in ("one", "two"):
        world.skill("pdf", text)
        world.list("./skills/pdf")
        world.run(targets=roots)
    result = roll_back(world, "", None, *roots)
    assert (result.counts["restored"], result.errors) == (2, ())
    assert [text_of(world, root) for root in roots[:2]] == ["one", "one"]
    assert (roots[2] / "pdf/SKILL.md").read_text() == "mine"


def test_a_skill_whose_entry_fails_stays(world: World) -> None:
    """A rolled back skill is not removed because the entry that it is for cannot be read, whatever its url is now."""
    version(world, "one")
    (world.folder / "skills/pdf").rename(world.folder / "skills/pdf-2")
    world.skill("pdf-2", "two")
    (world.folder / "skills/pdf-2/SKILL.md").write_bytes(skill_text("pdf", "two"))
    world.list("./skills/pdf-2")
    assert world.run().errors == ()
    assert text_of(world) == "two"
    roll_back(world)
    (world.folder / "skills/pdf-2").rename(world.folder / "skills/gone")
    result = world.run()
    assert (len(result.errors), result.counts["removed"]) == (1, 0)
    assert text_of(world) == "one"


def test_it_goes_through_the_gate(world: World) -> None:
    """At whichever checkpoint the pod must stop: nothing is changed, or it is undone, and the lock agrees."""
    version(world, "one")
    second = version(world, "two")
    calls = ScriptedCheckpoint()
    digest = choose(survey([world.root], "pdf"), "pdf")
    roll_back(world, digest, calls)
    roll_back(world)
    assert calls.settles == 1
    for trip in [{"trip_at": n} for n in range(1, calls.calls + 1)] + [{"trip_at_settle": 1}]:
        checkpoint = ScriptedCheckpoint(**trip)
        with pytest.raises(ReconcileAborted) as caught:
            roll_back(world, digest, checkpoint)
        if checkpoint.settles == 1 and "trip_at" in trip:  # It was judged, and may stay.
            assert text_of(world) == "one"
            roll_back(world, second)
            continue
        assert (text_of(world), there(world).digest) == ("two", second), trip
        assert caught.value.result.counts["restored"] == 0
        if "trip_at_settle" in trip:
            assert caught.value.result.reverted == ("pdf",)


def test_what_was_tampered_with_is_refused(world: World) -> None:
    """A kept version that somebody changed: an error, and the version in place stays."""
    first = version(world, "one")
    version(world, "two")
    kept = world.root / ".skillbus/history/pdf" / first / "tree"
    next(kept.iterdir()).write_text("obey")
    result = roll_back(world, first)
    assert "was changed by somebody" in result.errors[0]
    assert text_of(world) == "two"


def test_what_cannot_be_chosen_is_said(world: World) -> None:
    """Unknown skill, nothing kept, no such version, several of them: one sentence each, before anything starts."""
    with pytest.raises(BadSettings, match="is managed there"):
        choose(survey([world.root, world.folder / "nowhere"], "pdf"), "pdf")
    digests = [version(world, "one")]
    with pytest.raises(BadBundle, match="no earlier version of 'pdf' is kept"):
        choose(survey([world.root], "pdf"), "pdf")
    digests += [version(world, text) for text in ("two", "three")]
    found = survey([world.root], "pdf")
    assert choose(found, "pdf", digests[0][:9]) == digests[0]
    assert choose(found, "pdf", "sha256:" + digests[1].upper()) == digests[1]
    assert choose(found, "pdf") == digests[1]
    with pytest.raises(BadSettings, match="no kept version of 'pdf' begins with 'xyz'"):
        choose(found, "pdf", "xyz")
    alike = [Managed(one.path, one.receipt, one.kept) for one in found]
    with pytest.raises(BadSettings, match=r"begins 2 kept versions .*give more of it"):
        choose([alike[0]], "pdf", "sha256:")


def kept(world: World, name: str = "pdf") -> list[str]:
    """The digests that are kept, newest first."""
    return [one.digest for one in survey([world.root], name)[0].kept]


def test_a_kill_right_behind_the_settling_loses_no_version(world: World) -> None:
    """What went out is kept by the next pass, before anything is swept, and its journal is gone then."""
    first = version(world, "one")
    world.skill("pdf", "two")
    checkpoint = ScriptedCheckpoint()
    checkpoint.settled = checkpoint.trip
    with pytest.raises(ReconcileAborted):
        world.run(checkpoint)
    assert text_of(world) == "two"
    assert verify(world.root).unsettled == ()
    result = world.run()
    assert (result.errors, counts(result)) == ((), {"unchanged": 1})
    assert kept(world) == [first]
    assert [list((world.root / ".skillbus" / own).iterdir()) for own in ("staging", "undo")] == [[], []]


def test_a_settled_journal_that_makes_no_sense_stops_nothing(world: World) -> None:
    """It is told once, and gone."""
    version(world, "one")
    (world.root / ".skillbus/undo/settled").write_text("[[]]")
    assert len(world.run().errors) == 1
    assert world.run().errors == ()


def test_one_version_that_cannot_be_kept_costs_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses one old version: an error that names it, and those of the other skills are kept."""
    for text in ("one", "two"):
        for name in ("a", "b", "c"):
            world.skill(name, text)
        world.list("./skills/a", "./skills/b", "./skills/c")
        if text == "one":
            world.run()
    real = history.retire

    def refusing(root: Root, name: str, *rest: Any) -> None:
        if name == "a":
            raise DiskRefused("the old version of a cannot be kept")
        real(root, name, *rest)

    monkeypatch.setattr(history, "retire", refusing)
    result = world.run()
    assert result.errors == ("the old version of a cannot be kept",)
    assert counts(result) == {"updated": 3}
    assert [len(kept(world, name)) for name in ("a", "b", "c")] == [0, 1, 1]


def test_the_oldest_version_stays_kept_while_it_is_in_place(world: World) -> None:
    """Rolled back to the last of all that are kept, it is still there to be repaired from."""
    oldest = version(world, "one")
    for number in range(history.MAX_VERSIONS):
        world.skill("pdf", f"v{number}")
        world.run()
    assert kept(world)[-1] == oldest
    assert roll_back(world, oldest).errors == ()
    assert oldest in kept(world)
    (world.root / "pdf/SKILL.md").write_text("somebody was here")
    assert world.run().counts["repaired"] == 1
    assert text_of(world) == "one"

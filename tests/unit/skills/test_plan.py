"""The difference between what is wanted and what is there."""

from __future__ import annotations

import itertools

from skillbus.skills.lock import Receipt
from skillbus.skills.manifest import Entry, Held
from skillbus.skills.plan import Inventory, Kind, Plan, Wanted, plan, without_collisions
from skillbus.skills.rules import FileFact, source_id, tree_digest
from tests.unit.skills.receipts import receipt_of

FILES = {digit: {"SKILL.md": FileFact(digit * 64, executable=False)} for digit in "123"}
OLD, NEW, THIRD = (tree_digest(FILES[digit]) for digit in "123")


def _wanted(name: str = "a", digest: str = OLD, url: str = "https://h/a") -> Wanted:
    return Wanted(Entry(url, None, "user", None, "m, skills[0]"), name, name, digest, "", "")


def _receipt(url: str = "https://h/a", digit: str = "1", instead_of: str = "") -> Receipt:
    return receipt_of(FILES[digit], url=url, source_id=source_id(url), own_name="a", instead_of=instead_of)


def _planned(wanted: list[Wanted], inventory: Inventory, *, held: Held = Held(), may_remove: bool = True) -> Plan:  # noqa: B008
    return plan(wanted, inventory, held, may_remove=may_remove)


def _kinds(found: Plan) -> list[tuple[Kind, bool, bool]]:
    return [(step.kind, step.places, step.relocks) for step in found.steps]


def test_each_state_has_its_step() -> None:
    """Wanted x receipt x disk -> what to do, whether a tree moves, whether the lock changes."""
    ours = {"a": _receipt()}
    table = [
        (_wanted(), Inventory({}, {}), (Kind.ADD, True, True)),
        (_wanted(), Inventory(ours, {"a": OLD}), (Kind.KEEP, False, False)),
        (_wanted(), Inventory(ours, {"a": NEW}), (Kind.REPAIR, True, True)),
        (_wanted(), Inventory(ours, {"a": None}), (Kind.REPAIR, True, True)),
        (_wanted(), Inventory(ours, {}), (Kind.REPAIR, True, True)),
        (_wanted(digest=NEW), Inventory(ours, {"a": OLD}), (Kind.UPDATE, True, True)),
        (_wanted(digest=NEW), Inventory(ours, {"a": NEW}), (Kind.KEEP, False, True)),
        (_wanted(url="https://h/moved"), Inventory(ours, {"a": OLD}), (Kind.KEEP, False, True)),
        (_wanted(url="https://h/a?signed=1"), Inventory(ours, {"a": OLD}), (Kind.KEEP, False, True)),
    ]
    for wanted, inventory, step in table:
        assert _kinds(_planned([wanted], inventory)) == [step]


def test_a_folder_that_the_lock_does_not_name_is_left_alone() -> None:
    """The user's folder of the same name is an error and no step."""
    found = _planned([_wanted()], Inventory({}, {"a": None}))
    assert found.steps == ()
    assert "m, skills[0]" in found.errors[0]


def test_removal_needs_every_manifest_and_spares_what_is_held() -> None:
    """What no manifest names goes, unless one failed to load or a failed entry may mean it."""
    inventory = Inventory({"a": _receipt()}, {"a": OLD})
    assert _kinds(_planned([], inventory)) == [(Kind.REMOVE, True, True)]
    assert _kinds(_planned([], inventory, may_remove=False)) == []
    assert _kinds(_planned([], inventory, held=Held(frozenset(["https://h/a"])))) == []
    assert _kinds(_planned([], inventory, held=Held(names=frozenset(["a"])))) == []
    gone = Inventory({"a": _receipt()}, {})
    assert _kinds(_planned([], gone)) == [(Kind.REMOVE, False, True)]


def test_the_first_of_two_with_one_name_wins() -> None:
    """The second is dropped with an error that names both."""
    one, two = _wanted(url="https://h/1"), _wanted(url="https://h/2")
    kept, dropped = without_collisions([one, two])
    assert kept == [one]
    assert [one for one, _ in dropped] == [two]
    assert "'a' is taken by m, skills[0]" in dropped[0][1]


def test_every_plan_carried_out_leaves_nothing_to_plan() -> None:
    """Whatever the state, doing the steps gives a state whose plan only keeps."""
    digests = [None, OLD, NEW]
    for receipt, disk, wanted in itertools.product([False, True], [*digests, "absent"], [OLD, NEW, "absent"]):
        receipts = {"a": _receipt()} if receipt else {}
        there = {} if disk == "absent" else {"a": disk}
        wants = [] if wanted == "absent" else [_wanted(digest=str(wanted))]
        first = _planned(wants, Inventory(receipts, there))
        if not first.steps:
            continue
        if first.steps[0].kind is Kind.REMOVE:
            assert _kinds(_planned([], Inventory({}, {}))) == []
        else:
            files = FILES["1" if wanted == OLD else "2"]
            after = Inventory({"a": _receipt(digit="1" if wanted == OLD else "2")}, {"a": str(wanted)})
            assert after.receipts["a"].files == files
            assert _kinds(_planned(wants, after)) == [(Kind.KEEP, False, False)]


def test_what_was_rolled_back_stays_until_the_manifest_moves_on() -> None:
    """The lock says OLD instead of NEW. Wanted x disk -> step, and whether it is the kept version that is restored."""
    ours = {"a": _receipt(instead_of=NEW)}
    table: list[tuple[str, dict[str, str | None], tuple[Kind, bool, bool], str]] = [
        (NEW, {"a": OLD}, (Kind.KEEP, False, False), ""),
        (NEW, {"a": NEW}, (Kind.REPAIR, True, True), OLD),
        (NEW, {"a": THIRD}, (Kind.REPAIR, True, True), OLD),
        (NEW, {"a": None}, (Kind.REPAIR, True, True), OLD),
        (NEW, {}, (Kind.REPAIR, True, True), OLD),
        (THIRD, {"a": OLD}, (Kind.UPDATE, True, True), ""),
        (THIRD, {"a": THIRD}, (Kind.KEEP, False, True), ""),
        (THIRD, {}, (Kind.UPDATE, True, True), ""),
        (OLD, {"a": OLD}, (Kind.KEEP, False, True), ""),
        (OLD, {"a": None}, (Kind.REPAIR, True, True), ""),
        (OLD, {}, (Kind.REPAIR, True, True), ""),
    ]
    for digest, disk, step, restores in table:
        found = _planned([_wanted(digest=digest)], Inventory(ours, disk))
        assert _kinds(found) == [step], (digest, disk)
        assert found.steps[0].restores == restores


def test_a_rolled_back_skill_that_nobody_wants_goes() -> None:
    """A rollback holds a version, not the skill: without an entry it is removed like any other."""
    inventory = Inventory({"a": _receipt(instead_of=NEW)}, {"a": OLD})
    assert _kinds(_planned([], inventory)) == [(Kind.REMOVE, True, True)]

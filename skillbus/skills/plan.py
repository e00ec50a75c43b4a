"""What is wanted and what is there -> the steps between them. Pure.

Only what the lock names is ours: a folder of the user's under a wanted name is an error, never a step. Nothing is
removed unless every manifest loaded, nor what a failed entry may mean.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from skillbus.skills.lock import Receipt
from skillbus.skills.manifest import Entry, Held
from skillbus.skills.rules import source_id

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entry whose skill is known.

    Attributes:
        name: what it is placed as.
        own_name: what it calls itself.
        digest: the tree digest that it must have.
        revision: the source's own name for it.
        tree_id: its git tree, or empty.
    """

    entry: Entry
    name: str
    own_name: str
    digest: str
    revision: str
    tree_id: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """What one skills root holds.

    Attributes:
        receipts: the lock.
        digests: for each name in the lock or wanted that is there: its tree digest, or None if it is no tree of ours.
    """

    receipts: Mapping[str, Receipt]
    digests: Mapping[str, str | None]


class Kind(StrEnum):
    """What a step does. The values are the words of the summary."""

    ADD = "added"
    UPDATE = "updated"
    REPAIR = "repaired"
    REMOVE = "removed"
    KEEP = "unchanged"


@dataclass(frozen=True, slots=True)
class Step:
    """One skill's way to what is wanted.

    Attributes:
        wanted: None for a removal.
        places: whether a tree must be staged and swapped in.
        relocks: whether the lock must change.
        restores: the digest of the kept version (history.py) that is staged, not what is wanted: it was rolled back.
    """

    kind: Kind
    name: str
    wanted: Wanted | None
    places: bool
    relocks: bool
    restores: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which to do them, and what cannot be done."""

    steps: tuple[Step, ...]
    errors: tuple[str, ...]


def without_collisions(wanted: Iterable[Wanted]) -> tuple[list[Wanted], list[tuple[Wanted, str]]]:
    """Those whose name nobody before them has; and the others, each with an error."""
    first: dict[str, Wanted] = {}
    dropped = []
    for one in wanted:
        winner = first.setdefault(one.name, one)
        if winner is not one:
            taken = f"the name {one.name!r} is taken by {winner.entry.place}"
            dropped.append((one, f"{one.entry.place}: {taken}: give one of them another 'name'"))
    return list(first.values()), dropped


def plan(wanted: Collection[Wanted], inventory: Inventory, held: Held, *, may_remove: bool) -> Plan:
    """The steps for one skills root.

    Args:
        wanted: with names that differ.
        held: what failed entries may mean.
        may_remove: whether every manifest loaded.
    """
    steps, errors = [], []
    for one in wanted:
        step = step_for(one, inventory)
        if step is not None:
            steps.append(step)
            continue
        errors.append(
            f"{one.entry.place}: a folder {one.name!r} that skillbus did not place is there already and is left "
            "alone: move it away, or give the entry another 'name'"
        )
    names = {one.name for one in wanted}
    if may_remove:
        for name, receipt in inventory.receipts.items():
            is_held = name in held.names or receipt.url in held.urls or receipt.source_id in held.ids
            if name not in names and not is_held:
                steps.append(Step(Kind.REMOVE, name, None, name in inventory.digests, relocks=True))
    return Plan(tuple(steps), tuple(errors))


def step_for(one: Wanted, inventory: Inventory) -> Step | None:
    """The step for one wanted skill; None if a folder of the user's has its name."""
    receipt = inventory.receipts.get(one.name)
    there = inventory.digests.get(one.name)
    if receipt is None:
        return None if one.name in inventory.digests else Step(Kind.ADD, one.name, one, places=True, relocks=True)
    if receipt.instead_of and receipt.instead_of == one.digest:  # Rolled back, and the manifest has not moved on.
        if there == receipt.digest:
            return Step(Kind.KEEP, one.name, one, places=False, relocks=False)
        return Step(Kind.REPAIR, one.name, one, places=True, relocks=True, restores=receipt.digest)
    if there == one.digest:
        told = receipt.digest == one.digest and receipt.source_id == source_id(one.entry.url) and not receipt.instead_of
        told = told and not _cost_a_fetch(one, receipt)
        return Step(Kind.KEEP, one.name, one, places=False, relocks=not told)
    kind = Kind.REPAIR if receipt.digest == one.digest else Kind.UPDATE
    return Step(kind, one.name, one, places=True, relocks=True)


def _cost_a_fetch(one: Wanted, receipt: Receipt) -> bool:
    """Whether it took a fetch to find it unchanged at a commit, which a fresh process would do again.

    A commit without a tree id is a git remote's. Any other revision is no reason to write: an id is compared cheaply,
    and some servers give another ETag for the same bytes each time.
    """
    return one.revision != receipt.revision and not one.tree_id and _COMMIT.fullmatch(one.revision) is not None

"""What is wanted and what is there -> the steps between them. Pure.

Only what the lock names is ours: a folder of the user's under a wanted name is an error, never a step. Nothing is
removed unless every manifest loaded, nor what a failed entry may mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from skillbus.skills.lock import Receipt
from skillbus.skills.manifest import Entry, Held
from skillbus.skills.rules import shown_url


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entry that was looked at.

    Attributes:
        name: what it is installed as.
        digest: the tree digest that it must have.
        ref: the source's own name for it.
    """

    entry: Entry
    name: str
    digest: str
    ref: str


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
    """

    kind: Kind
    name: str
    wanted: Wanted | None
    places: bool
    relocks: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which to do them, and what cannot be done."""

    steps: tuple[Step, ...]
    errors: tuple[str, ...]


def without_collisions(looked: Iterable[Wanted]) -> tuple[list[Wanted], list[tuple[Wanted, str]]]:
    """Those whose name nobody before them has; and the others, each with an error."""
    first: dict[str, Wanted] = {}
    dropped = []
    for one in looked:
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
        receipt = inventory.receipts.get(one.name)
        if receipt is None and one.name in inventory.digests:
            errors.append(
                f"{one.entry.place}: a folder {one.name!r} that skillbus did not place is there already and is left "
                "alone: move it away, or give the entry another 'name'"
            )
        else:
            steps.append(_step(one, receipt, inventory))
    names = {one.name for one in wanted}
    if may_remove:
        for name, receipt in inventory.receipts.items():
            if not (name in names or name in held.names or receipt.url in held.urls):
                steps.append(Step(Kind.REMOVE, name, None, name in inventory.digests, relocks=True))
    return Plan(tuple(steps), tuple(errors))


def _step(one: Wanted, receipt: Receipt | None, inventory: Inventory) -> Step:
    if receipt is None:
        return Step(Kind.ADD, one.name, one, places=True, relocks=True)
    if inventory.digests.get(one.name) == one.digest:
        # A ref alone is no reason to write: some servers give another ETag for the same bytes each time.
        told = receipt.digest == one.digest and receipt.url == shown_url(one.entry.url)
        return Step(Kind.KEEP, one.name, one, places=False, relocks=not told)
    kind = Kind.REPAIR if receipt.digest == one.digest else Kind.UPDATE
    return Step(kind, one.name, one, places=True, relocks=True)

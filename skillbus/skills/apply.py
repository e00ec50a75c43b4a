"""One step of a plan, done in one skills root: stage, swap, lock, and the judgement whether it may stay.

A change and its settling are one unit that a cancellation cannot cut: either it stays and the lock tells of it, or it
is put back and told as reverted. After an abort nothing more is written, not even to clean up: the next pass sweeps.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from skillbus.core.ports import Checkpoint
from skillbus.errors import BadArchive, BadBundle, DiskRefused, PassAborted
from skillbus.skills import tree
from skillbus.skills.lock import Lock, Receipt
from skillbus.skills.plan import Kind, Step, Wanted
from skillbus.skills.root import Root
from skillbus.skills.rules import SKILL_FILE, Facts, shown_url, tree_digest
from skillbus.skills.swap import Swap

GoOn = Callable[[], object]


@dataclass(slots=True)
class Tally:
    """What a pass has come to so far."""

    counts: dict[str, int] = field(default_factory=lambda: {kind.value: 0 for kind in Kind})
    errors: list[str] = field(default_factory=list)
    reverted: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Place:
    """A skills root within a pass.

    Attributes:
        root: the open folder; it stays open to the end of the pass.
        scopes: the scopes of the entries that go there.
        lock: as it stands on the disk.
        refused: whether the disk has failed there, so that the pass leaves it alone.
    """

    root: Root
    scopes: frozenset[str]
    lock: Lock = field(default_factory=Lock)
    refused: bool = False


def stage(place: Place, incoming: int, slot: str, wanted: Wanted, go_on: GoOn) -> Facts:
    """Copy what the child fetched to ``slot`` in the root's staging, and check it: the child is not believed.

    Blocking: for a thread.

    Args:
        incoming: the folder that the child wrote.

    Raises:
        BadArchive, BadBundle: it is not what was looked at, or not what the manifest pins.
        DiskRefused: the disk failed.
    """
    with tree.disk_words(f"{place.root.path} cannot take {wanted.name}"):
        facts = tree.copy(incoming, place.root.staging, slot, go_on)
        os.fsync(place.root.staging)
    digest = tree_digest(facts)
    if digest != wanted.digest:
        raise BadArchive("what came is not what was looked at a moment ago: it will be tried again")
    if SKILL_FILE not in facts:
        raise BadBundle(f"there is no {SKILL_FILE} at the top")
    return facts


def receipt_for(place: Place, slot: str, wanted: Wanted, facts: Facts) -> Receipt:
    """The receipt for what lies staged in ``slot``. Its time is the file system's: nothing here reads a wall clock."""
    with tree.disk_words(f"{place.root.path} cannot be read"):
        at_s = os.stat(slot, dir_fd=place.root.staging, follow_symlinks=False).st_mtime
    at = datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Receipt(shown_url(wanted.entry.url), wanted.ref, wanted.digest, facts, at)


async def change(
    place: Place, step: Step, slot: str, receipt: Receipt | None, checkpoint: Checkpoint, tally: Tally
) -> None:
    """Do one step, settle it, and undo it if it may not stay. To be run to its end (quiet.py).

    Raises:
        PassAborted: as the checkpoint raised it; what was changed is put back.
        BadBundle: somebody else took the name meanwhile.
        DiskRefused: the disk failed; what was changed is put back, or will be by the next pass.
    """
    swap = await asyncio.to_thread(_swap, place, step, slot, receipt)
    try:
        permit = await asyncio.to_thread(swap.make, checkpoint)
    except PassAborted:
        if swap.moved:
            tally.reverted.append(step.name)
        raise
    try:
        await checkpoint.settle(permit)
    except BaseException:
        await _revert(swap, step.name, tally)
        raise
    place.lock = swap.lock_after
    tally.counts[step.kind.value] += 1
    await asyncio.to_thread(swap.keep)


def _swap(place: Place, step: Step, slot: str, receipt: Receipt | None) -> Swap:
    with tree.disk_words(f"{place.root.path / step.name} cannot be changed"):
        return Swap(place.root, place.lock, step.name, slot, receipt, moves=step.places)


async def _revert(swap: Swap, name: str, tally: Tally) -> None:
    try:
        await asyncio.to_thread(swap.undo)
    except DiskRefused as error:
        tally.errors.append(f"{error}; the next pass will put it back before anything else")
    else:
        tally.reverted.append(name)

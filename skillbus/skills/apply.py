"""Steps of a plan, done in one skills root: stage, swap, lock, and the judgement whether they may stay.

A batch of changes and its settling are one unit that a cancellation cannot cut: either it stays and the lock tells of
it, or it is undone and told as reverted. After an abort nothing more is written, not even to clean up: the next pass
sweeps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from skillbus.core.ports import Checkpoint
from skillbus.errors import BadArchive, BadBundle, DiskRefused, PassAborted
from skillbus.skills import tree
from skillbus.skills.fetching import Landed
from skillbus.skills.lock import Receipt
from skillbus.skills.places import Place
from skillbus.skills.plan import Step, Wanted
from skillbus.skills.quiet import Threads
from skillbus.skills.retiring import retire_settled
from skillbus.skills.rules import Facts, shown_url, source_id
from skillbus.skills.swap import Batch, Change
from skillbus.skills.tally import Tally


@dataclass(frozen=True, slots=True)
class Ready:
    """A step whose tree, if it needs one, lies staged in its place."""

    step: Step
    change: Change


def stage_copy(place: Place, landed: Landed, slot: str, threads: Threads) -> None:
    """Copy what has landed elsewhere to ``slot`` in the place's own staging. Blocking.

    Raises:
        BadArchive: it is no longer what had landed.
        DiskRefused: the disk failed.
    """
    with tree.disk_words(f"{place.root.path} cannot take {landed.own_name}"):
        source = tree.open_folder(landed.stage.fd, landed.slot)
        if source is None:
            raise BadBundle("nothing was staged: it will be tried again")
        try:
            facts = tree.copy(source, place.root.staging, slot, threads.go_on)
        finally:
            os.close(source)
    if facts != landed.facts:
        raise BadArchive("what came is not what was looked at a moment ago: it will be tried again")


def flush(place: Place, slots: Sequence[str], threads: Threads) -> None:
    """Make what is staged durable before it is swapped in. Blocking.

    Raises:
        DiskRefused: the disk failed.
    """
    with tree.disk_words(f"{place.root.path} cannot take what was fetched"):
        tree.flush(place.root.staging, slots, threads.go_on)


def receipt_for(wanted: Wanted, facts: Facts, placed_at: str) -> Receipt:
    """The receipt for a wanted skill whose files are ``facts``."""
    return Receipt(
        url=shown_url(wanted.entry.url),
        source_id=source_id(wanted.entry.url),
        own_name=wanted.own_name,
        revision=wanted.revision,
        tree_id=wanted.tree_id,
        digest=wanted.digest,
        files=facts,
        placed_at=placed_at,
    )


def now_there(place: Place) -> str:
    """The time in the place, ISO 8601: its file system's, for nothing here reads a wall clock. Blocking.

    Raises:
        DiskRefused: the disk failed.
    """
    with tree.disk_words(f"{place.root.path} cannot be read"):
        at_s = os.fstat(place.root.staging).st_mtime
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def change(place: Place, ready: Sequence[Ready], checkpoint: Checkpoint, threads: Threads, tally: Tally) -> None:
    """Do steps, settle them, and undo them if they may not stay. To be run to its end (quiet.py).

    Raises:
        PassAborted: as the checkpoint raised it; what was changed is undone.
        DiskRefused: the disk failed; what was changed is undone, or will be by the next pass.
    """
    batch = await threads.run(Batch, place.root, place.lock, [one.change for one in ready])
    try:
        permit = await threads.run(batch.make, checkpoint)
    except PassAborted:
        tally.reverted += batch.moved
        raise
    try:
        await checkpoint.settle(permit)
    except BaseException:
        await _revert(batch, threads, tally)
        raise
    place.lock = batch.lock_after
    done = {change.name for change in batch.done}
    for one in ready:
        if one.change.name in done:
            tally.counts[one.step.kind.value] += 1
    for failed, error in batch.failed:
        tally.errors.append(f"{failed.name}: {error}")
    await threads.run(batch.keep)
    if batch.takes_out:
        tally.errors += await threads.run(retire_settled, place.root, threads.go_on, place.lock)


async def _revert(batch: Batch, threads: Threads, tally: Tally) -> None:
    try:
        await threads.run(batch.undo)
    except DiskRefused as error:
        tally.errors.append(f"{error}; the next pass will undo it before anything else")
    else:
        tally.reverted += batch.moved

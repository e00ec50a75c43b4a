"""``skillbus rollback``: a kept version of one skill restored, in every root that manages it, by one pass of a pod.

    choose (reads alone, before anything starts) -> the pod's gate -> for each root: restore, swap, settle, lock

The pass is a pass like any other: flock, recovery, checkpoints, journal, settling. There is no other way to the disk,
so a killed fleet rolls nothing back either. The new receipt says ``instead_of`` which version it stands there: the one
that the manifest asked for, and plan.py leaves the skill alone until the manifest asks for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skillbus.clock import Clock
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.core.text import harmless
from skillbus.errors import BadBundle, BadSettings, DiskRefused, PassAborted, SkillbusError
from skillbus.skills import apply, history
from skillbus.skills.history import Kept
from skillbus.skills.lock import Receipt, read_lock
from skillbus.skills.memory import Memory
from skillbus.skills.options import SkillsOptions
from skillbus.skills.places import Place, Places, read_receipts, take_stock
from skillbus.skills.plan import Kind, Step
from skillbus.skills.quiet import Threads, to_the_end
from skillbus.skills.reconciler import ReconcileAborted
from skillbus.skills.swap import Change
from skillbus.skills.tally import Tally, Tell, telling
from skillbus.skills.verify import has_own, looked_at

RESTORED = "restored"
"""The word of the summary for a skill that was restored."""

_SHOWN = 12
"""Digits of a digest that are shown to people."""


@dataclass(frozen=True, slots=True)
class Managed:
    """A skill in one root, and what can be restored of it.

    Attributes:
        receipt: what the lock says of the version in place.
        kept: newest first. The version in place may be among them.
    """

    path: Path
    receipt: Receipt
    kept: tuple[Kept, ...]


def survey(roots: Iterable[Path], name: str) -> list[Managed]:
    """The skill in each root that manages it. Reads alone.

    Raises:
        DiskRefused: a root or its lock cannot be read.
    """
    found = []
    for path in roots:
        with looked_at(path) as root:
            receipt = None if root is None else read_lock(root).receipts.get(name)
            if root is not None and receipt is not None:
                found.append(Managed(path, receipt, tuple(history.versions(root, name)) if has_own(root) else ()))
    return found


def choose(found: Sequence[Managed], name: str, prefix: str = "") -> str:
    """The digest of the version to restore.

    Args:
        found: as ``survey`` gave it.
        prefix: how the wanted digest begins; empty for the version that was in place before.

    Raises:
        BadSettings: the skill is not managed, or ``prefix`` names no version, or several.
        BadBundle: no earlier version is kept.
    """
    shown = repr(harmless(name, 80))
    if not found:
        raise BadSettings(f"no skill {shown} is managed there: see skillbus verify -o json for those that are")
    if prefix:
        return _named(found, shown, prefix)
    earlier = [one for place in found for one in place.kept if one.digest != place.receipt.digest]
    if not earlier:
        raise BadBundle(f"no earlier version of {shown} is kept: one is when a pass puts another in its place")
    return max(earlier, key=lambda one: one.retired_at).digest


def _named(found: Sequence[Managed], shown: str, prefix: str) -> str:
    wanted = prefix.lower().removeprefix("sha256:")
    known = {one.digest: None for place in found for one in place.kept if one.digest.startswith(wanted)}
    if not known:
        what = repr(harmless(prefix, 80))
        raise BadSettings(f"no kept version of {shown} begins with {what}: see skillbus rollback NAME --list")
    if len(known) > 1:
        raise BadSettings(
            f"{harmless(prefix, 80)!r} begins {len(known)} kept versions of {shown} "
            f"({', '.join(digest[:_SHOWN] for digest in known)}): give more of it"
        )
    return next(iter(known))


class Rollback:
    """Implements :class:`skillbus.core.ports.Reconciler`: each pass restores the one version.

    Args:
        name: the skill.
        digest: the version, whole.
    """

    def __init__(
        self, options: SkillsOptions, clock: Clock, name: str, digest: str, tell: Tell = lambda sentence: None
    ) -> None:
        self._options = options
        self._clock = clock
        self._name = name
        self._digest = digest
        self._tell = tell

    @property
    def vouched(self) -> bool:
        """True: when ``reconcile`` ends, its threads have come back."""
        return True

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One pass.

        Raises:
            ReconcileAborted: the checkpoint aborted it. Its ``result`` says what was undone.
            asyncio.CancelledError: it was cancelled, and nothing had to be undone.
        """
        tell = telling(self._tell, checkpoint)
        passing = _Passing(self._options, self._clock, checkpoint, tell, self._name, self._digest)
        try:
            await passing.run()
        except PassAborted as error:
            raise ReconcileAborted(str(error), passing.result()) from error
        except asyncio.CancelledError as error:
            if passing.result().reverted:
                raise ReconcileAborted("it was cancelled in a change, which was undone", passing.result()) from error
            raise
        finally:
            passing.close()
        return passing.result()


class _Passing:
    """One pass of a rollback, with what it holds."""

    def __init__(
        self, options: SkillsOptions, clock: Clock, checkpoint: Checkpoint, tell: Tell, name: str, digest: str
    ) -> None:
        self._checkpoint = checkpoint
        self._name = name
        self._digest = digest
        self._tally = Tally(tell)
        self._threads = Threads(checkpoint)
        self._places = Places(options, clock, checkpoint, self._tally)
        self._managed_count = 0

    def result(self) -> PassResult:
        """The summary so far, in this verb's own words."""
        told = self._tally.result()
        counts = {RESTORED: told.counts[Kind.UPDATE.value], Kind.KEEP.value: told.counts[Kind.KEEP.value]}
        return replace(told, counts=counts)

    def close(self) -> None:
        """End the threads, and close the roots."""
        self._threads.close()
        self._places.close()

    async def run(self) -> None:
        """Every root in turn. One that cannot be changed stops no other."""
        places = await self._places.open(self._threads, create=False)
        before: dict[Place, Mapping[str, Receipt]] = {}
        for place in places:
            if place.refused:
                continue
            try:
                await self._threads.run(read_receipts, place, Memory(), Memory())
                await self._threads.run(take_stock, place, Memory(), Memory(), self._threads)
                before[place] = place.lock.receipts
                await self._restore(place)
            except DiskRefused as error:
                self._places.refuse(place, error)
            except PassAborted:
                raise
            except SkillbusError as error:
                self._tally.errors.append(str(error))
        if not self._managed_count and not self._tally.errors:
            self._tally.errors.append(f"{self._name!r} is no longer managed there: see skillbus verify")
        if not self._places.failed:
            self._tally.installed = self._places.installed(before)

    async def _restore(self, place: Place) -> None:
        self._tally.tell(f"restores {self._name}: {place.root.path}")
        change = await self._threads.run(self._prepared, place)
        if change is None:
            return
        step = Step(Kind.UPDATE, self._name, None, places=True, relocks=True, restores=self._digest)
        ready = apply.Ready(step, change)
        await to_the_end(apply.change(place, [ready], self._checkpoint, self._threads, self._tally))
        await self._threads.run(self._places.sweep, place, self._threads.go_on)

    def _prepared(self, place: Place) -> Change | None:
        """The version staged, and what is to change; None if there is nothing to do. Blocking."""
        receipt = place.lock.receipts.get(self._name)
        if receipt is None:
            return None
        self._managed_count += 1
        if place.digests.get(self._name) == receipt.digest == self._digest:
            self._tally.counts[Kind.KEEP.value] += 1
            return None
        self._checkpoint()
        slot = "1"  # The staging folder was swept when the root was opened.
        kept = history.restore(place.root, self._name, self._digest, slot, self._threads.go_on)
        return Change(self._name, slot, kept.standing_in_for(receipt), moves=True)

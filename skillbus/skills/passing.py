"""A single pass of the reconciler, with what it holds: its child, its open roots, its tally. Used once, then closed.

The order of its steps, and a checkpoint before each that fetches or changes something. What the steps themselves do
stands in the files that they are named after: wishes.py, places.py, fetching.py, plan.py, apply.py, swap.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from skillbus.clock import Clock
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.errors import BadBundle, DiskRefused, SkillbusError
from skillbus.skills import apply, history, tree
from skillbus.skills.apply import Ready
from skillbus.skills.child import Child
from skillbus.skills.fetching import Fetching, Landed, other_than_pinned
from skillbus.skills.lock import Receipt
from skillbus.skills.memory import Memory, Seen
from skillbus.skills.options import SkillsOptions
from skillbus.skills.places import Place, Places, Stage, read_receipts, take_stock
from skillbus.skills.plan import Step, Wanted, plan, step_for, without_collisions
from skillbus.skills.quiet import Threads, to_the_end
from skillbus.skills.rules import Facts, source_id, tree_digest
from skillbus.skills.sources.source import Access
from skillbus.skills.sources.web import Trust, Web
from skillbus.skills.swap import Change
from skillbus.skills.tally import Tally, Tell
from skillbus.skills.wishes import Group, Wish, Wishes, last_seen, let_through, pinned, refused

BATCH = 256
"""Skills that are changed under one journal, hence undone together when a kill falls into them."""


class Passing:
    """One pass. ``run`` it, read ``result`` and ``kept``, ``close`` it.

    Args:
        beside: for a pass that is only to ``plan``: where to stage what it fetches. The roots are then only looked at.

    Attributes:
        tally: its summary in the making.
        kept: what the next pass shall know.
    """

    def __init__(
        self,
        options: SkillsOptions,
        clock: Clock,
        checkpoint: Checkpoint,
        *,
        memory: Memory | None = None,
        tell: Tell = lambda sentence: None,
        beside: Path | None = None,
    ) -> None:
        memory = memory or Memory()
        self.kept = Memory()
        self.tally = Tally(tell)
        self._options = options
        self._checkpoint = checkpoint
        self._memory = memory
        self._child = Child(options, clock)
        self._ending: asyncio.Task[str] | None = None
        self._used: set[str] = set()
        self._at: dict[Place, str] = {}
        self._stocked: set[Place] = set()
        self._threads = Threads(checkpoint)
        self._places = Places(options, clock, checkpoint, self.tally, beside)
        self._wishes = Wishes(options, access_of(options), self._child, clock, checkpoint, self.tally)
        self._fetching = Fetching(self._child, self._wishes, checkpoint, self._threads, self.tally)

    def result(self) -> PassResult:
        """The summary so far."""
        return self.tally.result()

    async def close(self) -> None:
        """Kill the child and see it dead; close the roots."""
        try:
            await to_the_end(self._gone())
        finally:
            self._places.close()
            self._threads.close()

    async def _gone(self) -> None:
        if self._ending is not None:
            await self._ending
        await self._child.kill()

    async def run(self) -> None:
        """All steps.

        Raises:
            PassAborted: as the checkpoint raised it.
        """
        planned, landed = await self.plan()
        before = {place: place.lock.receipts for place in self._places}
        ready: dict[Place, list[Ready]] = {place: [] for place in self._places}
        for place, step in planned:
            if not place.refused:
                await self._guarded(place, self._prepare(place, step, landed, ready[place]), _label(step))
        for place in self._places:
            await self._apply(place, ready[place])
        if self._options.manifests and not self._places.failed:
            self.tally.installed = self._places.installed(before)

    async def plan(self) -> tuple[list[tuple[Place, Step]], dict[str, Landed]]:
        """All steps up to the point where something would be changed.

        Returns:
            The steps with their place, and what was fetched for them, by the entry's url.

        Raises:
            PassAborted: as the checkpoint raised it.
        """
        if not self._options.manifests:
            self.tally.errors.append("no manifest is set, so nothing is done: set SKILLBUS_SKILLS_MANIFEST")
            return [], {}
        await self._open(create=False)
        manifest = await self._wishes.manifests(self._memory, self.kept, self._threads)
        if manifest.entries:
            await self._open(create=True)
        if any(entry.sha256 for entry in manifest.entries):  # What is pinned, and there, is not asked for.
            await self._take_stock()
        groups = await self._resolved(self._wishes.groups(manifest.entries, self._memory, self.kept))
        landed = await self._fetched(groups)
        self._ending = asyncio.create_task(self._child.kill(), name="skills.child.end")  # while the rest goes on
        wanted = self._wanted(groups, [entry.url for entry in manifest.entries], landed)
        steps: list[tuple[Place, Step]] = []
        for place in self._places:
            await self._guarded(place, self._plan_place(place, wanted, steps))
        return steps, landed

    async def _open(self, *, create: bool) -> None:
        for place in await self._places.open(self._threads, create=create):
            await self._guarded(place, self._threads.run(read_receipts, place, self._memory, self.kept))

    async def _take_stock(self) -> None:
        """Once: what lies in the roots. It takes a while, so a child that is needed anyway starts meanwhile."""
        for place in self._places:
            if place not in self._stocked:
                self._stocked.add(place)
                stock = self._threads.run(take_stock, place, self._memory, self.kept, self._threads)
                await self._guarded(place, stock)

    # ---- what is wanted --------------------------------------------------------------------------------------------

    async def _resolved(self, groups: list[Group]) -> list[Group]:
        """The groups whose place answered, with what is known of each skill at its present revision."""
        receipts = {one.source_id: one for place in self._places for one in place.lock.receipts.values()}
        for wish in (wish for group in groups for wish in group.wishes):
            seen = pinned(wish, receipts)
            if seen is not None and not self._needs_fetch(wish, seen):
                wish.seen = seen
        groups = await self._wishes.resolve(groups, receipts, self._memory, self.kept)
        if any(self._is_new(group, wish) for group in groups for wish in group.wishes):
            await self._child.start()
        await self._take_stock()
        for group in groups:
            self._wishes.drop_refused(
                group, self._memory, self.kept, lambda wish: wish.seen is None or self._needs_fetch(wish, wish.seen)
            )
        last: dict[str, Seen] = {}
        for wish in (wish for group in groups for wish in group.wishes if wish.seen is None):
            seen = last_seen(wish, receipts, self._memory)
            if seen is not None:
                last[wish.entry.url] = seen
        await self._fetching.compare(groups, last)
        return groups

    def _is_new(self, group: Group, wish: Wish) -> bool:
        """Whether nothing is known of it at the present revision, so that the child will be asked."""
        return wish.seen is None and refused(wish, group.revision, self._memory) is None

    async def _fetched(self, groups: list[Group]) -> dict[str, Landed]:
        """Fetch what is not known, or does not lie where it should."""
        wanted = []
        for group in groups:
            wishes = [wish for wish in group.wishes if wish.seen is None or self._needs_fetch(wish, wish.seen)]
            stage = await self._stage_for(wishes)
            if stage is not None:
                wanted.append((group, wishes, stage))
        return await self._fetching.fetch(wanted, self.kept)

    async def _stage_for(self, wishes: list[Wish]) -> Stage | None:
        """Where to fetch them to: in the first root that wants one of them, and whose disk does not refuse."""
        for host in (place for wish in wishes for place in self._places.of(wish.entry.scope)):
            try:
                return await self._threads.run(self._places.stage, host)
            except DiskRefused as error:
                self._places.refuse(host, error)
        return None

    def _needs_fetch(self, wish: Wish, seen: Seen) -> bool:
        """Whether a skill that is known does not lie where it should."""
        one = _wanted(wish, seen)
        lacking = [place for place in self._places.of(wish.entry.scope) if not place.holds(one.name, one.digest)]
        needs = False
        for place in lacking:
            try:
                step = step_for(one, place.inventory([one.name]))
            except DiskRefused as error:
                self._places.refuse(place, error)
            else:
                needs |= step is not None and step.places and not step.restores
        return needs

    def _wanted(self, groups: list[Group], order: list[str], landed: Mapping[str, Landed]) -> list[Wanted]:
        """Everything that is known, in the manifests' order, without two of one name."""
        known: dict[str, Wanted] = {}
        for wish in (wish for group in groups for wish in group.wishes):
            seen, entry = wish.seen, wish.entry
            if seen is None:
                continue
            if entry.sha256 is not None and seen.digest != entry.sha256:
                self._wishes.fail([entry], other_than_pinned(seen.digest, entry.sha256))
                continue
            known[entry.url] = _wanted(wish, seen)
            self.kept.seen[source_id(entry.url)] = seen
            if entry.url in landed:
                self._warn(known[entry.url], landed[entry.url])
        kept, dropped = without_collisions(known[url] for url in order if url in known)
        for one, why in dropped:
            self._wishes.hold(one.entry)
            self.tally.errors.append(why)
        return kept

    def _warn(self, wanted: Wanted, landed: Landed) -> None:
        label = _label(wanted)
        for warning in landed.warnings:
            self.tally.warn(f"{label}: {warning}")
        if wanted.name != wanted.own_name:
            self.tally.warn(f"{label}: the skill calls itself {wanted.own_name!r}")

    async def _plan_place(self, place: Place, wanted: list[Wanted], steps: list[tuple[Place, Step]]) -> None:
        mine = [one for one in wanted if one.entry.scope in place.scopes]
        inventory = await self._threads.run(place.inventory, [one.name for one in mine])
        found = plan(mine, inventory, self._wishes.held, may_remove=self._wishes.loaded_all)
        self.tally.errors += (f"{error} ({place.root.path})" for error in found.errors)
        steps += ((place, step) for step in found.steps)

    # ---- doing it --------------------------------------------------------------------------------------------------

    async def _prepare(self, place: Place, step: Step, landed: Mapping[str, Landed], ready: list[Ready]) -> None:
        """Stage what the step needs in its place, and say what is to change."""
        if not step.relocks:
            self.tally.counts[step.kind.value] += 1
            return
        receipt, slot = None, self._fetching.next_slot()
        if step.restores:
            receipt = await self._threads.run(self._restored, place, step, slot)
        elif step.wanted is not None and step.places:
            fetched = landed.get(step.wanted.entry.url)
            if fetched is None:
                raise BadBundle("it was not wanted there when the others were fetched: it will be tried again")
            if fetched.stage.path == str(place.root.staging_path) and fetched.slot not in self._used:
                slot = fetched.slot
                self._used.add(slot)
            else:
                await self._threads.run(apply.stage_copy, place, fetched, slot, self._threads)
            receipt = apply.receipt_for(step.wanted, fetched.facts, self._placed_at(place))
        elif step.wanted is not None:
            receipt = await self._threads.run(self._relocked, place, step.wanted)
        ready.append(Ready(step, Change(step.name, slot, receipt, moves=step.places)))

    def _placed_at(self, place: Place) -> str:
        """One time for all that the pass places there."""
        if place not in self._at:
            self._at[place] = apply.now_there(place)
        return self._at[place]

    def _restored(self, place: Place, step: Step, slot: str) -> Receipt:
        self._checkpoint()
        kept = history.restore(place.root, step.name, step.restores, slot, self._threads.go_on)
        return kept.standing_in_for(place.lock.receipts[step.name])

    def _relocked(self, place: Place, wanted: Wanted) -> Receipt:
        """The receipt for what lies there already. Blocking."""
        receipt = place.lock.receipts[wanted.name]
        facts: Facts | None = receipt.files
        if receipt.digest != wanted.digest:
            with tree.disk_words(f"{place.root.path / wanted.name} cannot be read"):
                facts = tree.scan(place.root.fd, wanted.name, self._threads.go_on)
        if facts is None or tree_digest(facts) != wanted.digest:
            raise BadBundle("it changed while it was looked at: it will be tried again")
        return apply.receipt_for(wanted, facts, receipt.placed_at)

    async def _apply(self, place: Place, ready: list[Ready]) -> None:
        slots = [one.change.slot for one in ready if one.step.places and one.step.wanted is not None]
        if slots:
            await self._guarded(place, self._threads.run(apply.flush, place, slots, self._threads))
        for begin in range(0, len(ready), BATCH):
            some = ready[begin : begin + BATCH]
            self.tally.tell(_changing(ready, begin, some))
            await self._guarded(
                place, to_the_end(apply.change(place, some, self._checkpoint, self._threads, self.tally))
            )
        if not place.refused:
            await self._guarded(place, self._threads.run(self._places.sweep, place, self._threads.go_on))
        if any(one.change.receipt is None for one in ready) and not place.refused:
            forgetting = self._threads.run(history.forget, place.root, place.lock.receipts, self._threads.go_on)
            await self._guarded(place, forgetting)

    async def _guarded(self, place: Place, step: Coroutine[Any, Any, None], label: str = "") -> None:
        """One step in one root. A root that the disk refuses is left alone from then on."""
        if place.refused:
            step.close()
            return
        try:
            await step
        except DiskRefused as error:
            self._places.refuse(place, error)
        except SkillbusError as error:
            let_through(error)
            self.tally.errors.append(f"{label}: {error}" if label else str(error))


def _changing(ready: list[Ready], begin: int, some: list[Ready]) -> str:
    """``changes 1-256 of 300 skills: a, b, c …``."""
    names = ", ".join(one.step.name for one in some[:3]) + (" …" if len(some) > 3 else "")
    which = f"{begin + 1}-{begin + len(some)} of {len(ready)} skills: " if len(ready) > 1 else ""
    return f"changes {which}{names}"


def _label(one: Step | Wanted) -> str:
    wanted = one.wanted if isinstance(one, Step) else one
    return one.name if wanted is None else f"{wanted.entry.place}: {wanted.name}"


def _wanted(wish: Wish, seen: Seen) -> Wanted:
    name = wish.entry.name or seen.own_name
    return Wanted(wish.entry, name, seen.own_name, seen.digest, seen.revision, seen.tree_id)


def access_of(options: SkillsOptions) -> Access:
    """What sources may use."""
    trust = Trust(
        options.token,
        frozenset(host.lower() for host in options.token_hosts),
        frozenset(host.lower() for host in options.local_hosts),
        frozenset(host.lower() for host in options.redirect_hosts),
    )
    return Access(Web(trust), options.max_archive_mb * 1024 * 1024, options.github)

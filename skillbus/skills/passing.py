"""A single pass of the reconciler, with what it holds: its child, its open roots, its tally. Used once, then closed.

The order of its steps, and a checkpoint before each that fetches or changes something. What the steps themselves do
stands in the files that they are named after: manifest.py, plan.py, apply.py, swap.py.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from skillbus.clock import Clock
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.core.text import harmless
from skillbus.errors import BadBundle, DiskRefused, PassAborted, SkillbusError
from skillbus.skills import apply, swap, tree
from skillbus.skills.apply import Place, Tally
from skillbus.skills.child import Child
from skillbus.skills.lock import Receipt, read_lock
from skillbus.skills.manifest import PROJECT, USER, Entry, Held, Manifest, merge, read_manifest
from skillbus.skills.options import SkillsOptions
from skillbus.skills.plan import Inventory, Kind, Step, Wanted, plan, without_collisions
from skillbus.skills.quiet import to_the_end
from skillbus.skills.root import Root, open_root
from skillbus.skills.rules import Facts, is_sha256, is_skill_name, shown_url, tree_digest

FLOCK_POLL_S = 0.2
"""Seconds between tries to get a root that another pass works in."""

_T = TypeVar("_T")


class Passing:
    """One pass. ``run`` it, read ``result``, ``close`` it."""

    def __init__(self, options: SkillsOptions, clock: Clock, checkpoint: Checkpoint) -> None:
        self.warnings: list[str] = []
        self._options = options
        self._clock = clock
        self._checkpoint = checkpoint
        self._tally = Tally()
        self._child = Child(options, clock)
        self._places: list[Place] = []
        self._refused: set[Path] = set()
        self._cancelled = threading.Event()
        self._slots = 0

    def result(self) -> PassResult:
        """The summary so far."""
        return PassResult(dict(self._tally.counts), tuple(self._tally.errors), tuple(self._tally.reverted))

    async def close(self) -> None:
        """Kill the child and see it dead; close the roots."""
        try:
            await self._child.kill()
        finally:
            for place in self._places:
                place.root.close()

    async def run(self) -> None:
        """All steps.

        Raises:
            PassAborted: as the checkpoint raised it.
        """
        if not self._options.manifests:
            self._tally.errors.append("no manifest is set, so nothing is done: set SKILLBUS_SKILLS_MANIFEST")
            return
        await self._open_places(create=False)
        merged, loaded_all = await self._load_manifests()
        if merged.entries:
            await self._open_places(create=True)
        wanted, held = await self._look_at(merged)
        for place in self._places:
            await self._guarded(place, self._take_stock(place))
        await self._apply(wanted, held, may_remove=loaded_all)
        for place in self._places:
            await self._guarded(place, self._sweep(place))

    # ---- opening ---------------------------------------------------------------------------------------------------

    async def _open_places(self, *, create: bool) -> None:
        """Open each root that is there, or with ``create`` each, in one order for all processes; recover and sweep."""
        scopes: dict[Path, frozenset[str]] = {}
        for scope, paths in ((USER, self._options.targets), (PROJECT, self._options.project_targets)):
            for path in paths:
                scopes[path] = scopes.get(path, frozenset()) | {scope}
        opened = {place.root.path for place in self._places}
        for path in sorted(scopes.keys() - opened - self._refused):
            try:
                await self._open_place(path, scopes[path], create=create)
            except DiskRefused as error:
                self._refused.add(path)
                self._tally.errors.append(str(error))

    async def _open_place(self, path: Path, scopes: frozenset[str], *, create: bool) -> None:
        self._checkpoint()
        root = await self._opened(path, create=create)
        if root is None:
            return
        twin = next((place for place in self._places if place.root.identity == root.identity), None)
        if twin is not None:  # One folder under two names. Its flock is ours already, and would not be given twice.
            root.close()
            self._refused.add(path)
            twin.scopes |= scopes
            return
        place = Place(root, scopes)
        self._places.append(place)
        await self._guarded(place, self._take(place))

    async def _take(self, place: Place) -> None:
        await self._take_flock(place.root)
        recovered = await self._in_thread(self._recover, place.root)
        if recovered:
            self.warnings.append(f"{place.root.path / recovered}: an unsettled change of a pass that died was undone")

    async def _opened(self, path: Path, *, create: bool) -> Root | None:
        found: list[Root | None] = []
        try:
            await self._in_thread(lambda: found.append(open_root(path, create=create)))
        except asyncio.CancelledError:
            for root in found:
                if root is not None:
                    root.close()
            raise
        return found[0]

    async def _take_flock(self, root: Root) -> None:
        with tree.disk_words(f"the skills folder {root.path} cannot be used"):
            while not root.try_flock():
                await self._clock.sleep(FLOCK_POLL_S)
                self._checkpoint()

    def _recover(self, root: Root) -> str | None:
        self._checkpoint()
        recovered = swap.recover(root)
        if swap.needs_sweep(root):
            self._checkpoint()
            swap.sweep(root)
        return recovered

    # ---- what is wanted --------------------------------------------------------------------------------------------

    async def _load_manifests(self) -> tuple[Manifest, bool]:
        """All manifests as one, and whether each of them loaded."""
        loaded: list[Manifest] = []
        for source in self._options.manifests:
            where, base = _place_of(source)
            shown = shown_url(where)
            try:
                answer = await self._ask({"job": "manifest", "source": where})
                loaded.append(read_manifest(answer.get("data"), shown, base))
            except SkillbusError as error:
                _let_through(error)
                text = str(error) if str(error).startswith(shown) else f"{shown}: {error}"
                self._tally.errors.append(f"{text}; its skills stay as they are, and nothing is removed")
        merged = merge(loaded)
        self._tally.errors += merged.errors
        self.warnings += merged.warnings
        return merged, len(loaded) == len(self._options.manifests)

    async def _look_at(self, merged: Manifest) -> tuple[list[Wanted], Held]:
        """Every entry with its name and digest, and what the failed ones may mean."""
        looked: list[Wanted] = []
        held = merged.held
        for entry in merged.entries:
            try:
                looked.append(await self._look(entry))
            except SkillbusError as error:
                _let_through(error)
                self._tally.errors.append(f"{entry.place} ({shown_url(entry.url)}): {error}")
                held |= _held(entry)
        kept, dropped = without_collisions(looked)
        for one, why in dropped:
            self._tally.errors.append(why)
            held |= _held(one.entry)
        return kept, held

    async def _look(self, entry: Entry) -> Wanted:
        if entry.scope == PROJECT and not self._options.project_targets:
            raise BadBundle("scope 'project' has no folder here: run this pod with a project, or use scope 'user'")
        answer = await self._ask({"job": "look", "url": entry.url})
        told, digest, ref = answer.get("name"), answer.get("digest"), answer.get("ref")
        if not is_skill_name(told) or not is_sha256(digest) or not isinstance(ref, str) or len(ref) > 200:
            raise BadBundle("what was read of it makes no sense: it is skipped")
        if entry.sha256 is not None and digest != entry.sha256:
            raise BadBundle(
                f"its content has the digest {digest}, and the manifest pins {entry.sha256}: nothing is installed; "
                "review the change, then pin the new digest"
            )
        name = entry.name or str(told)
        said = answer.get("warnings")
        for warning in said[:20] if isinstance(said, list) else ():
            self.warnings.append(f"{entry.place}: {name}: {harmless(str(warning))}")
        if name != told:
            self.warnings.append(f"{entry.place}: {name}: the skill calls itself {told!r}")
        return Wanted(entry, name, str(digest), harmless(ref, 200))

    async def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        self._checkpoint()
        return await self._child.ask(job)

    # ---- what is there ---------------------------------------------------------------------------------------------

    async def _take_stock(self, place: Place) -> None:
        place.lock = await self._in_thread(read_lock, place.root)

    async def _scan(self, place: Place, name: str) -> Facts | None:
        """What lies under ``name``; None if it is nothing that we could have placed."""

        def scanned() -> Facts | None:
            with tree.disk_words(f"{place.root.path / name} cannot be read"):
                return tree.scan(place.root.fd, name, self._go_on)

        return await self._in_thread(scanned)

    async def _inventory(self, place: Place, wanted: Iterable[Wanted]) -> Inventory:
        digests: dict[str, str | None] = {}
        for name in sorted({*place.lock.receipts, *(one.name for one in wanted)}):
            with tree.disk_words(f"{place.root.path / name} cannot be read"):
                if tree.inode(place.root.fd, name) is None:
                    continue
            # What is not ours is not even read: that it is there is all that matters.
            facts = await self._scan(place, name) if name in place.lock.receipts else None
            digests[name] = None if facts is None else tree_digest(facts)
        return Inventory(place.lock.receipts, digests)

    # ---- doing it --------------------------------------------------------------------------------------------------

    async def _apply(self, wanted: list[Wanted], held: Held, *, may_remove: bool) -> None:
        steps: list[tuple[Place, Step]] = []
        for place in list(self._places):
            mine = [one for one in wanted if one.entry.scope in place.scopes]
            await self._guarded(place, self._plan_place(place, mine, held, steps, may_remove=may_remove))
        for one in wanted:
            await self._place_everywhere(one, [(place, step) for place, step in steps if step.wanted is one])
        for place, step in steps:
            if step.wanted is None:
                await self._guarded(place, self._change(place, step, self._next_slot(), None))

    async def _plan_place(
        self, place: Place, wanted: list[Wanted], held: Held, steps: list[tuple[Place, Step]], *, may_remove: bool
    ) -> None:
        found = plan(wanted, await self._inventory(place, wanted), held, may_remove=may_remove)
        self._tally.errors += (f"{error} ({place.root.path})" for error in found.errors)
        steps += ((place, step) for step in found.steps)

    async def _place_everywhere(self, wanted: Wanted, steps: list[tuple[Place, Step]]) -> None:
        """One skill in every root: fetched once, then copied to, and swapped in, each."""
        label = f"{wanted.entry.place}: {wanted.name}"
        for place, step in steps:
            if not step.places:
                await self._guarded(place, self._relock(place, step, wanted), label)
        placing = [(place, step) for place, step in steps if step.places and not place.refused]
        if not placing:
            return
        host, slot = placing[0][0], self._next_slot()
        if await self._guarded(host, self._fetch(host, slot, wanted), label):
            for place, step in placing:
                await self._guarded(place, self._place_one(host, slot, place, step), label)
        for place, _ in placing:
            await self._guarded(place, self._sweep(place))

    async def _fetch(self, host: Place, slot: str, wanted: Wanted) -> None:
        self._checkpoint()
        with tree.disk_words(f"{host.root.path} cannot take {wanted.name}"):
            _ = host.root.staging
        folder = str(host.root.incoming(slot).parent)
        await self._ask({"job": "stage", "url": wanted.entry.url, "folder": folder, "slot": slot})

    async def _place_one(self, host: Place, incoming_slot: str, place: Place, step: Step) -> None:
        assert step.wanted is not None  # noqa: S101 - a step that places wants something
        slot, wanted = self._next_slot(), step.wanted

        def staged() -> Facts:
            with tree.disk_words(f"{host.root.path} cannot be read"):
                incoming = tree.open_folder(host.root.staging, incoming_slot)
            if incoming is None:
                raise BadBundle("nothing was staged: it will be tried again")
            try:
                return apply.stage(place, incoming, slot, wanted, self._go_on)
            finally:
                os.close(incoming)

        facts = await self._in_thread(staged)
        await self._change(place, step, slot, apply.receipt_for(place, slot, wanted, facts))

    async def _relock(self, place: Place, step: Step, wanted: Wanted) -> None:
        if not step.relocks:
            self._tally.counts[Kind.KEEP] += 1
            return
        facts = await self._scan(place, step.name)
        if facts is None or tree_digest(facts) != wanted.digest:
            raise BadBundle("it changed while it was looked at: it will be tried again")
        placed_at = place.lock.receipts[step.name].placed_at
        receipt = Receipt(shown_url(wanted.entry.url), wanted.ref, wanted.digest, facts, placed_at)
        await self._change(place, step, self._next_slot(), receipt)

    async def _change(self, place: Place, step: Step, slot: str, receipt: Receipt | None) -> None:
        await to_the_end(apply.change(place, step, slot, receipt, self._checkpoint, self._tally))

    async def _sweep(self, place: Place) -> None:
        if await self._in_thread(swap.needs_sweep, place.root):
            self._checkpoint()
            await self._in_thread(swap.sweep, place.root)

    # ---- how each step runs ----------------------------------------------------------------------------------------

    async def _guarded(self, place: Place, step: Coroutine[Any, Any, None], label: str = "") -> bool:
        """One step in one root; whether it was done. A root that the disk refuses is left alone from then on."""
        if place.refused:
            step.close()
            return False
        try:
            await step
        except DiskRefused as error:
            place.refused = True
            self._tally.errors.append(str(error))
            return False
        except SkillbusError as error:
            _let_through(error)
            self._tally.errors.append(f"{label}: {error}" if label else str(error))
            return False
        return True

    async def _in_thread(self, work: Callable[..., _T], *args: Any) -> _T:
        """Blocking work in a thread, awaited to its end even when the pass is cancelled, which hastens it."""
        return await to_the_end(asyncio.to_thread(work, *args), self._cancelled.set)

    def _go_on(self) -> None:
        if self._cancelled.is_set():
            raise PassAborted("the pass was cancelled")
        self._checkpoint()

    def _next_slot(self) -> str:
        self._slots += 1
        return str(self._slots)


def _place_of(source: str) -> tuple[str, str | None]:
    """Where a manifest lies, and for one on this disk its folder."""
    if source.startswith(("http://", "https://")):
        return source, None
    path = Path(source).expanduser().absolute()
    return str(path), str(path.parent)


def _held(entry: Entry) -> Held:
    return Held(frozenset([shown_url(entry.url)]), frozenset([entry.name] if entry.name else []))


def _let_through(error: SkillbusError) -> None:
    if isinstance(error, PassAborted):
        raise error

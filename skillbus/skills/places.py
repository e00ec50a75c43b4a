"""The skills roots of one pass: opened, locked against other processes, recovered, looked at, and closed again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skillbus.clock import Clock, wall_ms
from skillbus.core.ports import Checkpoint
from skillbus.errors import DiskRefused
from skillbus.skills import swap, tree
from skillbus.skills.lock import Lock, Receipt, read_lock
from skillbus.skills.manifest import PROJECT, USER
from skillbus.skills.memory import Memory, RootId
from skillbus.skills.options import SkillsOptions
from skillbus.skills.outline import outline
from skillbus.skills.plan import Inventory
from skillbus.skills.quiet import Threads
from skillbus.skills.retiring import retire_settled
from skillbus.skills.root import LOCK_NAME, Root, open_beside, open_root
from skillbus.skills.rules import tree_digest
from skillbus.skills.tally import Tally

FLOCK_POLL_S = 0.2
"""Seconds between tries to get a root that another pass works in."""

FLOCK_WAIT_S = 60.0
"""Seconds of such tries: a pass that is frozen may hold a root for ever."""

_RACY_MS = 2_000
"""What changed less than this ago may change again without a trace: some file systems count time in steps of 2 s."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A staging folder: open, and its path, by which the child reaches it."""

    fd: int
    path: str

    @property
    def identity(self) -> list[int]:
        """Device and inode, by which the child knows that the path leads it there."""
        info = os.fstat(self.fd)
        return [info.st_dev, info.st_ino]


@dataclass(slots=True, eq=False)
class Place:
    """A skills root within a pass.

    Attributes:
        root: the open folder; it stays open to the end of the pass.
        scopes: the scopes of the entries that go there.
        lock: as it stands on the disk.
        digests: of what the lock names, as it lies there; see ``Inventory``.
        refused: whether the disk has failed there, so that the pass leaves it alone.
    """

    root: Root
    scopes: frozenset[str]
    lock: Lock = field(default_factory=Lock)
    digests: dict[str, str | None] = field(default_factory=dict)
    refused: bool = False

    def holds(self, name: str, digest: str) -> bool:
        """Whether that very skill lies there, placed by us."""
        return name in self.lock.receipts and self.digests.get(name) == digest

    def inventory(self, names: Iterable[str]) -> Inventory:
        """What is there of ``names`` and of what the lock names. What is not ours is not even read.

        Raises:
            DiskRefused: the disk failed.
        """
        digests = dict(self.digests)
        with tree.disk_words(f"{self.root.path} cannot be read"):
            for name in names:
                if name not in self.lock.receipts and tree.inode(self.root.fd, name) is not None:
                    digests[name] = None
        return Inventory(self.lock.receipts, digests)


def _rank(place: Place) -> tuple[int, int]:
    """The same order for all processes: inode, then device, for another machine numbers its mounts differently."""
    device, inode = place.root.identity
    return inode, device


class Places:
    """All roots of one pass. ``open`` them, use them, ``close`` them.

    Args:
        beside: a folder for all that would be written in the roots, which are only looked at; None to work in them.

    Attributes:
        failed: whether the disk has refused any root, so that what lies there is not known.
    """

    def __init__(
        self, options: SkillsOptions, clock: Clock, checkpoint: Checkpoint, tally: Tally, beside: Path | None = None
    ) -> None:
        self.failed = False
        self._beside = beside
        self._clock = clock
        self._checkpoint = checkpoint
        self._tally = tally
        self._places: list[Place] = []
        self._refused: set[Path] = set()
        self._scopes: dict[Path, frozenset[str]] = {}
        self._ranks = {path: rank for rank, path in enumerate((*options.targets, *options.project_targets))}
        for scope, paths in ((USER, options.targets), (PROJECT, options.project_targets)):
            for path in paths:
                self._scopes[path] = self._scopes.get(path, frozenset()) | {scope}

    def __iter__(self) -> Iterator[Place]:
        return iter([place for place in self._places if not place.refused])

    def of(self, scope: str) -> list[Place]:
        """The usable places for entries of ``scope``."""
        return [place for place in self if scope in place.scopes]

    def close(self) -> None:
        """Close every root."""
        for place in self._places:
            place.root.close()

    async def open(self, threads: Threads, *, create: bool) -> list[Place]:
        """Open each root that is there, or with ``create`` each, take it for this pass, and recover it.

        Returns:
            The places that were taken now: what lies in them is to be looked at. One that was taken before can be among
            them, if it had to be let go of meanwhile.
        """
        opened: list[Place] = []
        known = {place.root.path for place in self._places}
        for path in sorted(self._scopes.keys() - known - self._refused):
            try:
                place = await self._open(path, threads, create=create)
            except DiskRefused as error:
                self._refuse(path, error)
            else:
                opened += [] if place is None else [place]
        return await self._take_all(opened, threads)

    async def _open(self, path: Path, threads: Threads, *, create: bool) -> Place | None:
        self._checkpoint()
        root = await self._opened(path, threads, create=create)
        if root is None:
            return None
        twin = next((place for place in self._places if place.root.identity == root.identity), None)
        if twin is not None:  # One folder under two names. Its flock is ours already, and would not be given twice.
            root.close()
            self._refused.add(path)
            twin.scopes |= self._scopes[path]
            return None
        place = Place(root, self._scopes[path])
        self._places.append(place)
        return place

    async def _opened(self, path: Path, threads: Threads, *, create: bool) -> Root | None:
        found: list[Root | None] = []
        try:
            await threads.run(lambda: found.append(self._root(path, create=create)))
        except asyncio.CancelledError:
            for root in found:
                if root is not None:
                    root.close()
            raise
        return found[0]

    def _root(self, path: Path, *, create: bool) -> Root | None:
        return open_root(path, create=create) if self._beside is None else open_beside(path, self._beside)

    async def _take_all(self, places: list[Place], threads: Threads) -> list[Place]:
        """Take the flock of each. Nobody waits for one while holding another that comes behind it in the order.

        So two passes over the same roots never wait for each other, by whatever paths they know them.
        """
        todo = sorted(places, key=_rank)
        taken: list[Place] = []
        while todo:
            place = todo.pop(0)
            try:
                with tree.disk_words(f"the skills folder {place.root.path} cannot be used"):
                    free = place.root.try_flock()
                if not free:
                    let_go = self._let_go_behind(place)
                    taken = [one for one in taken if one not in let_go]
                    todo = sorted({*todo, *let_go}, key=_rank)
                    await self._wait(place.root)
                await threads.run(self._recover, place, threads.go_on)
                taken.append(place)
            except DiskRefused as error:
                self._refuse(place.root.path, error)
        return taken

    def _let_go_behind(self, place: Place) -> list[Place]:
        """Release every flock that comes behind the place's. Those that have to be taken again."""
        behind = [one for one in self._places if _rank(one) > _rank(place) and one.root.is_taken]
        for one in behind:
            one.root.release()
        return [one for one in behind if not one.refused]

    async def _wait(self, root: Root) -> None:
        until_s = self._clock.now_s() + FLOCK_WAIT_S
        self._tally.tell(f"waits for another pass: {root.path}")
        while True:
            await self._clock.sleep(FLOCK_POLL_S)
            self._checkpoint()
            if root.try_flock():
                return
            if self._clock.now_s() >= until_s:
                raise DiskRefused(f"another pass works in {root.path}: it will be tried again")

    def _recover(self, place: Place, go_on: Callable[[], object]) -> None:
        go_on()
        for name in swap.recover(place.root, go_on):
            self._tally.warn(f"{place.root.path / name}: an unsettled change of a pass that died was undone")
        self._tally.errors += retire_settled(place.root, go_on)
        self.sweep(place, go_on)

    def installed(self, before: Mapping[Place, Mapping[str, Receipt]]) -> dict[str, str] | None:
        """The digest of every managed skill; None if one of them does not lie there as its receipt says.

        Where roots differ, the first target counts, in the user's order: one digest stands for a name.

        Args:
            before: the receipts as the pass found them. What has another by now was placed, or looked at, by it.
        """
        found: dict[str, str] = {}
        for place in sorted(self, key=lambda place: self._ranks.get(place.root.path, 0)):
            for name, receipt in place.lock.receipts.items():
                if receipt is before[place].get(name) and place.digests.get(name) != receipt.digest:
                    return None
                found.setdefault(name, receipt.digest)
        return found

    def stage(self, place: Place) -> Stage:
        """Where what is fetched for ``place`` lands. Blocking.

        Raises:
            DiskRefused: the disk refuses it.
        """
        self._checkpoint()
        with tree.disk_words(f"{place.root.path} cannot take what is fetched"):
            return Stage(place.root.staging, str(place.root.staging_path))

    def sweep(self, place: Place, go_on: Callable[[], object]) -> None:
        """Delete what passes left in our own folder. Blocking. What cannot be deleted is told, and stops nothing."""
        if swap.needs_sweep(place.root):
            try:
                swap.sweep(place.root, go_on)
            except DiskRefused as error:
                self._tally.errors.append(str(error))

    def refuse(self, place: Place, error: DiskRefused) -> None:
        """The disk failed there: the pass leaves the place alone from now on."""
        self.failed = place.refused = True
        self._tally.errors.append(str(error))

    def _refuse(self, path: Path, error: DiskRefused) -> None:
        self.failed = True
        self._refused.add(path)
        for place in self._places:
            place.refused = place.refused or place.root.path == path
        self._tally.errors.append(str(error))


def read_receipts(place: Place, memory: Memory, kept: Memory) -> None:
    """Read the lock. Blocking.

    Args:
        memory: what the last pass knew.
        kept: what the next shall know.

    Raises:
        DiskRefused: the disk failed, or the lock cannot be understood.
    """
    place.lock = _lock(place.root, memory, kept)


def take_stock(place: Place, memory: Memory, kept: Memory, threads: Threads) -> None:
    """Find out what lies there of what the lock names. Blocking.

    A tree whose outline is that of its last reading is not read again.

    Args:
        memory: what the last pass knew.
        kept: what the next shall know.

    Raises:
        DiskRefused: the disk failed.
    """
    place.digests = {}
    for name in place.lock.receipts:
        threads.go_on()
        with tree.disk_words(f"{place.root.path / name} cannot be read"):
            if tree.inode(place.root.fd, name) is not None:
                place.digests[name] = _digest(place.root, name, memory.digests, kept.digests, threads)


def _lock(root: Root, memory: Memory, kept: Memory) -> Lock:
    with tree.disk_words(f"{root.path} cannot be read"):
        mark = tree.mark(root.fd, LOCK_NAME)
    last = memory.locks.get(root.identity)
    lock = last[1] if last is not None and last[0] == mark else read_lock(root)
    if mark is not None:
        kept.locks[root.identity] = (mark, lock)
    return lock


def _digest(
    root: Root,
    name: str,
    known: Mapping[tuple[RootId, str], tuple[int, str]],
    kept: dict[tuple[RootId, str], tuple[int, str]],
    threads: Threads,
) -> str | None:
    began_ms = wall_ms()
    shape = outline(root.fd, name)
    if shape is None:
        return None
    key = (root.identity, name)
    last = known.get(key)
    if last is not None and last[0] == shape.print:
        kept[key] = last
        return last[1]
    facts = tree.scan(root.fd, name, threads.go_on)
    if facts is None:
        return None
    digest = tree_digest(facts)
    if shape.newest_ns // 1_000_000 < began_ms - _RACY_MS:
        kept[key] = (shape.print, digest)
    return digest

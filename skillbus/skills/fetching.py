"""From wishes to staged trees: the child lists and fetches, a place at a time for all its skills, and is checked.

What the child answers is not believed: what it says it wrote must be what lies there, by name, size and executable bit,
and byte by byte where the manifest pins a digest. What was under way when a child died is fetched again, one place
after the other and then ever fewer of its skills, so that one poisoned skill costs only itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skillbus.core.ports import Checkpoint
from skillbus.core.text import harmless
from skillbus.errors import (
    ArchiveBomb,
    BadArchive,
    BadBundle,
    BrokenArchive,
    DiskRefused,
    SkillbusError,
    TooBig,
    TooManyFiles,
)
from skillbus.skills import tree
from skillbus.skills.child import Child, ChildDied
from skillbus.skills.manifest import Entry
from skillbus.skills.memory import Memory, Refusal, Seen
from skillbus.skills.outline import outline
from skillbus.skills.places import Stage
from skillbus.skills.quiet import Threads
from skillbus.skills.rules import (
    MAX_BYTES,
    MAX_FILES,
    SKILL_FILE,
    Facts,
    FileFact,
    PathSet,
    is_sha256,
    is_skill_name,
    source_id,
    tree_digest,
)
from skillbus.skills.tally import Tally
from skillbus.skills.wishes import ASKED_AT_ONCE, Group, Wish, Wishes, at_once, let_through


class _TryAgain(BadArchive):
    """What came is no skill, and the next time it may be one."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A skill that was fetched, and lies in ``slot`` of ``stage``. ``sizes`` in bytes, by path."""

    stage: Stage
    slot: str
    own_name: str
    digest: str
    facts: Facts
    sizes: Mapping[str, int]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Fetch:
    """A fetch under way.

    Attributes:
        lists: whether the tree ids are wanted, too.
        landed: what has come of it, by subpath.
        trees: the tree ids, by subpath.
        died: whether the child died in it.
        other: whether what came goes by another name than the group's revision.
    """

    group: Group
    wishes: list[Wish]
    stage: Stage
    lists: bool
    trees: dict[str, str]
    landed: dict[str, Landed | SkillbusError] = field(default_factory=dict)
    died: bool = False
    other: bool = False

    @property
    def revision(self) -> str:
        """By what the skills that came may be remembered; empty if by nothing."""
        return "" if self.other else self.group.revision.id

    @property
    def missing(self) -> list[str]:
        """The subpaths of which nothing was heard."""
        return sorted({wish.origin.subpath for wish in self.wishes} - self.landed.keys())


class Fetching:
    """One pass' fetches."""

    def __init__(self, child: Child, wishes: Wishes, checkpoint: Checkpoint, threads: Threads, tally: Tally) -> None:
        self._child = child
        self._wishes = wishes
        self._checkpoint = checkpoint
        self._threads = threads
        self._tally = tally
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE)  # what waits in the child for its turn would count as silent
        self._slots = 0

    def next_slot(self) -> str:
        """A name that nothing in any staging folder has."""
        self._slots += 1
        return str(self._slots)

    # ---- tree ids --------------------------------------------------------------------------------------------------

    async def compare(self, groups: Iterable[Group], last: Mapping[str, Seen]) -> None:
        """Note which skills are unchanged though their place has moved on: those whose git tree is the same.

        Args:
            last: what was known of a skill at an earlier revision, by the entry's url.
        """
        await at_once([self._compare(group, last) for group in groups])

    async def _compare(self, group: Group, last: Mapping[str, Seen]) -> None:
        comparable = [
            wish for wish in group.wishes if wish.seen is None and (seen := last.get(wish.entry.url)) and seen.tree_id
        ]
        if not comparable:
            return
        try:
            async with self._turns:
                trees = group.trees = await self._trees(group)
        except SkillbusError as error:
            self._wishes.fail([wish.entry for wish in group.wishes if wish.seen is None], error)
            group.wishes = [wish for wish in group.wishes if wish.seen is not None]
            return
        for wish in comparable:
            seen = last[wish.entry.url]
            if trees.get(wish.origin.subpath) == seen.tree_id:
                wish.seen = Seen(group.revision.id, seen.own_name, seen.digest, seen.tree_id)

    async def _trees(self, group: Group) -> dict[str, str]:
        self._checkpoint()
        subpaths = sorted({wish.origin.subpath for wish in group.wishes})
        job = {
            "job": "trees",
            "origin": group.origin._asdict(),
            "revision": group.revision._asdict(),
            "subpaths": subpaths,
        }
        return _tree_ids(await self._wishes.patiently(group.origin.url, lambda: self._child.ask(job)))

    # ---- skills ----------------------------------------------------------------------------------------------------

    async def fetch(self, wanted: Iterable[tuple[Group, list[Wish], Stage]], kept: Memory) -> dict[str, Landed]:
        """Fetch and check. What is known of each wish is then noted in it.

        Returns:
            What has landed, by the entry's url. Of the others the errors are told.
        """
        fetches = [_begun(group, wishes, stage) for group, wishes, stage in wanted]
        await at_once([self._fetch_at_once(fetch) for fetch in fetches])
        for fetch in fetches:
            if fetch.died:  # Of what, nobody knows: several were under way. So now by itself.
                await self._fetch_alone(fetch, fetch.missing)
        found: dict[str, Landed] = {}
        for fetch in fetches:
            await self._settle(fetch, found, kept)
        return found

    async def _fetch_at_once(self, fetch: _Fetch) -> None:
        try:
            async with self._turns:
                await self._ask(fetch, fetch.missing)
        except ChildDied:
            fetch.died = True
        except SkillbusError as error:
            let_through(error)
            fetch.landed |= dict.fromkeys(fetch.missing, error)

    async def _fetch_alone(self, fetch: _Fetch, subpaths: list[str]) -> None:
        if not subpaths:
            return
        try:
            await self._ask(fetch, subpaths)
        except ChildDied as error:
            missing = [subpath for subpath in subpaths if subpath not in fetch.landed]
            if len(missing) < 2:
                fetch.landed |= dict.fromkeys(missing, error)
                return
            middle = len(missing) // 2
            await self._fetch_alone(fetch, missing[:middle])
            await self._fetch_alone(fetch, missing[middle:])
        except SkillbusError as error:
            let_through(error)
            fetch.landed |= {subpath: error for subpath in subpaths if subpath not in fetch.landed}

    async def _settle(self, fetch: _Fetch, found: dict[str, Landed], kept: Memory) -> None:
        """Check what landed, note it in its wishes, and tell the errors: one that several share only once."""
        pinned = {wish.origin.subpath: wish.entry.sha256 for wish in fetch.wishes if wish.entry.sha256}
        await self._threads.run(self._check, fetch, pinned)
        failed: dict[int, tuple[SkillbusError, list[Entry]]] = {}
        for wish in fetch.wishes:
            subpath = wish.origin.subpath
            landed = fetch.landed.get(subpath) or _TryAgain("nothing came of it: it will be tried again")
            if isinstance(landed, Landed):
                found[wish.entry.url] = landed
                tree_id = fetch.trees.get(subpath, wish.seen.tree_id if wish.seen else "")
                wish.seen = Seen(fetch.revision, landed.own_name, landed.digest, tree_id)
            else:
                wish.seen = None  # It is known, but cannot be had: so nothing more is tried, nor told, of it.
                failed.setdefault(id(landed), (landed, []))[1].append(wish.entry)
        for error, entries in failed.values():
            self._wishes.fail(entries, error)
            if fetch.revision and lasts(error):
                again = type(error)(str(error))  # less what it was raised in
                for entry in entries:
                    refusal = Refusal(fetch.revision, entry.sha256, again)
                    kept.refused[source_id(entry.url)] = refusal

    async def _ask(self, fetch: _Fetch, subpaths: list[str]) -> None:
        group = fetch.group
        what = f"fetches {group.shown}: {_skills(len(subpaths))}"
        self._tally.tell(what)

        def ask() -> Awaitable[dict[str, Any]]:
            slots = {subpath: self.next_slot() for subpath in subpaths}  # those of a try before have something in them

            def take(kind: str, said: dict[str, Any]) -> None:
                if kind == "landed":
                    self._take(fetch, slots, said)
                elif isinstance(said.get("bytes"), int):
                    self._tally.tell(f"{what}, {said['bytes'] / 2**20:.1f} MiB")

            origin, revision = group.origin._asdict(), group.revision._asdict()
            job = {"job": "fetch", "origin": origin, "revision": revision, "folder": fetch.stage.path}
            return self._child.ask({**job, "inode": fetch.stage.identity, "slots": slots, "trees": fetch.lists}, take)

        self._checkpoint()
        answer = await self._wishes.patiently(group.origin.url, ask)
        fetch.trees |= _tree_ids(answer)
        fetch.other = fetch.other or answer.get("other") is True

    def _take(self, fetch: _Fetch, slots: Mapping[str, str], said: dict[str, Any]) -> None:
        subpath = said.get("subpath")
        if not isinstance(subpath, str) or subpath not in slots:
            return
        if "error" in said:
            fetch.landed[subpath] = self._child.error(said["error"])
            return
        try:
            fetch.landed[subpath] = _landed(fetch.stage, slots[subpath], said)
        except (KeyError, TypeError, ValueError, AttributeError):
            fetch.landed[subpath] = _TryAgain("what was read of it makes no sense: it is skipped")
        except BadArchive as error:
            fetch.landed[subpath] = error

    def _check(self, fetch: _Fetch, pinned: Mapping[str, str]) -> None:
        """Blocking: for a thread."""
        for subpath, landed in fetch.landed.items():
            if isinstance(landed, Landed):
                try:
                    check(landed, pinned.get(subpath, ""), self._threads)
                except (BadArchive, BadBundle, DiskRefused) as error:
                    fetch.landed[subpath] = error


def _begun(group: Group, wishes: list[Wish], stage: Stage) -> _Fetch:
    lists = group.trees is None and any(wish.seen is None for wish in wishes)
    return _Fetch(group, wishes, stage, lists, dict(group.trees or {}))


def check(landed: Landed, pinned: str, threads: Threads) -> None:
    """Whether what lies in the slot is what the child says, and what the manifest pins. Blocking.

    Raises:
        BadArchive, BadBundle: it is not.
        DiskRefused: the disk failed.
    """
    threads.go_on()
    if SKILL_FILE not in landed.facts:
        raise BadBundle(f"there is no {SKILL_FILE} at the top")
    if pinned and landed.digest != pinned:
        raise other_than_pinned(landed.digest, pinned)
    with tree.disk_words("the staging folder cannot be read"):
        shape = outline(landed.stage.fd, landed.slot, unshared=True)
        facts = tree.scan(landed.stage.fd, landed.slot, threads.go_on) if pinned else landed.facts
    told = {path: (landed.sizes[path], fact.executable) for path, fact in landed.facts.items()}
    if shape is None or dict(shape.files) != told or facts != landed.facts:
        raise _TryAgain("what was staged is not what was read: it will be tried again")


def lasts(error: SkillbusError) -> bool:
    """Whether the same bytes would come to it again. A cut archive, or a slow machine, is no fault of the bytes."""
    return isinstance(error, BadBundle | BadArchive) and not isinstance(error, BrokenArchive | ArchiveBomb | _TryAgain)


def other_than_pinned(digest: str, pinned: str) -> BadBundle:
    """The error for a skill whose content is not what the manifest pins."""
    return BadBundle(
        f"its content has the digest {digest}, and the manifest pins {pinned}: nothing is placed; "
        "review the change, then pin the new digest"
    )


def _landed(stage: Stage, slot: str, said: Mapping[str, Any]) -> Landed:
    """The child's words as a value.

    Raises:
        BadArchive: a path that cannot be a skill's.
        KeyError, TypeError, ValueError, AttributeError: they make no sense.
    """
    paths, facts, sizes = PathSet(), {}, {}
    if len(said["files"]) > MAX_FILES:
        raise TooManyFiles(f"it has more than {MAX_FILES} files")
    for path, (sha256, executable, size) in said["files"].items():
        paths.add(path, folder=False)
        if not is_sha256(sha256) or not isinstance(executable, bool) or not isinstance(size, int) or size < 0:
            raise ValueError("a file without a digest")
        facts[path], sizes[path] = FileFact(sha256, executable), size
    if len(paths) > MAX_FILES or sum(sizes.values()) > MAX_BYTES:
        raise TooBig(f"it has more than {MAX_FILES} files and folders, or {MAX_BYTES // 1024 // 1024} MiB")
    name, digest = said["name"], tree_digest(facts)
    if not is_skill_name(name) or said["digest"] != digest:
        raise ValueError("no name, or another digest")
    warnings = tuple(harmless(str(warning)) for warning in said.get("warnings", ())[:20])
    return Landed(stage, slot, name, digest, facts, sizes, warnings)


def _tree_ids(answer: Mapping[str, Any]) -> dict[str, str]:
    trees = answer.get("trees")
    if not isinstance(trees, dict):
        return {}
    return {path: tree_id for path, tree_id in trees.items() if isinstance(tree_id, str) and len(tree_id) <= 64}


def _skills(count: int) -> str:
    return f"{count} skill{'' if count == 1 else 's'}"

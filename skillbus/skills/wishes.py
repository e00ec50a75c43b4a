"""What the manifests ask for, as far as it can be told without fetching a skill: entries, their places, what is known.

    manifests -> entries -> one resolve per place (conditional) -> what is known of each at that revision

Here the pod's own process speaks to sources: a few bytes at a time, asked conditionally, several places at once. Only
a manifest that changed goes to the child, which parses it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from skillbus.clock import Clock
from skillbus.core.ports import Checkpoint
from skillbus.errors import BadBundle, BadManifest, PassAborted, RateLimited, SkillbusError, SourceUnavailable
from skillbus.skills.child import Child
from skillbus.skills.lock import Receipt
from skillbus.skills.manifest import PROJECT, Entry, Held, Manifest, merge, read_manifest
from skillbus.skills.memory import Memory, Parsed, Refusal, Seen
from skillbus.skills.options import SkillsOptions
from skillbus.skills.quiet import Threads, to_the_end
from skillbus.skills.rules import shown_url, source_id
from skillbus.skills.sources import source_of, sources
from skillbus.skills.sources.source import Access, Origin, Revision, Source
from skillbus.skills.sources.wire import import_client
from skillbus.skills.tally import Tally

ASKED_AT_ONCE = 4
"""Places that are asked, or fetched from, at the same time."""

PATIENCE_S = 60.0
"""The longest a pass waits for a source that wants to be left alone. Beyond it, the pass ends and the loop waits."""

_TICK_S = 0.1
"""What is left of a wait after a sleep that ended a little early."""

MAX_MANIFEST_BYTES = 256 * 1024

UNKNOWN = Revision("")
_ASKS_THE_WEB = b"http"
_T = TypeVar("_T")


@dataclass(slots=True)
class Wish:
    """An entry, where it comes from, and what is known of its skill at the present revision (None: fetch it)."""

    entry: Entry
    origin: Origin
    seen: Seen | None = None


@dataclass(slots=True)
class Group:
    """The wishes of one place, which costs one resolve and at most one fetch.

    Attributes:
        trees: the git tree ids at ``revision``, by subpath; None if they were not asked for.
    """

    source: Source
    origin: Origin
    wishes: list[Wish] = field(default_factory=list)
    revision: Revision = UNKNOWN
    trees: Mapping[str, str] | None = None

    @property
    def shown(self) -> str:
        """The place at its revision, for people."""
        commit = self.revision.id[:7] if len(self.revision.id) == 40 else ""
        return (
            f"{self.origin.place.rpartition('@')[0]}@{commit}"
            if commit and "@" in self.origin.place
            else self.origin.place
        )


class Wishes:
    """One pass' wishes."""

    def __init__(
        self, options: SkillsOptions, access: Access, child: Child, clock: Clock, checkpoint: Checkpoint, tally: Tally
    ) -> None:
        self._options = options
        self._access = access
        self._child = child
        self._clock = clock
        self._checkpoint = checkpoint
        self._tally = tally
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE)
        self._spared_until_s: dict[str, float] = {}
        self.held = Held()
        self.loaded_all = False

    # ---- manifests -------------------------------------------------------------------------------------------------

    async def manifests(self, memory: Memory, kept: Memory, threads: Threads) -> Manifest:
        """All manifests as one."""
        loaded: list[Manifest] = []
        for source in self._options.manifests:
            where, base = place_of(source)
            shown = shown_url(where)
            try:
                parsed = await self._manifest(where, base, memory.manifests.get(where), threads)
            except SkillbusError as error:
                let_through(error)
                text = str(error) if str(error).startswith(shown) else f"{shown}: {error}"
                self._tally.errors.append(f"{text}; its skills stay as they are, and nothing is removed")
                if where in memory.manifests:
                    kept.manifests[where] = memory.manifests[where]
                    memory.hand_on(memory.manifests[where].manifest.entries, kept)
            else:
                kept.manifests[where] = parsed
                loaded.append(parsed.manifest)
        merged = merge(loaded)
        self._tally.errors += merged.errors
        self._tally.warnings += merged.warnings
        self.held |= merged.held
        self.loaded_all = len(loaded) == len(self._options.manifests)
        return merged

    async def _manifest(self, where: str, base: str | None, known: Parsed | None, threads: Threads) -> Parsed:
        self._checkpoint()
        if base is None:
            self._tally.tell(f"asks {shown_url(where)}")
            etag = known.mark if known else ""
            told = await self.patiently(
                where,
                lambda: self._access.web.ask(where, etag=etag, max_bytes=MAX_MANIFEST_BYTES, own=True),
            )
            if known is not None and not told.changed:
                return known
            raw, mark = told.body, told.etag
        else:
            raw = await threads.run(_read, Path(where))
            mark = hashlib.sha256(raw).hexdigest()
            if known is not None and known.mark == mark:
                return known
        self._checkpoint()
        await self._child.start()  # Before the imports, which would hold the interpreter, and so it, up.
        importing = asyncio.ensure_future(threads.run(_import_for, raw))
        try:
            data = await self._child.parse_manifest(raw)
        finally:  # Not one of at_once(): its threads would count as cancelled when a manifest is broken.
            await to_the_end(importing)
        return Parsed(mark, read_manifest(data, shown_url(where), base))

    # ---- places ----------------------------------------------------------------------------------------------------

    def groups(self, entries: Iterable[Entry], memory: Memory, kept: Memory) -> list[Group]:
        """The entries by the place that they come from."""
        found: dict[tuple[str, str], Group] = {}
        for entry in entries:
            try:
                if entry.scope == PROJECT and not self._options.project_targets:
                    raise BadBundle("scope 'project' has no folder here: run this pod with a project, or scope 'user'")
                source, origin = kept.origins[entry.url] = memory.origins.get(entry.url) or self._origin(entry.url)
            except SkillbusError as error:
                self.fail([entry], error)
            else:
                group = found.setdefault((origin.source, origin.place), Group(source, origin))
                group.wishes.append(Wish(entry, origin))
        return list(found.values())

    def _origin(self, url: str) -> tuple[Source, Origin]:
        source = source_of(url, self._access)
        return source, source.origin(url, self._access)

    async def resolve(
        self, groups: list[Group], receipts: Mapping[str, Receipt], memory: Memory, kept: Memory
    ) -> list[Group]:
        """Ask each place what it holds now, and note what is known of its skills at that revision.

        A place all of whose skills are known already (they are pinned) is not asked.

        Args:
            receipts: of every root, by source id.

        Returns:
            the groups whose place answered.
        """
        answers = await at_once([self._resolve(group, receipts, memory) for group in groups])
        good = [group for group, answered in zip(groups, answers, strict=True) if answered]
        for group in (group for group, answered in zip(groups, answers, strict=True) if not answered):
            memory.hand_on((wish.entry for wish in group.wishes), kept)
        for group in good:
            if group.revision.id:
                kept.revisions[group.origin.source, group.origin.place] = group.revision
        return merged(good)

    async def _resolve(self, group: Group, receipts: Mapping[str, Receipt], memory: Memory) -> bool:
        if all(wish.seen for wish in group.wishes):
            return True
        known = memory.revisions.get((group.origin.source, group.origin.place))
        try:
            async with self._turns:
                self._checkpoint()
                self._tally.tell(f"asks {group.origin.place}")
                group.revision = await self.patiently(
                    group.origin.url, lambda: group.source.resolve(group.origin, known, self._access)
                )
        except SkillbusError as error:
            let_through(error)
            self.fail([wish.entry for wish in group.wishes], error)
            return False
        for wish in group.wishes:
            wish.seen = wish.seen or last_seen(wish, receipts, memory, at=group.revision.id)
        return True

    def drop_refused(self, group: Group, memory: Memory, kept: Memory, fetches: Callable[[Wish], bool]) -> None:
        """Tell again why skills were refused that would be fetched only to be refused again, and wish for them no more.

        Args:
            fetches: whether a wish would be fetched, if it is not told here.
        """
        told: dict[int, tuple[SkillbusError, list[Entry]]] = {}
        for wish in tuple(group.wishes):
            refusal = refused(wish, group.revision, memory)
            if refusal is not None and fetches(wish):
                kept.refused[source_id(wish.entry.url)] = refusal
                told.setdefault(id(refusal.error), (refusal.error, []))[1].append(wish.entry)
                group.wishes.remove(wish)
        for error, entries in told.values():
            self.fail(entries, error)

    # ---- trouble ---------------------------------------------------------------------------------------------------

    def fail(self, entries: list[Entry], error: SkillbusError) -> None:
        """One error for all of ``entries``, whose skills stay as they are."""
        let_through(error)
        first, more = entries[0], len(entries) - 1
        others = f" and {more} more" if more else ""
        text = str(error)
        shown = shown_url(first.url)
        told = text if shown in text else f"({shown}): {text}"
        self._tally.errors.append(f"{first.place}{others}{': ' if told is text else ' '}{told}")
        for entry in entries:
            self.hold(entry)

    def hold(self, entry: Entry) -> None:
        """What the entry may mean stays as it is."""
        self.held |= Held.of(entry.url, entry.name)

    async def patiently(self, url: str, ask: Callable[[], Awaitable[_T]]) -> _T:
        """``ask``, and once more if the source wants to be left alone for a short while first.

        Args:
            url: what is asked. A host that wants to be left alone is asked nothing else meanwhile.

        Raises:
            RateLimited: for longer; the pass' summary then says how long.
        """
        host = _host_of(url)
        for patience_s in (PATIENCE_S, 0.0):
            try:
                self._spare(host)
                return await ask()
            except RateLimited as error:
                self._spared_until_s[host] = max(self._spared_until_s.get(host, 0), self._clock.now_s() + error.wait_s)
                if error.wait_s > patience_s:
                    self._tally.retry_after_s = max(self._tally.retry_after_s, error.wait_s)
                    raise
                self._tally.tell(f"waits {error.wait_s:g} s: {error}")
                await self._clock.sleep(error.wait_s)
                self._checkpoint()
        raise AssertionError("unreachable")

    def _spare(self, host: str) -> None:
        rest_s = self._spared_until_s.get(host, 0.0) - self._clock.now_s()
        if host and rest_s > _TICK_S:
            raise RateLimited(f"{host} wants to be left alone: it will be asked again in {rest_s:.0f} s", rest_s)


def refused(wish: Wish, revision: Revision, memory: Memory) -> Refusal | None:
    """Why the wish's skill was not taken at ``revision``, if it was not: it would not be this time."""
    refusal = memory.refused.get(source_id(wish.entry.url))
    same = refusal is not None and (refusal.revision, refusal.pinned) == (revision.id, wish.entry.sha256)
    return refusal if same else None


def merged(groups: Iterable[Group]) -> list[Group]:
    """Those that turned out to be one place (a branch, and the commit that it means) as one: one fetch serves both."""
    found: dict[tuple[str, ...], Group] = {}
    for group in groups:
        # A revision that says more than its commit (a ref with slashes) reads the subpaths in its own way.
        same = group.revision.id and " " not in group.revision.etag
        key = (group.origin.source, group.origin.url, group.revision.id if same else group.origin.place)
        first = found.setdefault(key, group)
        if first is not group:
            first.wishes += group.wishes
    return list(found.values())


def last_seen(wish: Wish, receipts: Mapping[str, Receipt], memory: Memory, at: str | None = None) -> Seen | None:
    """What the last pass or a receipt knows of the wish's skill; with ``at``, only if it was at that revision."""
    source = source_id(wish.entry.url)
    receipt = receipts.get(source)
    found = [memory.seen.get(source)]
    if receipt is not None and not receipt.instead_of:
        found.append(Seen(receipt.revision, receipt.own_name, receipt.digest, receipt.tree_id))
    elif receipt is not None and receipt.instead_of_revision:
        wanted = (receipt.instead_of, receipt.instead_of_tree_id)
        found.append(Seen(receipt.instead_of_revision, receipt.own_name, *wanted))
    return next((seen for seen in found if seen and (at is None or (at and seen.revision == at))), None)


def pinned(wish: Wish, receipts: Mapping[str, Receipt]) -> Seen | None:
    """What a receipt knows, if the entry pins that very content: then there is nothing to ask."""
    receipt = receipts.get(source_id(wish.entry.url))
    if receipt is None or receipt.digest != wish.entry.sha256:
        return None
    return Seen(receipt.revision, receipt.own_name, receipt.digest, receipt.tree_id)


def place_of(source: str) -> tuple[str, str | None]:
    """Where a manifest lies, and for one on this disk its folder."""
    if source.lower().startswith(("http://", "https://")):
        return source, None
    path = Path(source).expanduser().absolute()
    return str(path), str(path.parent)


def _host_of(url: str) -> str:
    """Host and port as written, less a user; empty for what lies on this machine."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise SourceUnavailable(f"it cannot be read ({error.strerror}): check the path") from None
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BadManifest(f"it is longer than {MAX_MANIFEST_BYTES // 1024} KB")
    return raw


def _import_for(raw: bytes) -> None:
    """Import what the first question about a manifest's entries would, and be waited for. Blocking."""
    sources()
    if _ASKS_THE_WEB in raw:
        import_client()


def let_through(error: SkillbusError) -> None:
    """Raise an abort again: it is nobody's error."""
    if isinstance(error, PassAborted):
        raise error


async def at_once(work: Iterable[Awaitable[_T]]) -> list[_T]:
    """Await all; when one raises, cancel the others and see them end first."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise

"""What happened: the audit of control and bots, and the orders that only records and pods know, by time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from skillbus.bus.operator_bus import OperatorBus
from skillbus.control.audit import Entry, merged, unaudited
from skillbus.core.audit import Told, unpacked
from skillbus.errors import NeedsHuman

_PREFIX_LEN = 6
"""So many characters of an id name a kill: it is typed from a screen to a keyboard."""

_ENTRIES_LIMIT = 1000
"""Entries that are shown about one kill; the youngest of them."""


class NoSuchKill(NeedsHuman):
    """No order of that id is known."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries.

    Attributes:
        since_ms: not older than this (server time).
        before_ms: older than this; 0: however young.
        kinds: of these kinds; empty: of any.
        scope: of this scope alone (``fleet``, ``group:eu``, ``pod:web-1``); empty: of any.
        by: whose ``by`` contains this, in any case.
    """

    since_ms: int = 0
    before_ms: int = 0
    kinds: frozenset[str] = frozenset()
    scope: str = ""
    by: str = ""

    def takes(self, entry: Entry) -> bool:
        """Whether it is one of those."""
        fields = entry.fields
        return (
            entry.at_ms >= self.since_ms
            and (not self.before_ms or entry.at_ms < self.before_ms)
            and (not self.kinds or fields.get("kind", "") in self.kinds)
            and (not self.scope or fields.get("scope", "") == self.scope)
            and self.by.casefold() in fields.get("by", "").casefold()
        )


async def history(bus: OperatorBus, wanted: Wanted) -> AsyncIterator[Entry]:
    """Every entry that is wanted, the newest last. Holds a page of each stream, however long they are."""
    async for entry in merged(bus, newest_first=False, since_ms=wanted.since_ms, others=await _others(bus, wanted)):
        if wanted.takes(entry):
            yield entry


async def newest(bus: OperatorBus, wanted: Wanted, limit: int) -> list[Entry]:
    """The ``limit`` newest entries that are wanted, the newest last."""
    found: list[Entry] = []
    if limit <= 0:
        return found
    others = await _others(bus, wanted)
    async with aclosing(merged(bus, newest_first=True, since_ms=wanted.since_ms, others=others)) as entries:
        async for entry in entries:
            if wanted.takes(entry):
                found.append(entry)
            if len(found) >= limit:
                break
    return found[::-1]


async def _others(bus: OperatorBus, wanted: Wanted) -> list[Entry]:
    return await unaudited(bus) if not wanted.kinds or "heard" in wanted.kinds else []


@dataclass(frozen=True, slots=True)
class KillStory:
    """All that is known about one kill.

    Attributes:
        record_id: the record's id: its own, or that of the record that stood before it.
        entries: about it, the newest last: orders, refusals, certificates, resets that lifted it.
        certificates: those of its entries that can be read, the newest last.
    """

    record_id: str
    entries: tuple[Entry, ...]
    certificates: tuple[tuple[Entry, Told], ...]


async def story(bus: OperatorBus, kill_id: str) -> KillStory:
    """Everything about the kill with this id, or whose id begins so.

    Raises:
        NoSuchKill: nobody knows of one, or there are several.
    """
    entries: list[Entry] = []
    names: set[str] = set()
    is_it = _matcher(kill_id)
    async for entry in merged(bus, newest_first=True, others=await unaudited(bus)):
        mine = {name for name in _ids(entry) if is_it(name)}
        if mine and len(entries) < _ENTRIES_LIMIT:
            entries.append(entry)
            names |= mine
    if not names:
        raise NoSuchKill(f"no kill {kill_id[:80]!r} is known in fleet '{bus.fleet.name}': see skillbus history")
    if kill_id not in names and len(names) > 1:
        raise NoSuchKill(f"{kill_id[:80]!r} begins the ids of {len(names)} kills: {', '.join(sorted(names)[:5])}")
    entries.reverse()
    readable = [(entry, told) for entry in entries if (told := _certificate(entry)) is not None]
    record_id = readable[-1][1].record.id if readable else (kill_id if kill_id in names else next(iter(names)))
    return KillStory(record_id, tuple(entries), tuple(readable))


def _matcher(kill_id: str) -> Callable[[str], bool]:
    if len(kill_id) < _PREFIX_LEN:
        return lambda name: name == kill_id
    return lambda name: name.startswith(kill_id)


def _ids(entry: Entry) -> list[str]:
    """Every kill that an entry is about."""
    fields = entry.fields
    lifted = fields.get("lifted", "").split(",") if fields.get("kind") in ("reset", "reset-asked") else []
    return [name for name in (fields.get("record", ""), fields.get("order", ""), *lifted) if name]


def _certificate(entry: Entry) -> Told | None:
    return unpacked(entry.fields.get("certificate", "")) if entry.fields.get("kind") == "certificate" else None

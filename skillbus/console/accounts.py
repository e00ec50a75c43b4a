"""What a keeper tells the audit of what it did and heard: each thing once, however many keepers there are.

Orders that somebody gave with our tools are in the audit already; a raw PUBLISH is not, and pods may not write there.
So a keeper tells of each raw order: of the one that stands on record, under the record's own id, whoever wrote it; and
of each further one, for ``history`` and ``reset`` must know that somebody still wants the stop. Two keepers that hear
one message cannot agree on an id (docs/decisions/keepers-tell-once.md), so a further one is known by its payload: the
same again within ten seconds is not told again. Of a flood, the first ten of a scope are told, and then how many more.

It decides what is told; it sends nothing before the record is settled, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from skillbus.clock import Clock
from skillbus.core.audit import at_ms_of
from skillbus.core.orders import KillRecord, payload_digest
from skillbus.core.ports import KeeperBus, Write, WriteAnswer
from skillbus.core.scope import Scope
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError
from skillbus.pod.retry import endless
from skillbus.pod.server_time import ServerTime

log = logging.getLogger(__name__)

WINDOW_S = 10.0
"""The same payload within so many seconds is one further order; and so long a flood is summed up in one entry."""

DISTINCT_LIMIT = 10
"""Further orders of one scope that are told one by one in that time."""

QUEUE_LIMIT = 1000
"""Entries that wait while the audit takes none; further orders beyond it are only counted."""

_SAME_MS = 5000
"""Two hearers of one message note times that differ by less: their clocks are the server's, and they hear at once."""

_SENDER_S = 1.0
"""An order with an id is told by whoever gave it, in the same breath. So long that is waited for."""

_KNOWN_S = 60.0
"""How far back the audit is searched for what bears an id."""

_TEXT_LIMIT = 1024

Covers = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True, slots=True)
class Heard:
    """A message on a kill channel.

    Attributes:
        record: as we would record it.
        named: whether it brought an id of its own.
        digest: of its payload.
        at_s: boot-time clock, seconds.
    """

    record: KillRecord
    named: bool
    digest: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Account:
    """One entry to be told, unless somebody else has.

    Attributes:
        since_s: boot-time clock, seconds: older entries do not cover it.
        due_at_s: not before.
    """

    entry: dict[str, str]
    covers: Covers
    since_s: float
    due_at_s: float = 0.0


@dataclass(slots=True)
class _Flood:
    """The further orders of one scope within one window."""

    began_at_s: float
    told_count: int = 0
    left_out_count: int = 0


@dataclass(slots=True)
class _Unsettled:
    """Messages of one scope that wait for the answer to a write."""

    heard: dict[str, Heard] = field(default_factory=dict)
    left_out_count: int = 0


class Accounts:
    """What is to be told, and the telling.

    Attributes:
        refusal: why the audit does not take it; empty: it does.
    """

    def __init__(self, keeper: str, clock: Clock, time: ServerTime) -> None:
        self._keeper = keeper
        self._clock = clock
        self._time = time
        self._unsettled: dict[Scope, _Unsettled] = {}
        self._floods: dict[Scope, _Flood] = {}
        self._queue: deque[Account] = deque()
        self._soon = asyncio.Event()
        self.refusal = ""

    # -- what happened ---------------------------------------------------------------------------------------------

    def heard(self, scope: Scope, record: KillRecord, payload: bytes, *, named: bool) -> None:
        """A message came, and its record is about to be written."""
        unsettled = self._unsettled.setdefault(scope, _Unsettled())
        digest = payload_digest(payload)
        if digest in unsettled.heard:
            return
        if len(unsettled.heard) >= DISTINCT_LIMIT:
            unsettled.left_out_count += 1
            return
        unsettled.heard[digest] = Heard(record, named, digest, self._clock.now_s())

    def answered(self, scope: Scope, answer: WriteAnswer, *, lost: bool) -> None:
        """The record of ``scope`` was written, found, or may not be written any more.

        Args:
            lost: it was to be written back, and not for an order that was heard.
        """
        if answer.write is Write.REFUSED:
            return
        if lost and answer.write is not Write.SUPERSEDED:
            self._tell_restored(scope, answer)
        unsettled = self._unsettled.pop(scope, _Unsettled())
        if answer.write is Write.WRITTEN and not lost and not unsettled.heard:
            self._tell_kill(scope, answer.record)  # An earlier life heard it, and left a tombstone without an epoch.
        for heard in unsettled.heard.values():
            self._weigh(scope, heard, answer)
        if unsettled.left_out_count:
            self._flood(scope).left_out_count += unsettled.left_out_count

    def tidied(self, count: int) -> None:
        """Pods were removed from the roster."""
        sentence = f"{count} {'pod' if count == 1 else 'pods'}, silent for 7 days, left the roster"
        entry = {"kind": "tidied", "scope": "fleet", "by": self._keeper, "sentence": sentence, "count": str(count)}
        self._add(Account(entry, lambda row: False, self._clock.now_s()))

    def _weigh(self, scope: Scope, heard: Heard, answer: WriteAnswer) -> None:
        """Is it the order on record, and if so, whose? Or a further one?"""
        standing = answer.record
        is_it = standing.id == heard.record.id or (bool(standing.heard_by) and _is_same(standing, heard.record))
        if answer.write is Write.SUPERSEDED or not is_it:
            self._tell_further(scope, heard, standing)
        elif standing.heard_by:  # Whoever gave it by our tools wrote the record himself, and told of it.
            self._tell_kill(scope, standing, heard.digest)

    # -- what is told of it ----------------------------------------------------------------------------------------

    def _tell_kill(self, scope: Scope, record: KillRecord, digest: str = "") -> None:
        entry = _entry(scope, record) | {"payload": digest}
        self._add(Account(entry, _names(record.id), self._clock.now_s() - _KNOWN_S))

    def _tell_further(self, scope: Scope, heard: Heard, standing: KillRecord) -> None:
        flood = self._flood(scope)
        if flood.told_count >= DISTINCT_LIMIT or len(self._queue) >= QUEUE_LIMIT:
            flood.left_out_count += 1
            return
        flood.told_count += 1
        entry = _entry(scope, heard.record) | {"payload": heard.digest, "stands": standing.id}
        if heard.named:
            covers, since_s, due_at_s = _names(heard.record.id), heard.at_s - _KNOWN_S, heard.at_s + _SENDER_S
        else:
            covers, since_s, due_at_s = _repeats(scope, heard.digest), heard.at_s - WINDOW_S, 0.0
        self._add(Account(entry, covers, since_s, due_at_s))

    def _tell_restored(self, scope: Scope, answer: WriteAnswer) -> None:
        why = "there was no record of it, and its epoch says that it was not reset"
        entry = _entry(scope, answer.record) | {"kind": "restored", "keeper": self._keeper, "why": why}
        record_id = answer.record.id
        now_s = self._clock.now_s()

        def covers(row: Mapping[str, str]) -> bool:
            return row.get("kind") == "restored" and row.get("record") == record_id and row.get("scope") == scope.label

        self._add(Account(entry, covers, now_s - WINDOW_S))

    def _flood(self, scope: Scope) -> _Flood:
        """The window of this scope that is open, or a new one."""
        return self._floods.setdefault(scope, _Flood(self._clock.now_s()))

    def _close_floods(self) -> None:
        """Windows that are over: what was left out of them is told in a sentence."""
        over_s = self._clock.now_s() - WINDOW_S
        for scope, flood in [item for item in self._floods.items() if item[1].began_at_s <= over_s]:
            del self._floods[scope]
            if flood.left_out_count:
                self._add(self._summed_up(scope, flood))

    def _summed_up(self, scope: Scope, flood: _Flood) -> Account:
        count = str(flood.left_out_count)
        reason = f"{count} further messages within {WINDOW_S:g} s"
        fields = {"kind": "kill", "scope": scope.label, "via": "pubsub", "heard_by": self._keeper}
        covers = _sums_up(scope)
        return Account({**fields, "reason": reason, "count": count}, covers, flood.began_at_s)

    # -- the telling -----------------------------------------------------------------------------------------------

    def _add(self, account: Account) -> None:
        self._queue.append(account)
        self._soon.set()

    async def run(self, bus: KeeperBus) -> None:
        """Tell, until cancelled."""
        while True:
            await self._clock.wait(self._soon, _SENDER_S)
            self._soon.clear()
            self._close_floods()
            if not self._time.contact_at_ms:  # Without its clock nobody knows which entries are older.
                continue
            now_s = self._clock.now_s()
            for account in [one for one in self._queue if one.due_at_s <= now_s]:
                await self._tell(bus, account)
                self._queue.remove(account)

    async def _tell(self, bus: KeeperBus, account: Account) -> None:
        async for attempt in endless(self._clock, 0.1):
            with attempt:
                try:
                    since_ms = self._time.ms_at(account.since_s)
                    is_told = await bus.tell(account.entry, account.covers, since_ms)
                except SkillbusError as error:
                    self.refusal = str(error)
                    raise
                self.refusal = ""
                told = harmless(account.entry.get("record", ""))
                log.info("audit kind=%s record=%s told=%s", account.entry["kind"], told, is_told)


def _entry(scope: Scope, record: KillRecord) -> dict[str, str]:
    names = ("by", "via", "reason", "incident", "heard_by")
    words = {name: str(getattr(record, name))[:_TEXT_LIMIT] for name in names}
    return {"kind": "kill", "scope": scope.label, "record": record.id, **words}


def _names(record_id: str) -> Covers:
    return lambda row: row.get("kind") == "kill" and row.get("record") == record_id


def _repeats(scope: Scope, digest: str) -> Covers:
    return lambda row: row.get("kind") == "kill" and (row.get("scope"), row.get("payload")) == (scope.label, digest)


def _sums_up(scope: Scope) -> Covers:
    return lambda row: row.get("kind") == "kill" and row.get("scope") == scope.label and "count" in row


def _is_same(one: KillRecord, other: KillRecord) -> bool:
    """Whether two hearers wrote these of one message: the same words, at the same time. Long reasons were cut."""
    if any(getattr(one, name) != getattr(other, name) for name in ("by", "via", "incident")):
        return False
    shorter, longer = sorted((one.reason, other.reason), key=len)
    if not longer.startswith(shorter) or bool(shorter) != bool(longer):
        return False
    one_ms, other_ms = at_ms_of(one.at), at_ms_of(other.at)
    if one_ms is None or other_ms is None:
        return one.at == other.at
    return abs(one_ms - other_ms) <= _SAME_MS

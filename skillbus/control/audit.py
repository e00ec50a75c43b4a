"""What was ordered, as the audit and the pods' own evidence tell it.

Control's stream and the bots' are read side by side, page by page, so that no length of theirs fills a memory. An order
that nobody audited (a raw PUBLISH) is known by what it left: the record, and the causes in the hashes of its pods.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from skillbus.bus.audit_streams import AuditRow, AuditStreams
from skillbus.bus.operator_bus import OperatorBus
from skillbus.core.audit import at_ms_of, is_kill_of
from skillbus.core.heartbeat import RAW, CauseLine, FurtherLine, Heartbeat
from skillbus.core.latch import CauseKind
from skillbus.core.orders import KillRecord
from skillbus.core.scope import Scope

PODS, RECORD = "pods", "record"
"""Where an order is known from that no stream tells of."""

ORDERS_LIMIT = 1000
"""Orders that a reset names. Of more, the oldest are only counted."""

_NAMES_COUNT = 10

_SAME_MS = 11_000
"""A keeper tells the same raw message once in ten seconds (console/accounts.py): so far behind its entry, and a second
for the ways and clocks of two hearers, a pod's line may mean the same."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the audit.

    Attributes:
        at_ms: server time; of what no stream tells, what the order said of itself.
        source: ``control``, ``bot:<name>``, ``pods`` or ``record``.
        id: its id in its stream; empty if it lies in none.
    """

    at_ms: int
    source: str
    id: str
    fields: dict[str, str]


async def merged(
    bus: OperatorBus, *, newest_first: bool, since_ms: int = 0, others: Sequence[Entry] = ()
) -> AsyncGenerator[Entry, None]:
    """Every entry of every stream, and ``others``, in one order of time."""
    sign = -1 if newest_first else 1
    readers = [_Reader(bus.streams, key, newest_first, since_ms) for key in await bus.streams.keys()]
    readers.append(_Reader(bus.streams, "", newest_first, since_ms, sorted(others, key=lambda e: sign * e.at_ms)))
    heads = [(reader, head) for reader in readers if (head := await reader.next()) is not None]
    while heads:
        first = min(range(len(heads)), key=lambda i: sign * heads[i][1].at_ms)
        reader, entry = heads[first]
        yield entry
        following = await reader.next()
        if following is None:
            del heads[first]
        else:
            heads[first] = (reader, following)


@dataclass(slots=True)
class _Reader:
    """One stream, from one of its ends, a page at a time; or, without a key, what is in memory already."""

    streams: AuditStreams
    key: str
    newest_first: bool
    since_ms: int
    _page: list[Entry] = field(default_factory=list)
    _place: int = 0
    _last: str = ""

    async def next(self) -> Entry | None:
        """The next entry; None: there is no more."""
        if self._place >= len(self._page):
            self._page, self._place = await self._read(), 0
        if not self._page:
            return None
        self._place += 1
        return self._page[self._place - 1]

    async def _read(self) -> list[Entry]:
        if not self.key:
            return []
        if self.newest_first:
            rows = await self.streams.older(self.key, self._last or "+", self.since_ms)
        else:
            rows = await self.streams.younger(self.key, self._last, self.since_ms)
        if rows:
            self._last = rows[-1].id
        return [Entry(row.at_ms, self.streams.source_of(self.key), row.id, row.fields) for row in rows]


# -- what no stream tells ----------------------------------------------------------------------------------------------


async def unaudited(bus: OperatorBus) -> list[Entry]:
    """The orders that stand on record, or that some pod obeys, and of which no stream tells."""
    now_ms, beats = await bus.heartbeats(await bus.pod_ids())
    found = _heard(beats, now_ms)
    killed = await bus.killed_scopes()
    if killed:
        for scope, stored in (await bus.read(killed)).scopes.items():
            if stored.record is not None:
                record = KillRecord.parse(stored.record)
                found[(scope.label, record.id)] = _of_record(scope, record, found.get((scope.label, record.id)), now_ms)
    if found:
        async with aclosing(merged(bus, newest_first=True)) as entries:
            async for entry in entries:
                for place in [place for place, one in found.items() if _tells_of(entry, one)]:
                    del found[place]
                if not found:
                    break
    return list(found.values())


def _heard(beats: Mapping[str, Sequence[Heartbeat]], now_ms: int) -> dict[tuple[str, str], Entry]:
    """Every kill that a pod's evidence names, by scope and id."""
    obeying: dict[tuple[str, str], tuple[CauseLine, list[str]]] = {}
    for pod_id, found in sorted(beats.items()):
        for cause in {(c.scope, c.record_id): c for beat in found for c in beat.causes if _is_order(c)}.values():
            obeying.setdefault((cause.scope, cause.record_id), (cause, []))[1].append(pod_id)
    obeyed = {
        place: Entry(_at_ms(cause.at, now_ms), PODS, "", {**_fields_of(cause), "pods": _names(pods)})
        for place, (cause, pods) in obeying.items()
    }
    return {**_further(beats, now_ms), **obeyed}


def _further(beats: Mapping[str, Sequence[Heartbeat]], now_ms: int) -> dict[tuple[str, str], Entry]:
    """Every order that pods heard for a scope that was killed already, by scope and id: one for all its hearers."""
    heard: dict[tuple[str, str], dict[str, FurtherLine]] = {}
    for pod_id, found in sorted(beats.items()):
        for line in (line for beat in found for line in beat.further if line.scope and line.id):
            by_pod = heard.setdefault((line.scope, line.id), {})
            by_pod[pod_id] = max(line, by_pod.get(pod_id, line), key=lambda one: one.at_ms)
    return {place: _further_entry(by_pod, now_ms) for place, by_pod in heard.items()}


def _further_entry(by_pod: Mapping[str, FurtherLine], now_ms: int) -> Entry:
    last = max(by_pod.values(), key=lambda line: line.at_ms)
    told = {"by": last.by, "via": last.via, "reason": last.reason, "pods": _names(list(by_pod))}
    times = max(line.times for line in by_pod.values())
    fields = {"kind": "heard", "scope": last.scope, "record": last.id, **told, "times": str(times)}
    return Entry(min(last.at_ms, now_ms), PODS, "", fields)


def _tells_of(entry: Entry, heard: Entry) -> bool:
    """Whether an entry of a stream tells of the order that pods heard: by its id, or a raw message's payload."""
    told = entry.fields
    if told.get("kind") != "kill" or told.get("scope") != heard.fields["scope"]:
        return False
    record = heard.fields["record"]
    is_payload = record.startswith(RAW) and told.get("payload") == record.removeprefix(RAW)
    return told.get("record") == record or (is_payload and entry.at_ms >= heard.at_ms - _SAME_MS)


def _is_order(cause: CauseLine) -> bool:
    return cause.kind in (CauseKind.ORDER, CauseKind.RECORD) and bool(cause.record_id and cause.scope)


def _fields_of(cause: CauseLine) -> dict[str, str]:
    told = {"by": cause.by, "reason": cause.reason}
    return {"kind": "heard", "scope": cause.scope, "record": cause.record_id, **told}


def _of_record(scope: Scope, record: KillRecord, heard: Entry | None, now_ms: int) -> Entry:
    told = {"by": record.by, "via": record.via, "reason": record.reason, "heard_by": record.heard_by}
    pods = {"pods": heard.fields["pods"]} if heard else {}
    fields = {"kind": "heard", "scope": scope.label, "record": record.id, **told, **pods}
    return Entry(_at_ms(record.at, now_ms), RECORD, "", fields)


def _at_ms(text: str, now_ms: int) -> int:
    """What an order says of its time, if that can be: never later than now."""
    at_ms = at_ms_of(text)
    return now_ms if at_ms is None else max(0, min(at_ms, now_ms))


def _names(pods: Sequence[str]) -> str:
    more = f" and {len(pods) - _NAMES_COUNT} more" if len(pods) > _NAMES_COUNT else ""
    return ", ".join(pods[:_NAMES_COUNT]) + more


# -- since the last reset ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Since:
    """The orders to stop one scope since its last reset.

    Attributes:
        orders: the oldest first; ``ORDERS_LIMIT`` at most.
        left_out_count: older ones that are not among them.
        last: the last entry that was read of each stream, by key.
    """

    orders: tuple[Entry, ...]
    left_out_count: int
    last: dict[str, str]


async def since_reset(bus: OperatorBus, scope: Scope, epoch: int | None) -> Since:
    """What was audited for ``scope`` behind its last reset, and what its pods heard that nobody audited.

    Args:
        epoch: of the scope, as stored: what a pod's evidence says of earlier kills is old.
    """
    orders: list[Entry] = []
    last: dict[str, str] = {}
    count, reset_ms = 0, 0
    now_ms, beats = await bus.heartbeats(await bus.pod_ids())
    for key in await bus.streams.keys():
        reader = _Reader(bus.streams, key, newest_first=True, since_ms=reset_ms)
        found: list[Entry] = []
        async for entry in _back_to_reset(reader, scope):
            last.setdefault(key, entry.id)
            if entry.source == "control" and _is_reset_of(entry.fields, scope):
                reset_ms = entry.at_ms
            elif is_kill_of(entry.fields, scope):
                count += 1
                found.append(entry)
                del found[ORDERS_LIMIT:]
        orders = sorted([*orders, *found[::-1]], key=lambda e: e.at_ms)[-ORDERS_LIMIT:]
    fresh = _fresh(beats, epoch)
    found_out = _heard(fresh, now_ms).values()
    heard = [entry for entry in found_out if _is_further(entry, scope, orders, epoch)]
    merged_orders = sorted([*orders, *heard], key=lambda e: e.at_ms)[-ORDERS_LIMIT:]
    left_out_count = count + len(heard) - len(merged_orders) + _unnamed_count(fresh, scope, epoch)
    return Since(tuple(merged_orders), left_out_count, last)


def _unnamed_count(beats: Mapping[str, Sequence[Heartbeat]], scope: Scope, epoch: int | None) -> int:
    """Orders that pods heard and had no room for, by the pod that heard most: each heard the same ones."""
    return max((beat.further_left_out_count for beat in _hearers(beats, scope, epoch)), default=0)


def _hearers(beats: Mapping[str, Sequence[Heartbeat]], scope: Scope, epoch: int | None) -> Iterator[Heartbeat]:
    for beat in (beat for found in beats.values() for beat in found):
        if any(line.scope == scope.label and line.at_ms >= (epoch or 0) for line in beat.further):
            yield beat


async def _back_to_reset(reader: _Reader, scope: Scope) -> AsyncIterator[Entry]:
    """The entries of a stream from its end back to the last reset of the scope, that one included."""
    while (entry := await reader.next()) is not None:
        yield entry
        if entry.source == "control" and _is_reset_of(entry.fields, scope):
            return


def _fresh(beats: Mapping[str, Sequence[Heartbeat]], epoch: int | None) -> dict[str, list[Heartbeat]]:
    """The evidence that is younger than the last reset, without what it says was lifted."""
    return {
        pod_id: [
            beat.model_copy(update={"causes": tuple(cause for cause in beat.causes if not cause.lifted)})
            for beat in found
            if beat.beat_at_ms > (epoch or 0)
        ]
        for pod_id, found in beats.items()
    }


def _is_further(heard: Entry, scope: Scope, audited: Sequence[Entry], epoch: int | None) -> bool:
    is_new = heard.at_ms >= (epoch or 0) and not any(_tells_of(entry, heard) for entry in audited)
    return heard.fields["scope"] == scope.label and is_new


def ordered_anew(rows: Sequence[AuditRow], scope: Scope) -> bool:
    """Whether any of these entries orders to stop ``scope``, or has reset it."""
    return any(is_kill_of(row.fields, scope) or _is_reset_of(row.fields, scope) for row in rows)


def _is_reset_of(fields: Mapping[str, str], scope: Scope) -> bool:
    return fields.get("kind") == "reset" and fields.get("scope") == scope.label

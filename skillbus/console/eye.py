"""One shared look at the fleet for everybody who watches: what it shows now, and what changed since the one before.

It looks from a thread of its own, by ``control.watching``, which keeps to a tenth of a processor: a fleet of thousands
is read and compared there, and the loop that takes kills only hands out what is ready. When nothing can be seen, the
figures freeze and it is told since when. Nothing depends on it but those who look.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import Clock, wall_ms
from skillbus.console.own_loop import on_own_loop
from skillbus.console.shapes import Blind, PodRow
from skillbus.console.views import row_of
from skillbus.control.audit import Entry
from skillbus.control.status import Status
from skillbus.control.watching import Watching, trouble_rank
from skillbus.core.roster import PodView
from skillbus.core.scope import Scope
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError

_EVERY_S = 0.25
"""Seconds between two looks, at least: four paints a second are enough for anybody."""

_STALE_S = 15.0
"""Seconds without any look, good or bad, after which the eye itself is not believed."""

_AUDIT_EVERY_S = 1.0
_STREAMS_EVERY_S = 30.0
_PAGES_LIMIT = 10
_YIELD_EACH = 500


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one look found, and how it differs from the one before.

    Attributes:
        rows: every pod, by id. Never changed: each look that differs has its own.
        beats: newer heartbeats of pods of which nothing else has changed.
        failure: why nothing could be seen; everything else is then as it was.
    """

    seen: Status | None = None
    rows: dict[str, PodRow] = field(default_factory=dict)
    stragglers_count: int = 0
    changed: tuple[PodRow, ...] = ()
    gone: tuple[str, ...] = ()
    beats: dict[str, int] = field(default_factory=dict)
    failure: str = ""


class Eye:
    """Use ``run`` in a task; everything else belongs to that task's loop.

    Attributes:
        on_look: called with each look.
        on_entries: called with what was added to the audit, the oldest first.
        blind: since when nothing can be seen, and why; None: it sees.
    """

    def __init__(self, bus_of: Callable[[], OperatorBus], clock: Clock) -> None:
        self._bus_of = bus_of
        self._clock = clock
        self.on_look: Callable[[Look], None] = lambda look: None
        self.on_entries: Callable[[list[Entry]], None] = lambda entries: None
        self.look = Look()
        self.blind: Blind | None = Blind(since_ms=wall_ms(), seen_at_ms=0, why="nothing was seen yet")
        self._looked_at_s = clock.now_s()
        self._sorted: tuple[dict[str, PodRow], tuple[PodRow, ...]] = ({}, ())

    @property
    def rows(self) -> tuple[PodRow, ...]:
        """Every pod, stragglers first."""
        if self._sorted[0] is not self.look.rows:
            rows = sorted(self.look.rows.values(), key=lambda row: (not row.straggles, trouble_rank(row.word), row.id))
            self._sorted = (self.look.rows, tuple(rows))
        return self._sorted[1]

    async def run(self) -> None:
        """Look for ever. What breaks is begun anew by who runs it."""
        loop = asyncio.get_running_loop()

        def take(look: Look) -> None:
            with suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(self._take, look)

        def tell(entries: list[Entry]) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self.on_entries, entries)

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(take))
                group.create_task(self._tail(tell))

        await on_own_loop(work, "skillbus-eye")

    def _take(self, look: Look) -> None:
        self._looked_at_s = self._clock.now_s()
        if look.failure:
            self._is_blind(look.failure)
            look = Look(self.look.seen, self.look.rows, self.look.stragglers_count, failure=look.failure)
        else:
            self.blind = None
        self.look = look
        self.on_look(look)

    def check(self) -> None:
        """To be called now and then: an eye that does not look is blind, too."""
        silent_s = self._clock.now_s() - self._looked_at_s
        if silent_s > _STALE_S:
            self._is_blind(f"no look has come for {silent_s:.0f} s")

    def _is_blind(self, why: str) -> None:
        since_ms = self.blind.since_ms if self.blind else wall_ms()
        seen_at_ms = self.look.seen.server_ms if self.look.seen else 0
        self.blind = Blind(since_ms=since_ms, seen_at_ms=seen_at_ms, why=harmless(why, 500))

    # -- in its own thread ------------------------------------------------------------------------------------------

    async def _watch(self, take: Callable[[Look], None]) -> None:
        before = _Before()
        async with self._bus_of() as bus, Watching(bus, self._clock, _EVERY_S) as watching:
            async for seen in watching.looks():
                if isinstance(seen, Status):  # counted here, not in the loop that answers requests
                    _ = seen.pods.counts, seen.pods.all_lifted
                take(Look(failure=str(seen)) if isinstance(seen, SkillbusError) else await before.compare(seen))

    async def _tail(self, tell: Callable[[list[Entry]], None]) -> None:
        async with self._bus_of() as bus:
            tail = _Tail(bus, self._clock)
            while True:
                with suppress(SkillbusError):  # That nothing can be seen, the looks tell.
                    async for entries in tail.read():
                        tell(entries)
                await self._clock.sleep(_AUDIT_EVERY_S)


class _Before:
    """The look before, to be compared with."""

    def __init__(self) -> None:
        self._pods: tuple[PodView, ...] | None = None
        self._killed: frozenset[Scope] = frozenset()
        self._views: dict[str, PodView] = {}
        self._rows: dict[str, PodRow] = {}
        self._stragglers_count = 0

    async def compare(self, seen: Status) -> Look:
        """How this look differs."""
        killed = frozenset(scope for scope, _ in seen.kills)
        if seen.pods is self._pods and killed == self._killed:
            return Look(seen, self._rows, self._stragglers_count)
        rows, changed, beats = {}, [], {}
        for number, pod in enumerate(seen.pods):
            if number % _YIELD_EACH == 0:
                await asyncio.sleep(0)
            old = self._rows.get(pod.pod_id)
            is_same = old is not None and self._views.get(pod.pod_id) is pod and killed == self._killed
            row = old if is_same and old is not None else row_of(pod, killed)
            rows[pod.pod_id] = row
            if old is None or row._replace(beat_at_ms=old.beat_at_ms) != old:
                changed.append(row)
            elif row.beat_at_ms != old.beat_at_ms:
                beats[pod.pod_id] = row.beat_at_ms
        gone = tuple(self._rows.keys() - rows.keys())
        self._pods, self._killed, self._rows = seen.pods, killed, rows
        self._views = {pod.pod_id: pod for pod in seen.pods}
        self._stragglers_count = sum(row.straggles for row in rows.values())
        return Look(seen, rows, self._stragglers_count, tuple(changed), gone, beats)


class _Tail:
    """The end of every audit stream."""

    def __init__(self, bus: OperatorBus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._last: dict[str, str] = {}
        self._streams_at_s = 0.0
        self._has_begun = False

    async def read(self) -> AsyncIterator[list[Entry]]:
        """What was added since it was read last; at first nothing."""
        streams = self._bus.streams
        if self._clock.now_s() >= self._streams_at_s:
            await self._find()
            self._streams_at_s = self._clock.now_s() + _STREAMS_EVERY_S
        for _ in range(_PAGES_LIMIT):
            found: list[Entry] = []
            for key, last in self._last.items():
                rows = await streams.younger(key, last)
                if rows:
                    self._last[key] = rows[-1].id
                    found += [Entry(row.at_ms, streams.source_of(key), row.id, row.fields) for row in rows]
            if not found:
                return
            yield sorted(found, key=lambda entry: entry.at_ms)

    async def _find(self) -> None:
        """Begin at the end of each stream that there is; one that is new later is read from its beginning."""
        for key in await self._bus.streams.keys():
            if key not in self._last:
                rows = [] if self._has_begun else await self._bus.streams.older(key)
                self._last[key] = rows[0].id if rows else ""
        self._has_begun = True

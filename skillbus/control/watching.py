"""A fleet looked at again and again, without being a burden to it: what has changed at once, everything now and then.

Pods tell on the events channel that their hash has changed. That is a hint and no evidence: what it names is read, and
everything is read anew every few seconds, as far as a tenth of a processor allows. Once a second is asked whether the
fleet is killed, which costs next to nothing and shows that Redis is there. So every age is right as of the reading that
it came from, and a hint that got lost costs seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import Clock, cpu_s
from skillbus.control.status import Pods, Status, kills_of, status
from skillbus.core.roster import PodView, view
from skillbus.core.scope import NAME, Scope, ScopeKind
from skillbus.errors import SkillbusError

_EVERY_S = 1.0
"""Seconds between two readings, at least, unless somebody asks for more."""

_REST_FACTOR = 19
"""Rest between two costly readings of a kind, all pods or those that were hinted at, as a multiple of the processor
time that the last one took: 5 % of a processor for each kind."""

_HURRY_FACTOR = 2
"""The same while many pods change at once: then somebody is looking."""

_FEW = 20
"""Hints of so many pods are not many, however small the fleet."""

_SMALL = 200
"""Pods of a fleet that is read whole each time."""

_WHOLE_EVERY_S = 5.0
"""Seconds after which a larger one is read whole, whatever the hints say."""

_HINTS_LIMIT = 100_000


@dataclass(slots=True)
class _Spending:
    """What one kind of reading cost last, and when. Each rests by itself: a few pods need not wait until all have."""

    cost_s: float = 0.0
    at_s: float = 0.0

    def has_rested(self, now_s: float, factor: float) -> bool:
        """Whether it may be done again."""
        return now_s >= self.at_s + self.cost_s * factor


class Watching:
    """Use it as an asynchronous context, which listens for hints, and iterate over ``looks``."""

    def __init__(self, bus: OperatorBus, clock: Clock, every_s: float = _EVERY_S) -> None:
        self._bus = bus
        self._clock = clock
        self._every_s = every_s
        self._hints: set[str] = set()
        self._hinted_count = 0
        self._listener: asyncio.Task[None] | None = None
        self._seen: Status | None = None
        self._whole_at_s = 0.0
        self._spent_on: _Spending | None = None
        self._on_whole, self._on_few = _Spending(), _Spending()

    async def looks(self) -> AsyncIterator[Status | SkillbusError]:
        """Without end: what was seen, or why nothing could be. ``pods`` is the same object while nothing was reread."""
        while True:
            began_at_s, used_s = self._clock.now_s(), cpu_s()
            try:
                self._seen = await self._look()
            except SkillbusError as error:
                self._seen = None  # Nobody knows what was missed meanwhile.
                yield error
            else:
                yield self._seen
            await self._clock.sleep(max(0.0, began_at_s + self._every_s - self._clock.now_s()))
            if self._spent_on is not None:
                self._spent_on.cost_s, self._spent_on.at_s = cpu_s() - used_s, self._clock.now_s()

    async def _look(self) -> Status:
        seen, fleet = self._seen, self._bus.fleet.scope
        if seen is None:
            return await self._whole()
        reading = await self._bus.read([fleet])
        is_stored = reading.scopes[fleet].record is not None
        is_news = is_stored != (seen.fleet_record is not None) or reading.armed != seen.armed
        many = len(self._hints) - self._hinted_count > max(_FEW, len(seen.pods) // 100)
        self._hinted_count = len(self._hints)
        now_s, factor = self._clock.now_s(), _HURRY_FACTOR if many else _REST_FACTOR
        wants_whole = now_s >= self._whole_at_s or len(self._hints) > len(seen.pods) // 2
        if wants_whole and (is_news or self._on_whole.has_rested(now_s, factor)):
            return await self._whole()
        if is_news or (self._hints and self._on_few.has_rested(now_s, factor)):
            return await self._reread(seen)
        self._spent_on = None
        return replace(seen, server_ms=reading.server_ms)

    async def _whole(self) -> Status:
        self._spent_on = self._on_whole
        self._take_hints()
        seen = await status(self._bus)
        self._whole_at_s = self._clock.now_s() + (_WHOLE_EVERY_S if len(seen.pods) > _SMALL else 0.0)
        return seen

    async def _reread(self, seen: Status) -> Status:
        self._spent_on = self._on_few
        _, beats = await self._bus.heartbeats(sorted(self._take_hints()))
        reading, kills = await kills_of(self._bus)
        fresh = {pod.pod_id: pod for pod in view(reading.server_ms, beats)}
        pods = Pods((*(fresh.pop(pod.pod_id, pod) for pod in seen.pods), *fresh.values()))
        return replace(seen, server_ms=reading.server_ms, armed=reading.armed, kills=kills, pods=pods)

    def _take_hints(self) -> set[str]:
        hinted, self._hints, self._hinted_count = self._hints, set(), 0
        return hinted

    # -- hints ------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Collect hints for as long as it works. Who may not hear them reads everything now and then all the same."""
        while True:
            with suppress(SkillbusError):
                subscription = await self._bus.subscribe([self._bus.fleet.events_channel])
                try:
                    while True:
                        message = await subscription.get(60.0)
                        if message is not None and len(self._hints) < _HINTS_LIMIT:
                            self._note(message.payload)
                finally:
                    await subscription.close()
            await self._clock.sleep(_EVERY_S)

    def _note(self, payload: bytes) -> None:
        name = payload[:65].decode("ascii", "replace")
        if NAME.fullmatch(name):
            self._hints.add(name)

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._listen(), name="hints")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait({self._listener})


_TROUBLE = ("deaf", "running", "stopping", "starting", "holding", "unconfirmed", "fenced", "stopped")
_GONE = {"ended": len(_TROUBLE) + 1, "lost": len(_TROUBLE) + 2}


def stragglers_first(pods: Sequence[PodView], kills: Sequence[Scope]) -> tuple[list[PodView], int]:
    """The pods, those first that are not as they should be, and how many these are.

    A pod that a kill reaches should be stopped, any other should run. Who ended or was lost should be nothing.
    """
    killed = frozenset(kills)
    ranked = sorted(((_rank(pod, killed), pod.pod_id, pod) for pod in pods), key=lambda entry: entry[:2])
    return [pod for _, _, pod in ranked], sum(rank < len(_TROUBLE) for rank, _, _ in ranked)


def straggles(pod: PodView, killed: frozenset[Scope]) -> bool:
    """Whether it is not as it should be, where these scopes are killed."""
    return _rank(pod, killed) < len(_TROUBLE)


def trouble_rank(word: str) -> int:
    """How much a person wants to see of a pod of that word: 0 first."""
    return _TROUBLE.index(word) if word in _TROUBLE else _GONE.get(word, 0)


def _rank(pod: PodView, killed: frozenset[Scope]) -> int:
    word = pod.word
    if word in _GONE:
        return _GONE[word]
    if word == ("stopped" if killed and _is_reached(pod, killed) else "running") and not pod.twin:
        return len(_TROUBLE)
    return _TROUBLE.index(word) if word in _TROUBLE else 0


def _is_reached(pod: PodView, killed: frozenset[Scope]) -> bool:
    groups = {group for life in pod.current for group in life.beat.groups}
    names = {ScopeKind.GROUP: groups, ScopeKind.POD: {pod.pod_id}}
    return any(scope.kind is ScopeKind.FLEET or scope.name in names[scope.kind] for scope in killed)

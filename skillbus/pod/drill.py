"""The drills that one incarnation heard: each goes through the gate, the loop and a heartbeat, and stops nothing.

The watch notes what it heard and what the gate said; the loop's task has its turn; the next heartbeat, which leaves at
once, carries the answer. Nobody waits for any of it, so a drill delays nothing either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from skillbus.clock import Clock
from skillbus.core.heartbeat import DrillLine
from skillbus.pod.switch import Rehearsal

_RATE_COUNT = 5
"""Drills that are answered in any one second; and those that a heartbeat tells of, so that none covers another."""

_SHOWN_S = 60.0
"""Seconds for which an answer that is not the last one is told."""

_IDS_COUNT = 256
"""Ids that are remembered, so that a replay is not answered."""


@dataclass(slots=True)
class _Drill:
    """One drill, in instants of the boot-time clock."""

    id: str
    heard_at_s: float
    gate_at_s: float
    rehearsal: Rehearsal
    channels: frozenset[str]
    loop_at_s: float | None = None
    left_at_s: float | None = None
    arrived: bool = False


class Drills:
    """What is known of the last drills.

    Attributes:
        answered_at_s: boot-time clock: when the answer left that arrived last; None: none did.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._drills: deque[_Drill] = deque(maxlen=_RATE_COUNT)
        self._ids: deque[str] = deque(maxlen=_IDS_COUNT)
        self.answered_at_s: float | None = None

    def may_answer(self, name: str) -> bool:
        """Whether a drill of that id is new, and not one too many."""
        if name in self._ids:
            return False
        is_full = len(self._drills) == _RATE_COUNT
        return not is_full or self._clock.now_s() - self._drills[0].heard_at_s >= 1.0

    def heard(self, name: str, at_s: float, rehearsal: Rehearsal, channels: frozenset[str]) -> None:
        """A drill was heard at ``at_s``, on a connection that hears ``channels``, and this is what the gate said."""
        self._ids.append(name)
        self._drills.append(_Drill(name, at_s, self._clock.now_s(), rehearsal, channels))

    def turn(self) -> bool:
        """The loop has its turn. Whether any drill waited for it."""
        waiting = [drill for drill in self._drills if drill.loop_at_s is None]
        for drill in waiting:
            drill.loop_at_s = self._clock.now_s()
        return bool(waiting)

    def leave(self) -> None:
        """A heartbeat is about to leave, with every answer that is ready."""
        for drill in self._drills:
            if drill.loop_at_s is not None and not drill.arrived:
                drill.left_at_s = self._clock.now_s()

    def arrived(self) -> None:
        """The server took it. One that is lost leaves again, with the next."""
        for drill in self._drills:
            if drill.left_at_s is not None and not drill.arrived:
                drill.arrived = True
                self.answered_at_s = drill.left_at_s

    def lines(self, ms_at: Callable[[float | None], int]) -> list[DrillLine]:
        """What a heartbeat tells, the last one first. ``ms_at``: server time at an instant of the boot-time clock."""
        oldest_s = self._clock.now_s() - _SHOWN_S
        newest_first = list(reversed(self._drills))
        told = newest_first[:1] + [drill for drill in newest_first[1:] if drill.heard_at_s > oldest_s]
        return [_line(drill, ms_at) for drill in told]


def _line(drill: _Drill, ms_at: Callable[[float | None], int]) -> DrillLine:
    return DrillLine(
        id=drill.id,
        heard_at_ms=ms_at(drill.heard_at_s),
        gate_at_ms=ms_at(drill.gate_at_s),
        loop_at_ms=ms_at(drill.loop_at_s),
        answered_at_ms=ms_at(drill.left_at_s),
        trips=drill.rehearsal.trips,
        lease=drill.rehearsal.has_lease,
        channels=tuple(sorted(drill.channels)),
    )

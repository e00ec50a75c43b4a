"""Heartbeats and the server's time -> who is live, late, fenced, gone. Pure; says nothing that was not observed.

An incarnation that is silent is never ``stopped``: it is ``fenced`` once its lease has certainly run out, if the end of
its work could be vouched for, and ``unconfirmed`` otherwise (docs/protocol.md, P7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import State
from skillbus.core.scope import Scope, ScopeKind

FENCE_MARGIN_MS = 1000
"""Beyond the lease: what rounding and the way to the server may have added (docs/protocol.md, P7)."""

_LATE_AFTER_LEASES = 0.5
"""A beat older than this part of a lease was missed: a lease is three heartbeats by default."""


class Presence(StrEnum):
    """How far an incarnation can be believed to be there."""

    LIVE = "live"
    LATE = "late"
    FENCED = "fenced"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Life:
    """One incarnation of a pod as seen at one moment."""

    pod_id: str
    beat: Heartbeat
    presence: Presence
    age_s: float


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod with all its lives that left evidence. More than one that has not ended is a ``twin``."""

    pod_id: str
    lives: tuple[Life, ...]

    @property
    def current(self) -> tuple[Life, ...]:
        """The lives that may still act: live or late."""
        return tuple(life for life in self.lives if life.presence in (Presence.LIVE, Presence.LATE))

    @property
    def twin(self) -> bool:
        """Whether two live processes share this id."""
        return len(self.current) > 1

    @property
    def deaf(self) -> bool:
        """Whether a life that may act, or may again, does not hear itself: a kill would reach it late."""
        return any(_is_deaf(life) for life in self.current)

    @property
    def word(self) -> str:
        """One word for the pod: its state, or what is known instead of one. The worst of its lives speaks.

        A life that could not vouch for the end of its work stays ``unconfirmed`` after it has fallen silent, beside
        whatever came after it.
        """
        if len(self.lives) == 1 and self.lives[0].presence in (Presence.LIVE, Presence.LATE):
            (life,) = self.lives  # as nearly all are: a fleet of thousands is sorted and counted by this
            return "deaf" if _is_deaf(life) else life.beat.state.value
        current = self.current
        if len(current) < len(self.lives) and any(not life.beat.vouched for life in self.lives if life not in current):
            return "unconfirmed"
        if current:
            worst = min((life.beat.state for life in current), key=_WORST_FIRST.index)
            return "deaf" if worst in _MAY_ACT and any(_is_deaf(life) for life in current) else worst.value
        if not self.lives:
            return "lost"
        last = max(self.lives, key=lambda life: life.beat.beat_at_ms)
        if last.presence is Presence.ENDED:
            return "ended"
        return "fenced"


def _is_deaf(life: Life) -> bool:
    return life.beat.deaf_since_ms > 0 and life.beat.state in _MAY_ACT


_MAY_ACT = frozenset({State.RUNNING, State.HOLDING})
_WORST_FIRST = (State.RUNNING, State.STOPPING, State.STARTING, State.HOLDING, State.STOPPED)


def fenced_at_ms(beat: Heartbeat) -> int:
    """Server time at which the lease behind this beat had certainly run out."""
    return beat.beat_at_ms + round(beat.lease_s * 1000) + FENCE_MARGIN_MS


def presence_of(beat: Heartbeat, now_ms: int) -> Presence:
    """How far the incarnation of ``beat`` can be believed to be there at ``now_ms``."""
    if beat.ended_at_ms:
        return Presence.ENDED
    if now_ms >= fenced_at_ms(beat):
        return Presence.FENCED
    return Presence.LATE if now_ms - beat.beat_at_ms > beat.lease_s * _LATE_AFTER_LEASES * 1000 else Presence.LIVE


def view(now_ms: int, heartbeats: Mapping[str, Sequence[Heartbeat]]) -> list[PodView]:
    """Every pod of the roster, stragglers first."""
    pods = []
    for pod_id, beats in heartbeats.items():
        lives = tuple(
            Life(pod_id, beat, presence_of(beat, now_ms), max(0.0, (now_ms - beat.beat_at_ms) / 1000)) for beat in beats
        )
        pods.append(PodView(pod_id, lives))
    return sorted(pods, key=lambda pod: (_ORDER.get(pod.word, 0), pod.pod_id))


_ORDER = {"deaf": -1, "running": 0, "stopping": 1, "starting": 2, "holding": 3, "unconfirmed": 4, "fenced": 5}
_ORDER |= {"stopped": 6, "ended": 7, "lost": 8}


def in_scope(beat: Heartbeat, pod_id: str, scope: Scope) -> bool:
    """Whether an order for ``scope`` reaches this incarnation."""
    if scope.kind is ScopeKind.GROUP:
        return scope.name in beat.groups
    return scope.kind is ScopeKind.FLEET or scope.name == pod_id

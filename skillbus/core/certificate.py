"""A kill and the pods' own evidence -> what is proved about it. Pure.

An expected incarnation lands in one of three columns. ``stopped``: its own hash says that it is quiet, for this kill.
``fenced``: it is silent, and its lease has certainly run out. ``unconfirmed``: anything else. What PUBLISH printed is
nowhere in here: a deaf listener counts in it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import State
from skillbus.core.orders import KillRecord, iso
from skillbus.core.roster import Presence, fenced_at_ms, in_scope, presence_of
from skillbus.core.scope import Scope

Incarnation = tuple[str, str]
"""``(pod id, incarnation)``."""


class Proof(StrEnum):
    """What is proved about one incarnation."""

    STOPPED = "stopped"
    FENCED = "fenced"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True, slots=True)
class Line:
    """One incarnation's line.

    Attributes:
        seconds: ``stopped``: from order to quiet; negative never, 0 if it was quiet before.
        at_ms: server time: when it was quiet, or when its lease had certainly run out; 0 if unconfirmed.
        last_beat_ms: server time of its last heartbeat.
        note: what else a person should know.
    """

    pod_id: str
    incarnation: str
    proof: Proof
    seconds: float
    at_ms: int
    last_beat_ms: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is proved about one kill at one moment."""

    record: KillRecord
    scope: Scope
    lines: tuple[Line, ...]

    def count(self, proof: Proof) -> int:
        """How many incarnations landed there."""
        return sum(line.proof is proof for line in self.lines)

    @property
    def complete(self) -> bool:
        """Whether nothing is unconfirmed, and somebody was expected at all."""
        return bool(self.lines) and self.count(Proof.UNCONFIRMED) == 0

    @property
    def unconfirmed(self) -> tuple[Line, ...]:
        """Who is missing."""
        return tuple(line for line in self.lines if line.proof is Proof.UNCONFIRMED)

    def percentile_s(self, percent: float) -> float | None:
        """Seconds from order to quiet within which that share of the stopped ones were (nearest rank)."""
        times = sorted(line.seconds for line in self.lines if line.proof is Proof.STOPPED)
        if not times:
            return None
        rank = max(0, -(-len(times) * percent // 100) - 1)
        return times[int(rank)]

    def sentence(self) -> str:
        """What can be read out on the call: ``38 of 40 stopped in 0.3 s; 1 fenced at …; 1 unconfirmed: pod-17``."""
        if not self.lines:
            return f"no pod is known in {self.scope}"
        last_s = self.percentile_s(100)
        within = f" in {_duration(last_s)}" if last_s is not None else ""
        parts = [f"{self.count(Proof.STOPPED)} of {len(self.lines)} stopped{within}"]
        fenced = [line for line in self.lines if line.proof is Proof.FENCED]
        if fenced:
            parts.append(f"{len(fenced)} fenced at {iso(max(line.at_ms for line in fenced))[:19]}Z")
        if self.unconfirmed:
            names = [line.pod_id for line in self.unconfirmed]
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            parts.append(f"{len(names)} unconfirmed: {', '.join(names[:10])}{more}")
        return "; ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.1f} s"


def expected(order_ms: int, heartbeats: Mapping[str, Sequence[Heartbeat]], scope: Scope) -> frozenset[Incarnation]:
    """Who must answer an order for ``scope``: the incarnations whose lease may have run when it was given.

    Args:
        order_ms: server time of the order. The evidence may be younger; who started later reads the record.
    """
    return frozenset(
        (pod_id, beat.incarnation)
        for pod_id, beats in heartbeats.items()
        for beat in beats
        if in_scope(beat, pod_id, scope) and beat.started_at_ms <= order_ms and _may_have_acted(beat, order_ms)
    )


def _may_have_acted(beat: Heartbeat, order_ms: int) -> bool:
    if beat.ended_at_ms and beat.ended_at_ms <= order_ms:
        return False
    return not beat.vouched or order_ms < fenced_at_ms(beat)


def certify(
    record: KillRecord,
    scope: Scope,
    order_ms: int,
    who: frozenset[Incarnation],
    now_ms: int,
    heartbeats: Mapping[str, Sequence[Heartbeat]],
    *,
    writable: bool = True,
) -> Certificate:
    """The certificate as of ``now_ms``.

    Args:
        order_ms: server time of the order.
        who: the incarnations expected when it was given.
        writable: whether the server takes writes. If not, silence proves nothing: a pod may beat in vain.
    """
    beats = {(pod_id, beat.incarnation): beat for pod_id, found in heartbeats.items() for beat in found}
    lines = [_line(who_id, beats.get(who_id), record, order_ms, now_ms, writable) for who_id in sorted(who)]
    return Certificate(record, scope, tuple(lines))


def _line(
    who: Incarnation, beat: Heartbeat | None, record: KillRecord, order_ms: int, now_ms: int, writable: bool
) -> Line:
    pod_id, incarnation = who
    if beat is None:
        return Line(pod_id, incarnation, Proof.UNCONFIRMED, 0.0, 0, 0, "its evidence is gone")
    if beat.quiet and beat.vouched and beat.obeys(record.id) and beat.state is State.STOPPED:
        seconds = max(0.0, (beat.quiet_at_ms - order_ms) / 1000)
        return Line(pod_id, incarnation, Proof.STOPPED, seconds, beat.quiet_at_ms, beat.beat_at_ms)
    if beat.ended_at_ms and beat.quiet and beat.vouched:
        seconds = max(0.0, (beat.ended_at_ms - order_ms) / 1000)
        note = "its process ended by itself, quiet"
        return Line(pod_id, incarnation, Proof.STOPPED, seconds, beat.ended_at_ms, beat.beat_at_ms, note)
    if not beat.vouched:
        note = "it cannot prove that its work has ended: end its processes by hand"
        return Line(pod_id, incarnation, Proof.UNCONFIRMED, 0.0, 0, beat.beat_at_ms, note)
    if presence_of(beat, now_ms) is Presence.FENCED and not writable:
        note = "silent, but Redis takes no writes, so its silence proves nothing"
        return Line(pod_id, incarnation, Proof.UNCONFIRMED, 0.0, 0, beat.beat_at_ms, note)
    if presence_of(beat, now_ms) is Presence.FENCED:
        note = "silent; its lease has run out"
        return Line(pod_id, incarnation, Proof.FENCED, 0.0, fenced_at_ms(beat), beat.beat_at_ms, note)
    return Line(pod_id, incarnation, Proof.UNCONFIRMED, 0.0, 0, beat.beat_at_ms, f"last said: {beat.state}")

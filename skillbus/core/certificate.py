"""A kill and the pods' own evidence -> what is proved about it. Pure.

An expected incarnation lands in one of three columns. ``stopped``: its own hash says that it is quiet, for this kill.
``fenced``: it is silent, and its lease has certainly run out. ``unconfirmed``: anything else. A fourth, ``unknown``, is
for pods that somebody else's list names and Redis does not. What PUBLISH printed is nowhere in here: a deaf listener
counts in it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from skillbus.core.credentials import Credentials, credentials_of
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
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Held:
    """What holds the record, as the server said. None: it was not asked, or did not answer.

    Attributes:
        replicas: how many replicas hold it (WAIT).
        connected: how many there are.
        fsynced_here: whether it is on the master's own disk (WAITAOF); None also if it keeps no AOF.
        fsynced_replicas: on the disks of how many replicas.
    """

    replicas: int | None = None
    connected: int | None = None
    fsynced_here: bool | None = None
    fsynced_replicas: int | None = None

    def sentence(self) -> str:
        """``on the master and 1 replica; fsynced on 1``."""
        if self.replicas is None:
            return "on the master; whether any replica holds it is not known"
        if self.replicas:
            asked = self.fsynced_here is not None or self.fsynced_replicas is not None
            disks = f"; fsynced on {int(self.fsynced_here or 0) + (self.fsynced_replicas or 0)}" if asked else ""
            return f"on the master and {_counted(self.replicas, 'replica')}{disks}{self._late()}"
        if self.fsynced_here:
            return f"on the master alone, fsynced there{self._late()}: the loss of its disk now can lose the order"
        unsynced = ", not fsynced yet" if self.fsynced_here is False else ""
        return f"on the master alone{unsynced}{self._late()}: a crash of it now can lose the order"

    def _late(self) -> str:
        late_count = (self.connected or 0) - (self.replicas or 0)
        return f" ({_counted(late_count, 'connected replica')} did not confirm)" if late_count > 0 else ""


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


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
    """What is proved about one kill at one moment.

    Attributes:
        order_ms: server time of the order.
        timed: whether the server told it. If not, it is the time of the first look behind it, and no time is claimed.
        credentials: who could have written the evidence.
    """

    record: KillRecord
    scope: Scope
    lines: tuple[Line, ...]
    order_ms: int = 0
    timed: bool = True
    credentials: Credentials = field(default_factory=Credentials)

    def count(self, proof: Proof) -> int:
        """How many incarnations landed there."""
        return sum(line.proof is proof for line in self.lines)

    @property
    def complete(self) -> bool:
        """Whether every line is proved, and somebody was expected at all."""
        return bool(self.lines) and all(line.proof in _PROVED for line in self.lines)

    @property
    def unconfirmed(self) -> tuple[Line, ...]:
        """Who is missing."""
        return self.of(Proof.UNCONFIRMED)

    def of(self, proof: Proof) -> tuple[Line, ...]:
        """The lines of one column."""
        return tuple(line for line in self.lines if line.proof is proof)

    def percentile_s(self, percent: float) -> float | None:
        """Seconds from order to quiet within which that share of the stopped ones were (nearest rank)."""
        times = sorted(line.seconds for line in self.lines if line.proof is Proof.STOPPED)
        if not times or not self.timed:
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
        fenced = self.of(Proof.FENCED)
        if fenced:
            parts.append(f"{len(fenced)} fenced at {iso(max(line.at_ms for line in fenced))[:19]}Z")
        parts += [_named(proof, self.of(proof)) for proof in (Proof.UNCONFIRMED, Proof.UNKNOWN) if self.count(proof)]
        return "; ".join(parts)


_PROVED = frozenset({Proof.STOPPED, Proof.FENCED})


def _named(proof: Proof, lines: tuple[Line, ...]) -> str:
    more = f" and {len(lines) - 10} more" if len(lines) > 10 else ""
    return f"{len(lines)} {proof}: {', '.join(line.pod_id for line in lines[:10])}{more}"


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
    if had_ended(beat, order_ms):
        return False
    return not beat.vouched or order_ms < fenced_at_ms(beat)


def had_ended(beat: Heartbeat, order_ms: int) -> bool:
    """Whether an incarnation had ended by itself when the order was given."""
    return 0 < beat.ended_at_ms <= order_ms


def certify(
    record: KillRecord,
    scope: Scope,
    order_ms: int,
    who: frozenset[Incarnation],
    now_ms: int,
    heartbeats: Mapping[str, Sequence[Heartbeat]],
    *,
    writable: bool = True,
    timed: bool = True,
    roster: frozenset[str] = frozenset(),
    before: Certificate | None = None,
) -> Certificate:
    """The certificate as of ``now_ms``.

    Args:
        order_ms: server time of the order.
        who: the incarnations expected when it was given.
        writable: whether the server takes writes. If not, silence proves nothing: a pod may beat in vain.
        timed: whether ``order_ms`` is the server's own word.
        roster: pods that somebody else's list names. Who is not among ``who`` gets a line of its own.
        before: an earlier one of the same kill. Who was stopped in it is stopped.
    """
    known = {} if before is None else {(line.pod_id, line.incarnation): line for line in before.of(Proof.STOPPED)}
    beats = {(pod_id, beat.incarnation): beat for pod_id, found in heartbeats.items() for beat in found}
    named = roster - {pod_id for pod_id, _ in who}
    reached = {pod_id: _last(pod_id, heartbeats.get(pod_id, ()), scope) for pod_id in named}
    asked = who | {(pod_id, last) for pod_id, last in reached.items() if last is not None}
    lines = [
        known.get(who_id) or _line(who_id, beats.get(who_id), record, order_ms, now_ms, writable)
        for who_id in sorted(asked)
    ]
    lines += [
        Line(pod_id, "", Proof.UNKNOWN, 0.0, 0, 0, _not_reached(bool(heartbeats.get(pod_id)), scope))
        for pod_id, last in sorted(reached.items())
        if last is None
    ]
    return Certificate(record, scope, tuple(lines), order_ms, timed, credentials_of(heartbeats))


def _last(pod_id: str, beats: Sequence[Heartbeat], scope: Scope) -> str | None:
    """The incarnation of a pod that was not expected (it ended or fell silent before, or began since) to ask about."""
    found = [beat for beat in beats if in_scope(beat, pod_id, scope)]
    return max(found, key=lambda beat: beat.beat_at_ms).incarnation if found else None


def _not_reached(is_known: bool, scope: Scope) -> str:
    return f"it is not in {scope}, as far as it says" if is_known else "expected, but Redis knows nothing of it"


def says_stopped(beat: Heartbeat, record_id: str) -> bool:
    """Whether an incarnation's own hash says that it is quiet, for this kill. It stays so: nothing un-stops it."""
    return beat.quiet and beat.vouched and beat.state is State.STOPPED and beat.obeys(record_id)


def is_settled(beats: Sequence[Heartbeat], record_id: str, order_ms: int) -> bool:
    """Whether each incarnation that a pod's hash tells of is proved stopped for this kill, or had ended before it."""
    changing = [beat for beat in beats if not (says_stopped(beat, record_id) or had_ended(beat, order_ms))]
    return bool(beats) and not changing


def _line(
    who: Incarnation, beat: Heartbeat | None, record: KillRecord, order_ms: int, now_ms: int, writable: bool
) -> Line:
    pod_id, incarnation = who
    if beat is None:
        return Line(pod_id, incarnation, Proof.UNCONFIRMED, 0.0, 0, 0, "its evidence is gone")
    if says_stopped(beat, record.id):
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

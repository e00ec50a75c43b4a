"""A drill and the pods' evidence -> who answered, how fast, and who would not hear a kill. Pure.

Nothing is taken for an answer but what a pod wrote into its own hash. What PUBLISH and PUBSUB NUMSUB say is nowhere in
here: a deaf listener counts in it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from skillbus.core.certificate import Incarnation
from skillbus.core.heartbeat import DrillLine, Heartbeat
from skillbus.core.orders import DrillOrder
from skillbus.core.roster import Presence, fenced_at_ms, in_scope, presence_of
from skillbus.core.scope import Fleet, Scope

_NAMES_COUNT = 10


class Heard(StrEnum):
    """What became of a drill in one incarnation. Only ``answered`` is good; ``ended`` is nobody's fault."""

    ANSWERED = "answered"
    LACKS = "lacks a channel"
    STUCK = "stuck"
    SILENT = "silent"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Reply:
    """One incarnation's line.

    Attributes:
        heard_s: from the order until it was heard; None: it was not, or the pod did not know the time.
        answered_s: until its answer left.
        lacking: kill channels that were not confirmed on the connection that heard the drill.
    """

    pod_id: str
    incarnation: str
    heard: Heard
    heard_s: float | None = None
    answered_s: float | None = None
    lacking: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class DrillReport:
    """What is known of one drill at one moment.

    Attributes:
        order_ms: server time at which it was sent.
        live_count: live incarnations of the whole fleet then, in the scope or not.
    """

    id: str
    scope: Scope
    order_ms: int
    replies: tuple[Reply, ...]
    live_count: int = 0

    def of(self, heard: Heard) -> tuple[Reply, ...]:
        """The lines of one kind."""
        return tuple(reply for reply in self.replies if reply.heard is heard)

    @property
    def asked(self) -> tuple[Reply, ...]:
        """Who was asked and has not ended since."""
        return tuple(reply for reply in self.replies if reply.heard is not Heard.ENDED)

    @property
    def missing(self) -> tuple[Reply, ...]:
        """Who has not answered (yet)."""
        return tuple(reply for reply in self.replies if reply.heard in (Heard.SILENT, Heard.STUCK))

    @property
    def good(self) -> bool:
        """Whether every live pod answered, with every kill channel of its; and there was one."""
        return bool(self.asked) and all(reply.heard is Heard.ANSWERED for reply in self.asked)

    def heard_s(self, percent: float) -> float | None:
        """Seconds from the order within which that share of those who heard had heard (nearest rank)."""
        return _percentile([reply.heard_s for reply in self.replies], percent)

    def answered_s(self, percent: float) -> float | None:
        """The same, until the answer left."""
        return _percentile([reply.answered_s for reply in self.replies], percent)

    def sentence(self) -> str:
        """``44 of 44 answered: p50 3 ms, p99 9 ms, max 12 ms``, and who did not."""
        if not self.asked:
            return f"no live pod is known in {self.scope}"
        answered_count = len(self.of(Heard.ANSWERED)) + len(self.of(Heard.LACKS))
        times = [self.answered_s(percent) for percent in (50, 99, 100)]
        shown = ", ".join(
            f"{word} {seconds * 1000:.0f} ms"
            for word, seconds in zip(("p50", "p99", "max"), times, strict=True)
            if seconds is not None
        )
        parts = [f"{answered_count} of {len(self.asked)} answered" + (f": {shown}" if shown else "")]
        for heard, words in _WORDS.items():
            if found := self.of(heard):
                parts.append(f"{len(found)} {words}: {names_of(found)}")
        return "; ".join(parts)


_WORDS = {Heard.SILENT: "did not answer", Heard.STUCK: "heard it and are stuck", Heard.LACKS: "lack a kill channel"}


def names_of(replies: Sequence[Reply], limit: int = _NAMES_COUNT) -> str:
    """Whose lines these are: ``pod-1, pod-2 and 3 more``."""
    more = f" and {len(replies) - limit} more" if len(replies) > limit else ""
    return ", ".join(reply.pod_id for reply in replies[:limit]) + more


def _percentile(found: Sequence[float | None], percent: float) -> float | None:
    times = sorted(seconds for seconds in found if seconds is not None)
    if not times:
        return None
    return times[int(max(0, -(-len(times) * percent // 100) - 1))]


def asked_of(order_ms: int, heartbeats: Mapping[str, Sequence[Heartbeat]], scope: Scope) -> frozenset[Incarnation]:
    """Who must answer: the incarnations of ``scope`` that were alive at ``order_ms``.

    As for a kill, but for who is silent for long and cannot vouch for the end of its work: it is dead, and no drill
    will show otherwise.
    """
    return frozenset(
        (pod_id, beat.incarnation)
        for pod_id, beats in heartbeats.items()
        for beat in beats
        if in_scope(beat, pod_id, scope) and beat.started_at_ms <= order_ms and _lived(beat, order_ms)
    )


def _lived(beat: Heartbeat, order_ms: int) -> bool:
    return order_ms < (min(beat.ended_at_ms, fenced_at_ms(beat)) if beat.ended_at_ms else fenced_at_ms(beat))


def report_of(
    order: DrillOrder,
    scope: Scope,
    order_ms: int,
    who: frozenset[Incarnation],
    now_ms: int,
    heartbeats: Mapping[str, Sequence[Heartbeat]],
) -> DrillReport:
    """The report as of ``now_ms``. ``who``: the incarnations that were asked."""
    beats = {(pod_id, beat.incarnation): beat for pod_id, found in heartbeats.items() for beat in found}
    replies = [_reply(one, beats.get(one), order.id, order_ms, now_ms, scope.fleet) for one in sorted(who)]
    everybody = asked_of(order_ms, heartbeats, Scope(scope.fleet))
    return DrillReport(order.id, scope, order_ms, tuple(replies), len(everybody))


def _reply(who: Incarnation, beat: Heartbeat | None, name: str, order_ms: int, now_ms: int, fleet: str) -> Reply:
    pod_id, incarnation = who
    if beat is None:
        return Reply(pod_id, incarnation, Heard.SILENT, note="its evidence is gone")
    line = next((line for line in (beat.drill, *beat.drills_before) if line is not None and line.id == name), None)
    if line is None or not line.answered_at_ms:
        if beat.ended_at_ms:
            return Reply(pod_id, incarnation, Heard.ENDED, note="its process ended by itself")
        if line is None:
            return Reply(pod_id, incarnation, Heard.SILENT, note=_why_silent(beat, now_ms))
        heard_s = _since(order_ms, line.heard_at_ms)
        return Reply(pod_id, incarnation, Heard.STUCK, heard_s, note="it heard the drill, and its loop has not turned")
    lacking = tuple(
        scope.kill_channel
        for scope in Fleet(fleet).scopes_of(pod_id, beat.groups)
        if scope.kill_channel not in line.channels
    )
    heard, note = _verdict(line, lacking, beat)
    heard_s, answered_s = _since(order_ms, line.heard_at_ms), _since(order_ms, line.answered_at_ms)
    return Reply(pod_id, incarnation, heard, heard_s, answered_s, lacking, note)


def _verdict(line: DrillLine, lacking: tuple[str, ...], beat: Heartbeat) -> tuple[Heard, str]:
    if lacking:
        return Heard.LACKS, f"it would not hear {', '.join(lacking)}"
    if not line.trips:
        return Heard.STUCK, "its gate says that a kill would not stop it: end it, and report this"
    return Heard.ANSWERED, str(beat.state) + ("" if line.lease else ", without a lease")


def _since(order_ms: int, at_ms: int) -> float | None:
    return max(0, at_ms - order_ms) / 1000 if at_ms else None


def _why_silent(beat: Heartbeat, now_ms: int) -> str:
    ago = f"last heard of {max(0, now_ms - beat.beat_at_ms) / 1000:.0f} s ago"
    if "drill" not in beat.model_fields_set:
        return f"its version ({beat.version[:40] or 'unknown'}) knows no drills"
    if presence_of(beat, now_ms) is Presence.FENCED:
        return f"{ago}: it is gone, or frozen"
    if not beat.armed:
        return f"it says itself that it is deaf ({beat.state}, {ago})"
    return f"{beat.state}, {ago}"

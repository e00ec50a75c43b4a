"""What a pod observed of itself, gathered into the heartbeat that it leaves in its own hash (docs/protocol.md §1)."""

from __future__ import annotations

from skillbus import __version__
from skillbus.clock import Clock
from skillbus.core.heartbeat import DOING_LIMIT, CauseLine, Heartbeat, PassLine
from skillbus.core.latch import CauseKind
from skillbus.core.outcome import Outcome
from skillbus.core.text import harmless
from skillbus.pod.drill import Drills
from skillbus.pod.further import FurtherOrders
from skillbus.pod.identity import Identity
from skillbus.pod.server_time import ServerTime
from skillbus.pod.switch import Standing, Switch


class Evidence(ServerTime):
    """Server time, and the account of passes.

    Attributes:
        last_error: what the last attempt to reach Redis said; empty after a good one.
        last_pass: the last pass that ended.
        outcomes: how many passes ended, by outcome.
        skills: the digest of the set of installed skills, once Redis has what it stands for; empty: none.
        rests_until_s: until when a source asked to be left alone (boot-time clock); None: none did.
        ignored_count: messages on the drill and sync channels that said nothing this pod understands, or said it too
            often.
        drills: those that this pod heard.
        doing: what the pass in flight says that it is at; empty if there is none, or it says nothing.
        is_watched: whether somebody asked for the pass in flight, and so may look on.
        further: orders that it heard for a scope that was killed already.
        user: the ACL user that the server takes it for; empty: the server did not tell.
    """

    def __init__(self, identity: Identity, clock: Clock, lease_s: float) -> None:
        super().__init__(clock)
        self.identity = identity
        self._lease_s = lease_s
        self._started_at_s = clock.now_s()
        self.last_error = ""
        self.last_pass: PassLine | None = None
        self.passes_count = 0
        self.outcomes: dict[str, int] = {str(outcome): 0 for outcome in Outcome}
        self.ignored_count = 0
        self.drills = Drills(clock)
        self.further = FurtherOrders()
        self.user = ""
        self.skills = ""
        self.rests_until_s: float | None = None
        self.doing = ""
        self.is_watched = False

    def note_doing(self, text: str) -> None:
        """The pass in flight says what it is at. From any thread: it is one assignment."""
        self.doing = harmless(text, DOING_LIMIT)

    @property
    def last_drill_at_ms(self) -> int:
        """Server time of the last drill that this pod answered; 0: it answered none."""
        return self.ms_at(self.drills.answered_at_s)

    def heartbeat(
        self,
        switch: Switch,
        *,
        armed: bool,
        heard_at_s: float | None,
        hears_since_s: float | None,
        deaf_since_s: float | None,
        hears: frozenset[str],
        latch_durable: bool,
    ) -> Heartbeat:
        """The evidence as of now."""
        standing = switch.standing
        drills = self.drills.lines(self.ms_at)
        return Heartbeat(
            incarnation=self.identity.incarnation,
            state=standing.state,
            why=harmless(standing.why, 1000),
            causes=cause_lines(switch),
            beat_at_ms=self.now_ms(),
            started_at_ms=self.ms_at(self._started_at_s),
            lease_s=self._lease_s,
            armed=armed,
            heard_at_ms=self.ms_at(heard_at_s),
            hears_since_ms=self.ms_at(hears_since_s),
            deaf_since_ms=self.ms_at(deaf_since_s),
            hears=tuple(sorted(hears)),
            latch_durable=latch_durable,
            vouched=switch.vouched,
            ignored_count=self.ignored_count,
            passes_count=self.passes_count,
            last_pass=self.last_pass,
            skills=self.skills,
            rests_until_ms=self.ms_at(self.rests_until_s),
            doing=self.doing,
            groups=self.identity.groups,
            host=self.identity.host,
            pid=self.identity.pid,
            version=__version__,
            drill=drills[0] if drills else None,
            drills_before=tuple(drills[1:]),
            further=self.further.lines,
            further_left_out_count=self.further.left_out_count,
            user=self.user,
            **self._instants(standing),
        )

    def _instants(self, standing: Standing) -> dict[str, int]:
        return {
            "quiet": standing.quiet,
            "quiet_at_ms": self.ms_at(standing.quiet_at_s),
            "tripped_at_ms": self.ms_at(standing.tripped_at_s),
        }


def cause_lines(switch: Switch) -> tuple[CauseLine, ...]:
    """Every cause of a latch, as shown to others: kills by scope, then those of this process alone."""
    kills = (
        CauseLine(
            kind=CauseKind.RECORD if obeyed.recorded else CauseKind.ORDER,
            scope=obeyed.scope.label,
            record_id=obeyed.record.id,
            reason=harmless(obeyed.record.reason),
            by=harmless(obeyed.record.by, 80),
            at=harmless(obeyed.record.at, 40),
            lifted=obeyed.lifted,
            recorded=obeyed.recorded,
        )
        for obeyed in switch.memory.obeyed.values()
    )
    own = (CauseLine(kind=cause.kind, reason=harmless(cause.reason)) for cause in switch.causes)
    return (*kills, *own)

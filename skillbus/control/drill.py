"""A drill, from the message to who answered (docs/protocol.md §3.13), and when the last good one was.

It is followed as a kill is: listen for hints, read who must answer, then look at whoever is missing. The times are the
pods' own, against the server's clock at the sending, so that how often we look changes none of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import boottime_s
from skillbus.control.following import Beats, Pace
from skillbus.core.certificate import Incarnation
from skillbus.core.drill import DrillReport, Heard, asked_of, names_of, report_of
from skillbus.core.orders import DrillOrder
from skillbus.core.scope import Scope
from skillbus.errors import RetryLater, SkillbusError

_LOOK_BACK_PAGES = 10
_NAMES_COUNT = 50
"""Names that an entry of the audit keeps of those who did not answer; a name has 64 characters at most."""


@dataclass(frozen=True, slots=True)
class DrillOutcome:
    """What became of a drill.

    Attributes:
        report: who answered, as last seen; None: nothing could be seen.
        receivers: what PUBLISH printed. Never an answer.
        drill_count: connections that hear drills (PUBSUB NUMSUB); None: these credentials may not ask.
        kill_count: connections that hear the fleet's kill channel.
        audited: the entry that tells how it ended, or why there is none.
        not_seen: why the evidence could not be read, the last time that it was tried.
    """

    order: DrillOrder
    report: DrillReport | None
    receivers: int
    drill_count: int | None
    kill_count: int | None
    audited: str | SkillbusError
    not_seen: SkillbusError | None = None

    @property
    def good(self) -> bool:
        """Whether every live pod was seen to answer, with every kill channel of its."""
        return self.report is not None and self.report.good


@dataclass(slots=True)
class Drill:
    """One drill by an operator.

    Attributes:
        timeout_s: seconds to wait for answers.
        on_progress: called with each newer report while waiting.
    """

    bus: OperatorBus
    scope: Scope
    by: str
    timeout_s: float = 10.0
    on_progress: Callable[[DrillReport], None] = lambda report: None
    via: str = "cli"
    _beats: Beats = field(default_factory=Beats, init=False)

    async def run(self) -> DrillOutcome:
        """Send it, wait for the answers, and keep in the audit how it ended.

        Raises:
            RetryLater: Redis cannot be reached, or is no master. No drill was sent.
            NeedsHuman: these credentials may not send one.
        """
        await self.bus.read([self.scope])  # A replica would take the message, and hand it to nobody who matters.
        order = DrillOrder(uuid.uuid4().hex, self.by, self.timeout_s, self.scope.label)
        async with Pace(self.bus) as pace:
            order_ms, receivers, drill_count, kill_count = await self.bus.drill(order.to_bytes())
            pace.told_at_s = boottime_s()
            with suppress(SkillbusError):  # Whether the audit can be written, the result will say.
                await self.bus.audit({"kind": "drill", **self._entry(order)})
            report, not_seen = await self._follow(pace, order, order_ms)
        outcome = DrillOutcome(order, report, receivers, drill_count, kill_count, "", not_seen)
        try:
            audited: str | SkillbusError = await self.bus.audit({**self._entry(order), **_result(outcome)})
        except SkillbusError as error:
            audited = error
        return DrillOutcome(order, report, receivers, drill_count, kill_count, audited, not_seen)

    def _entry(self, order: DrillOrder) -> dict[str, str]:
        return {"scope": self.scope.label, "by": self.by[:1024], "via": self.via, "id": order.id}

    async def _follow(
        self, pace: Pace, order: DrillOrder, order_ms: int
    ) -> tuple[DrillReport | None, SkillbusError | None]:
        """``(the last report, why nothing was seen after it)``. None: nothing could be seen at all."""
        deadline_s = boottime_s() + self.timeout_s
        report: DrillReport | None = None
        not_seen: SkillbusError | None
        who: frozenset[Incarnation] | None = None
        ids: list[str] = []
        while True:
            look_at_s = boottime_s()
            try:
                if who is None:
                    ids = await self.bus.pod_ids()
                    await pace.first(len(ids))
                    look_at_s = boottime_s()
                now_ms = await self._beats.look(self.bus, ids)
                who = asked_of(order_ms, self._beats.known(), self.scope) if who is None else who
                report = report_of(order, self.scope, order_ms, who, now_ms, self._beats.known())
                self.on_progress(report)
                ids, not_seen = sorted({reply.pod_id for reply in report.missing}), None
            except RetryLater as error:
                not_seen = error
            except SkillbusError as error:
                return report, error
            look_s = boottime_s() - look_at_s if not_seen is None else None
            remaining_s = deadline_s - boottime_s()
            if (report is not None and not report.missing) or remaining_s <= 0:
                return report, not_seen
            await pace.again(len(ids), look_s, remaining_s)


# -- the audit ---------------------------------------------------------------------------------------------------------


def _result(outcome: DrillOutcome) -> dict[str, str]:
    """How it ended, as flat fields; times in ms from the order."""
    fields = {"kind": "drill-result", "ok": str(int(outcome.good)), "receivers": str(outcome.receivers)}
    counts = {"hear_drill": outcome.drill_count, "hear_kill": outcome.kill_count}
    fields |= {name: str(count) for name, count in counts.items() if count is not None}
    report = outcome.report
    if report is None:
        return {**fields, "sentence": f"nothing could be seen: {outcome.not_seen}"[:1024]}
    silent = [reply for reply in report.replies if reply.heard in (Heard.SILENT, Heard.STUCK)]
    fields |= {
        "asked": str(len(report.asked)),
        "answered": str(len(report.of(Heard.ANSWERED)) + len(report.of(Heard.LACKS))),
        "missing": names_of(silent, _NAMES_COUNT),
        "lacking": names_of(report.of(Heard.LACKS), _NAMES_COUNT),
        "sentence": report.sentence()[:1024],
    }
    for percent, word in ((50, "p50"), (99, "p99"), (100, "max")):
        for what, seconds in (("heard", report.heard_s(percent)), ("answered", report.answered_s(percent))):
            if seconds is not None:
                fields[f"{what}_{word}_ms"] = str(round(seconds * 1000))
    return fields


@dataclass(frozen=True, slots=True)
class LastDrill:
    """The last good drill of the whole fleet, as the audit tells it.

    Attributes:
        at_ms: server time at which its result was written.
        by, sentence: as written, by others: not fit to be shown as they are.
    """

    at_ms: int
    id: str
    by: str
    sentence: str


async def last_good_drill(bus: OperatorBus) -> LastDrill | None:
    """The last drill that every live pod of the fleet answered. Looks at the youngest thousand entries of the audit.

    Raises:
        RetryLater, NeedsHuman: the audit cannot be read.
    """
    before = "+"
    for _ in range(_LOOK_BACK_PAGES):
        rows = await bus.streams.older(bus.fleet.audit_key, before)
        for row in rows:
            if is_good_drill(row.fields):
                fields = row.fields
                return LastDrill(row.at_ms, fields.get("id", ""), fields.get("by", ""), fields.get("sentence", ""))
        if not rows:
            break
        before = rows[-1].id
    return None


def is_good_drill(fields: dict[str, str]) -> bool:
    """Whether an entry tells of a drill that the whole fleet answered. That of a group says nothing of the others."""
    return fields.get("kind") == "drill-result" and fields.get("ok") == "1" and fields.get("scope") == "fleet"

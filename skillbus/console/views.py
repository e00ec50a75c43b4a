"""Values of the house -> shapes of the API. Pure; whatever others wrote is made harmless here, and nowhere later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from skillbus.console import shapes
from skillbus.control.audit import Entry
from skillbus.control.drill import DrillOutcome, LastDrill
from skillbus.control.kill import KillReport
from skillbus.control.reset import ResetReport
from skillbus.control.status import Status
from skillbus.control.sync import SyncReport
from skillbus.control.telling import UNKNOWN, headline, life_of, why_of, word_of
from skillbus.control.telling_orders import failed_sentences, is_recorded, iso_of, recorded_sentence, what_of
from skillbus.control.watching import straggles
from skillbus.core.audit import Told, told_of
from skillbus.core.certificate import Certificate, Held, Line, Proof
from skillbus.core.drill import Heard
from skillbus.core.orders import REASON_LIMIT, KillRecord
from skillbus.core.roster import PodView, Presence
from skillbus.core.scope import Scope
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError

_WHY_LIMIT = 120
_SKILLS_DIGITS = 12
_ACKS_LIMIT = 500
_FIELD_LIMIT = 1024
_NAMES_LIMIT = 1000
_LARGE = frozenset({"certificate"})


def record_of(record: KillRecord) -> shapes.Record:
    """A record."""
    told = {name: harmless(getattr(record, name), _FIELD_LIMIT) for name in shapes.Record.model_fields}
    return shapes.Record(**told | {"reason": harmless(record.reason, REASON_LIMIT)})


# -- the fleet ---------------------------------------------------------------------------------------------------------


def row_of(pod: PodView, killed: frozenset[Scope]) -> shapes.PodRow:
    """One pod."""
    life = life_of(pod)
    is_off = straggles(pod, killed)
    if life is None:
        why = "in the roster; its evidence has expired"
        return shapes.PodRow(pod.pod_id, pod.word, is_off, 0, False, False, (), "", 0, "", "", why, False)
    beat, last = life.beat, life.beat.last_pass
    return shapes.PodRow(
        id=pod.pod_id,
        word=pod.word,
        straggles=is_off,
        beat_at_ms=beat.beat_at_ms,
        hears=beat.armed and not pod.deaf and bool(pod.current),
        is_late=life.presence is Presence.LATE,
        groups=tuple(harmless(group, 64) for group in beat.groups[:20]),
        outcome=harmless(last.outcome, 20) if last else "",
        pass_at_ms=last.began_at_ms + round(last.took_s * 1000) if last else 0,
        skills=harmless(beat.skills[:_SKILLS_DIGITS]),
        version=harmless(beat.version, 20),
        why=harmless(why_of(life), _WHY_LIMIT),
        is_twin=pod.twin,
    )


def status_of(
    seen: Status | None,
    fleet: str,
    *,
    stragglers_count: int,
    keeper: shapes.KeeperView,
    blind: shapes.Blind | None,
    kills_under_way: Sequence[str],
    version: str,
) -> shapes.Status:
    """The fleet as of the last look; ``seen`` is None before the first."""
    common = {"fleet": fleet, "keeper": keeper, "blind": blind, "version": version}
    if seen is None:
        why = blind.why if blind else "nothing was seen yet"
        return shapes.Status(word=UNKNOWN, headline=f"fleet '{fleet}': {UNKNOWN}: {why}", **common)
    drill = seen.drill
    told = shapes.Status(
        word=word_of(seen),
        headline=harmless(headline(seen), 2000),
        now_ms=seen.server_ms,
        is_armed=seen.armed,
        pods_count=len(seen.pods),
        stragglers_count=stragglers_count,
        counts=dict(seen.counts()),
        kills=tuple(
            shapes.KilledScope(scope=scope.label, record=record_of(record), sentence=record.sentence())
            for scope, record in seen.kills
        ),
        last_good_drill=_drill_of(drill) if isinstance(drill, LastDrill) else None,
        drill_error=harmless(str(drill)) if isinstance(drill, SkillbusError) else "",
        kills_under_way=tuple(kills_under_way),
        **common,
    )
    return told if blind is None else blinded(told, blind)


def blinded(told: shapes.Status, blind: shapes.Blind) -> shapes.Status:
    """The same figures, that are not believed any more."""
    text = f"fleet '{told.fleet}': {UNKNOWN}: {blind.why}; as last seen: {told.headline}"
    return told.model_copy(update={"word": UNKNOWN, "headline": text, "blind": blind})


def keeper_view_of(standing: Any) -> shapes.KeeperView:
    """How a keeper stands; in fields of the same names."""
    told = {name: getattr(standing, name) for name in shapes.KeeperView.model_fields}
    return shapes.KeeperView(**told | {"why": harmless(standing.why, 500)})


def _drill_of(drill: LastDrill) -> shapes.LastDrill:
    return shapes.LastDrill(at_ms=drill.at_ms, by=harmless(drill.by), sentence=harmless(drill.sentence, 2000))


# -- kills -------------------------------------------------------------------------------------------------------------


def held_of(held: Held) -> shapes.HeldView:
    """What holds a record."""
    return shapes.HeldView(sentence=held.sentence(), **asdict(held))


def certificate_of(told: Told, *, lines_limit: int | None = None) -> shapes.CertificateView:
    """A certificate: as it was told, or as it is told now; with so many of its lines, who is missing first."""
    p50_s, p99_s, max_s = told.times_s
    times = sorted(round(line.seconds * 1000) for line in told.lines if line.proof is Proof.STOPPED)
    return shapes.CertificateView(
        sentence=harmless(told.sentence, 2000),
        is_complete=told.complete,
        is_interrupted=told.interrupted,
        counts=told.counts,
        p50_s=p50_s,
        p99_s=p99_s,
        max_s=max_s,
        order_ms=told.order_ms,
        held=held_of(told.held) if told.held else None,
        ack_ms=_thinned(times),
        pods=tuple(_line_of(line) for line in _missing_first(told.lines)[:lines_limit]),
        left_out_count=told.left_out_count,
        histogram=told.histogram,
    )


def certificate_now(
    certificate: Certificate, held: Held | None, *, lines_limit: int | None = None
) -> shapes.CertificateView:
    """A certificate on its way."""
    return certificate_of(told_of(certificate, held, interrupted=False), lines_limit=lines_limit)


def _missing_first(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (line.proof is Proof.STOPPED, line.pod_id))


def _line_of(line: Line) -> shapes.ProofLine:
    return shapes.ProofLine(
        pod=harmless(line.pod_id, 80),
        incarnation=harmless(line.incarnation[:8]),
        proof=line.proof,
        seconds=line.seconds,
        at_ms=line.at_ms,
        last_beat_ms=line.last_beat_ms,
        note=harmless(line.note),
    )


def _thinned(times: Sequence[int]) -> tuple[int, ...]:
    if len(times) <= _ACKS_LIMIT:
        return tuple(times)
    last = len(times) - 1
    return tuple(times[i * last // (_ACKS_LIMIT - 1)] for i in range(_ACKS_LIMIT))


def kill_answer_of(report: KillReport) -> shapes.KillAnswer:
    """What became of a kill."""
    answers, certificate = report.answers, report.certificate
    failed = failed_sentences(report)
    if not is_recorded(report):
        failed.insert(0, recorded_sentence(report))
    return shapes.KillAnswer(
        id=report.record.id,
        order=report.order_id,
        url=f"kills/{report.record.id}",
        scope=report.scope.label,
        is_recorded=is_recorded(report),
        is_read_back=report.stands,
        is_first=report.first,
        is_published=isinstance(answers.receivers, int),
        is_audited=isinstance(answers.audited, str),
        sentence=harmless("; ".join([recorded_sentence(report), *failed_sentences(report)]), 2000),
        errors=tuple(harmless(text, 500) for text in failed),
        record=record_of(report.record),
        held=held_of(report.held),
        certificate=None if certificate is None else certificate_now(certificate, report.held),
    )


# -- the audit ---------------------------------------------------------------------------------------------------------


def entry_of(entry: Entry) -> shapes.AuditEntry:
    """One entry of the audit."""
    fields = entry.fields
    known = {name: harmless(fields.get(name, ""), 200) for name in ("scope", "by", "via", "record")}
    return shapes.AuditEntry(
        id=entry.id,
        source=harmless(entry.source, 80),
        at_ms=entry.at_ms,
        at=iso_of(entry),
        kind=harmless(fields.get("kind", ""), 40),
        **known,
        what=harmless(what_of(entry), 600),
        fields=_foreign(fields),
    )


def _foreign(fields: Mapping[str, str]) -> dict[str, str]:
    kept = [(name, text) for name, text in fields.items() if name not in _LARGE][:30]
    return {harmless(name, 40): harmless(text, _FIELD_LIMIT) for name, text in kept}


# -- drill, sync, reset ------------------------------------------------------------------------------------------------


def drill_answer_of(outcome: DrillOutcome) -> shapes.DrillAnswer:
    """Who answered a drill."""
    report = outcome.report
    failed = [str(one) for one in (outcome.not_seen, outcome.audited) if isinstance(one, SkillbusError)]
    common = {"id": outcome.order.id, "is_good": outcome.good, "errors": tuple(harmless(one) for one in failed)}
    common["is_audited"] = isinstance(outcome.audited, str)
    if report is None:
        return shapes.DrillAnswer(sentence="nothing could be seen", **common)
    replies = sorted(report.replies, key=lambda reply: (reply.heard is Heard.ANSWERED, reply.pod_id))
    return shapes.DrillAnswer(
        sentence=harmless(report.sentence(), 2000),
        asked_count=len(report.asked),
        answered_count=len(report.of(Heard.ANSWERED)) + len(report.of(Heard.LACKS)),
        answered_s={word: report.answered_s(percent) for percent, word in ((50, "p50"), (99, "p99"), (100, "max"))},
        pods=tuple(
            shapes.DrillReply(
                pod=harmless(reply.pod_id, 80),
                heard=reply.heard,
                heard_s=reply.heard_s,
                answered_s=reply.answered_s,
                note=harmless(reply.note),
            )
            for reply in replies
        ),
        **common,
    )


def sync_answer_of(report: SyncReport) -> shapes.SyncAnswer:
    """What became of a sync."""
    count = len(report.passes) + len(report.missing)
    failed_count = sum(line.outcome != "ok" for _, line in report.passes)
    failed = f", {failed_count} of them failed" if failed_count else ""
    missing = f"; {len(report.missing)} have not answered" if report.missing else ""
    return shapes.SyncAnswer(
        id=report.id,
        sentence=f"{len(report.passes)} of {count} pods made a pass in {report.took_s:.1f} s{failed}{missing}",
        took_s=round(report.took_s, 3),
        passes=tuple(
            shapes.PassView(
                pod=pod_id,
                outcome=harmless(line.outcome, 20),
                took_s=line.took_s,
                counts={harmless(word, 40): count for word, count in line.counts.items()},
                errors=tuple(harmless(text) for text in line.errors),
            )
            for pod_id, line in report.passes
        ),
        missing=report.missing,
        stopped=report.stopped,
        resting=report.resting,
    )


def reset_answer_of(report: ResetReport) -> shapes.ResetAnswer:
    """What a reset did."""
    again = report.killed_again
    waiting = f"; {len(report.waiting)} pods are still stopped and wait for a restart" if report.waiting else ""
    sentence = f"{report.scope} is reset (epoch {report.epoch}){waiting}"
    return shapes.ResetAnswer(
        scope=report.scope.label,
        epoch=report.epoch,
        sentence=sentence if again is None else harmless(f"KILLED AGAIN: {again.sentence()}", 2000),
        lifted=tuple(
            shapes.Lifted(
                at_ms=order.at_ms,
                by=harmless(order.by),
                via=harmless(order.via, 80),
                reason=harmless(order.reason, _FIELD_LIMIT),
                id=harmless(order.record_id, 200),
            )
            for order in report.lifted
        ),
        left_out_count=report.left_out_count,
        waiting=report.waiting[:_NAMES_LIMIT],
        killed_again=None if again is None else record_of(again),
    )

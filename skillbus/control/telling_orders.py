"""What is told of orders and of the audit, in the same words on every face: command line, API, page. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skillbus.core.orders import iso
from skillbus.errors import SkillbusError

if TYPE_CHECKING:
    from skillbus.control.audit import Entry
    from skillbus.control.kill import KillReport

_LAST_MS = 250_000_000_000_000
"""The last instant that can be shown: in the year 9892."""


def is_recorded(report: KillReport) -> bool:
    """Whether a record stands: read back, or by the server's word alone."""
    return report.stands or is_unread(report)


def is_unread(report: KillReport) -> bool:
    """Whether the server said that a record stands, but did not let us read it back."""
    return report.not_read is not None and isinstance(report.answers.recorded, bool)


def found_nobody(report: KillReport) -> bool:
    """Whether it was looked, and no pod is known in that scope."""
    return report.certificate is not None and not report.certificate.lines


def recorded_sentence(report: KillReport) -> str:
    """What became of the record."""
    answers, killed = report.answers, f"{report.scope} is killed: {report.record.sentence()}"
    if is_unread(report):
        said = "that it took the record" if answers.recorded else "that one stands from before"
        return f"recorded, but the proof could not be read back ({report.not_read}): the server only said {said}"
    if isinstance(answers.recorded, bool) and not report.stands:
        return "recorded, but the record is gone again: it was reset, or Redis has lost its data: look, and kill again"
    if not report.stands:
        return f"published, NOT recorded: {answers.recorded}"
    if not report.first:
        return f"{report.scope} was killed before, and that record stands: {report.record.sentence()}"
    return killed if found_nobody(report) else f"recorded: {killed}"


def failed_sentences(report: KillReport) -> list[str]:
    """A sentence for each part of the order that failed, the record aside."""
    lines = []
    if isinstance(report.answers.receivers, SkillbusError):
        lines.append(f"NOT published ({report.answers.receivers}): pods find the record at their next heartbeat")
    if isinstance(report.answers.audited, SkillbusError):
        lines.append(f"NOT audited: {report.answers.audited}")
    if isinstance(report.stored, SkillbusError):
        lines.append(f"the certificate is NOT kept in the audit: {report.stored}")
    return lines


def kill_sentence(report: KillReport) -> str:
    """All of it for a person who reads one line: the record, what failed, what is proved."""
    parts = (recorded_sentence(report), *failed_sentences(report), _proved(report))
    return "; ".join(part for part in parts if part)


def _proved(report: KillReport) -> str:
    if report.not_seen is not None:
        return f"the proof could not be read ({report.not_seen})"
    if found_nobody(report):
        return f"no pod is known in {report.scope}"
    return "" if report.certificate is None else report.certificate.sentence()


def iso_of(entry: Entry) -> str:
    """A hostile id of a stream may bear any number, and not every one is a time."""
    return iso(entry.at_ms) if 0 <= entry.at_ms <= _LAST_MS else str(entry.at_ms)


def what_of(entry: Entry) -> str:
    """What a person wants to know of an entry of that kind."""
    fields = entry.fields
    kind, record = fields.get("kind", ""), fields.get("record", "")[:12]
    reason = f'"{fields["reason"]}"' if fields.get("reason") else ""
    if kind == "certificate":
        return f"{fields.get('sentence', '')} [{record}]"
    if kind == "heard":
        pods = f" obeyed by {fields['pods']}" if fields.get("pods") else ""
        times = f", heard {fields['times']} times" if fields.get("times", "1") != "1" else ""
        return f"{reason} [{record}]{pods}{times}; nobody audited it"
    if kind == "refused":
        return f"{fields.get('what', '')} {reason}: {fields.get('why', '')}"
    if kind == "reset":
        lifted = fields.get("lifted", "")
        return f"{reason} epoch {fields.get('epoch', '?')}" + (f", lifted {lifted}" if lifted else "")
    return f"{reason} [{record}]" if record else (reason or fields.get("sentence", ""))

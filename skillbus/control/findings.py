"""Facts -> findings: what is wrong before an incident shows it, each with its cure. Pure.

A finding is ``ok`` only for what was seen to be right. What could not be seen is a ``note`` that says so.
``broken`` is kept for what would keep the switch from working: a kill that is not stored, not heard, forgotten, or
undone by somebody who may not. One file for each subject: the server, who may do what, the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from skillbus.bus.probe import Unseen

_SHOWN = 5


class Severity(StrEnum):
    """How bad a finding is."""

    BROKEN = "broken"
    WARNING = "warning"
    NOTE = "note"
    OK = "ok"


_WORST_FIRST = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome.

    Attributes:
        id: the check's name, the same in every version.
        seen: what was observed, as a sentence without its full stop.
        cure: what to do; empty for ``ok``.
        node: the server it is about, if not the one of the URL.
    """

    id: str
    severity: Severity
    seen: str
    cure: str = ""
    node: str = ""


def ok(check: str, seen: str) -> Finding:
    """Seen, and right."""
    return Finding(check, Severity.OK, seen)


def note(check: str, seen: str, cure: str) -> Finding:
    """Worth knowing."""
    return Finding(check, Severity.NOTE, seen, cure)


def warning(check: str, seen: str, cure: str) -> Finding:
    """The switch works today."""
    return Finding(check, Severity.WARNING, seen, cure)


def broken(check: str, seen: str, cure: str) -> Finding:
    """The switch would not work."""
    return Finding(check, Severity.BROKEN, seen, cure)


def unseen(check: str, what: str, why: Unseen, cure: str = "look again as viewer, operator or admin") -> Finding:
    """Not seen, hence not known to be right."""
    how = "cannot be seen with these credentials" if why.denied or why.needs_login else "cannot be seen"
    return note(check, f"{what} {how} ({why.why})", cure)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """As people read them; equal ones keep their order."""
    return sorted(findings, key=lambda one: _WORST_FIRST.index(one.severity))


def named(names: Iterable[str]) -> str:
    """``a, b, c, d, e and 3 more``."""
    every = sorted(set(names))
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def counted(count: int, what: str) -> str:
    """``1 pod``, ``2 pods``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"

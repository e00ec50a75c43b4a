"""The sentence at the top of the page: one word, a figure, what else there is. Pure, of the API's shapes alone.

``static/banner.js`` says the same of every later status; ``tests/browser/test_banner.py`` holds both against each
other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from skillbus.console import shapes

GONE = frozenset({"stopped", "fenced", "ended", "lost"})
"""Words of pods that do nothing any more."""

WORDS = ("deaf", "running", "stopping", "starting", "holding", "unconfirmed", "fenced", "stopped", "ended", "lost")
"""Every word of a pod, worst first."""

_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Banner:
    """What stands there.

    Attributes:
        tone: running, stopping, stopped, holding, unarmed, unknown: the colour and the icon.
        figure: ``44``, ``41/44``; may be empty.
        rest: behind the figure: since when, by whom and why.
        asides: further sentences below.
    """

    tone: str
    word: str
    figure: str = ""
    rest: str = ""
    asides: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Word, figure and rest."""
        head = f"{self.word} {self.figure}".strip()
        joint = ": " if self.tone == "unknown" and self.rest else " "
        return f"{head}{joint}{self.rest}".strip()


def banner_of(status: shapes.Status, now_ms: int) -> Banner:
    """The banner. ``now_ms``: of the console's own clock, by which it knows since when it is blind."""
    counts = status.counts
    if status.blind is not None:
        return _unknown(status, status.blind, now_ms)
    whole = next((kill.record for kill in status.kills if kill.scope == "fleet"), None)
    parts = tuple(
        f"{kill.scope.replace(':', ' ')} is stopped {_since(kill.record, status.now_ms)}"
        for kill in status.kills
        if kill.scope != "fleet"
    )
    if whole is not None:
        return _killed(status, whole, parts)
    if not status.is_armed:
        new = "Its pods hold. A new fleet? Run skillbus arm. An old one? Its Redis has lost its data."
        return Banner("unarmed", "NOT ARMED", rest="", asides=(new, *_others(status, ()), *parts))
    running = counts.get("running", 0)
    if not running and counts.get("holding", 0):
        return Banner("holding", "HOLDING", str(counts["holding"]), asides=(*_others(status, ("holding",)), *parts))
    tone = "running" if running or not status.pods_count else "holding"
    return Banner(tone, "RUNNING", str(running), asides=(*_others(status, ("running",)), *parts))


def _killed(status: shapes.Status, record: shapes.Record, parts: tuple[str, ...]) -> Banner:
    stopped = status.counts.get("stopped", 0)
    still = sum(count for word, count in status.counts.items() if word not in GONE)
    since = _since(record, status.now_ms)
    if still:
        others = _others(status, ("stopped",))
        return Banner("stopping", "STOPPING", f"{stopped}/{stopped + still}", since, (*others, *parts))
    told = f"{stopped} stopped" if stopped else "no pod was there to stop"
    asides = (", ".join((told, *_others(status, ("stopped",)))), *parts)
    return Banner("stopped", "STOPPED", rest=since, asides=asides)


def _unknown(status: shapes.Status, blind: shapes.Blind, now_ms: int) -> Banner:
    what = "no answer from Redis" if blind.why.startswith("no answer") else "the fleet cannot be seen"
    seen = f"figures are as of {instant(blind.seen_at_ms)}" if blind.seen_at_ms else "nothing was seen yet"
    rest = f"{what} for {max(0, now_ms - blind.since_ms) // 1000} s"
    return Banner("unknown", "UNKNOWN", rest=rest, asides=(blind.why, seen))


def _others(status: shapes.Status, but: tuple[str, ...]) -> tuple[str, ...]:
    waiting = ": reset, they wait for a restart" if "they wait for a restart" in status.headline else ""
    found = [
        f"{status.counts[word]} {word}{waiting if word == 'stopped' else ''}"
        for word in WORDS
        if word not in but and status.counts.get(word)
    ]
    return (", ".join(found),) if found else ()


def _since(record: shapes.Record, now_ms: int) -> str:
    at_ms = ms_of(record.at)
    words = [f"since {instant(at_ms, now_ms)}" if at_ms else ""]
    words += [f"by {record.by}" if record.by else "", f"via {record.via}" if record.via else ""]
    reason = f': "{record.reason}"' if record.reason else ""
    return " ".join(word for word in words if word) + reason


def ms_of(text: str) -> int:
    """An instant of a record, ISO 8601; 0: it is none."""
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0


def instant(at_ms: int, now_ms: int = 0) -> str:
    """``14:02:11Z``; with its date if that is not within a day of ``now_ms`` (0: without)."""
    if not 0 < at_ms < 250_000_000_000_000:
        return "never"
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{at:%H:%M:%S}Z" if not now_ms or abs(now_ms - at_ms) < _DAY_MS else f"{at:%Y-%m-%d %H:%M:%S}Z"


def age(seconds: float) -> str:
    """``3 s``, ``4 min``, ``2 h``, ``5 d``."""
    for size_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size_s:
            return f"{int(seconds // size_s)} {unit}"
    return f"{max(0, int(seconds))} s"

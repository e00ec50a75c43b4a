"""Pictures of the page as points in a box of 0..100 by 0..100: templates draw them, and know no arithmetic. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log10

from skillbus.console import shapes

_STEPS = (1, 2, 5)
_LEAST_MS = 10
"""Of a picture: what is shorter is no longer told apart."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A labelled line. ``at``: 0..100."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """How many pods were proved quiet, by the time since the order.

    Attributes:
        points: of a polyline that rises, and closes; y is down.
        ticks: of the time.
        marks: p50, p99, last.
    """

    points: str
    ticks: tuple[Mark, ...]
    marks: tuple[Mark, ...]
    in_words: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One drill. ``x``, ``p50``, ``p99``, ``last``: 0..100; ``last`` is the height of the whole bar."""

    x: float
    width: float
    p50: float
    last: float
    is_good: bool
    title: str


def curve_of(certificate: shapes.CertificateView | None) -> Curve | None:
    """The acks of a kill; None: nobody has stopped yet, or the times are not kept."""
    if certificate is None or not certificate.ack_ms:
        return None
    times = certificate.ack_ms
    width_ms = nice(max(times[-1], _LEAST_MS))
    points, last = ["0,100"], len(times)
    for number, ms in enumerate(times):
        x = ms * 100 / width_ms
        points += [f"{x:.2f},{100 - number * 100 / last:.2f}", f"{x:.2f},{100 - (number + 1) * 100 / last:.2f}"]
    points += ["100,0", "100,100"]
    named = (("p50", certificate.p50_s), ("p99", certificate.p99_s), ("last", certificate.max_s))
    found = [(name, seconds) for name, seconds in named if seconds is not None]
    marks = tuple(Mark(min(100, seconds * 100_000 / width_ms), f"{name} {took(seconds)}") for name, seconds in found)
    ticks = tuple(Mark(step * 25, took(width_ms * step / 4000)) for step in range(5))
    return Curve(" ".join(points), ticks, marks, ", ".join(mark.label for mark in marks))


def bars_of(drills: Sequence[shapes.AuditEntry]) -> tuple[tuple[Bar, ...], str]:
    """Drills, the oldest first, and what the top of the box means."""
    found = [(entry, _ms(entry.fields, "p50"), _ms(entry.fields, "max")) for entry in drills]
    top_ms = nice(max((_LEAST_MS, *(last for _, _, last in found))))
    pitch = 100 / max(12, len(found) or 1)
    bars = tuple(
        Bar(
            x=number * pitch,
            width=pitch * 0.7,
            p50=p50 * 100 / top_ms,
            last=max(2.0, last * 100 / top_ms),
            is_good=entry.fields.get("ok") == "1",
            title=f"{entry.at}: {entry.fields.get('sentence', '')}",
        )
        for number, (entry, p50, last) in enumerate(found)
    )
    return bars, took(top_ms / 1000)


def nice(ms: float) -> float:
    """The next of 1, 2, 5, 10, 20 … that is not less."""
    power = 10 ** max(0, ceil(log10(ms)) - 1)
    return float(next(step * power for step in (*_STEPS, 10) if step * power >= ms))


def took(seconds: float) -> str:
    """``40 ms``, ``1.2 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"


def _ms(fields: Mapping[str, str], word: str) -> float:
    text = fields.get(f"answered_{word}_ms", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0

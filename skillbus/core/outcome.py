"""What a pass came to, and what follows: the next delay (docs/walk.md, the loop)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

BACK_OFF_FIRST_S = 5.0
"""Delay after the first failed pass: long enough not to hammer a source, short enough to recover unnoticed."""

BACK_OFF_LIMIT_S = 300.0
"""A failing pass is tried at least every five minutes, or at the interval if that is shorter."""


@dataclass(frozen=True, slots=True)
class PassResult:
    """The summary of one pass.

    Attributes:
        counts: what was done, by word (``added``, ``updated``, ``repaired``, ``removed`` …), shown as is.
        errors: one sentence per thing that failed, with what to do. A pass with errors is ``failed``; what else it did
            stays done.
        reverted: names of changes that were undone because a kill, or the end of the lease, showed up behind them.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    reverted: tuple[str, ...] = ()


class Outcome(StrEnum):
    """How a pass ended."""

    OK = "ok"
    FAILED = "failed"
    ABORTED = "aborted"


def outcome_of(result: PassResult) -> Outcome:
    """``failed`` if anything in the pass failed."""
    return Outcome.FAILED if result.errors else Outcome.OK


def next_delay_s(outcome: Outcome, failures_count: int, interval_s: float) -> float:
    """Seconds until the next cycle.

    A pass that ended well waits for the interval. A failed one backs off, doubling, and never waits longer than the
    interval. An aborted one (its lease ran out) is due as soon as the pod may run again.

    Args:
        failures_count: failed passes in a row, this one included.
    """
    if outcome is Outcome.ABORTED:
        return 0.0
    if outcome is Outcome.OK:
        return interval_s
    doubled: float = BACK_OFF_FIRST_S * 2.0 ** min(failures_count - 1, 16)
    return min(doubled, BACK_OFF_LIMIT_S, interval_s)

"""What a pass came to, and what follows: the next delay (docs/walk.md, the loop)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

BACK_OFF_FIRST_S = 5.0
"""Delay after the first failed pass: long enough not to hammer a source, short enough to recover unnoticed."""

BACK_OFF_LIMIT_S = 300.0
"""A failing pass is tried at least every five minutes, or at the interval if that is shorter."""

RETRY_AFTER_LIMIT_S = 3600.0
"""No source keeps a pod from its work for longer: the well-known limits are counted by the hour, and what a source
says is foreign text."""

JITTER = 0.1
"""The part of an interval by which a pod that spreads its passes shortens or lengthens it, at most."""


@dataclass(frozen=True, slots=True)
class PassResult:
    """The summary of one pass.

    Attributes:
        counts: what was done, by word (``added``, ``updated``, ``repaired``, ``removed`` …), shown as is.
        errors: one sentence per thing that failed, with what to do. A pass with errors is ``failed``; what else it did
            stays done.
        reverted: names of changes that were undone because a kill, or the end of the lease, showed up behind them.
        installed: what lies on the disk now: for each skill's name its tree digest, 64 hexadecimal digits. None: this
            reconciler has no such thing, or does not know after such a pass.
        retry_after_s: seconds for which a source asked to be left alone. The next pass is not before that.
        warnings: one sentence per thing that is worth a word and no failure; logged, and shown by ``run --once``.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    reverted: tuple[str, ...] = ()
    installed: Mapping[str, str] | None = None
    retry_after_s: float = 0.0
    warnings: tuple[str, ...] = ()


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


def share_of(*words: str) -> float:
    """A number from 0 up to, not including, 1 that the words decide: equal words, equal share; others, any other."""
    digest = hashlib.sha256("\0".join(words).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:6], "big") / 2.0**48


@dataclass(frozen=True, slots=True)
class Pace:
    """When the passes of one incarnation are due: spread over a fleet, so that its pods do not march in step.

    Attributes:
        every_s: from one pass to the next.
        spread_s: the first pass waits for a share of it. 0: every time is exact.
        pod_id: decides by how much each interval differs.
        incarnation: decides the share of the first wait, so that it is another one after each start.
    """

    every_s: float
    spread_s: float = 0.0
    pod_id: str = ""
    incarnation: str = ""

    def first_delay_s(self) -> float:
        """Seconds from the start to the first pass."""
        return self.spread_s * share_of(self.incarnation) if self.spread_s > 0 else 0.0

    def delay_s(
        self, outcome: Outcome, failures_count: int, passes_count: int, retry_after_s: float = 0.0
    ) -> tuple[float, float]:
        """``(seconds until the next cycle, seconds for which a source is left alone)``: the first is never shorter.

        Intervals and back-offs become up to a tenth longer or shorter. The time for which a source asked to be left
        alone becomes longer only, for all pods of a fleet may have been told the same instant.

        Args:
            failures_count: failed passes in a row, this one included.
            passes_count: passes of this incarnation, this one included.
            retry_after_s: as the pass said; an hour at most counts.
        """
        delay_s = next_delay_s(outcome, failures_count, self.every_s)
        rest_s = min(retry_after_s, RETRY_AFTER_LIMIT_S)
        if self.spread_s > 0:
            share = share_of(self.pod_id, str(passes_count))
            delay_s *= 1.0 + JITTER * (2.0 * share - 1.0)
            rest_s *= 1.0 + JITTER * share
        return max(delay_s, rest_s), rest_s

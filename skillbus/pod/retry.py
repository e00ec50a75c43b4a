"""The retry of what must be done in the end: a subscription, a record, an account of it. Only its user ends it."""

from __future__ import annotations

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from skillbus.clock import Clock
from skillbus.errors import SkillbusError

_LONGEST_S = 2.0
"""Seconds between attempts, at most: what is over is noticed that soon."""


def endless(clock: Clock, first_s: float) -> AsyncRetrying:
    """Try again after every error of ours, ``first_s`` seconds later at first and then ever less often."""
    return AsyncRetrying(
        retry=retry_if_exception_type(SkillbusError),
        wait=wait_random_exponential(multiplier=first_s, max=_LONGEST_S),
        sleep=clock.sleep,
    )

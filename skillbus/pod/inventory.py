"""The set of installed skills, on its way from a pass into Redis: told once, and then only its digest is kept.

A pod is idle for hours after a pass, in thousands of copies. So the set itself, up to 300 KB, leaves the memory as soon
as Redis has it; and a heartbeat names a digest only when what it stands for can be found.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from skillbus.clock import Clock
from skillbus.core.ports import Bus
from skillbus.core.skillset import SKILLS_LIMIT, digest_of, encoded
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError
from skillbus.pod.evidence import Evidence

log = logging.getLogger(__name__)

_RETRY_FIRST_S = 2.0
_RETRY_LIMIT_S = 300.0
"""A server that is full, or an ACL of an earlier release, refuses every time: it must not be sent 300 KB each beat."""


class Inventory:
    """What the last pass said is installed."""

    def __init__(self, bus: Bus, evidence: Evidence, clock: Clock) -> None:
        self._bus = bus
        self._evidence = evidence
        self._clock = clock
        self._untold: bytes | None = None
        self._retry_at_s = 0.0
        self._retry_s = _RETRY_FIRST_S

    def note(self, installed: Mapping[str, str] | None, *, anew: bool = False) -> None:
        """A pass ended, and said what is installed now; None: it did not say, so what was told before stands.

        Args:
            anew: tell it even if it was told: Redis may have lost it, and nobody but us can put it back.
        """
        if installed is None:
            return
        if len(installed) > SKILLS_LIMIT:
            log.warning("the set of skills is not told: %d names, and %d can be", len(installed), SKILLS_LIMIT)
            self._untold, self._evidence.skills = None, ""
            return
        value = encoded(installed)
        self._untold = value if anew or digest_of(value) != self._evidence.skills else None
        self._retry_at_s, self._retry_s = 0.0, _RETRY_FIRST_S

    def lost(self) -> None:
        """Redis has lost its data: what the digest stood for is gone. The next pass tells it anew."""
        self._evidence.skills = ""

    async def tell(self) -> bool:
        """Put the set into Redis, if it is not there yet and it is time to try. Whether the heartbeat has news now."""
        value = self._untold
        if value is None or self._clock.now_s() < self._retry_at_s:
            return False
        digest = digest_of(value)
        try:
            await self._bus.tell_skills(digest, value)
        except SkillbusError as error:
            log.warning("the set of skills is not told yet error=%s", harmless(str(error)))
            self._retry_at_s = self._clock.now_s() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_LIMIT_S)
            return False
        if self._untold is value:  # no pass has ended meanwhile
            self._untold = None
        self._evidence.skills = digest
        return True

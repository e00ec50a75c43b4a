"""The checkpoint that a pass is given (docs/protocol.md §3.6): leave before a change, and a second look behind it.

The first look is local and cheap. The second exists because a process can be frozen between the first and the change:
a change that ended too long after its permit counts only once the record has been read afresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from skillbus.clock import Clock
from skillbus.core.ports import Bus, Permit
from skillbus.core.scope import Scope
from skillbus.errors import PassAborted, SkillbusError
from skillbus.pod.switch import Switch

FRESH_READ_AFTER_S = 0.25
"""Seconds between permit and settling beyond which the record is read afresh (docs/protocol.md §3.6)."""


class PodCheckpoint:
    """The checkpoint of one pass.

    Args:
        tell: where it says what it is at.
    """

    def __init__(
        self, switch: Switch, bus: Bus, scopes: tuple[Scope, ...], clock: Clock, tell: Callable[[str], None]
    ) -> None:
        self._switch = switch
        self._bus = bus
        self._scopes = scopes
        self._clock = clock
        self.tell = tell

    def __call__(self) -> Permit:
        """Leave to make one fetch or one change; raises PassAborted if there is none."""
        return self._switch.permit()

    @property
    def lease_ends_at_s(self) -> float:
        """Boot-time clock, seconds."""
        return self._switch.lease_ends_at_s

    async def settle(self, permit: Permit) -> None:
        """Whether the change made with ``permit`` may stay; raises PassAborted if it must be undone.

        A change that ended with the latch set may have begun behind it: nobody can tell, so it goes. A cancellation of
        the pass while the record is read means the same, so it is the same error: nobody forgets to undo for it.
        """
        self._switch.permit()
        if self._clock.now_s() - permit.at_s <= FRESH_READ_AFTER_S:
            return
        try:
            reading = await self._bus.read(self._scopes)
        except SkillbusError as error:
            raise PassAborted(f"a change took too long, and the record cannot be read behind it: {error}") from error
        except asyncio.CancelledError as error:
            raise PassAborted("the pass was told to end before its last change had been settled") from error
        self._switch.fold(reading)
        self._switch.permit()

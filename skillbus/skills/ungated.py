"""The checkpoint of what changes nothing: looking is allowed at any time, also while the fleet is stopped."""

from __future__ import annotations

from skillbus.clock import boottime_s
from skillbus.core.ports import Permit


class Ungated:
    """Says yes, always. Never for anything that writes where agents look."""

    lease_ends_at_s = float("inf")

    def __call__(self) -> Permit:
        """Leave to fetch."""
        return Permit(boottime_s())

    async def settle(self, permit: Permit) -> None:
        """Nothing was changed, so it may stay."""

    def tell(self, text: str) -> None:
        """Nobody but who started this is told of it, and that by other means."""

"""Permit a restart, deliberately (docs/protocol.md §4). Nothing here starts anything, and no message resets.

Audited first, then done: if the audit cannot be written, nothing is lifted. Every order that goes with it is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import boottime_s
from skillbus.core.latch import LATCHED
from skillbus.core.orders import KillRecord
from skillbus.core.roster import in_scope, view
from skillbus.core.scope import Scope
from skillbus.errors import NeedsHuman, RetryLater

RECENT_MS = 60_000
"""A further order younger than this says that somebody still wants the stop (docs/operators.md §1)."""


SILENT_MS = 7 * 24 * 3600 * 1000
"""A pod that was silent for seven days leaves the roster when an admin comes by (docs/protocol.md §1)."""


class ResetRefused(NeedsHuman):
    """Nothing was lifted, for a reason that the operator must weigh."""


@dataclass(frozen=True, slots=True)
class LiftedOrder:
    """An order that a reset lifts: the one on record, or a later one from the audit."""

    at_ms: int
    by: str
    via: str
    reason: str
    record_id: str


@dataclass(frozen=True, slots=True)
class ResetReport:
    """What a reset did.

    Attributes:
        epoch: the new epoch.
        lifted: every order that it lifted.
        waiting: pods that are still stopped and wait for a restart.
        killed_again: a record that came back while it watched: some pod heard an old order late.
    """

    scope: Scope
    epoch: int
    lifted: tuple[LiftedOrder, ...]
    waiting: tuple[str, ...]
    killed_again: KillRecord | None


@dataclass(frozen=True, slots=True)
class Reset:
    """One reset by an operator."""

    bus: OperatorBus
    scope: Scope
    reason: str
    by: str
    force: bool = False
    even_recent: bool = False

    async def orders(self) -> tuple[LiftedOrder, ...]:
        """The orders that this reset would lift.

        Raises:
            ResetRefused: the scope is not killed (without ``force``), or a further order is recent.
        """
        reading = await self.bus.read([self.scope])
        stored = reading.scopes[self.scope].record
        if stored is None and not self.force:
            raise ResetRefused(f"{self.scope} is not killed: nothing to reset (--force moves its epoch all the same)")
        tail = await self.bus.audit_tail()
        lifted = _orders_of(self.scope, tail)
        if stored is not None:
            record = KillRecord.parse(stored)
            if all(order.record_id != record.id for order in lifted):
                own = LiftedOrder(0, record.by, record.via, record.reason, record.id)
                lifted = (own, *lifted)
            self._refuse_recent([order for order in lifted if order.record_id != record.id], reading.server_ms)
        return lifted

    def _refuse_recent(self, further: list[LiftedOrder], now_ms: int) -> None:
        recent = [order for order in further if now_ms - order.at_ms < RECENT_MS]
        if recent and not self.even_recent:
            last = recent[-1]
            raise ResetRefused(
                f"{self.scope} was ordered to stop again {(now_ms - last.at_ms) / 1000:.0f} s ago by "
                f'{last.by or "somebody"} ("{last.reason}"): ask them, then wait a minute or add --even-recent'
            )

    async def do(self, watch_s: float, on_watch: Callable[[], None] = lambda: None) -> ResetReport:
        """Lift the kill, then watch for ``watch_s`` seconds whether it stays lifted."""
        lifted = await self.orders()
        entry = {"kind": "reset", "scope": self.scope.suffix.lstrip(":") or "fleet", "by": self.by, "via": "cli"}
        orders = ",".join(order.record_id for order in lifted)[:1024]
        await self.bus.audit({**entry, "reason": self.reason[:1024], "lifted": orders})
        epoch, _ = await self.bus.reset(self.scope)
        await self.bus.tidy_roster(await self.bus.now_ms() - SILENT_MS)
        on_watch()
        killed_again = await self._watch(watch_s)
        return ResetReport(self.scope, epoch, lifted, await self._waiting(), killed_again)

    async def _watch(self, watch_s: float) -> KillRecord | None:
        deadline_s = boottime_s() + watch_s
        while True:
            try:
                stored = (await self.bus.read([self.scope])).scopes[self.scope].record
            except RetryLater:
                stored = None
            if stored is not None:
                return KillRecord.parse(stored)
            remaining_s = deadline_s - boottime_s()
            if remaining_s <= 0:
                return None
            await asyncio.sleep(min(0.25, remaining_s))

    async def _waiting(self) -> tuple[str, ...]:
        now_ms, beats = await self.bus.heartbeats(await self.bus.pod_ids())
        return tuple(
            pod.pod_id
            for pod in view(now_ms, beats)
            if any(life.beat.state in LATCHED and in_scope(life.beat, pod.pod_id, self.scope) for life in pod.current)
        )


def _orders_of(scope: Scope, tail: list[tuple[int, dict[str, str]]]) -> tuple[LiftedOrder, ...]:
    """The audited kills of ``scope`` since its last reset, the oldest first."""
    name = scope.suffix.lstrip(":") or "fleet"
    found = []
    for at_ms, entry in tail:
        if entry.get("scope") != name:
            continue
        if entry.get("kind") == "reset":
            break
        if entry.get("kind") == "kill":
            words = (entry.get(key, "") for key in ("by", "via", "reason", "record"))
            found.append(LiftedOrder(at_ms, *words))
    return tuple(reversed(found))


async def arm(bus: OperatorBus, by: str) -> bool:
    """Arm a new fleet: ``SETNX epoch 0``. Whether this call did it. Lifts nothing, whatever was before."""
    await bus.audit({"kind": "arm", "scope": "fleet", "by": by, "via": "cli"})
    return await bus.arm()

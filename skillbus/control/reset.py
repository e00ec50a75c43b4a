"""Permit a restart, deliberately (docs/protocol.md §4). Nothing here starts anything, and no message resets.

The intent is audited first (``reset-asked``): if that cannot be written, nothing is lifted. The deed (``reset``) is
audited in the transaction that does it, so that a reset which was refused hides no order from the next one. Every order
that goes with it is named: one that came meanwhile ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from skillbus.bus.operator_bus import AuditTail, OperatorBus
from skillbus.clock import boottime_s
from skillbus.core.latch import LATCHED, ScopeReading, State
from skillbus.core.orders import KillRecord
from skillbus.core.roster import in_scope, view
from skillbus.core.scope import Scope
from skillbus.errors import BusNotReady, NeedsHuman, RetryLater

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
    """One reset by an operator.

    Attributes:
        force: also a scope that has no record.
        even_recent: also if it was ordered to stop again within the last minute.
        even_running: with ``force``, also if pods of the scope run: they take the reset for a kill that they missed.
    """

    bus: OperatorBus
    scope: Scope
    reason: str
    by: str
    force: bool = False
    even_recent: bool = False
    even_running: bool = False

    async def orders(self) -> tuple[LiftedOrder, ...]:
        """The orders that this reset would lift.

        Raises:
            ResetRefused: the fleet is not armed; the scope is not killed (without ``force``), or with it, runs; or a
                further order is recent.
        """
        whole = self.bus.fleet.scope
        reading = await self.bus.read(list(dict.fromkeys((whole, self.scope))))
        if not reading.armed:
            raise _not_armed(whole)
        stored = reading.scopes[self.scope].record
        if stored is None and not self.force:
            raise ResetRefused(f"{self.scope} is not killed: nothing to reset (--force moves its epoch all the same)")
        if stored is None and not self.even_running:
            await self._refuse_running()
        lifted = _lifted(self.scope, stored, await self.bus.audit_tail())
        if stored is not None:
            record = KillRecord.parse(stored)
            self._refuse_recent([order for order in lifted if order.record_id != record.id], reading.server_ms)
        return lifted

    async def _refuse_running(self) -> None:
        running = await self._pods(lambda state: state not in LATCHED)
        if running:
            names = ", ".join(running[:10]) + (" …" if len(running) > 10 else "")
            raise ResetRefused(
                f"{self.scope} is not killed and {len(running)} of its pods are not stopped ({names}): they would take "
                "a moved epoch for a kill that they missed, and stop: leave it, or add --even-running"
            )

    def _refuse_recent(self, further: list[LiftedOrder], now_ms: int) -> None:
        recent = [order for order in further if now_ms - order.at_ms < RECENT_MS]
        if recent and not self.even_recent:
            last = recent[-1]
            raise ResetRefused(
                f"{self.scope} was ordered to stop again {(now_ms - last.at_ms) / 1000:.0f} s ago by "
                f'{last.by or "somebody"} ("{last.reason}"): ask them, then wait a minute or add --even-recent'
            )

    async def do(self, watch_s: float, on_watch: Callable[[], None] = lambda: None) -> ResetReport:
        """Lift the kill, then watch for ``watch_s`` seconds whether it stays lifted.

        Raises:
            ResetRefused: as ``orders``.
            BusNotReady: it was ordered again meanwhile. Nothing is lifted.
        """
        lifted = await self.orders()
        entry = {"scope": self.scope.label, "by": self.by, "via": "cli", "reason": self.reason[:1024]}
        entry["lifted"] = ",".join(order.record_id for order in lifted)[:1024]
        await self.bus.audit({"kind": "reset-asked", **entry})

        def approve(found: ScopeReading, tail: AuditTail) -> None:
            if self.scope == self.bus.fleet.scope and found.epoch is None:
                raise _not_armed(self.scope)
            if _lifted(self.scope, found.record, tail) != lifted:
                raise BusNotReady(f"{self.scope} was ordered again meanwhile: look and try again. Nothing is lifted")

        epoch = await self.bus.reset(self.scope, {"kind": "reset", **entry}, approve)
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
        return await self._pods(lambda state: state in LATCHED)

    async def _pods(self, wanted: Callable[[State], bool]) -> tuple[str, ...]:
        """The pods of the scope with a current life in a wanted state."""
        now_ms, beats = await self.bus.heartbeats(await self.bus.pod_ids())
        return tuple(
            pod.pod_id
            for pod in view(now_ms, beats)
            if any(wanted(life.beat.state) and in_scope(life.beat, pod.pod_id, self.scope) for life in pod.current)
        )


def _not_armed(whole: Scope) -> ResetRefused:
    return ResetRefused(f"{whole} is not armed: run skillbus arm first")


def _lifted(scope: Scope, stored: bytes | None, tail: AuditTail) -> tuple[LiftedOrder, ...]:
    """The order on record, and every audited one since the last reset."""
    orders = _orders_of(scope, tail)
    if stored is None:
        return orders
    record = KillRecord.parse(stored)
    if any(order.record_id == record.id for order in orders):
        return orders
    return (LiftedOrder(0, record.by, record.via, record.reason, record.id), *orders)


def _orders_of(scope: Scope, tail: AuditTail) -> tuple[LiftedOrder, ...]:
    """The audited kills of ``scope`` since its last reset, the oldest first."""
    name = scope.label
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

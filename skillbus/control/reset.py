"""Permit a restart, deliberately (docs/protocol.md §4). Nothing here starts anything, and no message resets.

The intent is audited first (``reset-asked``): if that cannot be written, nothing is lifted. The deed (``reset``) is
audited in the transaction that does it, so that a reset which was refused hides no order from the next one. Every order
that goes with it is named, whoever's stream tells of it: one that came meanwhile ends it. What is refused is audited
before it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from skillbus.bus.audit_streams import AuditRow
from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import boottime_s
from skillbus.control.audit import PODS, Entry, Since, ordered_anew, since_reset
from skillbus.core.audit import at_ms_of
from skillbus.core.latch import LATCHED, ScopeReading, State
from skillbus.core.orders import KillRecord
from skillbus.core.roster import in_scope, view
from skillbus.core.scope import Scope
from skillbus.errors import BusNotReady, NeedsHuman, RetryLater, SkillbusError

RECENT_MS = 60_000
"""A further order younger than this says that somebody still wants the stop (docs/operators.md §1)."""

SILENT_MS = 7 * 24 * 3600 * 1000
"""A pod that was silent for seven days leaves the roster when an admin comes by (docs/protocol.md §1)."""


class ResetRefused(NeedsHuman):
    """Nothing was lifted, for a reason that the operator must weigh."""


@dataclass(frozen=True, slots=True)
class LiftedOrder:
    """An order that a reset lifts: the one on record, or a later one from the audit or the pods' evidence.

    Attributes:
        source: whose word it is: ``control``, ``bot:<name>``, ``pods``, ``record``.
        times: how often it was heard, as far as a pod counted.
    """

    at_ms: int
    by: str
    via: str
    reason: str
    record_id: str
    source: str = "record"
    times: int = 1


@dataclass(frozen=True, slots=True)
class ResetReport:
    """What a reset did.

    Attributes:
        epoch: the new epoch.
        lifted: every order that it lifted, the thousand youngest of them.
        left_out_count: how many more there were.
        waiting: pods that are still stopped and wait for a restart.
        killed_again: a record that came back while it watched: some pod heard an old order late.
    """

    scope: Scope
    epoch: int
    lifted: tuple[LiftedOrder, ...]
    waiting: tuple[str, ...]
    killed_again: KillRecord | None
    left_out_count: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """What a reset would lift, as of one look."""

    record: bytes | None
    lifted: tuple[LiftedOrder, ...]
    since: Since


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
    via: str = "cli"

    async def orders(self) -> tuple[LiftedOrder, ...]:
        """The orders that this reset would lift.

        Raises:
            ResetRefused: the fleet is not armed; the scope is not killed (without ``force``), or with it, runs; or a
                further order is recent.
        """
        return (await self._find()).lifted

    async def _find(self) -> _Found:
        whole = self.bus.fleet.scope
        reading = await self.bus.read(list(dict.fromkeys((whole, self.scope))))
        if not reading.armed:
            raise _not_armed(whole)
        stored = reading.scopes[self.scope].record
        if stored is None and not self.force:
            raise ResetRefused(f"{self.scope} is not killed: nothing to reset (--force moves its epoch all the same)")
        if stored is None and not self.even_running:
            await self._refuse_running()
        since = await since_reset(self.bus, self.scope, reading.scopes[self.scope].epoch)
        lifted = _lifted(stored, since)
        if stored is not None:
            record = KillRecord.parse(stored)
            self._refuse_recent([order for order in lifted if order.record_id != record.id], reading.server_ms)
        return _Found(stored, lifted, since)

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
        try:
            epoch, found = await self._do()
        except (ResetRefused, BusNotReady) as error:
            with suppress(SkillbusError):
                await self.bus.audit({"kind": "refused", "what": "reset", **self._entry, "why": str(error)[:1024]})
            raise
        await self.bus.tidy_roster(await self.bus.now_ms() - SILENT_MS)
        on_watch()
        killed_again = await self._watch(watch_s)
        waiting, left_out_count = await self._waiting(), found.since.left_out_count
        return ResetReport(self.scope, epoch, found.lifted, waiting, killed_again, left_out_count)

    @property
    def _entry(self) -> dict[str, str]:
        return {"scope": self.scope.label, "by": self.by, "via": self.via, "reason": self.reason[:1024]}

    async def _do(self) -> tuple[int, _Found]:
        """``(the new epoch, what was lifted)``."""
        found = await self._find()
        entry = {**self._entry, "lifted": ",".join(order.record_id for order in found.lifted)[:1024]}
        await self.bus.audit({"kind": "reset-asked", **entry})

        def approve(now: ScopeReading, meanwhile: list[AuditRow]) -> None:
            if self.scope == self.bus.fleet.scope and now.epoch is None:
                raise _not_armed(self.scope)
            if now.record != found.record or ordered_anew(meanwhile, self.scope):
                raise BusNotReady(f"{self.scope} was ordered again meanwhile: look and try again. Nothing is lifted")

        return await self.bus.reset(self.scope, {"kind": "reset", **entry}, found.since.last, approve), found

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


def _lifted(stored: bytes | None, since: Since) -> tuple[LiftedOrder, ...]:
    """The order on record, and every further one since the last reset."""
    orders = tuple(_order_of(entry) for entry in since.orders)
    if stored is None:
        return orders
    record = KillRecord.parse(stored)
    orders = tuple(order for order in orders if (order.record_id, order.source) != (record.id, PODS))
    if any(order.record_id == record.id for order in orders):
        return orders
    return (LiftedOrder(at_ms_of(record.at) or 0, record.by, record.via, record.reason, record.id), *orders)


def _order_of(entry: Entry) -> LiftedOrder:
    by, via, reason, record_id = (entry.fields.get(key, "") for key in ("by", "via", "reason", "record"))
    return LiftedOrder(entry.at_ms, by, via, reason, record_id, entry.source, int(entry.fields.get("times", "1")))


async def arm(bus: OperatorBus, by: str) -> bool:
    """Arm a new fleet: ``SETNX epoch 0``. Whether this call did it. Lifts nothing, whatever was before."""
    await bus.audit({"kind": "arm", "scope": "fleet", "by": by, "via": "cli"})
    return await bus.arm()

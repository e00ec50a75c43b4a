"""One webhook that is on: from a delivery to the record, and what its sender is told. No web framework here.

The way to the record holds nothing but Redis: no eye, no keeper, no audit is asked first. What a webhook may do ends at
a kill: there is no import here, or in any file beside this one, by which a reset could be reached.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from skillbus.clock import wall_ms
from skillbus.console.webhooks.settings import WebhookSettings, scope_of
from skillbus.console.webhooks.webhook import (
    Accepted,
    Answer,
    Asked,
    Became,
    Delivery,
    Done,
    Ignored,
    Refused,
)
from skillbus.control.kill import KillReport, OrderUnconfirmed
from skillbus.control.telling_orders import is_recorded, kill_sentence
from skillbus.core.orders import KillOrder
from skillbus.core.scope import Fleet, Scope
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError

ANSWER_S = 2.0
"""Seconds until a sender is answered, whatever Redis does: Slack waits for 3, PagerDuty for 5."""

MEMORY_COUNT = 10_000
"""Deliveries that are remembered. Only what was proved and carried out is, so no stranger can push one out."""

_AT_ONCE_COUNT = 8


class Orders(Protocol):
    """What a webhook may have done: the console, as seen from here."""

    @property
    def fleet(self) -> Fleet:
        """The fleet that is stopped."""
        ...

    async def kill(self, order: KillOrder, scope: Scope, *, wait_s: float) -> KillReport:
        """Give one kill, and wait at most so long for its proof. Raises what ``control.kill.Kill.give`` does."""
        ...

    async def refuse(self, *, what: str, why: str, via: str, by: str = "", scope: str = "") -> None:
        """Audit that something was refused. Never raises; a flood of the same is told in few entries."""
        ...


@dataclass(slots=True)
class Door:
    """One webhook that is on.

    Attributes:
        console: that gives the orders.
        settings: the webhook, its secrets, and how far it reaches.
    """

    console: Orders
    settings: WebhookSettings
    _carried_out: OrderedDict[bytes, None] = field(default_factory=OrderedDict, init=False)
    _going_on: set[asyncio.Task[Done]] = field(default_factory=set, init=False)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE_COUNT), init=False)

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Carry out what a delivery asks for, and say what became of it."""
        webhook, given = self.settings.webhook, self.settings
        verdict = webhook.read(Delivery(body, headers, given.secrets(), wall_ms() / 1000, given.options))
        if isinstance(verdict, Accepted) and self._is_repeated(verdict):
            await self._audit_refusal("this delivery was carried out before")
            verdict = Ignored("this delivery was carried out before")
        if isinstance(verdict, Refused):
            await self._audit_refusal(verdict.why)
        done = await self._carry_out(verdict) if isinstance(verdict, Accepted) else []
        return webhook.answer(verdict, done)

    # -- repetitions ----------------------------------------------------------------------------------------------

    def _is_repeated(self, accepted: Accepted) -> bool:
        return bool(accepted.delivery_id) and _digest(accepted.delivery_id) in self._carried_out

    def _remember(self, accepted: Accepted) -> None:
        """Only behind the records: a delivery that failed must be free to come again."""
        if accepted.delivery_id:
            self._carried_out[_digest(accepted.delivery_id)] = None
            while len(self._carried_out) > MEMORY_COUNT:
                self._carried_out.popitem(last=False)

    # -- orders ---------------------------------------------------------------------------------------------------

    async def _carry_out(self, accepted: Accepted) -> list[Done]:
        orders = [one for asked in accepted.orders for one in self._spelled_out(asked)]
        tasks = {asyncio.create_task(self._stop(asked)): asked for asked in orders}
        self._going_on |= tasks.keys()
        for task in tasks:
            task.add_done_callback(self._going_on.discard)
        await asyncio.wait(tasks, timeout=ANSWER_S)
        done = [task.result() if task.done() else _unanswered(asked) for task, asked in tasks.items()]
        if all(one.became is Became.RECORDED for one in done):
            self._remember(accepted)
        await self._audit_refused_orders(accepted, done)
        return done

    async def _audit_refused_orders(self, accepted: Accepted, done: list[Done]) -> None:
        """One entry for a delivery, however many scopes it names."""
        refused = [one for one in done if one.became is Became.REFUSED]
        if refused:
            more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            await self._audit_refusal(refused[0].sentence + more, accepted.orders[0].order.by, refused[0].scope)

    def _spelled_out(self, asked: Asked) -> list[Asked]:
        """An order that names no scope is one for each that this webhook is bound to."""
        if asked.scope:
            return [asked]
        return [replace(asked, scope=scope.label) for scope in self.settings.scopes]

    async def _stop(self, asked: Asked) -> Done:
        scope = scope_of(asked.scope, self.console.fleet)
        shown = harmless(asked.scope, 80)
        if scope is None or not self._reaches(scope):
            may = ", ".join(one.label for one in self.settings.scopes)
            why = f"this webhook may stop {may}, not {shown!r}" if scope else f"{shown!r} is no scope"
            return Done(shown, Became.REFUSED, why)
        async with self._turns:
            try:
                report = await self.console.kill(asked.order, scope, wait_s=self.settings.webhook.wait_s)
            except OrderUnconfirmed as error:
                return Done(shown, Became.FAILED, f"{error}: it is NOT confirmed as stored")
            except SkillbusError as error:
                return Done(shown, Became.FAILED, f"{error}: it is NOT stored")
        became = Became.RECORDED if is_recorded(report) else Became.FAILED
        return Done(shown, became, kill_sentence(report))

    def _reaches(self, scope: Scope) -> bool:
        return scope in self.settings.scopes or self.console.fleet.scope in self.settings.scopes

    async def _audit_refusal(self, why: str, by: str = "", scope: str = "") -> None:
        await self.console.refuse(what="kill", why=harmless(why), via=self.settings.name, by=by, scope=scope)


def _digest(delivery_id: str) -> bytes:
    return hashlib.sha256(delivery_id.encode("utf-8", "replace")).digest()


def _unanswered(asked: Asked) -> Done:
    text = f"no answer from Redis within {ANSWER_S:g} s: it is NOT confirmed as stored, and still being tried"
    return Done(harmless(asked.scope, 80), Became.FAILED, text)

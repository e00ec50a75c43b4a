"""The console: all parts of one process, and what may be done with them. No web framework's route is in here.

Kills, reads of the page and resets have connections of their own: a dashboard's reads are few at a time and wait for
each other, a kill waits for nobody. Resets use credentials of their own where they are given, so that those of the
console can undo nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from skillbus import __version__
from skillbus.bus.connect import Endpoint
from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import Clock
from skillbus.console import shapes
from skillbus.console.eye import Eye
from skillbus.console.feed import Feed
from skillbus.console.hub import HubLogins
from skillbus.console.idempotency import Idempotency
from skillbus.console.keeper import Keeper
from skillbus.console.kills import Kills
from skillbus.console.limits import Failures
from skillbus.console.refusals import Refusals
from skillbus.console.sessions import Sessions
from skillbus.console.tokens import Tokens
from skillbus.console.views import keeper_view_of, status_of
from skillbus.control.drill import Drill, DrillOutcome
from skillbus.control.kill import KillReport
from skillbus.control.reset import Reset, ResetReport
from skillbus.control.sync import SyncReport, sync
from skillbus.core.orders import KillOrder
from skillbus.core.scope import Fleet, Scope
from skillbus.errors import BusNotReady
from skillbus.settings import ConsoleSettings

_log = logging.getLogger(__name__)

_READERS_COUNT = 4
_READER_S = 5.0
"""Seconds to wait for a turn to read, before it is said that too many do."""

_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in, and what they may send.

    Attributes:
        hub: the JupyterHub whose service this console is; None: of none.
    """

    tokens: Tokens
    sessions: Sessions
    failures: Failures
    refusals: Refusals
    hub: HubLogins | None = None
    idempotency: Idempotency = field(default_factory=Idempotency)


@dataclass(frozen=True, slots=True)
class Console:
    """One console of one fleet.

    Attributes:
        endpoint: Redis, with the console's own credentials.
        admin_endpoint: Redis, with those that may reset.
        heartbeat_s: of the fleet's pods: a reset watches for two.
    """

    settings: ConsoleSettings
    fleet: Fleet
    endpoint: Endpoint
    admin_endpoint: Endpoint
    clock: Clock
    heartbeat_s: float
    eye: Eye
    keeper: Keeper
    kills: Kills
    access: Access
    _readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_READERS_COUNT))
    _feed: list[Feed] = field(default_factory=list)

    @property
    def feed(self) -> Feed:
        """The events of the eye, the audit and the kills."""
        if not self._feed:
            feed = Feed(self.eye, self.status)
            self._feed.append(feed)
            self.eye.on_look, self.eye.on_entries = feed.take_look, feed.take_entries
            self.kills.on_progress = feed.take_progress
        return self._feed[0]

    @property
    def is_open(self) -> bool:
        """Whether everybody may look: nothing is given by which to log in, so it listens on loopback alone."""
        return self.access.tokens.path is None and self.access.hub is None

    # -- looking ----------------------------------------------------------------------------------------------------

    def status(self) -> shapes.Status:
        """The fleet as of the last look."""
        look = self.eye.look
        return status_of(
            look.seen,
            self.fleet.name,
            stragglers_count=look.stragglers_count,
            keeper=keeper_view_of(self.keeper.standing),
            blind=self.eye.blind,
            kills_under_way=self.kills.ids,
            version=__version__,
        )

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[OperatorBus]:
        """A connection for reading; few at a time.

        Raises:
            BusNotReady: too many read already.
        """
        try:
            async with asyncio.timeout(_READER_S):
                await self._readers.acquire()
        except TimeoutError:
            raise BusNotReady("too many look at once: try again") from None
        try:
            async with OperatorBus(self.fleet, self.endpoint) as bus:
                yield bus
        finally:
            self._readers.release()

    # -- ordering ---------------------------------------------------------------------------------------------------

    async def kill(self, order: KillOrder, scope: Scope, *, wait_s: float) -> KillReport:
        """Stop ``scope``, and wait at most so long for proof. It is followed to its end in any case.

        Raises:
            OrderUnconfirmed: it was sent, and no answer came: it may be stored.
            RetryLater, NeedsHuman: the order is not stored.
        """
        return await self.kills.kill(order, scope, wait_s=wait_s)

    async def drill(self, scope: Scope, *, by: str, timeout_s: float) -> DrillOutcome:
        """Rehearse the stop.

        Raises:
            RetryLater, NeedsHuman: no drill was sent.
        """
        async with OperatorBus(self.fleet, self.endpoint) as bus:
            return await Drill(bus, scope, by, timeout_s, via="http").run()

    async def sync(self, *, by: str, timeout_s: float, within_s: float | None) -> SyncReport:
        """Ask every pod for a pass now.

        Raises:
            FleetIsKilled: it does not reconcile.
        """
        async with OperatorBus(self.fleet, self.endpoint) as bus:
            return await sync(bus, by=by, timeout_s=timeout_s, within_s=within_s, via="http")

    async def reset(
        self, scope: Scope, *, by: str, reason: str, force: bool = False, even_recent: bool = False
    ) -> ResetReport:
        """Permit a restart, with the credentials for it.

        Raises:
            ResetRefused: nothing was lifted, for a reason to be weighed.
            BusDenied: Redis does not let these credentials reset.
        """
        async with OperatorBus(self.fleet, self.admin_endpoint) as bus:
            one = Reset(bus, scope, reason, by, force=force, even_recent=even_recent, via="http")
            return await one.do(2 * self.heartbeat_s)

    async def refuse(self, *, what: str, why: str, via: str, by: str = "", scope: str = "") -> None:
        """Audit that something was refused. Never raises; a flood of the same is told in few entries."""
        await self.access.refusals.refuse(what=what, why=why, via=via, by=by, scope=scope)

    # -- its life ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Look, keep, and follow the tokens, until it is left. What breaks is said, and begun anew."""
        works: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "eye": self.eye.run,
            "keeper": self.keeper.run,
            "tokens": self.access.tokens.run,
            "refusals": self.access.refusals.run,
            "ticks": self._tick,
        }
        if self.access.hub is not None:
            works["hub"] = self.access.hub.run
        feed = self.feed
        tasks = [asyncio.create_task(self._supervised(name, work), name=name) for name, work in works.items()]
        try:
            yield
        finally:
            feed.end()
            await self.kills.end()
            await self.access.refusals.flush(2.0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _supervised(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await work()
            except Exception:
                _log.exception("the %s broke and begins anew", name)
            await self.clock.sleep(_AGAIN_S)

    async def _tick(self) -> None:
        """What changes without a look: the keeper's standing, and an eye that does not look."""
        while True:
            self.eye.check()
            self.feed.tell_status()
            await self.clock.sleep(1.0)

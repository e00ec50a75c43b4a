"""Kills given here: the order at once, then the proof, which goes on in the background until it is complete.

A kill depends on nothing but Redis: it has a connection of its own, and asks neither the eye nor the keeper nor the
audit first. Its certificate is kept in the audit by ``control.kill``, so it is there after this process, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from skillbus.bus.operator_bus import OperatorBus
from skillbus.control.kill import Kill, KillReport
from skillbus.core.certificate import Certificate
from skillbus.core.orders import KillOrder
from skillbus.core.scope import Scope
from skillbus.errors import SkillbusError

_log = logging.getLogger(__name__)

ORDER_S = 4.0
"""Seconds to try to give an order before 503: whoever waits can try elsewhere."""

_FOLLOW_S = 60.0
"""Seconds to follow it: a silent pod is fenced after its lease, which is 6 s by default and 50 at most."""

_END_S = 3.0
"""Seconds to keep what is proved when the console ends."""

_FOLLOWED_LIMIT = 8
"""Kills that are followed at once: two connections each. More are given all the same, and not followed."""


@dataclass(slots=True, eq=False)
class UnderWay:
    """A kill that is being followed.

    Attributes:
        report: as it was when the order was given; with the whole proof at its end.
        certificate: as last seen.
    """

    report: KillReport
    certificate: Certificate | None = None
    is_over: bool = False


@dataclass(slots=True)
class Kills:
    """Gives them, and follows them.

    Attributes:
        on_progress: called with each newer certificate, and once more at the end.
    """

    bus_of: Callable[[], OperatorBus]
    on_progress: Callable[[UnderWay], None] = lambda kill: None
    given_count: int = 0
    failed_count: int = 0
    _followed: dict[str, UnderWay] = field(default_factory=dict)
    _tasks: dict[asyncio.Task[KillReport], asyncio.Event] = field(default_factory=dict)

    async def kill(self, order: KillOrder, scope: Scope, *, wait_s: float) -> KillReport:
        """Give one, and wait at most so long for its proof; it is followed to the end in any case.

        Raises:
            RetryLater, NeedsHuman: as ``control.kill.Kill.give``: the order is not stored, or may be.
        """
        is_followed = len(self._tasks) < _FOLLOWED_LIMIT
        given: asyncio.Future[UnderWay] = asyncio.get_running_loop().create_future()
        enough = asyncio.Event()
        task = asyncio.create_task(self._give(order, scope, given, enough, is_followed), name="kill")
        self._tasks[task] = enough
        task.add_done_callback(self._ended)
        waited: set[asyncio.Future[Any]] = {given, task}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not given.done():
            return await task  # It was not given, and says why.
        under_way = given.result()
        if wait_s and is_followed:
            await asyncio.wait({task}, timeout=wait_s)
        certificate = under_way.report.certificate or under_way.certificate
        return replace(under_way.report, certificate=certificate)

    async def _give(
        self, order: KillOrder, scope: Scope, given: asyncio.Future[UnderWay], enough: asyncio.Event, is_followed: bool
    ) -> KillReport:
        under_way: UnderWay | None = None

        def note(report: KillReport) -> None:
            nonlocal under_way
            under_way = UnderWay(report)
            self.given_count += 1
            if is_followed:
                self._followed[report.record.id] = under_way
            if not given.done():
                given.set_result(under_way)

        def show(certificate: Certificate) -> None:
            if under_way is not None:
                under_way.certificate = certificate
                self.on_progress(under_way)

        async with self.bus_of() as bus:
            one = Kill(bus, scope, order, timeout_s=_FOLLOW_S, wait=is_followed, on_progress=show, on_given=note)
            one.order_timeout_s, one.enough = ORDER_S, enough
            try:
                report = await one.give()
            except SkillbusError:
                self.failed_count += 1
                raise
            finally:
                if under_way is not None:
                    self._over(under_way)
        if under_way is not None:
            under_way.report, under_way.certificate = report, report.certificate
            self.on_progress(under_way)
        return report

    def _over(self, under_way: UnderWay) -> None:
        under_way.is_over = True
        if self._followed.get(under_way.report.record.id) is under_way:
            del self._followed[under_way.report.record.id]

    def _ended(self, task: asyncio.Task[KillReport]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, SkillbusError):
            _log.error("a kill could not be followed", exc_info=error)

    def under_way(self, kill_id: str) -> UnderWay | None:
        """The kill of that id, or whose id begins so, if it is being followed."""
        found = [one for name, one in self._followed.items() if name == kill_id or name.startswith(kill_id)]
        return found[0] if len(found) == 1 else None

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the records whose kills are being followed."""
        return tuple(self._followed)

    async def end(self) -> None:
        """End the following: what is proved so far is kept in the audit as not complete. The orders stand."""
        tasks = set(self._tasks)
        for enough in self._tasks.values():
            enough.set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

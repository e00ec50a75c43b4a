"""Every refusal is audited, and no flood of them can push the orders out of the audit.

The first of a kind is written at once; more of them within ten seconds are counted, and the next entry of that kind
says how many. All kinds together may write a burst and then one entry each ten seconds, so that a day of nothing but
refusals takes a tenth of a stream. Nobody waits for any of it, and a kill least of all.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import Clock
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError

_log = logging.getLogger(__name__)

_AGAIN_S = 10.0
_BURST_COUNT = 20
_KINDS_LIMIT = 256
_QUEUE_LIMIT = 100


@dataclass(slots=True)
class _Kind:
    written_at_s: float
    more_count: int = 0


class Refusals:
    """What was refused, on its way into the audit."""

    def __init__(self, bus_of: Callable[[], OperatorBus], clock: Clock) -> None:
        self._bus_of = bus_of
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, str, str], _Kind] = OrderedDict()
        self._queue: asyncio.Queue[dict[str, str]] = asyncio.Queue(_QUEUE_LIMIT)
        self._credit, self._credit_at_s = float(_BURST_COUNT), clock.now_s()
        self.count = 0

    async def refuse(self, *, what: str, why: str, via: str, by: str = "", scope: str = "") -> None:
        """Audit that something was refused. Never raises, waits for nothing, and keeps a flood short."""
        self.count += 1
        kind = (what, via, why[:80])
        now_s = self._clock.now_s()
        known = self._kinds.pop(kind, None)
        more_count = known.more_count if known else 0
        is_due = known is None or now_s >= known.written_at_s + _AGAIN_S
        if is_due and self._may_write(now_s):
            more = f" (and {more_count} more like it)" if more_count else ""
            self._put(what=what, why=why + more, via=via, by=by, scope=scope)
            self._kinds[kind] = _Kind(now_s)
        else:
            self._kinds[kind] = _Kind(known.written_at_s if known else now_s - _AGAIN_S, more_count + 1)
        while len(self._kinds) > _KINDS_LIMIT:
            self._kinds.popitem(last=False)

    def _may_write(self, now_s: float) -> bool:
        earned = (now_s - self._credit_at_s) / _AGAIN_S
        self._credit, self._credit_at_s = min(_BURST_COUNT, self._credit + earned), now_s
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _put(self, **fields: str) -> None:
        entry = {name: harmless(text, 1024) for name, text in fields.items() if text}
        if not self._queue.full():
            self._queue.put_nowait({"kind": "refused", **entry})

    async def run(self) -> None:
        """Write them for ever."""
        while True:
            entry = await self._queue.get()
            try:
                async with self._bus_of() as bus:
                    await bus.audit(entry)
            except SkillbusError as error:
                _log.warning("a refusal was not audited: %s", harmless(str(error)))
            finally:
                self._queue.task_done()

    async def flush(self, timeout_s: float) -> None:
        """Wait until what is queued was written, at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._queue.join()
        except TimeoutError:
            return

"""Further orders: what a pod hears for a scope that is killed already, kept in its evidence (docs/protocol.md §8).

The record that stands tells of the first order alone, and a raw message is audited by nobody. Without this, a reset
would not know that somebody still wants the stop. Nothing here stops anything, and nothing makes the pod beat sooner:
it goes with the next heartbeat, so that no flood of messages becomes one of heartbeats, and fills a few lines at most.
"""

from __future__ import annotations

from skillbus.core.audit import at_ms_of
from skillbus.core.heartbeat import RAW, FurtherLine
from skillbus.core.latch import Obeyed
from skillbus.core.orders import KillOrder, payload_digest
from skillbus.core.text import harmless

LIMIT = 8
"""Further orders that are kept by name, the youngest; of older ones only how many there were."""

_SAME_WITHIN_MS = 2000
"""A raw message with the words of the record, heard so soon after it: the one of which another pod wrote the record."""

_COUNT_LIMIT = 1_000_000_000


class FurtherOrders:
    """Those that one incarnation heard.

    Attributes:
        left_out_count: messages that are not among the lines any more.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], FurtherLine] = {}
        self.left_out_count = 0

    @property
    def lines(self) -> tuple[FurtherLine, ...]:
        """The youngest ones, the last heard last."""
        return tuple(self._lines.values())

    def heard(self, obeyed: Obeyed | None, order: KillOrder, payload: bytes, now_ms: int) -> None:
        """``order`` was heard, as ``payload``, at ``now_ms`` (server time), while ``obeyed`` stopped its scope."""
        if obeyed is None or obeyed.lifted or _is_the_same(obeyed, order, now_ms):
            return
        key = (obeyed.scope.label, order.id or RAW + payload_digest(payload))
        before = self._lines.pop(key, None)
        self._lines[key] = FurtherLine(
            scope=obeyed.scope.label,
            id=key[1],
            by=harmless(order.by, 80),
            via=harmless(order.via, 40),
            reason=harmless(order.reason, 200),
            at_ms=now_ms,
            times=min(_COUNT_LIMIT, before.times + 1) if before else 1,
        )
        if len(self._lines) > LIMIT:
            oldest = self._lines.pop(next(iter(self._lines)))
            self.left_out_count = min(_COUNT_LIMIT, self.left_out_count + oldest.times)


def _is_the_same(obeyed: Obeyed, order: KillOrder, now_ms: int) -> bool:
    """Whether this is the order that is obeyed: a pod may read the record before it reads the message."""
    record = obeyed.record
    if order.id:
        return order.id == record.id
    if not obeyed.recorded:  # what is obeyed was heard by this very pod, which hears a message once
        return False
    at_ms = at_ms_of(record.at)
    soon = at_ms is not None and abs(now_ms - at_ms) < _SAME_WITHIN_MS
    return soon and bool(record.heard_by) and (order.reason, order.by) == (record.reason, record.by)

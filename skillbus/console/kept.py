"""The kills of a fleet that stand, as far as a keeper knows, and what is to be done about each.

A keeper belongs to no scope and so has no latch: it remembers the kills of every scope by the rules of core/latch.py,
and pod/recorder.py carries out what follows, the tombstone and the record, as it does for a pod. What a pod never does:
a kill that was reset is forgotten here, for a keeper has nothing that would have to be restarted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace

from skillbus.core.latch import Action, Memory, Obeyed, Restore, ScopeReading, Trip, fold, hear, lift, remember, settle
from skillbus.core.orders import KillRecord
from skillbus.core.scope import Scope


class Kept:
    """What one keeper remembers. For one loop alone.

    Attributes:
        actions: what the recorder is to do, in order.
        lost: scopes whose record was settled, is gone without a reset, and is to be written back.
    """

    def __init__(self) -> None:
        self._memory = Memory()
        self._changed: list[asyncio.Event] = []
        self.actions: deque[Action] = deque()
        self.lost: set[Scope] = set()

    @property
    def memory(self) -> Memory:
        """The kills that stand, by scope."""
        return self._memory

    @property
    def scopes(self) -> frozenset[Scope]:
        """Every scope of which a kill is remembered."""
        return frozenset((*self._memory.obeyed, *self._memory.pending))

    @property
    def unrecorded(self) -> tuple[Scope, ...]:
        """The scopes whose kill is not in the store, as far as is known."""
        pending = (scope for scope in self._memory.pending if scope not in self._memory.obeyed)
        return tuple(sorted((*(scope for scope, one in self._memory.obeyed.items() if not one.recorded), *pending)))

    def listen(self) -> asyncio.Event:
        """An event that is set at every change. Whoever waits for it clears it."""
        event = asyncio.Event()
        self._changed.append(event)
        return event

    def wake(self, tombstones: Iterable[Obeyed]) -> None:
        """A life of the keeper begins: what an earlier one remembered, and what is still to be written."""
        self._changed.clear()
        found = remember(one for one in tombstones if one.scope not in self._memory.obeyed)
        self._memory = replace(self._memory, pending={**found.pending, **self._memory.pending})
        self.actions.extend(Restore(one) for one in self._memory.obeyed.values() if not one.recorded)

    def hear(self, scope: Scope, record: KillRecord) -> bool:
        """An order was heard: whether it is another than the one that is on record, as far as is known."""
        known = self._memory.obeyed.get(scope)
        self._memory, actions = hear(self._memory, scope, record)
        if actions:
            self.lost.discard(scope)
        self._take(actions)
        return known is None or known.epoch is None or known.record.id != record.id

    def fold(self, reading: Mapping[Scope, ScopeReading]) -> None:
        """A good read came in."""
        before = self._memory
        self._memory, actions = fold(before, reading)
        gone = (action.obeyed.scope for action in actions if isinstance(action, Restore))
        self.lost |= {scope for scope in gone if _was_settled(before, scope)}
        self._take(actions)

    def settle(self, scope: Scope, record: KillRecord, epoch: int, *, stored: bool) -> None:
        """An attempt to write a record answered."""
        if stored:
            self.lost.discard(scope)
        self._memory, actions = settle(self._memory, scope, record, epoch, stored=stored)
        self._take(actions)

    def lift(self, scope: Scope) -> None:
        """The kill of ``scope`` was reset meanwhile."""
        self.lost.discard(scope)
        self._memory, actions = lift(self._memory, scope)
        self._take(actions)

    def _take(self, actions: Iterable[Action]) -> None:
        """There is nothing to trip; the rest is the recorder's. What was lifted is forgotten, and so are epochs seen.

        A pod that sees the epoch of its scope move has missed a kill. A keeper has missed nothing by that: nobody
        restarts it, and what is over need not be made durable.
        """
        standing = {scope: one for scope, one in self._memory.obeyed.items() if not one.lifted}
        self._memory = replace(self._memory, obeyed=standing, epochs={})
        self.actions.extend(action for action in actions if not isinstance(action, Trip))
        if actions:
            for event in self._changed:
                event.set()


def _was_settled(memory: Memory, scope: Scope) -> bool:
    """Whether the record of the kill was there, or an earlier life had asked for it: if not, it was never lost."""
    obeyed, tombstone = memory.obeyed.get(scope), memory.pending.get(scope)
    return obeyed.recorded if obeyed is not None else tombstone is not None and tombstone.epoch is not None

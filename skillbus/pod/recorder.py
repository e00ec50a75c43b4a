"""What follows from a trip: the tombstone on disk, and the record in Redis, each retried until it holds.

Behind the latch, never before it: a slow disk or a silent server delays no stop. The two do not wait for each other.
Retries of a record end by the epoch rule alone (docs/protocol.md §4), so that no late retry undoes a reset.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from skillbus.clock import Clock
from skillbus.core.latch import Action, Drop, Keep, Memory, Obeyed, Restore
from skillbus.core.orders import KillRecord
from skillbus.core.ports import Records, Write, WriteAnswer
from skillbus.core.scope import Scope
from skillbus.core.text import harmless
from skillbus.errors import BusNotReady, SkillbusError
from skillbus.pod.retry import endless
from skillbus.pod.tombstone import Tombstones

log = logging.getLogger(__name__)

_LEAVES_WITHIN_S = 0.05
"""Seconds that a write waits for the urgent heartbeat to leave, whose reading may save it. That leaves within a turn or
two of the loop, unless something (a policy file on a slow disk) keeps it: no record waits for that."""


class Remembers(Protocol):
    """Who knows the kills that are to be recorded: a pod's switch, or what a keeper keeps.

    Attributes:
        actions: what is still to be done, in order.
    """

    actions: deque[Action]

    @property
    def memory(self) -> Memory:
        """The kills that are obeyed, by scope."""
        ...

    def listen(self) -> asyncio.Event:
        """An event of the running loop that is set at every change. Whoever waits for it clears it."""
        ...

    def settle(self, scope: Scope, record: KillRecord, epoch: int, *, stored: bool) -> None:
        """An attempt to write a record answered."""
        ...

    def lift(self, scope: Scope) -> None:
        """A write was refused by the epoch rule: the kill of ``scope`` was reset meanwhile."""
        ...


class Recorder:
    """Carries out the actions of a switch (or a keeper), in order, for as long as its owner lives.

    Attributes:
        latch_durable: whether every tombstone has reached the disk.
        on_answer: called with each answer to an attempt to write a scope's record, before it is acted upon.
        has_beats: whether its owner's heartbeats read the records, too (``reading``); a keeper has none, and waits for
            none.
    """

    def __init__(
        self, switch: Remembers, bus: Records, tombstones: Tombstones, clock: Clock, *, has_beats: bool = True
    ) -> None:
        self._switch = switch
        self._bus = bus
        self._tombstones = tombstones
        self._clock = clock
        self._writers: dict[Scope, asyncio.Task[None]] = {}
        self._pending: dict[Scope, Keep | Drop] = {}
        self._dirty = asyncio.Event()
        self._asked: tuple[Obeyed, ...] = ()
        self._left = asyncio.Event()
        self._answered = asyncio.Event()
        self._flushing = threading.Lock()
        self._handing = threading.Lock()  # for _pending, which the loop fills and a thread empties; never held over I/O
        self.has_beats = has_beats
        self.latch_durable = True
        self.on_answer: Callable[[Scope, WriteAnswer], None] = lambda scope, answer: None

    async def run(self) -> None:
        """Act on every change, until cancelled. What is on its way to the disk is finished first."""
        changed = self._switch.listen()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_disk())
                while True:
                    changed.clear()
                    self._take_all(group)
                    await changed.wait()
        finally:
            await self.finish()

    async def finish(self) -> None:
        """Bring what is left to the disk, once: no new writer is started."""
        self._take_all(None)
        await asyncio.to_thread(self._flush)

    def _take_all(self, group: asyncio.TaskGroup | None) -> None:
        """Hand each action to whoever carries it out. Without a group, at the end, no new writer is started."""
        while self._switch.actions:
            action = self._switch.actions.popleft()
            if isinstance(action, Keep | Drop):
                scope = action.obeyed.scope if isinstance(action, Keep) else action.scope
                with self._handing:
                    self._pending[scope] = action
                self._dirty.set()
            elif isinstance(action, Restore) and group is not None:
                self._write(group, action.obeyed)

    # -- tombstones -----------------------------------------------------------------------------------------------

    async def _keep_disk(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await asyncio.to_thread(self._flush)
            if self._pending:
                await self._clock.wait(self._dirty, 1.0)
                self._dirty.set()

    def _flush(self) -> None:
        """Write or remove every pending tombstone; what the disk refuses stays pending."""
        with self._flushing:
            with self._handing:
                pending = list(self._pending.items())
            for scope, action in pending:
                try:
                    self._carry_out(action)
                except OSError as error:
                    if self.latch_durable:
                        log.error("tombstone refused scope=%s error=%s", scope, harmless(str(error)))
                    self.latch_durable = False
                    continue
                with self._handing:
                    if self._pending.get(scope) is action:  # and not a newer one, which came meanwhile
                        del self._pending[scope]
            with self._handing:
                self.latch_durable = not self._pending

    def _carry_out(self, action: Keep | Drop) -> None:
        if isinstance(action, Keep):
            self._tombstones.keep(action.obeyed)
        else:
            self._tombstones.drop(action.scope)

    # -- records --------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self, unsettled: tuple[Obeyed, ...]) -> Iterator[tuple[Obeyed, ...]]:
        """A heartbeat leaves and is answered, or not: what had been heard before it left, which its reading settles.

        Most pods hear an order that is recorded already. Their heartbeat tells of it and reads the record in the same
        round trip, and none of their own is needed for that.
        """
        asked = self._asked = unsettled
        answered = self._answered = asyncio.Event()
        self._left.set()
        try:
            yield asked
        finally:
            answered.set()

    async def _read_by_beat(self, scope: Scope) -> None:
        """Wait for the answer of a heartbeat that left after the order for ``scope`` was heard, if one is leaving."""
        obeyed = self._switch.memory.obeyed.get(scope)
        if obeyed is None or obeyed.epoch is not None:
            return
        if obeyed not in self._asked:
            self._left.clear()
            await self._clock.wait(self._left, _LEAVES_WITHIN_S)
        if obeyed in self._asked:
            await self._answered.wait()

    def _write(self, group: asyncio.TaskGroup, obeyed: Obeyed) -> None:
        writer = self._writers.get(obeyed.scope)
        if writer is None or writer.done():
            self._writers[obeyed.scope] = group.create_task(self._persist(obeyed.scope))

    async def _persist(self, scope: Scope) -> None:
        if self.has_beats:
            await self._read_by_beat(scope)
        async for attempt in endless(self._clock, 0.05):
            with attempt:
                await self._try(scope)

    async def try_once(self) -> None:
        """The pod ends: one more attempt for each kill that is not recorded yet. Its tombstone remembers it anyway."""
        for scope in list(self._switch.memory.obeyed):
            try:
                await self._try(scope)
            except SkillbusError as error:
                log.warning("record not written before the end scope=%s error=%s", scope, harmless(str(error)))

    async def _try(self, scope: Scope) -> None:
        obeyed = self._switch.memory.obeyed.get(scope)
        if obeyed is None or obeyed.lifted or obeyed.recorded:
            return
        answer = await self._bus.write_record(scope, obeyed.record, obeyed.epoch)
        if self._switch.memory.obeyed.get(scope) != obeyed:
            # Another order was heard meanwhile, perhaps behind a reset: this answer says nothing about it.
            await self._try(scope)
            return
        self.on_answer(scope, answer)
        if answer.write is Write.SUPERSEDED:
            log.warning("record not written: the scope was reset since scope=%s", scope)
            self._switch.lift(scope)
            return
        stored = answer.write is not Write.REFUSED
        self._switch.settle(scope, answer.record, answer.epoch, stored=stored)
        if not stored:
            raise BusNotReady(f"the record of {scope} was refused: {answer.refusal}")
        log.info("record %s scope=%s record=%s", answer.write, scope, harmless(answer.record.id))

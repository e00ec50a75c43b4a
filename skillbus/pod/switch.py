"""The kill switch of one process: the latch, the lease and the holds, folded into one answer: may this pod act?

Everything that starts or goes on with work asks here, and nothing goes around it: the loop, a sync, a manual call, a
checkpoint in any thread. It decides by core/latch.py's table and rule and does no I/O: what follows from a trip (the
tombstone, the record) is queued as actions for pod/recorder.py.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from skillbus.clock import Clock
from skillbus.core.latch import (
    LATCHED,
    Action,
    Cause,
    CauseKind,
    Event,
    Memory,
    Obeyed,
    State,
    Trip,
    fold,
    hear,
    lift,
    remember,
    settle,
    step,
)
from skillbus.core.orders import KillRecord
from skillbus.core.ports import Permit, Reading
from skillbus.core.scope import Scope
from skillbus.errors import PassAborted

_switches: weakref.WeakSet[Switch] = weakref.WeakSet()

_NO_ORDER = KillRecord(id="drill")
"""What a drill holds up to the gate, and nobody keeps."""


def _after_fork_in_child() -> None:
    for switch in list(_switches):
        switch.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a pod stands, as of one moment.

    Attributes:
        why: one sentence for a person; empty while running.
        quiet: no pass is in flight (and, if latched, none will start).
        tripped_at_s: boot-time clock, seconds; None if not latched.
        quiet_at_s: when the latched pod was observed quiet; None if it has not been.
    """

    state: State
    why: str
    quiet: bool
    tripped_at_s: float | None
    quiet_at_s: float | None


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the gate said in a drill: whether an order would stop this pod, or has; and whether its lease is there."""

    trips: bool
    has_lease: bool


class Switch:
    """One per pod. ``trip``, ``permit`` and the properties may be used from any thread."""

    def __init__(self, clock: Clock, lease_s: float, *, require_armed: bool, tombstones: Iterable[Obeyed] = ()) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self._require_armed = require_armed
        self._lock = threading.RLock()
        self._state = State.STARTING
        self._memory: Memory = remember(tombstones)
        self._causes: list[Cause] = []
        self._holds: dict[str, str] = {}
        self._lease_ends_at_s = -1.0
        self._busy = False
        self._vouched = True
        self._tripped_at_s: float | None = None
        self._quiet_at_s: float | None = None
        self._listeners: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self.actions: deque[Action] = deque()
        _switches.add(self)

    # -- what others see ------------------------------------------------------------------------------------------

    @property
    def standing(self) -> Standing:
        """Where the pod stands now."""
        with self._lock:
            state, why = self._state, self._why()
            if self._overdue():  # nobody noticed yet
                state, why = State.HOLDING, self._no_good_read()
            return Standing(state, why, not self._busy, self._tripped_at_s, self._quiet_at_s)

    @property
    def latched(self) -> bool:
        """Whether the latch is set. Once true, true for the life of the process."""
        return self._state in LATCHED

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes that belong to this process alone: policy, local, HTTP, fork, missed."""
        with self._lock:
            return tuple(self._causes)

    @property
    def memory(self) -> Memory:
        """The kills that this pod obeys, by scope."""
        return self._memory

    @property
    def lease_ends_at_s(self) -> float:
        """Boot-time clock, seconds: the end of the lease, whatever else forbids to act."""
        return self._lease_ends_at_s

    def listen(self) -> asyncio.Event:
        """An event of the running loop that is set at every change. Whoever waits for it clears it."""
        event = asyncio.Event()
        with self._lock:
            self._listeners[event] = asyncio.get_running_loop()
        return event

    def permit(self) -> Permit:
        """Leave to make one change (docs/protocol.md §3.6).

        Raises:
            PassAborted: latched (a forked child always is), holding, or past the lease.
        """
        with self._lock:
            now_s = self._clock.now_s()
            if self._state is not State.RUNNING:
                raise PassAborted(f"this pod may not act: it is {self._state}: {self._why()}")
            if now_s >= self._lease_ends_at_s:  # by this instant, which the permit bears
                raise PassAborted("this pod may not act: its lease is over")
            return Permit(now_s)

    # -- what happens to it ---------------------------------------------------------------------------------------

    def trip(self, kind: CauseKind, reason: str) -> None:
        """Set the latch for a cause of this process alone. Writes nothing anywhere."""
        with self._lock:
            if any(cause.kind is kind for cause in self._causes):
                return
            self._causes.append(Cause(kind, reason))
            self._advance(Event.TRIPPED)

    def hear(self, scope: Scope, record: KillRecord) -> None:
        """An order for ``scope`` was heard."""
        with self._lock:
            self._memory, actions = hear(self._memory, scope, record)
            self._take(actions)

    def rehearse(self, scopes: Iterable[Scope]) -> Rehearsal:
        """What ``hear`` would do for each of ``scopes``: the same code behind the same lock, up to the act.

        Nothing is changed: the memory and the actions that would follow are thrown away.
        """
        with self._lock:
            trips = all(self._would_trip(scope) for scope in scopes)
            return Rehearsal(trips, self._clock.now_s() < self._lease_ends_at_s)

    def _would_trip(self, scope: Scope) -> bool:
        _, actions = hear(self._memory, scope, _NO_ORDER)
        has_trip = any(isinstance(action, Trip) for action in actions)
        return self._state in LATCHED or (has_trip and step(self._state, Event.TRIPPED) in LATCHED)

    def fold(self, reading: Reading) -> None:
        """A good read came in."""
        with self._lock:
            self._memory, actions = fold(self._memory, reading.scopes)
            self._take(actions)
            if reading.armed or not self._require_armed:
                self.release("armed")
            else:
                self.hold("armed", _not_armed(next(iter(reading.scopes)).fleet))
            self.release("bus")

    def unsettled(self) -> tuple[Obeyed, ...]:
        """The orders heard so far of which no reading has told yet whether they are recorded, and under which epoch."""
        with self._lock:
            return tuple(obeyed for obeyed in self._memory.obeyed.values() if obeyed.epoch is None)

    def settle_by(self, asked: Iterable[Obeyed], reading: Reading) -> None:
        """A reading that was asked for when these had been heard already: the records in it settle them.

        It is as good as the first step of writing one (docs/protocol.md §4). Where it shows no record it says nothing:
        the writer's transaction will.
        """
        with self._lock:
            for obeyed in asked:
                stored = reading.scopes[obeyed.scope]
                if stored.record is not None and self._memory.obeyed.get(obeyed.scope) == obeyed:
                    record = KillRecord.parse(stored.record)
                    self.settle(obeyed.scope, record, stored.epoch or 0, stored=True)

    def renew(self, sent_at_s: float) -> None:
        """A heartbeat was answered by a good read: the lease counts from before it was sent (docs/protocol.md §3.4).

        Heartbeats alone renew it, for others reckon its end from the last one (docs/protocol.md, P7).
        """
        with self._lock:
            self._lease_ends_at_s = max(self._lease_ends_at_s, sent_at_s + self._lease_s)
            self._holds.pop("lease", None)
            self._weigh()

    def expire(self, reason: str) -> None:
        """Somebody noticed that the lease may be over: hold for that, if nothing else keeps the pod from acting."""
        with self._lock:
            if self._overdue():
                self.hold("lease", reason)

    def settle(self, scope: Scope, record: KillRecord, epoch: int, *, stored: bool) -> None:
        """An attempt to write a record answered."""
        with self._lock:
            self._memory, actions = settle(self._memory, scope, record, epoch, stored=stored)
            self._take(actions)

    def lift(self, scope: Scope) -> None:
        """A write was refused by the epoch rule: the kill of ``scope`` was reset meanwhile."""
        with self._lock:
            self._memory, actions = lift(self._memory, scope)
            self._take(actions)

    def hold(self, name: str, reason: str) -> None:
        """The pod cannot prove that it may run, for this named reason."""
        with self._lock:
            if self._holds.get(name) != reason:
                self._holds[name] = reason
                self._weigh()
                self._notify()

    def release(self, name: str) -> None:
        """That reason is gone."""
        with self._lock:
            if self._holds.pop(name, None) is not None:
                self._weigh()
                self._notify()

    def nudge(self) -> None:
        """Something beside the switch changed that its listeners want to look at."""
        with self._lock:
            self._notify()

    def begin(self) -> bool:
        """A pass wants to begin. Whether it may; if so, the pod is not quiet from here on."""
        with self._lock:
            try:
                self.permit()
            except PassAborted:
                return False
            self._busy = True
            return True

    def end(self, *, vouched: bool) -> None:
        """The pass is observed to be over, as far as its reconciler can vouch for that."""
        with self._lock:
            self._busy = False
            self._vouched = self._vouched and vouched
            if self._vouched:
                self._advance(Event.QUIET)
            self._notify()

    # -- inside ---------------------------------------------------------------------------------------------------

    @property
    def vouched(self) -> bool:
        """Whether the end of a pass proved so far that all its work had ended."""
        return self._vouched

    def forked(self) -> None:
        """This is a forked child: it shares the parent's sockets and has none of its threads, so it may not act.

        Whoever held the lock is not here to release it, hence the new one.
        """
        self._lock = threading.RLock()
        self._listeners = {}
        self._busy = False
        self.trip(CauseKind.FORK, "this is a forked child of a pod: only the process that holds the lease may act")

    def _take(self, actions: Iterable[Action]) -> None:
        """Trip at once; leave the rest, which is I/O, to the recorder."""
        for action in actions:
            if not isinstance(action, Trip):
                self.actions.append(action)
            else:
                if action.cause.kind is CauseKind.MISSED:
                    self._causes.append(action.cause)
                self._advance(Event.TRIPPED)
            self._notify()

    def _overdue(self) -> bool:
        return self._state is State.RUNNING and self._clock.now_s() >= self._lease_ends_at_s

    def _no_good_read(self) -> str:
        return f"no good read for {self._lease_s:g} s"

    def _weigh(self) -> None:
        """Running needs a lease that is not over and no hold. A first hold ends ``starting``."""
        licensed = not self._holds and self._clock.now_s() < self._lease_ends_at_s
        if licensed or self._holds or self._state is State.RUNNING:
            self._advance(Event.LICENSED if licensed else Event.UNLICENSED)

    def _advance(self, event: Event) -> None:
        before, self._state = self._state, step(self._state, event)
        if self._state in LATCHED and before not in LATCHED:
            self._tripped_at_s = self._clock.now_s()
        if self._state is State.STOPPING and not self._busy and self._vouched:
            self._state = step(self._state, Event.QUIET)
        if self._state is State.STOPPED and self._quiet_at_s is None:
            self._quiet_at_s = self._clock.now_s()
        if self._state is not before:
            self._notify()

    def _notify(self) -> None:
        for event, loop in list(self._listeners.items()):
            try:
                running = asyncio.get_running_loop()
            except RuntimeError:
                running = None
            if running is loop:
                event.set()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def _why(self) -> str:
        if self._state in LATCHED:
            return "; ".join(self._latch_reasons())
        if self._holds:
            return "; ".join(self._holds.values())
        if self._state is State.HOLDING:
            return self._no_good_read()
        return ""

    def _latch_reasons(self) -> list[str]:
        reasons = [_obeyed_reason(obeyed) for obeyed in self._memory.obeyed.values()]
        reasons += [f"{cause.kind}: {cause.reason}" for cause in self._causes]
        if not self._vouched:
            reasons.append("the last pass ended without proof that its work did: end this pod's processes by hand")
        return reasons


def _obeyed_reason(obeyed: Obeyed) -> str:
    if obeyed.lifted:
        return f"{obeyed.scope}: reset, waits for restart"
    unrecorded = "" if obeyed.recorded else " (not recorded yet)"
    return f"{obeyed.scope} killed: {obeyed.record.sentence()}{unrecorded}"


def _not_armed(fleet: str) -> str:
    return (
        f"fleet '{fleet}' is not armed: a new fleet? run skillbus arm. An old one? its Redis has lost its data; "
        "latched pods write their kill back"
    )

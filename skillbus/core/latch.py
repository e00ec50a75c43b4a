"""The latch: the table of a pod's states, and the epoch rule (docs/protocol.md §3, §4). Both live here and only here.

The table
    ``starting``  nothing proved yet, nothing done yet
    ``running``   may act: it hears, its last good read is younger than its lease, nothing is latched
    ``holding``   cannot prove that it may run; resumes by itself with the next good read
    ``stopping``  latched, and a pass is still winding down
    ``stopped``   latched, and observed quiet
An event that is not in the table changes nothing. From ``stopping`` and ``stopped`` no event leads back: the latch in a
process is final, a reset included.

The epoch rule
    A latch caused by a record or an order remembers the epoch of its scope. If the record is gone later, a stored epoch
    greater than the remembered one proves a reset. Anything else (an equal, lower or absent epoch) is lost data, and
    the record is written back. No other number and no clock is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from skillbus.core.orders import KillRecord
from skillbus.core.scope import Scope


class State(StrEnum):
    """Where a pod stands."""

    STARTING = "starting"
    RUNNING = "running"
    HOLDING = "holding"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Event(StrEnum):
    """What can happen to a pod."""

    LICENSED = "licensed"
    UNLICENSED = "unlicensed"
    TRIPPED = "tripped"
    QUIET = "quiet"


TABLE: Mapping[tuple[State, Event], State] = {
    (State.STARTING, Event.LICENSED): State.RUNNING,
    (State.STARTING, Event.UNLICENSED): State.HOLDING,
    (State.STARTING, Event.TRIPPED): State.STOPPING,
    (State.RUNNING, Event.UNLICENSED): State.HOLDING,
    (State.RUNNING, Event.TRIPPED): State.STOPPING,
    (State.HOLDING, Event.LICENSED): State.RUNNING,
    (State.HOLDING, Event.TRIPPED): State.STOPPING,
    (State.STOPPING, Event.QUIET): State.STOPPED,
}

LATCHED = frozenset({State.STOPPING, State.STOPPED})


def step(state: State, event: Event) -> State:
    """The state after ``event``."""
    return TABLE.get((state, event), state)


class CauseKind(StrEnum):
    """Why a latch was tripped. ORDER and RECORD belong to a scope; the others latch one process and write nothing."""

    ORDER = "order"
    RECORD = "record"
    MISSED = "missed"
    POLICY = "policy"
    POLICY_FILE = "policy_file"
    HTTP = "http"
    LOCAL = "local"
    FORK = "fork"


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why a latch is set. Any one stops; none overrules another."""

    kind: CauseKind
    reason: str = ""
    scope: Scope | None = None


@dataclass(frozen=True, slots=True)
class Obeyed:
    """A kill of one scope, as a pod remembers it.

    Attributes:
        epoch: the latch's epoch, or None while it is not known yet (an order heard, but no epoch read since).
        lifted: a reset of this kill was seen. The process stays latched; the next start may run.
        recorded: the record was seen in the store, or written, since this kill was heard.
    """

    scope: Scope
    record: KillRecord
    epoch: int | None
    lifted: bool = False
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class ScopeReading:
    """What one scope's keys said, the epoch read before the record.

    Attributes:
        epoch: None if the key is absent.
        record: None if the key is absent; its first KiB, or empty bytes if it is there and cannot be read.
    """

    epoch: int | None
    record: bytes | None


class Verdict(StrEnum):
    """What a stored epoch and record say about a remembered kill."""

    STANDS = "stands"
    LIFTED = "lifted"
    LOST = "lost"


def verdict(latch_epoch: int | None, stored: ScopeReading) -> Verdict:
    """The epoch rule (docs/protocol.md §4). An unknown latch epoch never proves a reset."""
    if stored.record is not None:
        return Verdict.STANDS
    return Verdict.LIFTED if superseded(latch_epoch, stored.epoch) else Verdict.LOST


def superseded(latch_epoch: int | None, stored_epoch: int | None) -> bool:
    """Whether a reset came after the latch, so that its record may not be written any more."""
    return latch_epoch is not None and (stored_epoch or 0) > latch_epoch


@dataclass(frozen=True, slots=True)
class Memory:
    """What a pod knows of the scopes it belongs to.

    Attributes:
        obeyed: kills that latched this process, by scope.
        pending: kills remembered from an earlier life (tombstones), not yet held against the store.
        epochs: the highest epoch seen of each scope.
    """

    obeyed: Mapping[Scope, Obeyed] = field(default_factory=dict)
    pending: Mapping[Scope, Obeyed] = field(default_factory=dict)
    epochs: Mapping[Scope, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trip:
    """Set the latch, for this cause."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Keep:
    """Write the tombstone of this kill."""

    obeyed: Obeyed


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the tombstone of this scope: its kill was reset."""

    scope: Scope


@dataclass(frozen=True, slots=True)
class Restore:
    """Write this kill's record (back), for as long as the epoch rule allows."""

    obeyed: Obeyed


Action = Trip | Keep | Drop | Restore


def remember(tombstones: Iterable[Obeyed]) -> Memory:
    """The memory of a pod that starts with these tombstones."""
    return Memory(pending={tombstone.scope: tombstone for tombstone in tombstones})


def hear(memory: Memory, scope: Scope, record: KillRecord) -> tuple[Memory, list[Action]]:
    """An order for ``scope`` was heard.

    One that is obeyed already stays as it is. Another is a kill anew, for a reset may have come in between that no
    reading has shown yet: only the writer's transaction can tell. (While one is unsettled, it speaks for both.)
    """
    known = memory.obeyed.get(scope)
    if known is not None and not known.lifted and (known.epoch is None or known.record.id == record.id):
        return memory, []
    heard = Obeyed(scope, record, epoch=None, recorded=False)
    pending = {s: o for s, o in memory.pending.items() if s != scope}
    after = replace(memory, obeyed={**memory.obeyed, scope: heard}, pending=pending)
    cause = Cause(CauseKind.ORDER, record.sentence(), scope)
    return after, [Trip(cause), Keep(heard), Restore(heard)]


def settle(
    memory: Memory, scope: Scope, record: KillRecord, epoch: int, *, stored: bool
) -> tuple[Memory, list[Action]]:
    """An attempt to write the record of an obeyed kill read ``epoch`` and was not superseded.

    Args:
        record: the record that stands now: ours, or the one that was there first; ours still if ``stored`` is false.
        stored: whether the record is in the store. If not (the server refused the write), the epoch is known all the
            same: it was read after the order was heard, so any greater one comes from a later reset.
    """
    known = memory.obeyed.get(scope)
    if known is None or known.lifted:
        return memory, []
    base = epoch if known.epoch is None else max(epoch, known.epoch)
    settled = Obeyed(scope, record, base, recorded=stored)
    if settled == known:
        return memory, []
    return replace(memory, obeyed={**memory.obeyed, scope: settled}), [Keep(settled)]


def lift(memory: Memory, scope: Scope) -> tuple[Memory, list[Action]]:
    """A reset of an obeyed kill was seen. The process stays latched; its next start may run."""
    known = memory.obeyed.get(scope)
    if known is None or known.lifted:
        return memory, []
    return replace(memory, obeyed={**memory.obeyed, scope: replace(known, lifted=True)}), [Drop(scope)]


def fold(memory: Memory, reading: Mapping[Scope, ScopeReading]) -> tuple[Memory, list[Action]]:
    """What a good reading of every scope makes of a pod's memory, and what follows from it."""
    actions: list[Action] = []
    for scope, stored in reading.items():
        memory, scope_actions = _fold_scope(memory, scope, stored)
        actions += scope_actions
        highest = max(memory.epochs.get(scope, 0), stored.epoch or 0)
        memory = replace(memory, epochs={**memory.epochs, scope: highest})
    return memory, actions


def _fold_scope(memory: Memory, scope: Scope, stored: ScopeReading) -> tuple[Memory, list[Action]]:
    obeyed = memory.obeyed.get(scope)
    if obeyed is not None and obeyed.epoch is None:
        # An order heard and not yet settled. This reading may have left the server before the order did, so neither its
        # epoch nor its record says anything about it: the writer's transaction will.
        return memory, []
    if stored.record is not None:
        return _adopt(memory, scope, stored)
    if obeyed is not None:
        return _absent(memory, obeyed, stored)
    if scope in memory.pending:
        return _awake(memory, memory.pending[scope], stored)
    if scope in memory.epochs and (stored.epoch or 0) > memory.epochs[scope]:
        reason = f"{scope} was reset since the last read, so a kill was missed"
        return memory, [Trip(Cause(CauseKind.MISSED, reason, scope))]
    return memory, []


def _adopt(memory: Memory, scope: Scope, stored: ScopeReading) -> tuple[Memory, list[Action]]:
    """The record is there. It was read after the epoch, so it was written after that reset: the epoch moves up."""
    known = memory.obeyed.get(scope) or memory.pending.get(scope)
    record = KillRecord.parse(stored.record or b"")
    epoch = max(stored.epoch or 0, (known.epoch or 0) if known else 0)
    adopted = Obeyed(scope, record, epoch)
    if memory.obeyed.get(scope) == adopted:
        return memory, []
    news = scope not in memory.obeyed or memory.obeyed[scope].lifted
    trip = [Trip(Cause(CauseKind.RECORD, record.sentence(), scope))] if news else []
    return _obey(memory, adopted), [*trip, Keep(adopted)]


def _absent(memory: Memory, obeyed: Obeyed, stored: ScopeReading) -> tuple[Memory, list[Action]]:
    """The record of an obeyed kill is gone: reset, or lost."""
    if obeyed.lifted:
        return memory, []
    if verdict(obeyed.epoch, stored) is Verdict.LIFTED:
        return lift(memory, obeyed.scope)
    lost = replace(obeyed, recorded=False)
    return _obey(memory, lost), [Restore(lost)]


def _awake(memory: Memory, tombstone: Obeyed, stored: ScopeReading) -> tuple[Memory, list[Action]]:
    """A tombstone of an earlier life finds no record: forget it, or write the record back and obey it."""
    if verdict(tombstone.epoch, stored) is Verdict.LIFTED:
        pending = {s: o for s, o in memory.pending.items() if s != tombstone.scope}
        return replace(memory, pending=pending), [Drop(tombstone.scope)]
    epoch = (stored.epoch or 0) if tombstone.epoch is None else tombstone.epoch
    lost = replace(tombstone, epoch=epoch, recorded=False)
    cause = Cause(CauseKind.RECORD, tombstone.record.sentence(), tombstone.scope)
    return _obey(memory, lost), [Trip(cause), Keep(lost), Restore(lost)]


def _obey(memory: Memory, obeyed: Obeyed) -> Memory:
    pending = {s: o for s, o in memory.pending.items() if s != obeyed.scope}
    return replace(memory, obeyed={**memory.obeyed, obeyed.scope: obeyed}, pending=pending)

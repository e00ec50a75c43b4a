"""The latch, drawn exhaustively: the table of states, the epoch rule, and every path of a pod's memory."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.core.latch import (
    LATCHED,
    Cause,
    CauseKind,
    Drop,
    Event,
    Keep,
    Memory,
    Obeyed,
    Restore,
    ScopeReading,
    State,
    Trip,
    Verdict,
    fold,
    hear,
    lift,
    remember,
    settle,
    step,
    superseded,
    verdict,
)
from skillbus.core.orders import KillRecord
from skillbus.core.scope import Fleet
from tests import profiles

assert profiles

PROD = Fleet("prod")
FLEET, GROUP = PROD.scope, PROD.group("eu")
RECORD, OTHER = KillRecord(id="k1", reason="r"), KillRecord(id="k2")
RAW = RECORD.to_bytes()

S, E = State, Event
DRAWN = {
    S.STARTING: {E.LICENSED: S.RUNNING, E.UNLICENSED: S.HOLDING, E.TRIPPED: S.STOPPING, E.QUIET: S.STARTING},
    S.RUNNING: {E.LICENSED: S.RUNNING, E.UNLICENSED: S.HOLDING, E.TRIPPED: S.STOPPING, E.QUIET: S.RUNNING},
    S.HOLDING: {E.LICENSED: S.RUNNING, E.UNLICENSED: S.HOLDING, E.TRIPPED: S.STOPPING, E.QUIET: S.HOLDING},
    S.STOPPING: {E.LICENSED: S.STOPPING, E.UNLICENSED: S.STOPPING, E.TRIPPED: S.STOPPING, E.QUIET: S.STOPPED},
    S.STOPPED: {E.LICENSED: S.STOPPED, E.UNLICENSED: S.STOPPED, E.TRIPPED: S.STOPPED, E.QUIET: S.STOPPED},
}


# -- the table ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_cell_of_the_table(state: State, event: Event) -> None:
    """Each state under each event, written out by hand."""
    assert step(state, event) is DRAWN[state][event]


@given(st.sampled_from(sorted(LATCHED)), st.lists(st.sampled_from(Event), max_size=30))
def test_no_event_leads_back(state: State, events: list[Event]) -> None:
    """From stopping and stopped, no sequence of events leads anywhere but to stopped."""
    for event in events:
        before, state = state, step(state, event)
        assert state in LATCHED
        assert not (before is State.STOPPED and state is State.STOPPING)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_only_a_licence_leads_to_running(events: list[Event]) -> None:
    """No pod runs by anything else, and none is stopped without having been tripped."""
    state = State.STARTING
    for event in events:
        before, state = state, step(state, event)
        assert state is not State.RUNNING or event is Event.LICENSED or before is State.RUNNING
        assert state is not State.STOPPED or Event.TRIPPED in events


# -- the epoch rule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latch", "stored", "reset_since"),
    [
        (None, None, False),
        (None, 0, False),
        (None, 7, False),
        (0, None, False),
        (0, 0, False),
        (0, 1, True),
        (7, None, False),
        (7, 0, False),
        (7, 6, False),
        (7, 7, False),
        (7, 8, True),
        (7, 1_700_000_000_000, True),
    ],
)
def test_the_epoch_rule(latch: int | None, stored: int | None, reset_since: bool) -> None:
    """Only a stored epoch greater than the latch's proves a reset; an unknown latch epoch never does."""
    assert superseded(latch, stored) is reset_since
    assert verdict(latch, ScopeReading(stored, None)) is (Verdict.LIFTED if reset_since else Verdict.LOST)
    for record in (b"", RAW, b"\xff"):
        assert verdict(latch, ScopeReading(stored, record)) is Verdict.STANDS


# -- helpers ------------------------------------------------------------------------------------------------------


def memory_of(*obeyed: Obeyed, epochs: dict[str, int] | None = None) -> Memory:
    """A memory that obeys these, and has seen these epochs of the fleet's scope."""
    return Memory(obeyed={one.scope: one for one in obeyed}, epochs={FLEET: epochs["fleet"]} if epochs else {})


def folded(memory: Memory, epoch: int | None, record: bytes | None) -> tuple[Memory, list[object]]:
    """A good reading of the fleet's scope alone."""
    after, actions = fold(memory, {FLEET: ScopeReading(epoch, record)})
    return after, list(actions)


# -- hear ---------------------------------------------------------------------------------------------------------


def test_an_order_trips_keeps_and_is_to_be_written() -> None:
    """Trip first; the epoch is unknown until the writer's transaction."""
    heard = Obeyed(FLEET, RECORD, epoch=None, recorded=False)
    memory, actions = hear(Memory(), FLEET, RECORD)
    assert memory.obeyed == {FLEET: heard}
    assert actions == [Trip(Cause(CauseKind.ORDER, '"r"', FLEET)), Keep(heard), Restore(heard)]


def test_an_order_for_another_scope_is_another_cause() -> None:
    """A pod obeys each scope by itself."""
    memory, _ = hear(Memory(), FLEET, RECORD)
    memory, actions = hear(memory, GROUP, OTHER)
    assert set(memory.obeyed) == {FLEET, GROUP}
    assert len(actions) == 3


@pytest.mark.parametrize("epoch", [None, 0, 7])
def test_the_same_order_twice_is_one(epoch: int | None) -> None:
    """A kill that is obeyed already, heard again under its own id, changes nothing."""
    memory = memory_of(Obeyed(FLEET, RECORD, epoch))
    assert hear(memory, FLEET, RECORD) == (memory, [])


def test_a_second_order_while_the_first_is_unsettled_changes_nothing() -> None:
    """The first is still on its way to the store, and will be written."""
    memory = memory_of(Obeyed(FLEET, RECORD, None, recorded=False))
    assert hear(memory, FLEET, OTHER) == (memory, [])


@pytest.mark.parametrize("lifted", [False, True])
def test_a_new_order_after_a_settled_one_is_a_new_kill(lifted: bool) -> None:
    """Whether a reset came in between, seen or not, only the writer's transaction can tell: it is heard anew."""
    memory, actions = hear(memory_of(Obeyed(FLEET, RECORD, 7, lifted=lifted)), FLEET, OTHER)
    heard = Obeyed(FLEET, OTHER, epoch=None, recorded=False)
    assert memory.obeyed == {FLEET: heard}
    assert [Keep(heard), Restore(heard)] == actions[1:]


def test_an_order_takes_the_place_of_a_tombstone() -> None:
    """What an earlier life remembered is the same scope's kill."""
    memory, _ = hear(remember([Obeyed(FLEET, OTHER, 3)]), FLEET, RECORD)
    assert memory.pending == {}
    assert memory.obeyed[FLEET].record == RECORD


# -- settle -------------------------------------------------------------------------------------------------------


def unsettled() -> Memory:
    """An order was heard, and nothing else is known."""
    return hear(Memory(), FLEET, RECORD)[0]


def test_a_written_order_knows_its_epoch() -> None:
    """That of the transaction that wrote it; kept on disk at once."""
    memory, actions = settle(unsettled(), FLEET, RECORD, 7, stored=True)
    settled = Obeyed(FLEET, RECORD, 7, recorded=True)
    assert memory.obeyed == {FLEET: settled}
    assert actions == [Keep(settled)]
    assert settle(memory, FLEET, RECORD, 7, stored=True) == (memory, [])


def test_an_adopted_record_takes_the_place_of_ours() -> None:
    """The first writer wins."""
    memory, _ = settle(unsettled(), FLEET, OTHER, 7, stored=True)
    assert memory.obeyed[FLEET].record == OTHER


def test_a_refused_write_settles_the_epoch_and_not_the_record() -> None:
    """So that a reset from now on ends the retries."""
    memory, actions = settle(unsettled(), FLEET, RECORD, 7, stored=False)
    assert memory.obeyed == {FLEET: Obeyed(FLEET, RECORD, 7, recorded=False)}
    assert [type(action) for action in actions] == [Keep]
    assert superseded(memory.obeyed[FLEET].epoch, 8)


@pytest.mark.parametrize(("known", "answered", "then"), [(7, 9, 9), (7, 3, 7), (0, 0, 0)])
def test_the_epoch_of_a_latch_never_goes_down(known: int, answered: int, then: int) -> None:
    """A lower epoch is lost data."""
    memory, _ = settle(memory_of(Obeyed(FLEET, RECORD, known, recorded=False)), FLEET, RECORD, answered, stored=True)
    assert memory.obeyed[FLEET].epoch == then


@pytest.mark.parametrize("memory", [Memory(), memory_of(Obeyed(FLEET, RECORD, 7, lifted=True))])
def test_an_answer_for_nothing_changes_nothing(memory: Memory) -> None:
    """An answer to a write of a kill that was lifted meanwhile, or never was."""
    assert settle(memory, FLEET, RECORD, 9, stored=True) == (memory, [])


# -- lift ---------------------------------------------------------------------------------------------------------


def test_a_lifted_kill_drops_its_tombstone_and_stays_in_the_process() -> None:
    """The latch in a process is final; the next start may run."""
    memory, actions = lift(memory_of(Obeyed(FLEET, RECORD, 7)), FLEET)
    assert memory.obeyed == {FLEET: Obeyed(FLEET, RECORD, 7, lifted=True)}
    assert actions == [Drop(FLEET)]
    assert lift(memory, FLEET) == (memory, [])
    assert lift(Memory(), FLEET) == (Memory(), [])


# -- fold: nothing obeyed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [None, 0, 7])
def test_a_quiet_reading_only_remembers_the_epoch(epoch: int | None) -> None:
    """No record and nothing obeyed: nothing follows."""
    memory, actions = folded(Memory(), epoch, None)
    assert actions == []
    assert memory == Memory(epochs={FLEET: epoch or 0})


@pytest.mark.parametrize("raw", [RAW, b"", b"\xff\xfe", b"{"])
def test_any_record_trips(raw: bytes) -> None:
    """Whatever its value; with the epoch read before it."""
    memory, actions = folded(Memory(), 7, raw)
    adopted = Obeyed(FLEET, KillRecord.parse(raw), 7, recorded=True)
    assert memory.obeyed == {FLEET: adopted}
    assert isinstance(actions[0], Trip)
    assert actions[1:] == [Keep(adopted)]


@pytest.mark.parametrize(("seen", "stored", "missed"), [(7, 8, True), (7, 7, False), (7, 6, False), (7, None, False)])
def test_an_epoch_that_moved_is_a_missed_kill(seen: int, stored: int | None, missed: bool) -> None:
    """A reset since the last read means that there was a kill; it latches this process and writes nothing."""
    _, actions = folded(memory_of(epochs={"fleet": seen}), stored, None)
    assert [type(action) for action in actions] == ([Trip] if missed else [])
    if missed:
        assert isinstance(actions[0], Trip)
        assert actions[0].cause.kind is CauseKind.MISSED


def test_the_first_epoch_of_a_life_misses_nothing() -> None:
    """However high it is: nothing was read before."""
    assert folded(Memory(), 1_700_000_000_000, None)[1] == []


def test_a_group_that_is_reset_for_the_first_time_is_missed_too() -> None:
    """An absent epoch reads as 0."""
    memory, _ = fold(Memory(), {GROUP: ScopeReading(None, None)})
    _, actions = fold(memory, {GROUP: ScopeReading(1_700_000_000_000, None)})
    assert [type(action) for action in actions] == [Trip]


def test_lost_epochs_hide_no_later_reset() -> None:
    """After a loss and a new arming, the next reset (by the server's time) is seen."""
    memory, _ = folded(Memory(), 7, None)
    memory, actions = folded(memory, 0, None)
    assert actions == []
    _, actions = folded(memory, 8, None)
    assert [type(action) for action in actions] == [Trip]


# -- fold: obeyed -------------------------------------------------------------------------------------------------


def test_a_standing_record_is_no_news() -> None:
    """Read again and again, nothing follows."""
    memory, _ = folded(Memory(), 7, RAW)
    assert folded(memory, 7, RAW) == (memory, [])


def test_a_record_after_a_reset_moves_the_latch_up() -> None:
    """Killed, reset and killed again between two reads: obeyed under the new epoch, no second trip."""
    memory, _ = folded(Memory(), 7, RAW)
    memory, actions = folded(memory, 9, OTHER.to_bytes())
    assert memory.obeyed == {FLEET: Obeyed(FLEET, OTHER, 9)}
    assert actions == [Keep(Obeyed(FLEET, OTHER, 9))]


@pytest.mark.parametrize("stored", [None, 0, 6, 7])
def test_a_record_that_is_gone_without_a_reset_is_written_back(stored: int | None) -> None:
    """FLUSHALL, eviction, failover, a bare DEL: none of them is a reset."""
    lost = Obeyed(FLEET, RECORD, 7, recorded=False)
    memory, actions = folded(memory_of(Obeyed(FLEET, RECORD, 7)), stored, None)
    assert memory.obeyed == {FLEET: lost}
    assert actions == [Restore(lost)]


def test_a_record_that_is_gone_with_a_reset_is_lifted() -> None:
    """A greater epoch proves it."""
    memory, actions = folded(memory_of(Obeyed(FLEET, RECORD, 7)), 8, None)
    assert memory.obeyed == {FLEET: Obeyed(FLEET, RECORD, 7, lifted=True)}
    assert actions == [Drop(FLEET)]
    assert folded(memory, 8, None) == (memory, [])


def test_a_lifted_scope_that_is_killed_again_is_news() -> None:
    """The tombstone comes back, under the new epoch."""
    memory = memory_of(Obeyed(FLEET, RECORD, 7, lifted=True))
    memory, actions = folded(memory, 8, OTHER.to_bytes())
    adopted = Obeyed(FLEET, OTHER, 8)
    assert memory.obeyed == {FLEET: adopted}
    assert isinstance(actions[0], Trip)
    assert actions[1:] == [Keep(adopted)]


@pytest.mark.parametrize("record", [None, RAW, b"", OTHER.to_bytes()])
@pytest.mark.parametrize("epoch", [None, 0, 7, 1_700_000_000_000])
def test_a_stale_reading_says_nothing_of_an_unsettled_order(epoch: int | None, record: bytes | None) -> None:
    """It may have left the server before the order was heard: only the writer's transaction settles it."""
    memory = unsettled()
    after, actions = folded(memory, epoch, record)
    assert after.obeyed == memory.obeyed
    assert actions == []


@pytest.mark.parametrize("epoch", [None, 0, 7])
def test_a_stale_reading_after_settling_loses_nothing(epoch: int | None) -> None:
    """One that was sent before the record was written: at most the record is written once more."""
    memory, _ = settle(unsettled(), FLEET, RECORD, 7, stored=True)
    memory, actions = folded(memory, epoch, None)
    assert actions == [Restore(memory.obeyed[FLEET])]
    memory, actions = folded(memory, 7, RAW)
    assert memory.obeyed == {FLEET: Obeyed(FLEET, RECORD, 7)}


def test_a_stale_record_after_a_lift_heals_with_the_next_reading() -> None:
    """The tombstone comes and goes; nothing is written."""
    memory = memory_of(Obeyed(FLEET, RECORD, 7, lifted=True))
    memory, actions = folded(memory, 7, RAW)
    assert not any(isinstance(action, Restore) for action in actions)
    memory, actions = folded(memory, 8, None)
    assert actions == [Drop(FLEET)]
    assert memory.obeyed[FLEET].lifted


# -- fold: tombstones ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latch", "stored", "then"), [(7, 7, 7), (7, None, 7), (7, 3, 7), (None, 9, 9), (None, None, 0)]
)
def test_a_tombstone_without_a_reset_kills_and_is_written_back(
    latch: int | None, stored: int | None, then: int
) -> None:
    """A restart and a loss of data together release nobody; an unknown epoch never proves a reset."""
    memory, actions = folded(remember([Obeyed(FLEET, RECORD, latch, recorded=False)]), stored, None)
    lost = Obeyed(FLEET, RECORD, then, recorded=False)
    assert memory.obeyed == {FLEET: lost}
    assert memory.pending == {}
    assert actions == [Trip(Cause(CauseKind.RECORD, '"r"', FLEET)), Keep(lost), Restore(lost)]


def test_a_tombstone_with_a_reset_is_dropped() -> None:
    """And the new life may run."""
    memory, actions = folded(remember([Obeyed(FLEET, RECORD, 7, recorded=False)]), 8, None)
    assert memory.obeyed == {}
    assert memory.pending == {}
    assert actions == [Drop(FLEET)]


def test_a_tombstone_with_a_record_obeys_the_record() -> None:
    """Under the greater epoch of the two."""
    memory, actions = folded(remember([Obeyed(FLEET, RECORD, 7, recorded=False)]), 3, OTHER.to_bytes())
    adopted = Obeyed(FLEET, OTHER, 7)
    assert memory.obeyed == {FLEET: adopted}
    assert memory.pending == {}
    assert isinstance(actions[0], Trip)
    assert actions[1:] == [Keep(adopted)]


def test_scopes_are_folded_by_themselves() -> None:
    """One reading: the fleet's kill is reset, the group's is lost, and neither touches the other."""
    memory = memory_of(Obeyed(FLEET, RECORD, 7), Obeyed(GROUP, OTHER, 7))
    memory, actions = fold(memory, {FLEET: ScopeReading(8, None), GROUP: ScopeReading(None, None)})
    assert actions == [Drop(FLEET), Restore(Obeyed(GROUP, OTHER, 7, recorded=False))]
    assert memory.obeyed[FLEET].lifted
    assert not memory.obeyed[GROUP].lifted

"""Any interleaving of kills, resets, losses, stale answers and restarts, over several pods: the promises of the latch.

A model of the store, of pods as pod/recorder.py and pod/switch.py drive core/latch.py, and of what an all-knowing
observer knows. A pod has one command in flight at most, as its one connection has; an order can come at any moment
beside it, on the other. What is lost is lost backwards: a failover goes to an older state, never to a divergent one.

Two things are accepted. A kill whose epoch a pod never learnt (it could not be written, or the pod died first) comes
back behind a reset: docs/protocol.md §4, an unknown epoch proves nothing. And an order that is heard between the
writing of an earlier one and its answer is taken for that one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from skillbus.core.latch import (
    Action,
    Drop,
    Keep,
    Memory,
    Obeyed,
    ScopeReading,
    Trip,
    fold,
    hear,
    lift,
    remember,
    settle,
    superseded,
)
from skillbus.core.orders import KillRecord
from skillbus.core.ports import Write, WriteAnswer
from skillbus.core.scope import Fleet
from tests import profiles

assert profiles

SCOPE = Fleet("prod").scope
PODS = st.integers(0, 2)
SOME = st.frozensets(PODS)


@dataclass
class Pod:
    """One pod: its process, its disk, and the one command it has in flight.

    Attributes:
        heard: the observer's note: every kill that it ever obeyed or heard, in any life.
        has_read: whether this life has had a good reading of an armed fleet.
    """

    memory: Memory = field(default_factory=Memory)
    tombstone: Obeyed | None = None
    latched: bool = False
    has_read: bool = False
    heard: set[str] = field(default_factory=set)
    reading: ScopeReading | None = None
    attempt: tuple[Obeyed, WriteAnswer] | None = None

    @property
    def may_run(self) -> bool:
        return self.has_read and not self.latched

    def take(self, change: tuple[Memory, Iterable[Action]]) -> None:
        self.memory, actions = change
        for action in actions:
            if isinstance(action, Trip):
                self.latched = True
            elif isinstance(action, Keep):
                self.tombstone = action.obeyed
            elif isinstance(action, Drop):
                self.tombstone = None
        self.heard |= {obeyed.record.id for obeyed in self.memory.obeyed.values()}


class Latches(RuleBasedStateMachine):
    """Three pods over one store."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1000
        self.epoch: int | None = 0
        self.record: KillRecord | None = None
        self.older: list[tuple[int | None, KillRecord | None]] = []
        self.pods = [Pod(), Pod(), Pod()]
        self.killed_at: dict[str, int] = {}
        self.killed_again_at: dict[str, int] = {}
        self.reset_at = 0
        self.reset_epoch = 0

    def standing(self, pod: Pod) -> set[str]:
        """The kills that this pod knows of and that no reset came after."""
        return {kill for kill in pod.heard if self.killed_at[kill] > self.reset_at}

    def change(self, epoch: int | None, record: KillRecord | None) -> None:
        self.older.append((self.epoch, self.record))
        self.epoch, self.record = epoch, record

    def tick(self) -> int:
        self.now_ms += 1
        return self.now_ms

    # -- operators ------------------------------------------------------------------------------------------------

    @rule(hearing=SOME, recorded=st.booleans())
    def kill(self, hearing: frozenset[int], recorded: bool) -> None:
        """A raw PUBLISH, or SETNX and PUBLISH; some pods hear it."""
        record = KillRecord(id=f"k{self.tick()}")
        self.killed_at[record.id] = self.now_ms
        if recorded and self.record is None:
            self.change(self.epoch, record)
        for index in hearing:
            pod = self.pods[index]
            if pod.attempt is not None and pod.attempt[0].epoch is None:
                self.get_written(index, answered=True)
            pod.heard.add(record.id)
            pod.take(hear(pod.memory, SCOPE, record))

    @rule()
    def reset(self) -> None:
        self.reset_at = self.tick()
        self.reset_epoch = max((self.epoch or 0) + 1, self.now_ms)
        self.change(self.reset_epoch, None)

    @rule()
    def arm(self) -> None:
        if self.epoch is None:
            self.change(0, self.record)

    # -- faults ---------------------------------------------------------------------------------------------------

    @rule()
    def bare_del(self) -> None:
        self.change(self.epoch, None)

    @rule()
    def lose_everything(self) -> None:
        self.older.clear()
        self.epoch = self.record = None

    @rule(steps=st.integers(1, 4))
    def fail_over(self, steps: int) -> None:
        """To a replica that lags behind."""
        for _ in range(min(steps, len(self.older))):
            self.epoch, self.record = self.older.pop()

    # -- pods -----------------------------------------------------------------------------------------------------

    @rule(index=PODS)
    def send_read(self, index: int) -> None:
        pod = self.pods[index]
        if pod.reading is None and pod.attempt is None:
            pod.reading = ScopeReading(self.epoch, self.record.to_bytes() if self.record else None)

    @rule(index=PODS)
    def get_reading(self, index: int) -> None:
        """However late."""
        pod = self.pods[index]
        if pod.reading is not None:
            reading, pod.reading = pod.reading, None
            woken = pod.memory.pending.get(SCOPE)
            if woken is not None and woken.epoch is None:
                self.killed_again_at[woken.record.id] = self.tick()
            pod.take(fold(pod.memory, {SCOPE: reading}))
            pod.has_read = pod.has_read or reading.epoch is not None

    @rule(index=PODS, out_of_memory=st.booleans())
    def send_write(self, index: int, out_of_memory: bool) -> None:
        """As the recorder does: for as long as a kill is neither recorded nor lifted."""
        pod = self.pods[index]
        obeyed = pod.memory.obeyed.get(SCOPE)
        if obeyed is None or obeyed.lifted or obeyed.recorded or pod.reading or pod.attempt:
            return
        epoch = self.epoch or 0
        if self.record is not None:
            answer = WriteAnswer(Write.ADOPTED, epoch, self.record)
        elif superseded(obeyed.epoch, self.epoch):
            answer = WriteAnswer(Write.SUPERSEDED, epoch, obeyed.record)
        elif out_of_memory:
            answer = WriteAnswer(Write.REFUSED, epoch, obeyed.record)
            self.judge_write(obeyed)
        else:
            self.change(self.epoch, obeyed.record)
            answer = WriteAnswer(Write.WRITTEN, epoch, obeyed.record)
            self.judge_write(obeyed)
        pod.attempt = (obeyed, answer)

    def judge_write(self, obeyed: Obeyed) -> None:
        """A kill that was reset comes back only from one who never learnt its epoch, or if the reset itself is lost."""
        kill = obeyed.record.id
        if obeyed.epoch is None:
            self.killed_again_at[kill] = self.tick()
        was_reset = max(self.killed_at[kill], self.killed_again_at.get(kill, 0)) < self.reset_at
        reset_is_stored = (self.epoch or 0) >= self.reset_epoch
        assert not (was_reset and reset_is_stored), "a late retry undid a reset"

    @rule(index=PODS, answered=st.booleans())
    def get_written(self, index: int, answered: bool) -> None:
        """The answer comes, or the connection broke before it."""
        pod = self.pods[index]
        if pod.attempt is None:
            return
        (obeyed, answer), pod.attempt = pod.attempt, None
        if answered and pod.memory.obeyed.get(SCOPE) == obeyed:
            self.apply(pod, answer)

    @staticmethod
    def apply(pod: Pod, answer: WriteAnswer) -> None:
        if answer.write is Write.SUPERSEDED:
            pod.take(lift(pod.memory, SCOPE))
        else:
            stored = answer.write is not Write.REFUSED
            pod.take(settle(pod.memory, SCOPE, answer.record, answer.epoch, stored=stored))

    @rule(index=PODS)
    def restart(self, index: int) -> None:
        """SIGKILL and a new start: what is left is the tombstone."""
        pod = self.pods[index]
        memory = remember([pod.tombstone] if pod.tombstone else [])
        self.pods[index] = Pod(memory, tombstone=pod.tombstone, heard=pod.heard)

    # -- promises -------------------------------------------------------------------------------------------------

    @invariant()
    def nobody_is_released(self) -> None:
        """A pod whose kill was never reset after is never released, whatever it lived through."""
        for pod in self.pods:
            assert not (pod.may_run and self.standing(pod)), f"released: {pod}"

    @invariant()
    def who_stands_remembers(self) -> None:
        """Until a reset, a kill that a pod knows of is on its disk."""
        for pod in self.pods:
            assert pod.tombstone is not None or not self.standing(pod)

    @rule()
    def come_to_rest(self) -> None:
        """Armed and undisturbed, every kill that somebody remembers ends up in the store, and everybody obeys it."""
        self.arm()
        for _ in range(3):
            for index in range(3):
                self.get_reading(index)
                self.get_written(index, answered=True)
                self.send_read(index)
                self.get_reading(index)
                self.send_write(index, out_of_memory=False)
                self.get_written(index, answered=True)
        if any(self.standing(pod) for pod in self.pods):
            assert self.record is not None, "a kill that pods remember is not in the store"
        if self.record is not None:
            assert all(pod.latched for pod in self.pods)
            assert all(pod.memory.obeyed[SCOPE].record == self.record for pod in self.pods)
        else:
            assert all(pod.tombstone is None for pod in self.pods)


TestLatches = Latches.TestCase
TestLatches.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.parametrize("seed", range(8))
def test_many_walks(seed: int) -> None:
    """The same rules at random, far more of them than Hypothesis has time for: 300 walks of 60 steps."""
    chance = random.Random(seed)
    for _ in range(300):
        model = Latches()
        steps: list[str] = []
        for _ in range(60):
            name, call = _STEPS[chance.choices(range(len(_STEPS)), _WEIGHTS)[0]]
            arguments = call(chance)
            steps.append(f"{name}({', '.join(map(repr, arguments))})")
            try:
                getattr(model, name)(*arguments)
                model.nobody_is_released()
                model.who_stands_remembers()
            except AssertionError as error:
                raise AssertionError(f"{error}\nafter:\n  " + "\n  ".join(steps)) from error


def _any_pods(chance: random.Random) -> frozenset[int]:
    return frozenset(index for index in range(3) if chance.random() < 0.4)


_STEPS: list[tuple[str, Callable[[random.Random], tuple[Any, ...]]]] = [
    ("kill", lambda chance: (_any_pods(chance), chance.random() < 0.3)),
    ("reset", lambda chance: ()),
    ("arm", lambda chance: ()),
    ("bare_del", lambda chance: ()),
    ("lose_everything", lambda chance: ()),
    ("fail_over", lambda chance: (chance.randint(1, 3),)),
    ("send_read", lambda chance: (chance.randrange(3),)),
    ("get_reading", lambda chance: (chance.randrange(3),)),
    ("send_write", lambda chance: (chance.randrange(3), chance.random() < 0.2)),
    ("get_written", lambda chance: (chance.randrange(3), chance.random() < 0.9)),
    ("restart", lambda chance: (chance.randrange(3),)),
    ("come_to_rest", lambda chance: ()),
]
_WEIGHTS = [6, 3, 2, 1, 1, 1, 10, 10, 8, 8, 4, 2]

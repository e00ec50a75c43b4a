"""Latch -> pass: check, pass, report, and a sleep that the latch cuts short. The only caller of a reconciler.

Level-triggered: a pass is begun because it is due, or because somebody asked for one, and is told neither. Every way in
leads through the same three questions: does the policy allow it, does a fresh read, does the switch.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from skillbus.clock import Clock
from skillbus.core.heartbeat import PassLine
from skillbus.core.outcome import Outcome, Pace, PassResult, outcome_of, share_of
from skillbus.core.ports import Bus, Checkpoint, Reconciler
from skillbus.core.scope import NAME
from skillbus.core.skillset import is_digest
from skillbus.core.text import harmless
from skillbus.errors import PassAborted, RateLimited, SkillbusError
from skillbus.pod.evidence import Evidence
from skillbus.pod.inventory import Inventory
from skillbus.pod.listening import Ears
from skillbus.pod.policy import check_environment
from skillbus.pod.switch import Switch

log = logging.getLogger(__name__)

pass_id: ContextVar[str] = ContextVar("skillbus_pass_id", default="-")
"""The id of the pass that the present task works for; every log line of a pass bears it."""

_ABORTED_BY_ITSELF_S = 1.0
"""Delay after a pass that was aborted while the pod may run (a change could not be settled): the loop must not spin."""

_INSTANT_S = 1e-6
"""What is left of a wait and cannot be slept: rounding."""

_COUNT_LIMIT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Ended:
    """How one pass ended."""

    outcome: Outcome
    result: PassResult


@dataclass(frozen=True, slots=True)
class _Request:
    """Somebody asked for a pass, due at ``due_at_s`` (boot-time clock) or with the next cycle, whichever is first."""

    trigger: str
    due_at_s: float


class Loop:
    """Turns of the cycle, for as long as the pod lives."""

    def __init__(
        self,
        switch: Switch,
        bus: Bus,
        evidence: Evidence,
        ears: Ears,
        clock: Clock,
        reconciler: Reconciler,
        checkpoint: Checkpoint,
        inventory: Inventory,
    ) -> None:
        self._switch = switch
        self._bus = bus
        self._evidence = evidence
        self._ears = ears
        self._clock = clock
        self._reconciler = reconciler
        self._checkpoint = checkpoint
        self._inventory = inventory
        self._changed = switch.listen()
        self._wake = switch.listen()
        self._request: _Request | None = None
        self._rests_until_s = 0.0
        self.on_pass: Callable[[Ended], None] = lambda ended: None

    def request(self, trigger: str, within_s: float = 0.0) -> None:
        """Somebody asks for a pass. If one is in flight, another follows it.

        Args:
            within_s: the pods of a fleet spread their passes over it: this one waits for its own share, which the
                trigger decides. A request that comes while one waits does not make that one wait longer.
        """
        share = share_of(self._evidence.identity.pod_id, trigger) if within_s > 0 else 0.0
        due_at_s = self._clock.now_s() + within_s * share
        if self._request is not None:
            due_at_s = min(due_at_s, self._request.due_at_s)
        self._request = _Request(trigger or "sync", due_at_s)
        self._wake.set()

    async def run(self, pace: Pace) -> None:
        """Turn until cancelled."""
        failures_count, delay_s = 0, pace.first_delay_s()
        if delay_s > 0:
            log.info("first pass due in_s=%.1f", delay_s)
        while True:
            await self._rest(self._clock.now_s() + delay_s)
            await self._until_licensed()
            if not await self._may_begin():
                delay_s = 0.0
                await self._clock.sleep(0.1)
                continue
            request, self._request = self._request, None
            ended = await self._pass(request.trigger if request else "cycle")
            outcome, rest_s = ended.outcome, ended.result.retry_after_s
            del ended  # A set of skills must not lie here until the next pass.
            failures_count = failures_count + 1 if outcome is Outcome.FAILED else 0
            delay_s, rest_s = pace.delay_s(outcome, failures_count, self._evidence.passes_count, rest_s)
            self._leave_alone(rest_s)
            if outcome is Outcome.ABORTED and self._licensed():
                delay_s = max(delay_s, _ABORTED_BY_ITSELF_S)

    async def _rest(self, due_at_s: float) -> None:
        """Wait until a pass is due: the cycle's, or one that somebody asked for.

        Neither is due while a source has to be left alone. A request does not overrule that: it would go to the whole
        fleet, and a source that counts its refusals shuts out all of it, for longer. The heartbeat says until when, so
        that who asked need not wonder.
        """
        while True:
            self._wake.clear()
            self._rehearse()
            at_s = due_at_s if self._request is None else min(due_at_s, self._request.due_at_s)
            remaining_s = max(at_s, self._rests_until_s) - self._clock.now_s()
            if remaining_s <= _INSTANT_S:
                return
            await self._clock.wait(self._wake, remaining_s)

    def _leave_alone(self, rest_s: float) -> None:
        """No pass for so long: a source asked for it."""
        self._rests_until_s = self._clock.now_s() + rest_s
        self._evidence.rests_until_s = self._rests_until_s if rest_s > 0 else None
        if rest_s > 0:
            log.info("no pass for now: a source asked to be left alone for_s=%.1f", rest_s)

    async def _until_licensed(self) -> None:
        """Wait until the pod may act and hears. A latched pod waits here for the end of its process."""
        changed = self._changed
        while True:
            changed.clear()
            self._rehearse()
            if not self._switch.latched and self._licensed():
                return
            await self._clock.wait(changed, 1.0)

    def _rehearse(self) -> None:
        """Here a drill has its turn, wherever this task is: between passes, in one, or latched. It changes nothing."""
        if self._evidence.drills.turn():
            self._switch.nudge()

    def _licensed(self) -> bool:
        try:
            self._switch.permit()
        except PassAborted:
            return False
        return self._ears.deaf_since_s is None

    async def _may_begin(self) -> bool:
        """Policy, then a fresh read: unknown means no cycle (docs/protocol.md §3.2)."""
        check_environment(self._switch)
        sent_at_s = self._clock.now_s()
        try:
            reading = await self._bus.read(self._evidence.identity.scopes)
        except SkillbusError as error:
            self._evidence.last_error = str(error)
            log.warning("no cycle: the record cannot be read error=%s", harmless(str(error)))
            return False
        self._evidence.note_server_ms(reading.server_ms, sent_at_s)
        self._switch.fold(reading)
        return self._ears.deaf_since_s is None

    # -- one pass -------------------------------------------------------------------------------------------------

    async def _pass(self, trigger: str) -> Ended:
        if not self._switch.begin():
            return Ended(Outcome.ABORTED, PassResult())
        self._evidence.is_watched = trigger != "cycle"
        if self._evidence.is_watched:
            self._switch.nudge()  # Who asked is shown that it has begun.
        name = uuid.uuid4().hex[:12]
        token = pass_id.set(name)
        began_at_s = self._clock.now_s()
        ended = Ended(Outcome.ABORTED, PassResult())
        try:
            ended = await self._supervise()
        finally:
            took_s = self._clock.now_s() - began_at_s
            self._evidence.doing, self._evidence.is_watched = "", False
            try:
                self._inventory.note(ended.result.installed, anew=trigger != "cycle")
                self._report(name, trigger, began_at_s, took_s, ended)
            finally:
                self._switch.end(vouched=self._reconciler.vouched)
                pass_id.reset(token)
        self.on_pass(ended)
        return ended

    async def _supervise(self) -> Ended:
        """Run the reconciler; cancel it once when the pod may no longer act; return when it has really ended."""
        task = asyncio.create_task(self._reconciler.reconcile(self._checkpoint))
        changed = self._changed
        told = False
        try:
            while not task.done():
                changed.clear()
                self._rehearse()
                if not told and not self._may_go_on():
                    told = True
                    task.cancel()
                waiter = asyncio.create_task(changed.wait())
                await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
        except asyncio.CancelledError:
            await until_ended(task)
            raise
        return _verdict(task)

    def _may_go_on(self) -> bool:
        try:
            self._switch.permit()
        except PassAborted as error:
            log.warning("pass aborted pass=%s why=%s", pass_id.get(), harmless(str(error), 1000))
            return False
        return True

    def _report(self, name: str, trigger: str, began_at_s: float, took_s: float, ended: Ended) -> None:
        # Whatever a reconciler says can be stored and shown: a name that is no text must not end the heartbeat.
        result = ended.result
        self._evidence.passes_count += 1
        self._evidence.outcomes[ended.outcome] += 1
        self._evidence.last_pass = PassLine(
            id=name,
            outcome=ended.outcome,
            trigger=harmless(trigger),
            began_at_ms=self._evidence.ms_at(began_at_s),
            took_s=round(took_s, 3),
            counts={harmless(word): count for word, count in result.counts.items()},
            errors=tuple(harmless(text) for text in result.errors[:5]),
            reverted=tuple(harmless(text) for text in result.reverted[:20]),
        )
        counts = " ".join(f"{word}={count}" for word, count in result.counts.items())
        log.info("pass ended pass=%s outcome=%s took_s=%.3f %s", name, ended.outcome, took_s, harmless(counts))
        for text in result.warnings:
            log.warning("pass warning pass=%s warning=%s", name, harmless(text, 2000))
        for text in result.errors:
            log.error("pass error pass=%s error=%s", name, harmless(text, 2000))
        for text in result.reverted:
            log.warning("change reverted pass=%s name=%s", name, harmless(text))


def _verdict(task: asyncio.Task[PassResult]) -> Ended:
    try:
        error = task.exception()
    except asyncio.CancelledError as cancelled:
        return Ended(Outcome.ABORTED, _partial(cancelled))
    if error is None:
        result = _checked(task.result())
        return Ended(outcome_of(result), result)
    result = _partial(error)
    if isinstance(error, PassAborted):
        return Ended(Outcome.ABORTED, result)
    said = str(error) if isinstance(error, SkillbusError) else f"{type(error).__name__}: {error}"
    if not isinstance(error, SkillbusError):
        log.error("the reconciler raised pass=%s", pass_id.get(), exc_info=error)
    if isinstance(error, RateLimited):
        result = replace(result, retry_after_s=max(result.retry_after_s, error.wait_s))
    return Ended(Outcome.FAILED, _checked(replace(result, errors=(*result.errors, said))))


def _partial(error: BaseException) -> PassResult:
    """What a pass had done before it ended this way: reconcilers that know leave it in ``error.result``."""
    result = getattr(error, "result", None)
    return _checked(result) if isinstance(result, PassResult) else PassResult()


def _checked(said: object) -> PassResult:
    """What a reconciler said, if it can be stored and shown; else the result of a failed pass, with a sentence."""
    try:
        if not isinstance(said, PassResult):
            raise TypeError(f"it is no PassResult, but {type(said).__name__}")
        if not isinstance(said.counts, Mapping):
            raise TypeError("its counts are no mapping")
        counts = dict(said.counts)
        if not all(type(word) is str and type(count) is int for word, count in counts.items()):
            raise TypeError("its counts are not whole numbers by word")
        if any(abs(count) > _COUNT_LIMIT for count in counts.values()):
            raise ValueError("a count in it is beyond all reason")
        texts = (_texts("errors", said.errors), _texts("reverted", said.reverted))
        warnings = _texts("warnings", said.warnings)
        return PassResult(counts, *texts, _set_of(said.installed), _rest_s(said.retry_after_s), warnings)
    except Exception as error:
        log.error("the reconciler's result cannot be used pass=%s error=%s", pass_id.get(), harmless(str(error)))
        return PassResult(errors=(f"the reconciler's result cannot be used: {harmless(str(error))}: mend it",))


def _set_of(given: object) -> Mapping[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError("what it says is installed is no mapping")
    if not all(isinstance(name, str) and NAME.fullmatch(name) and is_digest(given[name]) for name in given):
        raise ValueError("what it says is installed is no set of names with their digests")
    return given


def _rest_s(given: object) -> float:
    if not isinstance(given, int | float) or not math.isfinite(given) or given < 0:
        raise ValueError("its retry_after_s is no number of seconds")
    return float(given)


def _texts(name: str, given: object) -> tuple[str, ...]:
    if not isinstance(given, tuple | list) or not all(isinstance(text, str) for text in given):
        raise TypeError(f"its {name} are no tuple of texts")
    return tuple(given)


async def until_ended(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` once and wait until it has really ended, however often somebody is impatient meanwhile."""
    task.cancel()
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue

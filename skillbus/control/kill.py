"""A kill, from the order to what is proved about it (docs/protocol.md §2).

Ordering comes first and waits for nothing: who must answer is read behind it. Recorded, published, audited and
replicated are four answers, never one. Waiting is subscribe-then-read too, so that no acknowledgement is missed. What
was proved is kept in the audit, also if somebody ended the waiting before its time.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, stop_never, wait_random_exponential

from skillbus.bus.operator_bus import OperatorBus, OrderAnswers
from skillbus.clock import boottime_s, wall_ms
from skillbus.control.following import Beats, Pace
from skillbus.control.held import held_by
from skillbus.core.audit import Told, packed, told_of
from skillbus.core.certificate import Certificate, Held, Incarnation, Proof, certify, expected, is_settled
from skillbus.core.orders import KillOrder, KillRecord, iso
from skillbus.core.scope import Scope, ScopeKind
from skillbus.errors import BusUnreachable, RetryLater, SkillbusError
from skillbus.garbage import unswept

_AT_ONCE_S = 0.05
"""Seconds to wait for replicas before the proof, which must not wait for a slow one. Behind it there is time."""


class OrderUnconfirmed(RetryLater):
    """The order was sent, and no answer came: it may be stored, and published, or not."""


@dataclass(frozen=True, slots=True)
class KillReport:
    """What became of a kill.

    Attributes:
        record: the record that stands, as read back; ours as sent, if nothing could be read.
        stands: whether it was read back (docs/protocol.md, P5).
        first: whether it is ours; if not, the scope had been killed before.
        answers: the server's answer to each part of the order.
        held: what holds the record: on how many replicas, and disks.
        certificate: what is proved, as last seen; None if nobody waited, or nothing could be seen at all.
        stored: the audit's entry that keeps the certificate, or why there is none; None if there is no certificate.
        interrupted: whether somebody ended the waiting before its time.
        not_read: why the record could not be read back.
        not_seen: why the evidence could not be read, the last time that it was tried.
        order_id: of the order that was given, whichever record stands.
    """

    scope: Scope
    record: KillRecord
    stands: bool
    first: bool
    answers: OrderAnswers
    held: Held
    certificate: Certificate | None
    stored: str | SkillbusError | None = None
    interrupted: bool = False
    fleets: tuple[tuple[str, int], ...] = ()
    not_read: SkillbusError | None = None
    not_seen: SkillbusError | None = None
    order_id: str = ""


@dataclass(slots=True)
class Kill:
    """One kill by an operator.

    Attributes:
        timeout_s: seconds to try to give the order, and then again to wait for proof.
        order_timeout_s: seconds to try to give it, if that is something else.
        replicas: wait until so many replicas hold it; None: only ask how many do.
        expect: pods that somebody else's list names.
        patience_s: without ``replicas``: seconds to wait, behind the proof, for every replica and disk to hold it. A
            server that syncs its disk each second (``appendfsync everysec``) takes that long.
        until_recorded: keep trying to give it, whatever the timeout.
        on_progress: called with each newer certificate while waiting.
        on_given: called with what is known once the order was given and read back, before anybody waits for proof.
        given: whether the order was given, so that there is something to tell.
        enough: set it to end the waiting; what is proved so far is reported, and kept as not complete.
    """

    bus: OperatorBus
    scope: Scope
    order: KillOrder
    timeout_s: float = 30.0
    replicas: int | None = None
    wait: bool = True
    until_recorded: bool = False
    on_progress: Callable[[Certificate], None] = lambda certificate: None
    expect: frozenset[str] = frozenset()
    patience_s: float = 1.2
    order_timeout_s: float | None = None
    on_given: Callable[[KillReport], None] = lambda report: None
    given: bool = field(default=False, init=False)
    enough: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _beats: Beats = field(default_factory=Beats)

    async def give(self) -> KillReport:
        """Give the order, read it back, and follow it to the end. Once it is given, every error is told in the report.

        Raises:
            OrderUnconfirmed: it was sent, but no answer came: it may be stored.
            RetryLater: Redis could not be reached in time; the order is not stored.
            NeedsHuman: Redis refuses these credentials; the order is not stored.
        """
        answers, record = await self._ordered()
        self.given, ordered_at_s = True, boottime_s()
        wrote = answers.recorded is True or isinstance(answers.audited, str)
        held = await held_by(self.bus, self.replicas, _AT_ONCE_S, answers.connected) if wrote else Held()
        standing, stands, not_read, read_ms = await self._read_back(record, answers)
        first = standing.id == record.id if stands else answers.recorded is True
        given = KillReport(
            self.scope, standing, stands, first, answers, held, None, not_read=not_read, order_id=record.id
        )
        self.on_given(given)
        certificate, not_seen = None, None
        if self.wait:
            async with Pace(self.bus, ordered_at_s) as pace:
                certificate, not_seen = await self._follow(pace, standing, answers, read_ms)
        if wrote and not self.enough.is_set():
            held = await self._held_by_now(held, ordered_at_s)
        interrupted = self.enough.is_set()
        stored = None if certificate is None else await self._store(told_of(certificate, held, interrupted=interrupted))
        fleets: tuple[tuple[str, int], ...] = ()
        if certificate is not None and not certificate.lines:
            with suppress(SkillbusError):
                fleets = tuple(await self.bus.fleets())
        return replace(
            given,
            held=held,
            certificate=certificate,
            stored=stored,
            interrupted=interrupted,
            fleets=fleets,
            not_seen=not_seen,
        )

    async def _held_by_now(self, held: Held, ordered_at_s: float) -> Held:
        """Asked again, behind the proof. What was seen once does not become untrue."""
        if self.replicas is not None:
            patience_s = max(ordered_at_s + self.timeout_s - boottime_s(), _AT_ONCE_S)
        else:
            patience_s = self.patience_s if self.wait else 0.0
        if not patience_s:
            return held
        later = asyncio.create_task(held_by(self.bus, self.replicas, patience_s))
        await self._until(later)
        return held if later.cancelled() or later.result().replicas is None else later.result()

    async def _until(self, task: asyncio.Task[Any]) -> None:
        """Until it is done; once somebody has had enough, it is cancelled."""
        enough = asyncio.create_task(self.enough.wait())
        try:
            await asyncio.wait({enough, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (enough, task):
                one.cancel()
            await asyncio.gather(enough, task, return_exceptions=True)

    # -- the order ------------------------------------------------------------------------------------------------

    async def _ordered(self) -> tuple[OrderAnswers, KillRecord]:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(RetryLater),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            stop=stop_never if self.until_recorded else stop_after_delay(self._order_timeout_s),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    answers, record = await self._try()
                    if self.until_recorded and isinstance(answers.recorded, RetryLater):
                        raise answers.recorded
        except SkillbusError as error:
            if self.bus.unanswered:
                raise OrderUnconfirmed(str(error)) from error
            if not isinstance(error, BusUnreachable):
                await self._audit_refusal(error)
            raise
        if isinstance(answers.recorded, SkillbusError):
            await self._audit_refusal(answers.recorded)
        return answers, record

    @property
    def _order_timeout_s(self) -> float:
        return self.timeout_s if self.order_timeout_s is None else self.order_timeout_s

    async def _audit_refusal(self, error: SkillbusError) -> None:
        """The server did not take the record. If it takes this, whoever looks later sees that somebody tried."""
        entry = {"kind": "refused", "what": "kill", "scope": self.scope.label, "record": self.order.id}
        words = {"by": self.order.by[:1024], "via": self.order.via, "reason": self.order.reason[:1024]}
        with suppress(SkillbusError):
            await self.bus.audit({**entry, **words, "why": str(error)[:1024]})

    async def _try(self) -> tuple[OrderAnswers, KillRecord]:
        now_ms = wall_ms()
        order = self.order.model_copy(update={"id": self.order.id or uuid.uuid4().hex, "at": iso(now_ms)})
        self.order = order
        record = order.record(fallback_id=order.id, now_ms=now_ms)
        answers = await self.bus.order(self.scope, record, order.to_bytes(), self._audit(record))
        if isinstance(answers.recorded, SkillbusError) and isinstance(answers.receivers, SkillbusError):
            raise answers.recorded
        return answers, record

    def _audit(self, record: KillRecord) -> dict[str, str]:
        fields = ("by", "via", "reason", "incident")
        entry = {name: str(getattr(record, name))[:1024] for name in fields}
        return {"kind": "kill", "scope": self.scope.label, "record": record.id, **entry}

    async def _read_back(
        self, record: KillRecord, answers: OrderAnswers
    ) -> tuple[KillRecord, bool, SkillbusError | None, int]:
        """``(the record that stands, or ours; whether it was read back; why it could not be; server time, or 0)``."""
        try:
            reading = answers.read_back or await self.bus.read([self.scope])
        except SkillbusError as error:
            return record, False, error, 0
        stored = reading.scopes[self.scope].record
        standing = record if stored is None else KillRecord.parse(stored)
        return standing, stored is not None, None, reading.server_ms

    async def _store(self, told: Told) -> str | SkillbusError:
        """Keep the certificate in the audit; the entry's id, or why there is none."""
        entry = {"kind": "certificate", "scope": self.scope.label, "record": told.record.id, "order": self.order.id}
        said = {"by": self.order.by[:1024], "via": self.order.via, "sentence": told.sentence[:1024]}
        complete = {"complete": str(int(told.complete)), "interrupted": str(int(told.interrupted))}
        try:
            return await self.bus.audit({**entry, **said, **complete, "certificate": packed(told)})
        except SkillbusError as error:
            return error

    # -- the proof ------------------------------------------------------------------------------------------------

    async def _follow(
        self, pace: Pace, record: KillRecord, answers: OrderAnswers, read_ms: int
    ) -> tuple[Certificate | None, SkillbusError | None]:
        """``(the last certificate, why nothing was seen after it)``. None: nothing could be seen at all."""
        order_ms = answers.server_ms or read_ms
        deadline_s = boottime_s() + self.timeout_s
        certificate: Certificate | None = None
        not_seen: SkillbusError | None
        who: frozenset[Incarnation] | None = None
        ids: list[str] = []
        while True:
            look_at_s = boottime_s()
            try:
                with unswept():
                    if who is None:
                        roster = await self.bus.roster()
                        await self._wait(self._answers(pace, roster, record, order_ms))
                        ids = self._beats.unsettled(sorted({*roster, *self.expect}))
                        look_at_s = boottime_s()
                    now_ms = await self._beats.look(self.bus, ids)
                    order_ms = order_ms or now_ms
                    who = expected(order_ms, self._beats.known(), self.scope) if who is None else who
                    certificate = self._certified(record, answers, order_ms, who, now_ms, certificate)
                    self.on_progress(certificate)
                    ids, not_seen = _missing(certificate), None
            except RetryLater as error:
                not_seen = error
            except SkillbusError as error:
                return certificate, error
            look_s = boottime_s() - look_at_s if not_seen is None else None
            remaining_s = deadline_s - boottime_s()
            is_over = certificate is not None and not certificate.unconfirmed
            if is_over or remaining_s <= 0 or self.enough.is_set():
                return certificate, not_seen
            await self._wait(pace.again(len(ids), look_s, remaining_s))

    async def _answers(self, pace: Pace, roster: Mapping[str, int], record: KillRecord, order_ms: int) -> None:
        """Until the answers can be there. Of a whole fleet they are read as they come in, if they can be."""
        if order_ms and self.scope.kind is ScopeKind.FLEET:
            is_proved = partial(is_settled, record_id=record.id, order_ms=order_ms)
            with suppress(SkillbusError):  # The look behind it reads the same, and tells why it cannot.
                await self._beats.ahead(self.bus, roster, order_ms, pace, is_proved)
                return
        await pace.first(len(roster))

    def _certified(
        self,
        record: KillRecord,
        answers: OrderAnswers,
        order_ms: int,
        who: frozenset[Incarnation],
        now_ms: int,
        before: Certificate | None,
    ) -> Certificate:
        return certify(
            record,
            self.scope,
            order_ms,
            who,
            now_ms,
            self._beats.known(),
            writable=not isinstance(answers.recorded, SkillbusError),
            timed=bool(answers.server_ms),
            roster=self.expect,
            before=before,
        )

    async def _wait(self, rest: Coroutine[Any, Any, None]) -> None:
        """Until it is time to look, or somebody has had enough."""
        await self._until(asyncio.create_task(rest))


def _missing(certificate: Certificate) -> list[str]:
    """Whom to look at again. Who is unknown may still come; nobody waits for them."""
    return sorted({line.pod_id for line in (*certificate.unconfirmed, *certificate.of(Proof.UNKNOWN))})


async def preview(bus: OperatorBus, scope: Scope) -> tuple[KillRecord | None, frozenset[Incarnation]]:
    """What a kill of ``scope`` would find: the record that stands already, and who would have to answer."""
    reading = await bus.read([scope])
    _, beats = await bus.heartbeats(await bus.pod_ids())
    stored = reading.scopes[scope].record
    return (KillRecord.parse(stored) if stored is not None else None), expected(reading.server_ms, beats, scope)

"""A kill, from the order to what is proved about it (docs/protocol.md §2).

Ordering comes first and waits for nothing: who must answer is read behind it. Recorded, published, audited and
replicated are four answers, never one. Waiting is subscribe-then-read too, so that no acknowledgement is missed.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, stop_never, wait_random_exponential

from skillbus.bus.operator_bus import OperatorBus, OrderAnswers
from skillbus.bus.subscription import RedisSubscription
from skillbus.clock import boottime_s, wall_ms
from skillbus.core.certificate import Certificate, Incarnation, certify, expected
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.orders import KillOrder, KillRecord, iso
from skillbus.core.scope import Scope
from skillbus.errors import RetryLater, SkillbusError

_POLL_S = 0.5
"""Seconds between looks at every missing pod: what fences a silent one is time, and time sends no event."""

_REPLICATED_S = 0.5
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
        replicas: how many replicas hold it; None if nobody asked.
        certificate: what is proved, as last seen; None if nobody waited, or nothing could be seen at all.
        not_read: why the record could not be read back.
        not_seen: why the evidence could not be read, the last time that it was tried.
    """

    scope: Scope
    record: KillRecord
    stands: bool
    first: bool
    answers: OrderAnswers
    replicas: int | None
    certificate: Certificate | None
    fleets: tuple[tuple[str, int], ...] = ()
    not_read: SkillbusError | None = None
    not_seen: SkillbusError | None = None


@dataclass(slots=True)
class Kill:
    """One kill by an operator.

    Attributes:
        timeout_s: seconds to try to give the order, and then again to wait for proof.
        replicas: wait until so many replicas hold it; None: ask for none.
        until_recorded: keep trying to give it, whatever the timeout.
        on_progress: called with each newer certificate while waiting.
    """

    bus: OperatorBus
    scope: Scope
    order: KillOrder
    timeout_s: float = 30.0
    replicas: int | None = None
    wait: bool = True
    until_recorded: bool = False
    on_progress: Callable[[Certificate], None] = lambda certificate: None
    _beats: dict[Incarnation, Heartbeat] = field(default_factory=dict)

    async def give(self) -> KillReport:
        """Give the order, read it back, and follow it to the end. Once it is given, every error is told in the report.

        Raises:
            OrderUnconfirmed: it was sent, but no answer came: it may be stored.
            RetryLater: Redis could not be reached in time; the order is not stored.
            NeedsHuman: Redis refuses these credentials; the order is not stored.
        """
        answers, record = await self._ordered()
        ordered_at_s = boottime_s()
        replicas = await self._replicated(_REPLICATED_S)
        standing, stands, not_read = await self._read_back(record)
        first = standing.id == record.id if stands else answers.recorded is True
        certificate, not_seen = await self._proved(standing, answers) if self.wait else (None, None)
        fleets: tuple[tuple[str, int], ...] = ()
        if certificate is not None and not certificate.lines:
            with suppress(SkillbusError):
                fleets = tuple(await self.bus.fleets())
        if replicas is not None and replicas < (self.replicas or 0):
            late = await self._replicated(ordered_at_s + self.timeout_s - boottime_s())
            replicas = max(replicas, late or 0)
        return KillReport(
            self.scope, standing, stands, first, answers, replicas, certificate, fleets, not_read, not_seen
        )

    # -- the order ------------------------------------------------------------------------------------------------

    async def _ordered(self) -> tuple[OrderAnswers, KillRecord]:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(RetryLater),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            stop=stop_never if self.until_recorded else stop_after_delay(self.timeout_s),
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
            raise
        return answers, record

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

    async def _replicated(self, patience_s: float) -> int | None:
        """How many replicas hold it; asked again, with that much patience, while there are too few."""
        if self.replicas is None:
            return None
        count, deadline_s = 0, boottime_s() + patience_s
        with suppress(SkillbusError):
            while self.replicas > count and (remaining_s := deadline_s - boottime_s()) > 0:
                count = await self.bus.replicas(self.replicas, remaining_s)
        return count

    async def _read_back(self, record: KillRecord) -> tuple[KillRecord, bool, SkillbusError | None]:
        """``(the record that stands, or ours; whether it was read back; why it could not be read)``."""
        try:
            stored = (await self.bus.read([self.scope])).scopes[self.scope].record
        except SkillbusError as error:
            return record, False, error
        return (record, False, None) if stored is None else (KillRecord.parse(stored), True, None)

    # -- the proof ------------------------------------------------------------------------------------------------

    async def _proved(
        self, record: KillRecord, answers: OrderAnswers
    ) -> tuple[Certificate | None, SkillbusError | None]:
        subscription = await self._subscribed()
        try:
            return await self._follow(subscription, record, answers)
        finally:
            if subscription is not None:
                await subscription.close()

    async def _subscribed(self) -> RedisSubscription | None:
        with suppress(SkillbusError):
            return await self.bus.subscribe([self.bus.fleet.events_channel])
        return None

    async def _follow(
        self, subscription: RedisSubscription | None, record: KillRecord, answers: OrderAnswers
    ) -> tuple[Certificate | None, SkillbusError | None]:
        """``(the last certificate, why nothing was seen after it)``. None: nothing could be seen at all."""
        order_ms, writable = answers.server_ms, not isinstance(answers.recorded, SkillbusError)
        deadline_s = boottime_s() + self.timeout_s
        certificate: Certificate | None = None
        not_seen: SkillbusError | None
        who: frozenset[Incarnation] | None = None
        ids: list[str] = []
        while True:
            try:
                if who is None:
                    ids = await self.bus.pod_ids()
                now_ms = await self._look(ids)
                who = expected(order_ms, self._known(), self.scope) if who is None else who
                certificate = certify(record, self.scope, order_ms, who, now_ms, self._known(), writable=writable)
                self.on_progress(certificate)
                ids, not_seen = sorted({line.pod_id for line in certificate.unconfirmed}), None
            except RetryLater as error:
                not_seen = error
            except SkillbusError as error:
                return certificate, error
            remaining_s = deadline_s - boottime_s()
            if (certificate is not None and not ids) or remaining_s <= 0:
                return certificate, not_seen
            await self._event(subscription, min(_POLL_S, remaining_s))

    async def _look(self, ids: list[str]) -> int:
        """Read the evidence of ``ids``; what was seen once is remembered, for a hash expires."""
        now_ms, found = await self.bus.heartbeats(ids)
        self._beats |= {(pod_id, beat.incarnation): beat for pod_id, beats in found.items() for beat in beats}
        return now_ms

    def _known(self) -> dict[str, list[Heartbeat]]:
        known: dict[str, list[Heartbeat]] = {}
        for (pod_id, _), beat in self._beats.items():
            known.setdefault(pod_id, []).append(beat)
        return known

    @staticmethod
    async def _event(subscription: RedisSubscription | None, timeout_s: float) -> None:
        """Wait for a hint that some hash has changed. A burst of hints counts as one."""
        if subscription is None:
            await asyncio.sleep(timeout_s)
            return
        try:
            hint = await subscription.get(timeout_s)
            while hint is not None:
                hint = await subscription.get(0.005)
        except SkillbusError:
            await asyncio.sleep(timeout_s)


async def preview(bus: OperatorBus, scope: Scope) -> tuple[KillRecord | None, frozenset[Incarnation]]:
    """What a kill of ``scope`` would find: the record that stands already, and who would have to answer."""
    reading = await bus.read([scope])
    _, beats = await bus.heartbeats(await bus.pod_ids())
    stored = reading.scopes[scope].record
    return (KillRecord.parse(stored) if stored is not None else None), expected(reading.server_ms, beats, scope)

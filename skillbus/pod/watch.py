"""Message -> latch: subscribe, confirm, read, then listen; and hear one's own voice, or count as deaf.

The order is the protocol's (docs/protocol.md §3.1), at start and after every lost connection: every kill channel's
confirmation is counted, and only then is the record read, so that there is no gap in which a kill is missed. No payload
and no error ends the listener: what breaks is dropped and subscribed anew.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from skillbus.clock import Clock
from skillbus.core.latch import State
from skillbus.core.orders import DrillOrder, KillOrder
from skillbus.core.ports import Bus, Message, Subscription
from skillbus.core.scope import Scope
from skillbus.core.text import harmless
from skillbus.errors import BusUnreachable, RetryLater, SkillbusError
from skillbus.pod.evidence import Evidence
from skillbus.pod.switch import Switch

log = logging.getLogger(__name__)

_WITHIN_LIMIT_S = 3600.0
"""No sync is put off for longer, whatever its message says."""

_NAME_LENGTH = 32
"""An echo begins with its incarnation, 32 hexadecimal digits."""


class Ears:
    """Whether, and since when, a pod hears: what watch learns and heartbeat reports.

    Attributes:
        hears: the channels confirmed on the present connection.
        heard_at_s: boot-time clock, seconds: the last echo on it; None if there was none yet.
        last_heard_at_s: the last echo on any connection.
        hears_since_s: the first echo on the present connection; None while it has brought none.
        unheard_since_s: since when no connection has brought an echo; None while the present one has.
        ever_opened: whether there was a connection with every channel confirmed. Before that no pod runs (§3.1).
        echo_s: seconds within which an echo must come back.
        deaf_since_s: since when not every kill channel is confirmed, or an echo is overdue; None while hearing.
    """

    def __init__(self, clock: Clock, echo_s: float) -> None:
        self._clock = clock
        self.echo_s = echo_s
        self._spoken: bytes | None = None
        self._due_at_s: float | None = None
        self.hears: frozenset[str] = frozenset()
        self.ever_opened = False
        self.heard_at_s: float | None = None
        self.last_heard_at_s: float | None = None
        self.hears_since_s: float | None = None
        self.unheard_since_s: float | None = clock.now_s()
        self.deaf_since_s: float | None = clock.now_s()

    @property
    def armed(self) -> bool:
        """Every kill channel was confirmed on the very connection that echoes (docs/protocol.md §3.5)."""
        return self.deaf_since_s is None and self.heard_at_s is not None

    def speak(self, echo: bytes) -> None:
        """The pod is about to say ``echo``. It may come back before the answer to its sending does."""
        if self._spoken is None:
            self._spoken = echo

    def spoke(self, *, sent: bool) -> None:
        """The server took the echo, which must come back from now on; or nobody knows, and nothing is expected."""
        if not sent:
            self._spoken = self._due_at_s = None
        elif self._spoken is not None and self._due_at_s is None:
            self._due_at_s = self._clock.now_s() + self.echo_s

    def echoed(self, echo: bytes) -> bool:
        """A voice came back: whether it is ours. A twin's proves nothing about us."""
        if self._spoken is None or echo[:_NAME_LENGTH] != self._spoken[:_NAME_LENGTH]:
            return False
        self._spoken = self._due_at_s = None
        self.heard_at_s = self.last_heard_at_s = self._clock.now_s()
        if self.hears_since_s is None:
            self.hears_since_s = self.heard_at_s
        self.unheard_since_s = None
        return True

    @property
    def overdue(self) -> bool:
        """Whether an echo should have come back by now."""
        return self._due_at_s is not None and self._clock.now_s() > self._due_at_s

    def opened(self, confirmed: frozenset[str]) -> None:
        """A new connection, on which every channel is confirmed."""
        self.hears = confirmed
        self.ever_opened = True
        self.deaf_since_s = None
        self._spoken = self._due_at_s = None

    def lost(self) -> None:
        """The connection is gone."""
        self.hears = frozenset()
        self.heard_at_s = self.hears_since_s = None
        if self.unheard_since_s is None:
            self.unheard_since_s = self._clock.now_s()
        self._spoken = self._due_at_s = None
        if self.deaf_since_s is None:
            self.deaf_since_s = self._clock.now_s()


class Watch:
    """The subscriber connection of a pod, for as long as the pod lives."""

    def __init__(
        self,
        switch: Switch,
        bus: Bus,
        evidence: Evidence,
        ears: Ears,
        clock: Clock,
        on_sync: Callable[[str, float], None],
        on_hearing: Callable[[], None],
    ) -> None:
        self._switch = switch
        self._bus = bus
        self._evidence = evidence
        self._ears = ears
        self._clock = clock
        self._on_sync = on_sync
        self._on_hearing = on_hearing
        identity = evidence.identity
        self._scopes: dict[str, Scope] = {scope.kill_channel: scope for scope in identity.scopes}
        self._echo_channel = identity.fleet.echo_channel(identity.pod_id)
        self._drill_channel = identity.fleet.drill_channel
        self._sync_channel = identity.fleet.sync_channel
        self._channels = [*self._scopes, self._echo_channel, self._drill_channel, self._sync_channel]

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            subscription = await self._established()
            try:
                await self._listen(subscription)
            except SkillbusError as error:
                log.warning("subscription lost error=%s", harmless(str(error)))
            finally:
                self._ears.lost()
                await subscription.close()

    # -- subscribe, confirm, read ---------------------------------------------------------------------------------

    async def _established(self) -> Subscription:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(SkillbusError),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            sleep=self._clock.sleep,
        )
        async for attempt in retrying:
            with attempt:
                return await self._establish()
        raise AssertionError("unreachable: the retries have no end")

    async def _establish(self) -> Subscription:
        try:
            subscription = await self._bus.subscribe(self._channels)
            try:
                await self._confirm(subscription)
                sent_at_s = self._clock.now_s()
                reading = await self._bus.read(self._evidence.identity.scopes)
            except BaseException:
                await subscription.close()
                raise
        except SkillbusError as error:
            self._evidence.last_error = str(error)
            self._hold_if_deaf_for_long(error)
            raise
        self._ears.opened(subscription.confirmed)
        self._evidence.note_server_ms(reading.server_ms, sent_at_s)
        self._switch.fold(reading)
        self._switch.release("deaf")
        self._on_hearing()
        return subscription

    def _hold_if_deaf_for_long(self, error: SkillbusError) -> None:
        """A running pod may finish what it does while it reconnects, as long as it may take to notice deafness at all.

        No new cycle begins meanwhile, and its heartbeats go on reading the record.
        """
        since_s = self._ears.deaf_since_s
        brief = since_s is not None and self._clock.now_s() - since_s < self._ears.echo_s
        if not (brief and self._switch.standing.state is State.RUNNING and isinstance(error, RetryLater)):
            self._switch.hold("deaf", f"not subscribed: {error}")

    async def _confirm(self, subscription: Subscription) -> None:
        """Wait for the confirmation of every channel. A kill that comes in between is obeyed at once."""
        deadline_s = self._clock.now_s() + self._ears.echo_s
        while not subscription.confirmed.issuperset(self._channels):
            remaining_s = deadline_s - self._clock.now_s()
            if remaining_s <= 0:
                missing = sorted(set(self._channels) - subscription.confirmed)
                raise BusUnreachable(f"no confirmation of {', '.join(missing)}: is the channel granted by the ACL?")
            message = await subscription.get(remaining_s)
            if message is not None:
                self._heed(message, subscription.confirmed)

    # -- listen ---------------------------------------------------------------------------------------------------

    async def _listen(self, subscription: Subscription) -> None:
        while not self._ears.overdue:
            message = await subscription.get(self._ears.echo_s / 8)
            if message is not None:
                self._heed(message, subscription.confirmed)
        self._ears.lost()
        self._switch.hold("deaf", "deaf: this pod does not hear its own voice; subscribing again")
        raise BusUnreachable("the pod's own echo did not come back in time")

    def _heed(self, message: Message, confirmed: frozenset[str]) -> None:
        """A message came, on a connection on which these channels were confirmed."""
        scope = self._scopes.get(message.channel)
        if scope is not None:
            self._kill(scope, message.payload)
        elif message.channel == self._echo_channel:
            first = not self._ears.armed
            if self._ears.echoed(message.payload) and first:
                self._on_hearing()
        elif message.channel == self._sync_channel:
            self._sync(message.payload)
        elif message.channel == self._drill_channel:
            self._drill(message.payload, confirmed)

    def _kill(self, scope: Scope, payload: bytes) -> None:
        """Any payload is an order (docs/protocol.md §2)."""
        order = KillOrder.parse(payload)
        pod_id = self._evidence.identity.pod_id
        now_ms = self._evidence.now_ms()
        record = order.record(fallback_id=uuid.uuid4().hex, now_ms=now_ms, heard_by=pod_id)
        self._switch.hear(scope, record)
        log.warning("kill heard scope=%s record=%s", scope, harmless(record.id))

    def _sync(self, payload: bytes) -> None:
        request = _request(payload)
        if request is None:
            self._ignore("sync", payload)
            return
        self._on_sync(str(request["id"])[:64], _within_s(request.get("within_s")))

    def _drill(self, payload: bytes, confirmed: frozenset[str]) -> None:
        """Up to the gate, as a kill, and no further; the loop's turn and the heartbeat are woken by the nudge."""
        drills, heard_at_s = self._evidence.drills, self._clock.now_s()
        order = DrillOrder.parse(payload)
        if order is None or not drills.may_answer(order.id):
            self._ignore("drill", payload)
            return
        if not any(scope.label == order.scope for scope in self._scopes.values()):
            return
        rehearsal = self._switch.rehearse(self._scopes.values())
        drills.heard(order.id, heard_at_s, rehearsal, confirmed.intersection(self._scopes))
        self._switch.nudge()
        log.info("drill heard id=%s by=%s", order.id, harmless(order.by, 80))

    def _ignore(self, channel: str, payload: bytes) -> None:
        """Counted in the pod's own evidence, for a pod may not write the audit (docs/protocol.md §5)."""
        self._evidence.ignored_count += 1
        log.warning("message ignored channel=%s bytes=%d", channel, len(payload))


def _within_s(said: object) -> float:
    """Seconds over which the pods spread their passes. What is no number of seconds is 0: the sync itself is clear."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return 0.0
    return float(min(said, _WITHIN_LIMIT_S)) if said > 0 else 0.0


def _request(payload: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(payload[:4096])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("id"), str) else None

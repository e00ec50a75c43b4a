"""Message -> latch: what a pod hears, and what that means. How its connection is kept alive: pod/listening.py."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

from skillbus.clock import Clock
from skillbus.core.latch import State
from skillbus.core.orders import DrillOrder, KillOrder
from skillbus.core.ports import Bus, Message, Subscription
from skillbus.core.scope import Scope
from skillbus.core.text import harmless
from skillbus.errors import RetryLater, SkillbusError
from skillbus.pod.evidence import Evidence
from skillbus.pod.listening import Ears, Listener
from skillbus.pod.switch import Switch

log = logging.getLogger(__name__)

_WITHIN_LIMIT_S = 3600.0
"""No sync is put off for longer, whatever its message says."""


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
        await Listener(self, self._ears, self._clock).run()

    # -- what its listener asks and tells --------------------------------------------------------------------------

    @property
    def awaited(self) -> frozenset[str]:
        """Every channel of the pod."""
        return frozenset(self._channels)

    async def subscribe(self) -> Subscription:
        """Ask for every channel."""
        return await self._bus.subscribe(self._channels)

    async def catch_up(self) -> None:
        """Read every scope, and let the switch weigh it."""
        sent_at_s = self._clock.now_s()
        reading = await self._bus.read(self._evidence.identity.scopes)
        self._evidence.note_server_ms(reading.server_ms, sent_at_s)
        self._evidence.user = reading.user
        self._switch.fold(reading)

    def hearing(self) -> None:
        """Subscribed, confirmed and read: the pod is not deaf, unless it must hear itself first."""
        if not self._ears.in_doubt:
            self._switch.release("deaf")
        self._on_hearing()

    def unheard(self, error: SkillbusError) -> None:
        """A running pod may finish what it does while it reconnects, as long as it may take to notice deafness at all.

        No new cycle begins meanwhile, and its heartbeats go on reading the record.
        """
        self._evidence.last_error = str(error)
        since_s = self._ears.deaf_since_s
        brief = since_s is not None and self._clock.now_s() - since_s < self._ears.echo_s
        if not (brief and self._switch.standing.state is State.RUNNING and isinstance(error, RetryLater)):
            self._switch.hold("deaf", f"not subscribed: {error}")

    def deaf(self) -> None:
        """Its own voice did not come back."""
        self._switch.hold("deaf", "deaf: this pod does not hear its own voice; subscribing again")

    def heed(self, message: Message, confirmed: frozenset[str]) -> None:
        """A message came, on a connection on which these channels were confirmed."""
        scope = self._scopes.get(message.channel)
        if scope is not None:
            self._kill(scope, message.payload)
        elif message.channel == self._echo_channel:
            is_news = self._ears.in_doubt or not self._ears.armed
            if self._ears.echoed(message.payload) and is_news:
                self._heard_itself()
        elif message.channel == self._sync_channel:
            self._sync(message.payload)
        elif message.channel == self._drill_channel:
            self._drill(message.payload, confirmed)

    def _heard_itself(self) -> None:
        """For the first time on this connection, or after a doubt."""
        if self._ears.deaf_since_s is None:
            self._switch.release("deaf")
        self._on_hearing()

    def _kill(self, scope: Scope, payload: bytes) -> None:
        """Any payload is an order (docs/protocol.md §2)."""
        order = KillOrder.parse(payload)
        pod_id = self._evidence.identity.pod_id
        now_ms = self._evidence.now_ms()
        record = order.record(fallback_id=uuid.uuid4().hex, now_ms=now_ms, heard_by=pod_id)
        obeyed = self._switch.memory.obeyed.get(scope)
        self._switch.hear(scope, record)
        self._evidence.further.heard(obeyed, order, payload, now_ms)
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

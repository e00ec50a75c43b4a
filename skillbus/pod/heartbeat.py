"""The lease and the pod's own hash: one round trip per heartbeat reads every scope and leaves evidence (§3.3, §3.4).

It goes on while the pod is stopped: a stopped pod is alive and visible. A change of state is written at once.
"""

from __future__ import annotations

import logging
from pathlib import Path

from skillbus.clock import Clock
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import LATCHED, State
from skillbus.core.ports import Bus
from skillbus.core.text import harmless
from skillbus.errors import BusUnreachable, SkillbusError
from skillbus.pod.evidence import Evidence
from skillbus.pod.inventory import Inventory
from skillbus.pod.listening import Ears
from skillbus.pod.policy import PolicyFile
from skillbus.pod.recorder import Recorder
from skillbus.pod.switch import Switch

log = logging.getLogger(__name__)

_FORGET_AFTER_MS = 60_000
"""An incarnation silent for this long has certainly ended: ten leases of the default length."""


_WATCHED_S = 1.0
"""Seconds between beats while a pass that somebody asked for says something new. Any other pass says it with the next
regular beat: nobody looks on, and an idle fleet beats no more often for it."""


class Beating:
    """Beats every ``heartbeat_s``, and at once when something changed."""

    def __init__(
        self,
        switch: Switch,
        bus: Bus,
        evidence: Evidence,
        ears: Ears,
        recorder: Recorder,
        inventory: Inventory,
        clock: Clock,
        policy_file: Path | None,
    ) -> None:
        self._switch = switch
        self._bus = bus
        self._evidence = evidence
        self._ears = ears
        self._recorder = recorder
        self._inventory = inventory
        self._clock = clock
        self._policy_file = PolicyFile(switch, policy_file, clock) if policy_file is not None else None
        self._beats_count = 0
        self._spoke = False
        self._shown: tuple[object, ...] = ()
        self._shown_doing = ""
        self._soon = False
        self._forget_at_s = 0.0
        self._armed = False
        self._server = ""
        # Until it is known that no earlier life could not vouch: our first beat must not shorten what it left.
        self._inherits_doubt = True

    async def run(self, heartbeat_s: float) -> None:
        """Beat until cancelled."""
        changed = self._switch.listen()
        urgent = False
        while True:
            changed.clear()
            if self._policy_file is not None:
                await self._policy_file.check()
            sent_at_s = self._clock.now_s()
            await self.beat(urgent=urgent)
            urgent = False
            while (rest_s := sent_at_s + heartbeat_s - self._clock.now_s()) > 0:
                glance_s = sent_at_s + _WATCHED_S - self._clock.now_s()
                glances = self._evidence.is_watched and glance_s > 0
                woken = await self._clock.wait(changed, min(rest_s, glance_s) if glances else rest_s)
                urgent = woken and self._news()
                if urgent or (glances and not woken and self._says_something_new()):
                    break
                changed.clear()

    def soon(self) -> None:
        """Beat at the next opportunity, not at the next turn."""
        self._soon = True
        self._switch.nudge()

    def _news(self) -> bool:
        """Whether what the hash says is out of date in more than its instants."""
        return self._soon or self._essence(self._compose()) != self._shown

    def _says_something_new(self) -> bool:
        return self._evidence.is_watched and self._evidence.doing != self._shown_doing

    async def beat(self, ended_at_ms: int = 0, *, urgent: bool = False) -> bool:
        """One round trip: whether it was a good read.

        Args:
            ended_at_ms: server time at which this incarnation ended; 0: it goes on.
            urgent: it tells of a change, before its turn.
        """
        if not self._evidence.last_error and not self._switch.latched:
            await self._inventory.tell()  # A latched pod has more urgent news, and a pod without Redis would only wait.
        self._evidence.drills.leave()
        heartbeat = self._compose()
        if ended_at_ms:
            heartbeat = heartbeat.model_copy(update={"ended_at_ms": ended_at_ms})
        self._soon = False
        essence = self._essence(heartbeat)
        identity = self._evidence.identity
        echo = self._echo(urgent=urgent)
        sent_at_s = self._clock.now_s()
        hint = essence != self._shown or bool(ended_at_ms)
        try:
            lasting = self._inherits_doubt or not heartbeat.vouched
            with self._recorder.reading(self._switch.unsettled()) as heard:
                reading = await self._bus.beat(
                    identity.scopes, identity.pod_id, heartbeat, echo, hint=hint, lasting=lasting
                )
                self._switch.settle_by(heard, reading)
        except SkillbusError as error:
            self._failed(error)
            return False
        self._evidence.last_error = reading.refusal
        if not reading.refusal:
            self._evidence.drills.arrived()
        self._evidence.note_server_ms(reading.server_ms, sent_at_s)
        self._shown, self._shown_doing = essence, heartbeat.doing
        if echo:
            self._ears.spoke(sent=True)
        self._doubt(reading.server)
        self._switch.fold(reading)
        if self._ears.ever_opened and not self._ears.in_doubt:
            self._switch.renew(sent_at_s)
        await self._forget(reading.incarnations_count)
        await self._keep_told(armed=reading.armed)
        return True

    def _echo(self, *, urgent: bool) -> bytes:
        """What this heartbeat says to the pod itself; empty: nothing.

        A latched pod's urgent one is silent, for a whole fleet sends it at the same time, and who may not act need not
        prove right now that it hears. Never two in a row: a pod that has much to tell must still notice its deafness.
        """
        self._beats_count += 1
        self._spoke = not (urgent and self._switch.latched and self._spoke)
        if not self._spoke:
            return b""
        echo = f"{self._evidence.identity.incarnation}:{self._beats_count}".encode()
        self._ears.speak(echo)
        return echo

    def _doubt(self, server: str) -> None:
        """Is the server that answered the one that we listen to? If beats had failed, or it is another one, who knows.

        Until its own voice comes back, no answer renews the lease, and who holds goes on holding. Who runs may finish
        on the lease that it has, as while nothing answers; but not if another server than that of the subscription
        has answered, for orders are given there now (docs/decisions/doubt.md).
        """
        if server != self._server and self._server:
            self._ears.moved()
        self._server = server
        if not self._ears.in_doubt:
            return
        is_elsewhere = server != self._ears.server
        if is_elsewhere or self._switch.standing.state is not State.RUNNING:
            where = f"{server} answers now" if server and is_elsewhere else "Redis answers again"
            self._switch.hold("deaf", f"{where}, and this pod has not heard its own voice there yet")

    async def _keep_told(self, *, armed: bool) -> None:
        """What the heartbeat's digest stands for must be found, as far as we know; if that changed, beat again soon."""
        if self._armed and not armed:
            self._inventory.lost()
        self._armed = armed
        if await self._inventory.tell():
            self.soon()

    def _failed(self, error: SkillbusError) -> None:
        """An unreachable Redis is what the lease is for. A definite answer that forbids holds at once."""
        self._evidence.last_error = str(error)
        self._ears.spoke(sent=False)
        if not isinstance(error, BusUnreachable):
            self._switch.hold("bus", str(error))

    def _compose(self) -> Heartbeat:
        return self._evidence.heartbeat(
            self._switch,
            armed=self._ears.armed,
            heard_at_s=self._ears.heard_at_s,
            hears_since_s=self._ears.hears_since_s,
            deaf_since_s=self._ears.unheard_since_s,
            hears=self._ears.hears,
            latch_durable=self._recorder.latch_durable,
        )

    @staticmethod
    def _essence(beat: Heartbeat) -> tuple[object, ...]:
        last = beat.last_pass.id if beat.last_pass else ""
        drilled = next((one.id for one in (beat.drill, *beat.drills_before) if one is not None and one.loop_at_ms), "")
        told = (beat.latch_durable, beat.skills, drilled)
        # Whether its kill is recorded is told with the next turn: nobody waits for it, and all pods learn it at once.
        kills = tuple((cause.scope, cause.record_id, cause.lifted) for cause in beat.causes if cause.scope)
        own = tuple(cause for cause in beat.causes if not cause.scope)
        why = "" if beat.state in LATCHED else beat.why
        return beat.state, why, kills, own, beat.vouched, beat.armed, beat.hears, last, beat.quiet, *told

    async def _forget(self, incarnations_count: int) -> None:
        """Clear away the evidence of this pod's earlier lives, once they have certainly ended."""
        if incarnations_count == 1:
            self._inherits_doubt = False
        if incarnations_count <= 1 or self._clock.now_s() < self._forget_at_s:
            return
        self._forget_at_s = self._clock.now_s() + _FORGET_AFTER_MS / 1000
        identity = self._evidence.identity
        try:
            found = await self._bus.incarnations(identity.pod_id)
            others = {name: raw for name, raw in found.items() if name != identity.incarnation}
            self._inherits_doubt = any(_in_doubt(raw) for raw in others.values())
            ended = [name for name, raw in others.items() if self._is_over(raw)]
            if ended:
                await self._bus.forget(identity.pod_id, ended)
        except SkillbusError as error:
            log.info("earlier incarnations not cleared away error=%s", harmless(str(error)))

    def _is_over(self, raw: bytes) -> bool:
        beat = Heartbeat.parse(raw)
        if beat is None:
            return True
        # Who could not vouch for its work's end may have left some of it behind: that stays to be read.
        return beat.vouched and self._evidence.now_ms() - beat.beat_at_ms > _FORGET_AFTER_MS


def _in_doubt(raw: bytes) -> bool:
    beat = Heartbeat.parse(raw)
    return beat is not None and not beat.vouched


async def keep_lease(switch: Switch, evidence: Evidence, clock: Clock, lease_s: float) -> None:
    """Notice at its very instant that the lease is over. No answer is waited for: silence is the event."""
    changed = switch.listen()
    while True:
        changed.clear()
        remaining_s = switch.lease_ends_at_s - clock.now_s()
        if remaining_s > 0:
            await clock.wait(changed, remaining_s)
            continue
        said = f": {evidence.last_error}" if evidence.last_error else ""
        switch.expire(f"no good read for {lease_s:g} s{said}")
        await changed.wait()

"""A pod's life within a server's: begun in a thread, stopped by whoever may, and what can be told of it at any moment.

The pod has its own thread and loop (pod/pod.py), so a busy server does not make it deaf. Here is only what lies between
it and the server's loop: no request waits on that loop for the pod, and nothing is said that was not observed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from skillbus.clock import boottime_s, wall_ms
from skillbus.core.heartbeat import CauseLine, PassLine
from skillbus.core.latch import LATCHED, CauseKind, State
from skillbus.core.orders import KillOrder, KillRecord, iso
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError
from skillbus.jupyter.neighbour import Neighbour
from skillbus.pod.evidence import cause_lines
from skillbus.pod.pod import Pod
from skillbus.pod.policy import forced_off_by

log = logging.getLogger(__name__)

ABSENT = "absent"
"""The word for a server without a pod: nothing runs in it, and none will start."""

BEGINNING = "beginning"
"""The word while the pod is being made."""

_END_S = 5.0
"""Seconds that the server's end waits for a pod that is still being made. It would begin latched, or not at all."""


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of the server's pod at one moment.

    Attributes:
        state: a pod's state, or ``absent`` or ``beginning``.
        why: one sentence for a person; empty while running.
        since_ms: wall clock, since when it is latched; 0: it is not. To be shown, and never compared.
        quiet: no pass is in flight.
    """

    state: str
    why: str
    quiet: bool
    since_ms: int = 0
    causes: tuple[CauseLine, ...] = ()
    last_pass: PassLine | None = None

    @property
    def stopped(self) -> bool:
        """Whether nothing works here and nothing will in this server's life."""
        return self.quiet and self.state in (State.STOPPED, ABSENT)


class Bell:
    """Tells the server's loop, from any thread, that the account has changed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Whoever waits looks again."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the server's loop has closed
                loop.call_soon_threadsafe(self._turn)

    def next(self) -> asyncio.Event:
        """What the next ring sets. Take it, look, and only then wait for it."""
        self._loop = asyncio.get_running_loop()
        return self._rung

    def _turn(self) -> None:
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()


@dataclass(frozen=True, slots=True)
class Made:
    """A pod that has not begun.

    Attributes:
        roots: its skills roots.
        neighbour: who is told of a kill, too; None: nobody.
    """

    pod: Pod
    roots: tuple[Path, ...]
    neighbour: Neighbour | None = None


class HostedPod:
    """The pod of one server.

    Args:
        make: makes it, and says what is its; in a thread, for that may take a while. None: there is nothing to do here.
    """

    def __init__(self, make: Callable[[], Made | None]) -> None:
        self._make = make
        self._pod: Pod | None = None
        self._lock = threading.Lock()
        self._stopped_for = ""
        self._absent_because = ""
        self._thread = threading.Thread(target=self._begin, name="skillbus-begin", daemon=True)
        self.bell = Bell()
        self.roots: tuple[Path, ...] = ()
        self.ended = False

    @property
    def pod(self) -> Pod | None:
        """The pod; None while it is being made, or if there is none."""
        return self._pod

    def start(self) -> None:
        """Begin to make the pod, and return at once."""
        self._thread.start()

    def _begin(self) -> None:
        try:
            self._absent_because = self._try_begin()
        except SkillbusError as error:
            self._absent_because = str(error)
            log.error("no pod in this server: %s", harmless(self._absent_because, 1000))
        except Exception as error:
            self._absent_because = f"the pod could not begin: {type(error).__name__}; the server's log has more"
            log.exception("no pod in this server")
        self.bell.ring()

    def _try_begin(self) -> str:
        """Why there is no pod; nothing if there is one."""
        made = self._make()
        if made is None:
            return "no manifest is set (SKILLBUS_SKILLS_MANIFEST)"
        pod, self.roots = made.pod, made.roots
        pod.on_change(lambda standing: self._changed(pod, made.neighbour))
        pod.on_pass(lambda ended: self.bell.ring())
        if because := self._told_to_stop():
            return f"stopped before it began: {because}"
        pod.start()
        with self._lock:
            self._pod = pod
        if because := self._told_to_stop():
            pod.kill(because)
        return ""

    def _changed(self, pod: Pod, neighbour: Neighbour | None) -> None:
        """In the pod's thread."""
        self.bell.ring()
        if neighbour is not None and pod.switch.memory.obeyed:
            neighbour.stop()

    def _told_to_stop(self) -> str:
        """Why, if somebody has; a stop that comes behind this look finds the pod itself."""
        with self._lock:
            return self._stopped_for

    def stop(self, reason: str) -> bool:
        """Set the latch of this server's pod, for good. Whether the pod ran until now. Waits for nothing."""
        with self._lock:
            self._stopped_for = self._stopped_for or reason
            pod = self._pod
        if pod is None:  # nothing runs yet; and if it is just being made, it begins latched, or not at all
            return False
        was_running = pod.is_running()
        pod.kill(reason)
        return was_running

    def order(self, order: KillOrder) -> KillRecord | None:
        """Let the pod take an order for itself alone: latch, tombstone and record. None: there is no pod to order."""
        pod = self._pod
        if pod is None:
            return None
        now_ms = wall_ms()
        record = order.model_copy(update={"at": iso(now_ms)}).record(fallback_id=order.id, now_ms=now_ms)
        pod.switch.hear(pod.identity.fleet.pod(pod.identity.pod_id), record)
        return record

    def recorded(self) -> bool:
        """Whether the record of the pod's own scope is known to stand in Redis."""
        pod = self._pod
        obeyed = None if pod is None else pod.switch.memory.obeyed.get(pod.identity.fleet.pod(pod.identity.pod_id))
        return obeyed is not None and obeyed.recorded

    def reconcile_now(self) -> None:
        """Ask for a pass, through the same gate as any other."""
        if self._pod is not None:
            self._pod.reconcile_now()

    def end(self) -> None:
        """The server ends. Streams are told first. Blocking; a few seconds at most."""
        self.ended = True
        with self._lock:
            self._stopped_for = self._stopped_for or "the server is ending"
        self.bell.ring()
        if self._thread.ident is not None:
            self._thread.join(_END_S)
        if self._pod is not None:
            self._pod.stop()
        self.bell.ring()

    @property
    def forced_off_by(self) -> str:
        """The policy that stops this server's pod; empty if none does."""
        if name := forced_off_by():
            return name
        own = self._pod.switch.causes if self._pod is not None else ()
        return next((c.reason for c in own if c.kind in (CauseKind.POLICY, CauseKind.POLICY_FILE)), "")

    def account(self) -> Account:
        """Where the pod stands now."""
        pod = self._pod
        if pod is None:
            if self._thread.is_alive() or not self._thread.ident:
                return Account(BEGINNING, "the pod is being made", quiet=False)
            return Account(ABSENT, self._absent_because, quiet=True)
        standing = pod.standing
        since_s = standing.tripped_at_s
        since_ms = 0 if since_s is None else wall_ms() - round((boottime_s() - since_s) * 1000)
        causes = cause_lines(pod.switch) if standing.state in LATCHED else ()
        return Account(standing.state, standing.why, standing.quiet, since_ms, causes, pod.last_pass)

    async def until(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        """Wait, without holding up the server's loop, until something is so. Whether it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    rung = self.bell.next()
                    if is_so():
                        return True
                    await rung.wait()
        return is_so()

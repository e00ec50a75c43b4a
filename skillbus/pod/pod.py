"""A pod: one incarnation, with an event loop and a thread of its own: a host's busy loop cannot make it deaf.

One TaskGroup of watch, heartbeat, lease, recorder and loop: if one of them dies, the pod ends, and says so. Told to
end, a pod ends its pass first, and hears, beats and records until that is over; then the rest. The latch outlives the
group: a pod that ended can no more act than one that stopped.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from skillbus.clock import BootClock, Clock
from skillbus.core.heartbeat import PassLine
from skillbus.core.latch import CauseKind
from skillbus.core.outcome import Pace
from skillbus.core.ports import Bus, Reconciler
from skillbus.core.text import harmless
from skillbus.pod.checkpoint import PodCheckpoint
from skillbus.pod.evidence import Evidence
from skillbus.pod.heartbeat import Beating, keep_lease
from skillbus.pod.identity import Identity
from skillbus.pod.inventory import Inventory
from skillbus.pod.listening import Ears
from skillbus.pod.loop import Ended, Loop, until_ended
from skillbus.pod.policy import check_environment
from skillbus.pod.recorder import Recorder
from skillbus.pod.switch import Standing, Switch
from skillbus.pod.tombstone import Tombstones
from skillbus.pod.watch import Watch
from skillbus.settings import PodSettings, http_address

log = logging.getLogger(__name__)

_STOP_GRACE_S = 5.0

_THREADS_COUNT = 3
"""Threads for what blocks: a tombstone must wait neither behind a pass nor behind a policy file, and each thread that
is in use costs memory in every pod."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Tasks:
    """What runs inside the pod's loop."""

    bus: Bus
    heartbeat: Beating
    watch: Watch
    recorder: Recorder
    loop: Loop
    ears: Ears


class Pod:
    """One pod. ``start`` and ``stop`` it from anywhere, or use it as a (synchronous or asynchronous) context.

    Every method may be called from any thread. The reconciler runs on the pod's own loop.
    """

    def __init__(
        self,
        identity: Identity,
        reconciler: Reconciler,
        settings: PodSettings,
        connect: Callable[[], Bus],
        clock: Clock | None = None,
    ) -> None:
        self.identity = identity
        self._reconciler = reconciler
        self._settings = settings
        self._connect = connect
        self._clock = clock or BootClock()
        self._tombstones = Tombstones(settings.state_dir, identity.pod_id)
        self._switch: Switch | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._tasks: _Tasks | None = None
        self._evidence: Evidence | None = None
        self._ready = threading.Event()
        self._door: socket.socket | None = None
        self._failure: BaseException | None = None
        self._told_to_end = False
        self._listeners: list[Callable[[Standing], None]] = []
        self._pass_listeners: list[Callable[[Ended], None]] = []

    # -- the host's side ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the pod's thread and return once it turns. Whether it may run yet is for Redis to say.

        Raises:
            BadSettings: it cannot listen where ``http`` says.
            DiskRefused: the state folder could not hold a tombstone.
            RuntimeError: this pod was started before. A new life needs a new ``Pod``.
        """
        if self._thread is not None:
            raise RuntimeError("this pod was started before: make a new one for a new life")
        self._tombstones.prepare()
        settings = self._settings
        self._switch = Switch(
            self._clock,
            settings.lease_s,
            require_armed=settings.require_armed,
            tombstones=self._tombstones.load(self.identity.scopes),
        )
        self._evidence = Evidence(self.identity, self._clock, settings.lease_s)
        self._door = _door(settings.http)
        # A daemon: a user's function that never returns must not keep a process alive that was told to end.
        self._thread = threading.Thread(target=self._run, name=f"skillbus-{self.identity.pod_id}", daemon=True)
        self._thread.start()
        self._ready.wait()

    def stop(self, grace_s: float = _STOP_GRACE_S) -> bool:
        """End this pod's life: abort its pass, leave a last heartbeat, join its thread. Persists no kill.

        Until the pass has really ended the pod goes on to hear, to beat and to record. From the pod's own thread (a
        listener, the reconciler) this only asks for the end, for no thread can wait for itself.

        Returns:
            Whether the pod was observed quiet, and its thread has ended, within ``grace_s`` seconds.
        """
        thread, loop, main = self._thread, self._loop, self._main
        if thread is None:
            return True
        if thread.is_alive() and loop is not None and main is not None and not self._told_to_end:
            self._told_to_end = True
            with suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(main.cancel)
        if thread is threading.current_thread():
            return False
        thread.join(grace_s)
        return not thread.is_alive()

    def kill(self, reason: str) -> None:
        """Set the latch of this process, for good. Writes no record: other pods and the next start go untouched."""
        self._started().trip(CauseKind.LOCAL, reason)

    def is_running(self) -> bool:
        """Whether this pod's loop turns and its latch is not set: it works, or would if it may."""
        return self._thread is not None and self._thread.is_alive() and not self._started().latched

    @property
    def standing(self) -> Standing:
        """Where the pod stands now."""
        return self._started().standing

    @property
    def switch(self) -> Switch:
        """The pod's switch, for whoever shows or trips it."""
        return self._started()

    @property
    def last_pass(self) -> PassLine | None:
        """The last pass that ended."""
        return self._evidence.last_pass if self._evidence else None

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port of this pod's probes and metrics, while it lives; None if it has none."""
        if self._door is None or self._door.fileno() < 0:
            return None
        host, port, *_ = self._door.getsockname()
        return host, port

    @property
    def failure(self) -> BaseException | None:
        """What ended the pod against its will, if anything did."""
        return self._failure

    def reconcile_now(self) -> None:
        """Ask for a pass now, through the same gate as any other."""
        self._started()
        if self._loop is not None and self._tasks is not None:
            self._loop.call_soon_threadsafe(self._tasks.loop.request, "manual")

    def on_change(self, listener: Callable[[Standing], None]) -> None:
        """Call ``listener`` at each change of state or reason, in the pod's thread. Register before ``start``."""
        self._listeners.append(listener)

    def on_pass(self, listener: Callable[[Ended], None]) -> None:
        """Call ``listener`` when a pass has ended, in the pod's thread. Register before ``start``."""
        self._pass_listeners.append(listener)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the pod's thread has ended. Whether it has."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _started(self) -> Switch:
        if self._switch is None:
            raise RuntimeError("this pod has not been started: call start() first")
        return self._switch

    # -- the pod's own thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(self._life())
        except asyncio.CancelledError as error:
            if not self._told_to_end:
                self._broke(error)
        except BaseException as error:
            self._broke(error)
        finally:
            if self._door is not None:
                self._door.close()
            # Behind the last heartbeat, which shows how the pod stood while it lived.
            self._started().trip(CauseKind.LOCAL, "this pod has ended")
            self._ready.set()

    def _broke(self, error: BaseException) -> None:
        self._failure = error
        log.critical("the pod ended against its will: %s", harmless(_said(error), 1000), exc_info=error)
        self._started().trip(CauseKind.LOCAL, f"the pod broke: {_said(error)}")

    async def _life(self) -> None:
        self._main = asyncio.current_task()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS_COUNT, "skillbus"))
        check_environment(self._started())  # whatever Redis may say, and whether it answers at all
        self._tasks = tasks = self._build()
        settings, switch, clock = self._settings, self._started(), self._clock
        evidence = self._evidence
        assert evidence is not None  # noqa: S101 (set in start, before this thread)
        try:
            async with asyncio.TaskGroup() as group:
                start = partial(self._start, group)
                start("the teller", self._tell)
                start("the recorder", tasks.recorder.run)
                start("the watch", tasks.watch.run)
                start("the heartbeat", lambda: tasks.heartbeat.run(settings.heartbeat_s))
                start("the lease", lambda: keep_lease(switch, evidence, clock, settings.lease_s))
                if self._door is not None:
                    start("the probes", partial(self._probe, self._door, tasks.ears))
                cycles = start("the loop", lambda: tasks.loop.run(self._pace()))
                give_back_memory()  # what importing and loading settings took
                self._ready.set()
                try:
                    await asyncio.wait({cycles})
                finally:
                    # Told to end: first the pass, while everything else goes on, then (as the group is left) the rest.
                    await until_ended(cycles)
        finally:
            await asyncio.shield(self._farewell(tasks))

    async def _probe(self, door: socket.socket, ears: Ears) -> None:
        from skillbus.pod.probes import Probes

        evidence = self._evidence
        assert evidence is not None  # noqa: S101 (set in start, before this thread)
        await Probes(self._started(), evidence, ears, self._clock, lambda: self._told_to_end).run(door)

    def _start(
        self, group: asyncio.TaskGroup, name: str, run: Callable[[], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        return group.create_task(self._unending(name, run), name=name)

    async def _unending(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """One of the pod's tasks: it ends when it is told to. Any other end breaks the pod, which may act no more."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (this is a coroutine)
        try:
            try:
                await run()
            except asyncio.CancelledError as error:
                if not task.cancelling():
                    raise RuntimeError(f"{name} ended by itself") from error
                raise
            if not task.cancelling():
                raise RuntimeError(f"{name} ended by itself")
        except Exception as error:
            self._started().trip(CauseKind.LOCAL, f"the pod broke: {_said(error)}")
            raise

    def _build(self) -> _Tasks:
        switch, clock, settings = self._started(), self._clock, self._settings
        evidence = self._evidence
        assert evidence is not None  # noqa: S101 (set in start, before this thread)
        bus = self._connect()
        ears = Ears(clock, settings.echo_s)
        checkpoint = PodCheckpoint(switch, bus, self.identity.scopes, clock, evidence.note_doing)
        recorder = Recorder(switch, bus, self._tombstones, clock)
        inventory = Inventory(bus, evidence, clock)
        loop = Loop(switch, bus, evidence, ears, clock, self._reconciler, checkpoint, inventory)
        loop.on_pass = self._passed
        heartbeat = Beating(switch, bus, evidence, ears, recorder, inventory, clock, settings.policy_file)
        watch = Watch(switch, bus, evidence, ears, clock, loop.request, heartbeat.soon)
        return _Tasks(bus, heartbeat, watch, recorder, loop, ears)

    def _pace(self) -> Pace:
        settings, identity = self._settings, self.identity
        return Pace(settings.every_s, settings.spread_s or 0.0, identity.pod_id, identity.incarnation)

    async def _farewell(self, tasks: _Tasks) -> None:
        """One last heartbeat: this incarnation ended by itself, and nobody need wonder."""
        evidence = self._evidence
        assert evidence is not None  # noqa: S101 (set in start, before this thread)
        try:
            await tasks.recorder.try_once()
            if evidence.now_ms():
                await tasks.heartbeat.beat(ended_at_ms=evidence.now_ms())
                await tasks.recorder.finish()  # of a kill that only this last read showed
        finally:
            await tasks.bus.close()

    async def _tell(self) -> None:
        """Log and pass on each change of state, once: retries that change nothing are not news."""
        changed = self._started().listen()
        shown: tuple[object, ...] = ()
        while True:
            changed.clear()
            standing = self._started().standing
            if (standing.state, standing.why) != shown:
                if not shown or standing.state != shown[0]:
                    log.info("state state=%s why=%s", standing.state, harmless(standing.why, 1000) or "-")
                shown = (standing.state, standing.why)
                _tell_all(self._listeners, standing)
            await changed.wait()

    def _passed(self, ended: Ended) -> None:
        give_back_memory()
        _tell_all(self._pass_listeners, ended)


def _door(address: str) -> socket.socket | None:
    """Where the pod's probes listen, if anywhere. Who wants none does not load them."""
    if not address:
        return None
    from skillbus.pod.probes import listener

    return listener(*http_address(address))


def root_cause(error: BaseException) -> BaseException:
    """The first error inside ``error``, if that is a group: what is worth a sentence."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(error: BaseException) -> str:
    root = root_cause(error)
    return str(root) or type(root).__name__


def _tell_all(listeners: list[Callable[[T], None]], news: T) -> None:
    """A listener is the host's: its defect is logged, and ends no pod."""
    for listener in list(listeners):
        try:
            listener(news)
        except Exception:
            log.exception("a listener raised listener=%r", listener)


def give_back_memory() -> None:
    """Hand freed memory back to the system: a pod is idle for hours after a pass, in thousands of copies."""
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)

"""A pod on the test's own loop: the real pieces, joined as skillbus/pod/pod.py joins them, on a still clock.

The pod's thread is left out, and what it sends to a thread (tombstones) is done at once, so that every second is exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from skillbus.core.latch import State
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.core.scope import Fleet
from skillbus.pod.evidence import Evidence
from skillbus.pod.identity import Identity
from skillbus.pod.loop import Ended
from skillbus.pod.pod import Pod
from skillbus.pod.switch import Standing, Switch
from skillbus.settings import PodSettings
from tests.fakes.clock import FakeClock
from tests.fakes.life import T0_S, Life
from tests.fakes.memory_bus import MemoryBus, MemoryStore

PROD = Fleet("prod")
FLEET, GROUP = PROD.scope, PROD.group("eu")
Script = Callable[[Checkpoint], Awaitable[PassResult | None]]


class AtOnce(ThreadPoolExecutor):
    """An executor without threads."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


class Work:
    """A reconciler that does what the test's script says, and notes when its passes began and ended."""

    def __init__(self, clock: FakeClock, script: Script | None = None) -> None:
        self._clock = clock
        self.script = script
        self.vouched = True
        self.began_at_s: list[float] = []
        self.ended_at_s: list[float] = []

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        self.began_at_s.append(self._clock.now_s() - T0_S)
        try:
            result = await self.script(checkpoint) if self.script else None
            return result or PassResult()
        finally:
            self.ended_at_s.append(self._clock.now_s() - T0_S)

    @property
    def busy(self) -> bool:
        return len(self.began_at_s) > len(self.ended_at_s)


class Rig(Life):
    """One incarnation of a pod. ``async with`` starts it and says goodbye."""

    def __init__(
        self,
        folder: Path,
        store: MemoryStore,
        clock: FakeClock,
        script: Script | None = None,
        *,
        pod_id: str = "web-1",
        incarnation: str = "a" * 32,
        **settings: Any,
    ) -> None:
        self.store = store
        self.work = Work(clock, script)
        self.bus = MemoryBus(PROD, store)
        super().__init__(clock, self.bus)
        self.ended: list[Ended] = []
        self.stood: list[tuple[float, State]] = []
        given: dict[str, Any] = {"state_dir": folder / pod_id, "groups": ("eu",), "every_s": 60.0}
        loaded = PodSettings(**given | settings)
        self.identity = Identity(PROD, pod_id, loaded.groups, incarnation)
        self.pod = Pod(self.identity, self.work, loaded, lambda: self.bus, clock)
        self.settings = loaded

    def begin(self) -> Coroutine[Any, Any, None]:
        pod, settings = self.pod, self.settings
        pod._tombstones.prepare()
        tombstones = pod._tombstones.load(self.identity.scopes)
        pod._switch = Switch(self.clock, settings.lease_s, require_armed=settings.require_armed, tombstones=tombstones)
        pod._evidence = Evidence(self.identity, self.clock, settings.lease_s)
        pod.on_change(self._note)
        pod.on_pass(self.ended.append)
        return pod._life()

    def _note(self, standing: Standing) -> None:
        if not self.stood or self.stood[-1][1] is not standing.state:
            self.stood.append((round(self.clock.now_s() - T0_S, 6), standing.state))

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.pod.standing.state

    def stands(self, state: State) -> bool:
        """Whether it stands there now. A question, for mypy believes that a property once seen never changes."""
        return self.state is state

    @property
    def why(self) -> str:
        return self.pod.standing.why

    @property
    def switch(self) -> Switch:
        return self.pod.switch

    @property
    def evidence(self) -> Any:
        """What this incarnation last said in its hash (a Heartbeat; loosely typed, as in ``stands``)."""
        return self.store.evidence(PROD, self.identity.pod_id)[self.identity.incarnation]

    @property
    def tombstones(self) -> list[str]:
        """The names of the files in the state folder."""
        return sorted(path.name for path in (self.settings.state_dir / "tombstones").iterdir())

    def count(self, verb: str) -> int:
        """How often the bus was asked that."""
        return self.bus.calls.count(verb)


async def endless(checkpoint: Checkpoint) -> None:
    """Work that never ends by itself, and lets itself be cancelled."""
    await asyncio.Event().wait()

"""How a pod ends: its pass first, then the rest; and what may not end it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skillbus.clock import BootClock
from skillbus.core.latch import CauseKind, State
from skillbus.core.outcome import Outcome, PassResult
from skillbus.core.ports import Checkpoint
from skillbus.errors import NeedsHuman, PassAborted
from skillbus.foreground import _Runner
from skillbus.pod.identity import Identity
from skillbus.pod.listening import Listener
from skillbus.pod.pod import Pod
from skillbus.pod.watch import Watch
from skillbus.settings import PodSettings
from tests.fakes.memory_bus import MemoryBus, MemoryStore
from tests.unit.pod.rig import FLEET, PROD, Rig, endless

Make = Callable[..., Rig]


class Threaded:
    """A real pod in its own thread, on the machine's clock, over a store in memory."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore(BootClock())
        self.store.arm(PROD)
        self.began = threading.Event()
        settings = PodSettings(state_dir=folder, every_s=60.0)
        self.pod = Pod(Identity(PROD, "web-1", (), "a" * 32), self, settings, lambda: MemoryBus(PROD, self.store))

    vouched = True

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        checkpoint()
        self.began.set()
        await asyncio.Event().wait()
        return PassResult()


# -- two steps ----------------------------------------------------------------------------------------------------


def test_a_kill_while_the_pass_winds_down_is_obeyed(rig: Make, store: MemoryStore) -> None:
    """Told to end at 4.1, with a pass that takes three seconds more: it hears, records, remembers, and beats on."""

    async def stubborn(checkpoint: Checkpoint) -> None:
        try:
            await endless(checkpoint)
        finally:
            await pod.clock.sleep(3.0)

    async def main() -> None:
        async with pod:
            await pod.until(4.1)
            life = pod._life
            assert life is not None
            life.cancel()
            await pod.until(5.0)
            store.publish(FLEET.kill_channel, b"now")
            await pod.until(6.5)
            assert pod.stands(State.STOPPING)
            assert store.record(FLEET) is not None
            assert len(pod.tombstones) == 1
            assert (pod.evidence.state, pod.evidence.ended_at_ms) == (State.STOPPING, 0)
            assert pod.evidence.beat_at_ms >= store.now_ms - 2000
            assert not life.done()
            await pod.until(7.2)
            assert life.done()
            assert (pod.evidence.state, pod.evidence.quiet) == (State.STOPPED, True)
            assert pod.evidence.ended_at_ms > 0

    pod = rig(stubborn)
    asyncio.run(main())


def test_a_kill_that_only_the_last_beat_reads_is_remembered(rig: Make, store: MemoryStore) -> None:
    """Nobody was told; the farewell reads the record, and leaves a tombstone."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(4.1)
            store.kill(FLEET)
            await pod.end()
            assert len(pod.tombstones) == 1

    asyncio.run(main())


def test_a_pod_that_ended_grants_nothing_and_its_last_beat_is_true(tmp_path: Path) -> None:
    """The latch is set behind the farewell, which says how the pod stood."""
    threaded = Threaded(tmp_path)
    threaded.pod.start()
    assert threaded.began.wait(5)
    assert threaded.pod.stop()
    with pytest.raises(PassAborted, match="this pod has ended"):
        threaded.pod.switch.permit()
    (beat,) = threaded.store.evidence(PROD, "web-1").values()
    assert beat.state is State.RUNNING
    assert beat.ended_at_ms > 0
    assert threaded.pod.failure is None


def test_a_listener_may_ask_for_the_end(tmp_path: Path) -> None:
    """In the pod's own thread ``stop`` does not wait for itself."""
    threaded = Threaded(tmp_path)
    said: list[bool] = []
    threaded.pod.on_change(lambda standing: said.append(threaded.pod.stop()))
    threaded.pod.start()
    assert threaded.pod.wait(5)
    assert said[:1] == [False]
    assert threaded.pod.failure is None


def test_force_off_needs_no_redis(rig: Make, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at before Redis is asked."""
    monkeypatch.setenv("SKILLBUS_POLICY", "force-off")
    store.unreachable = True

    async def main() -> None:
        async with rig() as pod:
            assert pod.stands(State.STOPPED)
            assert [cause.kind for cause in pod.switch.causes] == [CauseKind.POLICY]

    asyncio.run(main())


# -- what a reconciler or a listener says -------------------------------------------------------------------------

BAD: list[Any] = [
    PassResult(counts={"a": 1.5}),  # type: ignore[dict-item]
    PassResult(counts={"a": True}),
    PassResult(counts={1: 1}),  # type: ignore[dict-item]
    PassResult(counts=[("a", 1)]),  # type: ignore[arg-type]
    PassResult(counts={"a": 10**5000}),
    PassResult(errors=(ValueError(),)),  # type: ignore[arg-type]
    PassResult(errors="none"),  # type: ignore[arg-type]
    PassResult(reverted=None),  # type: ignore[arg-type]
    "done",
]


@pytest.mark.parametrize("result", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("raised", [False, True])
def test_a_bad_result_is_a_failed_pass(rig: Make, result: Any, raised: bool) -> None:
    """With a sentence; the pod lives on and is quiet."""

    async def script(checkpoint: Checkpoint) -> Any:
        if raised:
            error = NeedsHuman("no")
            error.result = result  # type: ignore[attr-defined]
            raise error
        return result

    async def main() -> None:
        async with rig(script) as pod:
            await pod.until(3.0)
            assert [ended.outcome for ended in pod.ended] == [Outcome.FAILED]
            assert pod.stands(State.RUNNING)
            assert pod.pod.standing.quiet
            assert pod.evidence.last_pass.errors

    asyncio.run(main())


def test_a_listener_that_raises_ends_nothing(rig: Make) -> None:
    """Its defect is the host's; the other listeners are told all the same."""

    def broken(news: object) -> None:
        raise RuntimeError("the host's own")

    async def main() -> None:
        pod = rig()
        pod.pod.on_change(broken)
        pod.pod.on_pass(broken)
        async with pod:
            await pod.until(61.0)
            assert pod.stands(State.RUNNING)
            assert len(pod.ended) == 2
            assert pod.stood[-1][1] is State.RUNNING

    asyncio.run(main())


def test_passes_leave_no_listeners_behind(rig: Make) -> None:
    """As many after a hundred passes as after one."""

    async def main() -> None:
        async with rig(every_s=1.0) as pod:
            await pod.until(1.5)
            count = len(pod.switch._listeners)
            await pod.until(100.0)
            assert len(pod.work.began_at_s) > 90
            assert len(pod.switch._listeners) == count

    asyncio.run(main())


# -- a task that ends by itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["returns", "is cancelled"])
def test_a_task_that_ends_by_itself_breaks_the_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Not silently: it latches, says so in its last beat, and names the task."""

    async def run(watch: Watch) -> None:
        subscription = await Listener(watch, watch._ears, watch._clock)._established()
        await subscription.close()
        await asyncio.sleep(0.2)
        if how == "is cancelled":
            raise asyncio.CancelledError

    monkeypatch.setattr(Watch, "run", run)
    threaded = Threaded(tmp_path)
    threaded.pod.start()
    assert threaded.pod.wait(5)
    assert "the watch ended by itself" in threaded.pod.standing.why
    assert isinstance(threaded.pod.failure, ExceptionGroup)
    (beat,) = threaded.store.evidence(PROD, "web-1").values()
    assert beat.state is State.STOPPED


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (ExceptionGroup("two", [ExceptionGroup("one", [NeedsHuman("the root")])]), "the root"),
        (None, "the pod ended by itself"),
    ],
)
def test_the_foreground_names_the_root_cause(failure: Exception | None, sentence: str) -> None:
    """And notices a thread that ended without an error."""
    pod: Any = SimpleNamespace(
        failure=failure, wait=lambda timeout_s: True, on_pass=lambda listener: None, on_change=lambda listener: None
    )
    runner = _Runner(pod, 1.0)
    assert runner._once_code(False) == 1
    with pytest.raises((NeedsHuman, RuntimeError), match=sentence):
        runner._raise_if_broken()


# -- tombstones, evidence and logs ---------------------------------------------------------------------------------


def test_the_pending_tombstones_change_under_one_lock(rig: Make, store: MemoryStore) -> None:
    """The loop fills them while a thread empties them: a newer action is never dropped for an older one."""
    touched: list[bool] = []

    async def main() -> None:
        async with rig() as pod:
            assert pod.pod._tasks is not None
            recorder = pod.pod._tasks.recorder

            class Pending(dict[Any, Any]):
                def __setitem__(self, key: Any, value: Any) -> None:
                    touched.append(recorder._handing.locked())
                    super().__setitem__(key, value)

                def __delitem__(self, key: Any) -> None:
                    touched.append(recorder._handing.locked())
                    super().__delitem__(key)

            recorder._pending = Pending()
            store.publish(FLEET.kill_channel)
            await pod.until(1.0)
            assert len(pod.tombstones) == 1

    asyncio.run(main())
    assert touched
    assert all(touched)


def test_who_could_not_vouch_is_not_forgotten(rig: Make, store: MemoryStore) -> None:
    """What it left behind may still work: somebody has to look, so somebody has to see it."""

    async def main() -> None:
        async with rig(endless, incarnation="0" * 32) as dead:
            dead.work.vouched = False
            await dead.until(1.0)
            store.publish(PROD.pod("web-1").kill_channel)
            await dead.until(3.0)
            assert not dead.evidence.vouched
            await dead.die()
        async with rig() as pod:
            await pod.until(130.0)
            assert set(store.evidence(PROD, "web-1")) == {"0" * 32, "a" * 32}

    asyncio.run(main())


def test_a_record_id_forges_no_log_line(rig: Make, store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    """Foreign text is made harmless before it is logged."""
    caplog.set_level("DEBUG", "skillbus")

    async def main() -> None:
        async with rig() as pod:
            await pod.until(1.0)
            store.publish(FLEET.kill_channel, b'{"id": "a\\nCRITICAL forged \\u001b[2J", "reason": "b\\nforged"}')
            await pod.until(3.0)
            assert pod.stands(State.STOPPED)

    asyncio.run(main())
    assert [line for line in caplog.messages if "kill heard" in line]
    assert not [line for line in caplog.messages if "\n" in line or "\x1b" in line]

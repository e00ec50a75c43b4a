"""A user's function, sync and async: what it is given, what becomes of its end, and of its cancellation."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.errors import BadSettings, NeedsHuman, PassAborted
from skillbus.reconcilers.callback import CallbackReconciler
from tests import leftovers
from tests.unit.reconcilers.scripted import HELD_S, ScriptedCheckpoint

RESULT = PassResult(counts={"added": 2})


def one_pass(function: Callable[..., Any], checkpoint: ScriptedCheckpoint | None = None) -> PassResult:
    """One pass in a loop of its own."""
    return asyncio.run(CallbackReconciler(function).reconcile(checkpoint or ScriptedCheckpoint()))


def sync_nothing() -> None:
    """Return nothing."""


def sync_result() -> PassResult:
    """Return a result."""
    return RESULT


def sync_asking(checkpoint: Checkpoint) -> PassResult:
    """Ask, then return a result."""
    checkpoint()
    return RESULT


async def async_nothing() -> None:
    """Return nothing."""


async def async_result() -> PassResult:
    """Return a result, later."""
    await asyncio.sleep(0)
    return RESULT


async def async_asking(checkpoint: Checkpoint) -> PassResult:
    """Ask, then return a result."""
    checkpoint()
    return RESULT


class AsyncCallable:
    async def __call__(self) -> PassResult:
        return RESULT


@pytest.mark.parametrize("function", [sync_nothing, async_nothing])
def test_nothing_returned_is_a_pass_without_counts(function: Callable[..., Any]) -> None:
    """A function need not return anything."""
    assert one_pass(function) == PassResult()


@pytest.mark.parametrize(
    "function",
    [
        sync_result,
        async_result,
        sync_asking,
        async_asking,
        AsyncCallable(),
        functools.partial(async_asking),
        lambda: async_result(),
        lambda checkpoint=None: checkpoint() and RESULT,
        lambda dry_run=False: None if dry_run else RESULT,
        lambda *, quickly=True: RESULT if quickly else None,
        lambda *rest: None if rest else RESULT,
    ],
)
def test_a_result_passes_through(function: Callable[..., Any]) -> None:
    """Sync or async, with and without the checkpoint; a default of the user's own is left alone."""
    assert one_pass(function) is RESULT


@pytest.mark.parametrize("function", [7, lambda first, second: None, lambda *, key: None])
def test_what_cannot_be_called_is_told_at_once(function: Any) -> None:
    """A mistake shows when the reconciler is made, not in the first pass."""
    with pytest.raises(BadSettings, match="at most one argument"):
        CallbackReconciler(function)


@pytest.mark.parametrize("function", [lambda: 3, dict])
def test_another_result_is_an_error(function: Callable[..., Any]) -> None:
    """A count that somebody returns is no summary of a pass. (And ``dict`` does not tell what it takes: nothing.)"""
    with pytest.raises(BadSettings, match=r"returned a (int|dict): let it return None or a PassResult"):
        one_pass(function)


@pytest.mark.parametrize("error", [ValueError("x"), PassAborted("latched"), NeedsHuman("y"), GeneratorExit("z")])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_errors_pass_through_unchanged(kind: str, error: BaseException) -> None:
    """The very object that the function raised arrives."""

    def fail() -> None:
        raise error

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(type(error)) as caught:
        one_pass(fail if kind == "sync" else fail_later)
    assert caught.value is error


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_would_end_the_pods_loop_becomes_a_plain_error(kind: str, error: BaseException) -> None:
    """sys.exit in a user's function, or a cancellation that nobody asked for, must not take the pod along."""

    def fail() -> None:
        raise error

    async def fail_later() -> None:
        raise error

    with pytest.raises(NeedsHuman, match="let it return or raise"):
        one_pass(fail if kind == "sync" else fail_later)


def test_a_refusing_checkpoint_starts_nothing() -> None:
    """The gate is asked before the function is called."""
    called = []
    checkpoint = ScriptedCheckpoint()
    checkpoint.refusal = "latched"
    with pytest.raises(PassAborted, match="latched"):
        one_pass(lambda: called.append(1), checkpoint)
    assert not called


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_busy_function_leaves_the_pods_loop_free(kind: str) -> None:
    """While the function blocks its thread, the pod's loop goes on: it is the loop that ends the blocking."""
    go_on = threading.Event()

    def block() -> None:
        assert go_on.wait(HELD_S)

    async def block_async() -> None:
        assert go_on.wait(HELD_S)

    async def pod() -> None:
        reconcile = asyncio.create_task(
            CallbackReconciler(block if kind == "sync" else block_async).reconcile(ScriptedCheckpoint())
        )
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reconcile.done()
        go_on.set()
        await reconcile

    asyncio.run(pod())


def test_the_context_goes_along() -> None:
    """A pass id in a context variable, as log lines bear it, is seen by the function."""
    pass_id = contextvars.ContextVar("pass_id", default="")
    seen = []

    async def note() -> None:
        seen.append(pass_id.get())

    async def pod() -> None:
        pass_id.set("p1")
        await CallbackReconciler(lambda: seen.append(pass_id.get())).reconcile(ScriptedCheckpoint())
        await CallbackReconciler(note).reconcile(ScriptedCheckpoint())

    asyncio.run(pod())
    assert seen == ["p1", "p1"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_settle_runs_in_the_pods_loop(kind: str) -> None:
    """The pod's Redis connections belong to its own loop, so ``settle`` is carried there from any other."""
    checkpoint = ScriptedCheckpoint()

    async def change(given: Checkpoint) -> None:
        assert given.lease_ends_at_s == checkpoint.lease_ends_at_s
        await given.settle(given())

    async def pod() -> None:
        function = change if kind == "async" else lambda checkpoint: asyncio.run(change(checkpoint))
        await CallbackReconciler(function).reconcile(checkpoint)
        assert checkpoint.settled_in == [asyncio.get_running_loop()]

    asyncio.run(pod())


def test_a_change_that_may_not_stay_is_told_to_the_function() -> None:
    """What the pod's ``settle`` raises arrives where the function awaits it, and from there goes on."""
    checkpoint = ScriptedCheckpoint()
    undone = []

    async def change(given: Checkpoint) -> None:
        permit = given()
        checkpoint.refusal = "killed meanwhile"
        try:
            await given.settle(permit)
        except PassAborted:
            undone.append(1)
            raise

    with pytest.raises(PassAborted, match="killed meanwhile"):
        one_pass(change, checkpoint)
    assert undone


async def cancelled(
    function: Callable[..., Any], began: threading.Event, meanwhile: Callable[[], Awaitable[None]]
) -> None:
    """Cancel a pass when it has begun, do something, and see it end as cancelled."""
    reconcile = asyncio.create_task(CallbackReconciler(function).reconcile(ScriptedCheckpoint()))
    assert await asyncio.to_thread(began.wait, HELD_S)
    reconcile.cancel()
    await asyncio.sleep(0)
    assert not reconcile.done()
    await meanwhile()
    with pytest.raises(asyncio.CancelledError):
        await reconcile


def test_a_cancelled_async_function_is_waited_for() -> None:
    """Its task is cancelled once; a second and third cancellation of the pass leave its clean-up alone."""
    began, may_end = threading.Event(), threading.Event()
    told: list[str] = []

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            told.append("cancelled")
            await asyncio.to_thread(may_end.wait, HELD_S)
            told.append("cleaned up")

    async def pod() -> None:
        reconcile = asyncio.create_task(CallbackReconciler(work).reconcile(ScriptedCheckpoint()))
        assert await asyncio.to_thread(began.wait, HELD_S)
        for _ in range(3):
            reconcile.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
            assert not reconcile.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await reconcile
        assert told == ["cancelled", "cleaned up"]

    asyncio.run(pod())


def test_a_cancelled_sync_function_ends_at_its_next_checkpoint() -> None:
    """It cannot be interrupted; the pass is not over before it is, and the checkpoint refuses without a latch."""
    began, may_go_on = threading.Event(), threading.Event()
    told: list[str] = []

    def work(checkpoint: Checkpoint) -> None:
        checkpoint()
        began.set()
        assert may_go_on.wait(HELD_S)
        try:
            checkpoint()
        except PassAborted as error:
            told.append(str(error))
            raise

    async def meanwhile() -> None:
        assert not told
        may_go_on.set()

    asyncio.run(cancelled(work, began, meanwhile))
    assert told == ["this pass may not act: it was cancelled"]


def test_settling_after_a_cancellation_is_refused() -> None:
    """A change under way when the pass was cancelled is to be undone, even if its function caught the cancel."""
    began = threading.Event()
    told: list[str] = []

    async def work(checkpoint: Checkpoint) -> None:
        permit = checkpoint()
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            try:
                await checkpoint.settle(permit)
            except PassAborted as error:
                told.append(str(error))

    asyncio.run(cancelled(work, began, lambda: asyncio.sleep(0)))
    assert told == ["this pass may not act: it was cancelled"]


def test_an_error_during_the_stop_is_kept_as_the_cause() -> None:
    """A cancelled pass ends as cancelled, and what went wrong on the way out is not lost."""
    began, may_go_on = threading.Event(), threading.Event()
    broken = ValueError("cannot clean up")

    def work() -> None:
        began.set()
        assert may_go_on.wait(HELD_S)
        raise broken

    async def pod() -> None:
        reconcile = asyncio.create_task(CallbackReconciler(work).reconcile(ScriptedCheckpoint()))
        assert await asyncio.to_thread(began.wait, HELD_S)
        reconcile.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await reconcile
        assert caught.value.__cause__ is broken

    asyncio.run(pod())


def test_tasks_and_threads_of_an_async_function_have_ended_with_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it left behind in its own loop, tasks and executor threads, ends before the pass does."""
    # A task left behind is the point here; the check for leftovers would count it.
    monkeypatch.setattr("asyncio.runners._cancel_all_tasks", leftovers._cancel_all_tasks)
    told: list[str] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            told.append("task ended")

    lingering: list[asyncio.Task[None]] = []

    async def work() -> None:
        lingering.append(asyncio.create_task(linger()))
        await asyncio.to_thread(told.append, "executor used")

    before = set(threading.enumerate())

    async def pod() -> None:
        await CallbackReconciler(work).reconcile(ScriptedCheckpoint())
        assert set(threading.enumerate()) == before

    asyncio.run(pod())
    assert told == ["executor used", "task ended"]


def test_a_pass_leaves_no_thread_and_no_cycle_of_garbage() -> None:
    """Neither after an end nor after an error; an error's traceback and its frame do not hold each other."""
    before = set(threading.enumerate())

    class Witness:
        count = 0

        def __init__(self) -> None:
            Witness.count += 1

        def __del__(self) -> None:
            Witness.count -= 1

    def fail() -> None:
        _ = Witness()
        raise ValueError("x")

    async def pod() -> None:
        for _ in range(20):
            await CallbackReconciler(sync_nothing).reconcile(ScriptedCheckpoint())
            with pytest.raises(ValueError, match="x"):
                await CallbackReconciler(fail).reconcile(ScriptedCheckpoint())
            assert set(threading.enumerate()) == before

    gc.collect()
    gc.disable()
    try:
        asyncio.run(pod())
        assert Witness.count == 0
    finally:
        gc.enable()


def test_it_vouches() -> None:
    """The end of the pass is the end of the function's thread."""
    assert CallbackReconciler(sync_nothing).vouched

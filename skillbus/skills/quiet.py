"""Waiting for work to end even when the waiter is cancelled: what makes the end of a pass prove that it is quiet.

A thread cannot be cancelled and a swap must not be left half judged. So a cancellation that arrives meanwhile is
kept until the work is over, and only then goes on. It starts no work that was not asked for, and has no time-out.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from skillbus.errors import PassAborted

if TYPE_CHECKING:
    from skillbus.core.ports import Checkpoint

_THREADS_COUNT = 3
_T = TypeVar("_T")


class Threads:
    """Blocking work of one pass, in threads: waited for to its end, and told to hasten when the pass is cancelled.

    The threads are the pass' own: what the pod must do in one (a tombstone) never waits behind a pass' slow disk.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._cancelled = threading.Event()
        self._pool = ThreadPoolExecutor(_THREADS_COUNT, "skillbus-pass")

    async def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """Do ``work`` in a thread, awaited to its end even when the pass is cancelled."""
        return await to_the_end(self._started(work, *args), self._cancelled.set)

    async def _started(self, work: Callable[..., _T], *args: Any) -> _T:
        context = copy_context()  # the pass' id, for whatever logs there
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(context.run, work, *args))

    def close(self) -> None:
        """End the threads, none of which works any more."""
        self._pool.shutdown()

    def go_on(self) -> None:
        """Called by the work between its parts.

        Raises:
            PassAborted: the pass is over.
        """
        if self._cancelled.is_set():
            raise PassAborted("the pass was cancelled")
        self._checkpoint()


async def in_own_thread(work: Callable[[], _T], name: str) -> _T:
    """``work`` in a thread that nothing waits for at the process' end. Cancelled, the thread is left to itself.

    Not one of the loop's executor: a name server or a disk that hangs would fill that up, and what has to end would
    then wait behind it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # it is what the work gave

    def run() -> None:
        outcome: tuple[_T | None, BaseException | None]
        try:
            outcome = work(), None
        except BaseException as error:
            outcome = None, error
        with suppress(RuntimeError):  # The loop was closed meanwhile: nobody waits.
            loop.call_soon_threadsafe(settle, *outcome)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        return await done
    finally:
        if done.done() and not done.cancelled():
            thread.join()  # It has nothing more to do: a matter of microseconds.


async def to_the_end(work: Awaitable[_T], on_cancel: Callable[[], None] | None = None) -> _T:
    """Await ``work`` to its end, whatever happens to the caller.

    Args:
        on_cancel: called once if the caller is cancelled meanwhile, to hasten the work's end.

    Raises:
        asyncio.CancelledError: the caller was cancelled meanwhile. It wins over what the work raised.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            if cancelled is None and on_cancel is not None:
                on_cancel()
            cancelled = error
    if cancelled is None:
        return task.result()
    failure = None if task.cancelled() else task.exception()
    raise cancelled from failure

"""Work in a thread of its own, waited for to its real end.

A pass may block: a user's busy function, or the conversation with a guard. So it runs beside the pod's loop, which
must go on hearing. And a pass is over only when it is *observed* to be over: a cancellation is passed on, and then
waited out, however often it is repeated.

The thread is a daemon. A function that never returns must not keep the interpreter from ending (SIGTERM, Ctrl-C): the
pool behind ``asyncio.to_thread`` would, for its threads are joined at exit. While the process lives nothing is lost by
it: whoever waits here is not told of an end before there was one.

What it deliberately does not do: end a thread by force. Python cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from skillbus.errors import PassAborted

T = TypeVar("T")


class _Outcome(Generic[T]):
    """What the thread leaves behind: a value, or the error that ended it."""

    value: T
    error: BaseException | None = None


async def see_out(work: Callable[[], T], on_cancel: Callable[[], None], name: str) -> T:
    """Run ``work`` in a thread of its own and return what it returns, once the thread has ended.

    Args:
        on_cancel: called in the loop's thread at the first cancellation, to make ``work`` end soon.
        name: the thread's.

    Raises:
        asyncio.CancelledError: this task was cancelled, and the thread has ended since. Its own error, if it is not
            an answer to the cancellation, is the cause.
        BaseException: whatever ``work`` raised, unchanged.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    outcome: _Outcome[T] = _Outcome()

    def run() -> None:
        try:
            outcome.value = work()
        except BaseException as error:
            outcome.error = error
        finally:
            # The loop is closed if its host gave up waiting: then nobody is left to be told.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set_result, None)

    # The context goes along, as with asyncio.to_thread: a pass' log lines bear its id.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True)
    thread.start()
    cancelled = await _outlast(ended, on_cancel)
    thread.join()  # Its last line has been reached: this takes microseconds.
    try:
        if cancelled is not None:
            answered = isinstance(outcome.error, asyncio.CancelledError | PassAborted)
            raise cancelled from (None if answered else outcome.error)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value
    finally:
        # An error's traceback holds this frame: without this the two would hold each other.
        outcome.error = cancelled = None


async def _outlast(ended: asyncio.Future[None], on_cancel: Callable[[], None]) -> asyncio.CancelledError | None:
    """Wait until ``ended``. The first cancellation that came meanwhile; those behind it change nothing."""
    cancelled = None
    while not ended.done():
        try:
            await asyncio.wait((ended,))
        except asyncio.CancelledError as error:
            if cancelled is None:
                cancelled = error
                on_cancel()
    return cancelled

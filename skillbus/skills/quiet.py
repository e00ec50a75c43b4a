"""Waiting for work to end even when the waiter is cancelled: what makes the end of a pass prove that it is quiet.

A thread cannot be cancelled and a swap must not be left half judged. So a cancellation that arrives meanwhile is
kept until the work is over, and only then goes on. It starts no work that was not asked for, and has no time-out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def to_the_end(work: Coroutine[Any, Any, _T], on_cancel: Callable[[], None] | None = None) -> _T:
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

"""Work on a loop of its own, in a thread of its own: what reads a fleet of thousands must not keep a kill waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress

from skillbus.reconcilers.own_thread import see_out


async def on_own_loop(make: Callable[[], Coroutine[None, None, None]], name: str) -> None:
    """Run what ``make`` makes there, to its end, or until this task is cancelled; then it is cancelled and seen out."""
    loop = asyncio.new_event_loop()
    work = loop.create_task(make(), name=name)

    def end() -> None:
        with suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(work.cancel)

    def run() -> None:
        try:
            loop.run_until_complete(work)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    await see_out(run, end, name)

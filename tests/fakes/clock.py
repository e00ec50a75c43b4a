"""A clock that stands still until a test moves it: ``skillbus.clock.Clock`` for exact seconds without sleeping.

Time moves only by ``await clock.advance(seconds)``. Sleepers wake in the order of their instants (equal instants: in
the order in which they lay down), each exactly at its own instant, and after each the loop runs until every task
waits for something again. So a test that advances by 6 s sees all that happens in these 6 s, in order.

Time is kept in whole nanoseconds: three sleeps of 0.1 s end within ``advance(0.3)``, which floats would deny.

Limits, by design:

- It settles what the loop itself can settle: callbacks and tasks. It does not wait for threads, processes or sockets:
  work in ``asyncio.to_thread`` that has not come back when the loop is idle is not waited for. Await it in the test,
  then ``advance(0)``.
- Code that times itself by ``asyncio.sleep``, ``asyncio.timeout`` or ``loop.call_later`` is not moved by it; nothing in
  skillbus may do that where a test should hold the time.
- One loop and one ``advance`` at a time.
- A task that spins on ``sleep(0)`` for ever never settles: after 20,000 turns this says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math

_TURNS = 20_000
_TURNS_UNSEEN = 50


class FakeClock:
    """Implements :class:`skillbus.clock.Clock`. Its time starts at ``now_s``."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self._now_ns = _ns(now_s)
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0
        self._advancing = False

    def now_s(self) -> float:
        """The time, seconds."""
        return self._now_ns / 1e9

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` of this clock's time pass. Zero and less: one turn of the loop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await self._timer(seconds)

    async def wait(self, event: asyncio.Event, timeout_s: float) -> bool:
        """Wait until ``event`` is set, at most ``timeout_s``. Whether it is set."""
        if event.is_set() or timeout_s <= 0:
            if not event.is_set():
                await asyncio.sleep(0)
            return event.is_set()
        timer = self._timer(timeout_s)
        waiter = asyncio.create_task(event.wait(), name="FakeClock.wait")
        try:
            await asyncio.wait((timer, asyncio.ensure_future(waiter)), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waiter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiter
        return event.is_set()

    @property
    def sleeper_count(self) -> int:
        """How many sleeps and waits are under way."""
        return sum(not sleeper.done() for _, _, sleeper in self._sleepers)

    @property
    def next_in_s(self) -> float | None:
        """How long until the next sleeper wakes, seconds; None if nobody sleeps."""
        self._drop_done()
        return (self._sleepers[0][0] - self._now_ns) / 1e9 if self._sleepers else None

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, waking every sleeper at its instant. Zero: only let the loop settle.

        Raises:
            ValueError: negative, infinite or not a number.
            RuntimeError: another ``advance`` is under way, or a task never comes to rest.
        """
        await self._pass(seconds, leap=False)

    async def leap(self, seconds: float) -> None:
        """Let ``seconds`` pass at once, as a frozen process or suspended machine sees it: everybody wakes late.

        Raises:
            ValueError, RuntimeError: as ``advance``.
        """
        await self._pass(seconds, leap=True)

    async def _pass(self, seconds: float, *, leap: bool) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"time cannot move by {seconds!r} s")
        if self._advancing:
            raise RuntimeError("another advance() of this clock is under way")
        self._advancing = True
        try:
            await settle()
            target_ns = self._now_ns + _ns(seconds)
            if leap:
                self._now_ns = target_ns
            while self._wake_next(target_ns):
                await settle()
            self._now_ns = target_ns
        finally:
            self._advancing = False

    def _wake_next(self, until_ns: int) -> bool:
        """Wake one sleeper whose instant has come by ``until_ns``. Whether there was one."""
        self._drop_done()
        if not self._sleepers or self._sleepers[0][0] > until_ns:
            return False
        at_ns, _, sleeper = heapq.heappop(self._sleepers)
        self._now_ns = max(self._now_ns, at_ns)
        sleeper.set_result(None)
        return True

    def _timer(self, seconds: float) -> asyncio.Future[None]:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if math.isfinite(seconds):
            # A sleep of less than a nanosecond still ends after now, or two of them could hold time for ever.
            at_ns = self._now_ns + max(1, _ns(seconds))
            self._count += 1
            heapq.heappush(self._sleepers, (at_ns, self._count, sleeper))
        return sleeper

    def _drop_done(self) -> None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)


async def settle() -> None:
    """Let the running loop turn until no callback is ready: every other task waits for something.

    Raises:
        RuntimeError: after 20,000 turns some task is still ready.
    """
    loop = asyncio.get_running_loop()
    # Private, but the only place where asyncio says that it is idle; a loop that hides it gets a fixed number of turns.
    ready = getattr(loop, "_ready", None)
    if ready is None:
        for _ in range(_TURNS_UNSEEN):
            await asyncio.sleep(0)
        return
    for _ in range(_TURNS):
        await asyncio.sleep(0)
        if not ready:
            return
    raise RuntimeError("the loop never settles: some task spins on sleep(0)")


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)

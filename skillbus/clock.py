"""The only reader of time. Tests pass a fake.

Every lease, deadline and age is measured on the boot-time clock, which goes on while a machine is suspended
(CLOCK_MONOTONIC does not, and the wall clock can be set). The wall clock is only ever shown.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the skills' child reads the clock, too, and has no loop: importing one would double its start
    import asyncio

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime_s() -> float:
    """Seconds since boot, suspension included. Comparable between the processes of one machine."""
    return time.clock_gettime(_CLOCK)


def cpu_s() -> float:
    """Seconds of processor time that this thread has used."""
    return time.thread_time()


def wall_ms() -> int:
    """This machine's wall clock, milliseconds since 1970: to be shown beside an order, and never compared."""
    return time.time_ns() // 1_000_000


class Clock(Protocol):
    """What the pod needs of time."""

    def now_s(self) -> float:
        """The boot-time clock, seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        ...

    async def wait(self, event: asyncio.Event, timeout_s: float) -> bool:
        """Wait until ``event`` is set, at most ``timeout_s``. Whether it is set."""
        ...


class BootClock:
    """The machine's own clock."""

    def now_s(self) -> float:
        """The boot-time clock, seconds."""
        return boottime_s()

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        import asyncio

        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, timeout_s: float) -> bool:
        """Wait until ``event`` is set, at most ``timeout_s``. Whether it is set."""
        import asyncio

        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True

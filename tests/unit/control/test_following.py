"""When an operator looks again: upon a hint while few are missing, one look after the other while many are."""

from __future__ import annotations

import asyncio

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import boottime_s
from skillbus.control.following import Pace
from tests.unit.control.operators import PROD, Redis

MANY = 101


def watchers(redis: Redis) -> int:
    """Who listens for hints."""
    (_, count), *_ = redis.hand.pubsub_numsub(PROD.events_channel)
    return int(count)


def test_many_missing_pods_are_not_listened_to() -> None:
    """Each would hint: hearing that costs more than looking. The rest is as long as the last look."""
    redis = Redis()

    async def test(bus: OperatorBus) -> None:
        async with Pace(bus) as pace:
            began_s = boottime_s()
            await pace.again(MANY, 0.05, 30.0)
            assert boottime_s() - began_s >= 0.05
            assert watchers(redis) == 0

    redis.run(test)


def test_few_missing_pods_are_listened_to_and_then_read() -> None:
    """First it subscribes and returns at once, so that what was said before is read; then a hint wakes it."""
    redis = Redis()

    async def test(bus: OperatorBus) -> None:
        async with Pace(bus) as pace:
            await pace.again(MANY - 1, 0.05, 30.0)
            assert watchers(redis) == 1
            waiting = asyncio.create_task(pace.again(1, 0.05, 30.0))
            await asyncio.sleep(0)
            assert not waiting.done()
            redis.hand.publish(PROD.events_channel, "web-1")
            await asyncio.wait_for(waiting, 10.0)

    redis.run(test)


def test_who_cannot_see_does_not_hurry() -> None:
    """A look that failed at once is not repeated at once, and hints are asked for when they are of use."""
    redis = Redis()

    async def test(bus: OperatorBus) -> None:
        async with Pace(bus) as pace:
            for missing_count in (1, MANY):
                began_s = boottime_s()
                await pace.again(missing_count, None, 0.2)
                assert boottime_s() - began_s >= 0.2
            assert watchers(redis) == 0

    redis.run(test)

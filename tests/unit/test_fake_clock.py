"""The fake clock is what every exact second in these tests rests on."""

from __future__ import annotations

import asyncio

import pytest

from skillbus.clock import Clock
from tests.fakes.clock import FakeClock, settle


def test_it_is_a_clock() -> None:
    """FakeClock satisfies the Protocol that the pod takes."""
    clock: Clock = FakeClock(5.0)
    assert clock.now_s() == 5.0


def test_time_stands_still_until_it_is_advanced() -> None:
    """However often the loop turns, a sleeper sleeps on until the test moves time."""

    async def main() -> None:
        clock = FakeClock()
        task = asyncio.create_task(clock.sleep(0.001))
        await settle()
        assert not task.done()
        assert clock.now_s() == 1000.0
        await clock.advance(0.001)
        assert task.done()

    asyncio.run(main())


def test_sleepers_wake_in_order_each_at_its_own_instant() -> None:
    """One advance over several instants lets each sleeper see exactly its own."""

    async def main() -> None:
        clock = FakeClock(0.0)
        seen: list[tuple[str, float]] = []

        async def sleeper(name: str, *naps: float) -> None:
            for nap in naps:
                await clock.sleep(nap)
                seen.append((name, clock.now_s()))

        tasks = [asyncio.create_task(sleeper("late", 5)), asyncio.create_task(sleeper("thrice", 2, 2, 2))]
        await clock.advance(4)
        assert seen == [("thrice", 2.0), ("thrice", 4.0)]
        assert clock.now_s() == 4.0
        await clock.advance(6)
        assert seen[2:] == [("late", 5.0), ("thrice", 6.0)]
        assert clock.now_s() == 10.0
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_sleepers_of_one_instant_wake_in_the_order_in_which_they_lay_down() -> None:
    """Ties are broken by registration, and what the first does at once is done before the second wakes."""

    async def main() -> None:
        clock = FakeClock()
        seen: list[str] = []

        async def sleeper(name: str) -> None:
            await clock.sleep(1)
            seen.append(f"{name} woke")
            for _ in range(5):
                await asyncio.sleep(0)
            seen.append(f"{name} done")

        tasks = [asyncio.create_task(sleeper(name)) for name in "ab"]
        await clock.advance(1)
        assert seen == ["a woke", "a done", "b woke", "b done"]
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_tenths_add_up() -> None:
    """Three sleeps of 0.1 s end within an advance of 0.3 s, which floats would deny."""

    async def main() -> None:
        clock = FakeClock(0.0)

        async def thrice() -> float:
            for _ in range(3):
                await clock.sleep(0.1)
            return clock.now_s()

        task = asyncio.create_task(thrice())
        await clock.advance(0.3)
        assert await task == 0.3

    asyncio.run(main())


def test_a_wait_ends_when_its_event_is_set() -> None:
    """wait returns True at the instant of the event and leaves no sleeper behind."""

    async def main() -> None:
        clock, event = FakeClock(), asyncio.Event()
        task = asyncio.create_task(clock.wait(event, 10))
        await clock.advance(3)
        assert not task.done()
        event.set()
        await clock.advance(0)
        assert task.result() is True
        assert (clock.sleeper_count, clock.next_in_s) == (0, None)

    asyncio.run(main())


def test_a_wait_ends_when_its_time_is_over() -> None:
    """wait returns False exactly at its timeout and leaves no task behind."""

    async def main() -> None:
        clock, event = FakeClock(), asyncio.Event()
        task = asyncio.create_task(clock.wait(event, 10))
        await clock.advance(9.999)
        assert not task.done()
        await clock.advance(0.001)
        assert task.result() is False
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_a_wait_without_time_says_how_things_stand(timeout_s: float) -> None:
    """With no time to wait, wait answers at once, as the machine's clock does."""

    async def main() -> None:
        clock, event = FakeClock(), asyncio.Event()
        assert await clock.wait(event, timeout_s) is False
        event.set()
        assert await clock.wait(event, timeout_s) is True

    asyncio.run(main())


def test_an_endless_wait_waits_for_its_event_alone() -> None:
    """An infinite timeout never comes."""

    async def main() -> None:
        clock, event = FakeClock(), asyncio.Event()
        task = asyncio.create_task(clock.wait(event, float("inf")))
        await clock.advance(1e6)
        assert not task.done()
        event.set()
        assert await task is True

    asyncio.run(main())


def test_a_cancelled_sleep_or_wait_is_forgotten() -> None:
    """Cancelling reaches the sleeper, and time passes it by."""

    async def main() -> None:
        clock = FakeClock()
        tasks = [asyncio.create_task(clock.sleep(5)), asyncio.create_task(clock.wait(asyncio.Event(), 5))]
        await settle()
        assert (clock.sleeper_count, clock.next_in_s) == (2, 5.0)
        for task in tasks:
            task.cancel()
        await clock.advance(10)
        assert all(task.cancelled() for task in tasks)
        assert clock.sleeper_count == 0

    asyncio.run(main())


def test_what_a_woken_task_starts_is_part_of_the_same_advance() -> None:
    """A task started by a sleeper sleeps from that sleeper's instant, not from the end of the advance."""

    async def main() -> None:
        clock = FakeClock(0.0)
        seen: list[float] = []

        async def child() -> None:
            await clock.sleep(1)
            seen.append(clock.now_s())

        async def parent() -> None:
            await clock.sleep(1)
            await asyncio.create_task(child())

        task = asyncio.create_task(parent())
        await clock.advance(10)
        assert seen == [2.0]
        await task

    asyncio.run(main())


def test_a_leap_wakes_everybody_late() -> None:
    """A frozen process sees time jump: all overdue sleepers wake in order, and all see the later time."""

    async def main() -> None:
        clock = FakeClock(0.0)
        seen: list[tuple[float, float]] = []

        async def sleeper(nap: float) -> None:
            await clock.sleep(nap)
            seen.append((nap, clock.now_s()))

        tasks = [asyncio.create_task(sleeper(nap)) for nap in (2, 1)]
        await clock.leap(60)
        assert seen == [(1, 60.0), (2, 60.0)]
        await asyncio.gather(*tasks)

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_time_moves_forward_and_by_a_number(seconds: float) -> None:
    """What cannot be a step in time is refused."""
    with pytest.raises(ValueError, match="time cannot move by"):
        asyncio.run(FakeClock().advance(seconds))


def test_one_advance_at_a_time() -> None:
    """A task that moves the time while the test does is a mistake in the test."""

    async def main() -> None:
        clock = FakeClock()

        async def meddler() -> None:
            await clock.sleep(1)
            await clock.advance(1)

        task = asyncio.create_task(meddler())
        await clock.advance(1)
        with pytest.raises(RuntimeError, match="under way"):
            await task

    asyncio.run(main())


def test_a_spinning_task_is_named_and_does_not_hang_the_test() -> None:
    """A loop that never comes to rest ends the advance with a sentence."""

    async def main() -> None:
        clock = FakeClock()

        async def spin() -> None:
            while True:
                await clock.sleep(0)

        task = asyncio.create_task(spin())
        with pytest.raises(RuntimeError, match="never settles"):
            await clock.advance(1)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())

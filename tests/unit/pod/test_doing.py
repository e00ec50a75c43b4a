"""What a pass is at, on its way into the heartbeat: no beat more for it unless somebody asked for that pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from skillbus.core.heartbeat import DOING_LIMIT
from skillbus.core.ports import Checkpoint
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import PROD, Rig

Make = Callable[..., Rig]


def telling(pod: Callable[[], Rig], seconds_count: int, step_s: float = 0.1) -> Callable[[Checkpoint], object]:
    """A pass that says something new ten times a second."""

    async def script(checkpoint: Checkpoint) -> None:
        for number in range(round(seconds_count / step_s)):
            checkpoint.tell(f"fetches skill {number}")
            await pod().clock.sleep(step_s)

    return script


def told(pod: Rig) -> int:
    """Which skill its heartbeat says that it fetches."""
    return int(pod.evidence.doing.removeprefix("fetches skill "))


def test_a_cycle_tells_with_its_regular_beats_alone(rig: Make) -> None:
    """Every 2 s, as when it says nothing; and nothing is left of it when the pass has ended."""

    async def main() -> None:
        async with pod:
            beats_count = pod.count("beat")
            await pod.until(5.05)
            assert pod.count("beat") == beats_count + 2
            assert told(pod) == pytest.approx(40, abs=1)
            await pod.until(10.5)
            assert (pod.evidence.doing, len(pod.ended)) == ("", 1)

    pod = rig(None)
    pod.work.script = telling(lambda: pod, 10)  # type: ignore[assignment]
    asyncio.run(main())


def test_a_pass_that_was_asked_for_tells_once_a_second(rig: Make, store: MemoryStore) -> None:
    """And at its beginning; a pass that says nothing new costs no beat, and one between passes is as before."""

    async def main() -> None:
        async with pod:
            await pod.until(20.0)
            pod.work.script = telling(lambda: pod, 4)  # type: ignore[assignment]
            beats_count = pod.count("beat")
            store.publish(PROD.sync_channel, b'{"v": 1, "id": "s1"}')
            for second in range(1, 4):
                await pod.until(20.05 + second)
                assert told(pod) == pytest.approx(10 * second, abs=1)
                assert not pod.evidence.quiet
            assert pod.count("beat") == beats_count + 1 + 3
            await pod.until(30.0)
            assert (pod.evidence.doing, pod.evidence.quiet) == ("", True)
            pod.work.script = silent
            beats_count = pod.count("beat")
            store.publish(PROD.sync_channel, b'{"v": 1, "id": "s2"}')
            await pod.until(34.05)
            assert pod.count("beat") == beats_count + 1 + 2

    async def silent(checkpoint: Checkpoint) -> None:
        await pod.clock.sleep(30.0)

    pod = rig(None)
    asyncio.run(main())


def test_what_it_says_is_made_harmless(rig: Make) -> None:
    """No control characters, one short line, whoever says it."""

    async def script(checkpoint: Checkpoint) -> None:
        checkpoint.tell("fetches \x1b[2J\u202e" + "x" * 10_000)
        await pod.clock.sleep(10.0)

    async def main() -> None:
        async with pod:
            await pod.until(3.0)
            assert len(pod.evidence.doing) == DOING_LIMIT
            assert pod.evidence.doing.isprintable()

    pod = rig(script)
    asyncio.run(main())

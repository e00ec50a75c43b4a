"""Evidence of who could not vouch stays: a pod that falls silent is not forgotten before somebody has looked (P7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from skillbus.bus.redis_bus import HASH_TTL_S, LASTING_TTL_S
from skillbus.core.ports import Checkpoint
from skillbus.core.roster import view
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import PROD, Rig

Make = Callable[..., Rig]
DAY_S = 86400.0


def word(store: MemoryStore, pod_id: str = "web-1") -> str:
    """What ``skillbus status`` says of the pod now."""
    (seen,) = view(store.now_ms, {pod_id: list(store.evidence(PROD, pod_id).values())})
    return seen.word


async def unvouching(pod: Rig) -> None:
    """A pass, after which the reconciler cannot vouch any more."""

    async def script(checkpoint: Checkpoint) -> None:
        pod.work.vouched = False

    pod.work.script = script


def test_who_cannot_vouch_stays_unconfirmed(rig: Make, store: MemoryStore) -> None:
    """Its hash outlives the minute by days; then it is gone like any other."""

    async def main() -> None:
        async with rig() as pod:
            await unvouching(pod)
            await pod.until(70.0)
            assert not pod.evidence.vouched
            await pod.die()
            await pod.until(70.0 + 3600.0)
            assert word(store) == "unconfirmed"
            await pod.until(70.0 + 6.9 * DAY_S)
            assert word(store) == "unconfirmed"
            await pod.until(71.0 + 7 * DAY_S)
            assert word(store) == "lost"

    asyncio.run(main())


def test_who_can_vouch_is_gone_after_a_minute(rig: Make, store: MemoryStore) -> None:
    """As before: fenced, and then lost."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(20.0)
            await pod.die()
            await pod.until(20.0 + HASH_TTL_S - 5.0)
            assert word(store) == "fenced"
            await pod.until(21.0 + HASH_TTL_S)
            assert word(store) == "lost"

    asyncio.run(main())


def test_a_restart_forgets_no_doubt(rig: Make, store: MemoryStore) -> None:
    """A later life that can vouch keeps the hash for the earlier one, from its first beat to its own end."""

    async def main() -> None:
        async with rig() as pod:
            await unvouching(pod)
            await pod.until(70.0)
            await pod.die()
        async with rig(incarnation="b" * 32) as again:
            await again.until(100.0)
            assert again.evidence.vouched
            ttl_s = store.ttl_s(PROD.pod_key("web-1"))
            assert ttl_s is not None
            assert ttl_s > LASTING_TTL_S - 10
            await again.die()
            await again.until(100.0 + 3600.0)
            assert word(store) == "unconfirmed"

    asyncio.run(main())


def test_no_beat_shortens_what_an_earlier_life_left(rig: Make, store: MemoryStore) -> None:
    """Not even the first one, which does not know yet who was there."""

    async def main() -> None:
        async with rig() as pod:
            await unvouching(pod)
            await pod.until(70.0)
            await pod.die()
        async with rig(incarnation="b" * 32) as again:
            lasting: list[float] = []
            store.expire = lambda key, seconds: lasting.append(seconds)  # type: ignore[method-assign]
            await again.until(200.0)
            assert set(lasting) == {LASTING_TTL_S}

    asyncio.run(main())


def test_without_a_doubt_the_hash_is_short_lived_from_the_second_beat_on(rig: Make, store: MemoryStore) -> None:
    """The first one cannot know; a clean restart does not make it last either."""

    async def main() -> None:
        async with rig() as pod:
            await pod.until(3.0)
            assert store.ttl_s(PROD.pod_key("web-1")) == HASH_TTL_S - 1
        async with rig(incarnation="b" * 32) as again:
            await again.until(8.5)
            ttl_s = store.ttl_s(PROD.pod_key("web-1"))
            assert ttl_s is not None
            assert ttl_s <= HASH_TTL_S

    asyncio.run(main())

"""The set of installed skills: told once, before a heartbeat names it, and gone from the pod's memory then."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable

import pytest

from skillbus.core.latch import State
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.core.skillset import SKILLS_LIMIT, decoded, digest_of, encoded
from skillbus.errors import PassAborted
from tests.fakes.memory_bus import OOM, MemoryStore
from tests.unit.pod.rig import FLEET, PROD, Rig, Script

Make = Callable[..., Rig]
A, B = "a" * 64, "b" * 64


def installing(*sets: dict[str, str] | None) -> Script:
    """Passes that end with these sets, the last again and again."""
    rest = list(sets)

    async def script(checkpoint: Checkpoint) -> PassResult:
        return PassResult(installed=rest.pop(0) if len(rest) > 1 else rest[0])

    return script


def stored(store: MemoryStore, digest: str) -> object:
    """What a reader makes of the key."""
    value = store.data.get(PROD.skills_key(digest))
    assert not isinstance(value, list)
    return decoded(digest, value)


def test_a_set_is_found_before_it_is_named(rig: Make, store: MemoryStore) -> None:
    """No heartbeat ever names a set that a reader cannot find; and it is named soon after the pass."""

    async def main() -> None:
        async with rig(installing({"pdf": A}), every_s=100.0) as pod:
            beat, seen = pod.bus.beat, []

            async def watched(*args: object, **more: object) -> object:
                digest = args[2].skills  # type: ignore[attr-defined]
                seen.append(digest)
                assert not digest or stored(store, digest) == {"pdf": A}
                return await beat(*args, **more)  # type: ignore[arg-type]

            pod.bus.beat = watched  # type: ignore[assignment,method-assign]
            await pod.until(10.0)
            assert set(seen) - {""} == {digest_of(encoded({"pdf": A}))}
            assert pod.evidence.skills == digest_of(encoded({"pdf": A}))

    asyncio.run(main())


def test_an_equal_set_is_told_once(rig: Make, store: MemoryStore) -> None:
    """Pass after pass with the same disk: one write. Another disk, another write; an empty one is told as such."""

    async def main() -> None:
        async with rig(installing({"x": A}, {"x": A}, {"x": B}, {"x": B}, {}), every_s=10.0) as pod:
            await pod.until(19.0)
            assert pod.count("tell_skills") == 1
            await pod.until(39.0)
            assert pod.count("tell_skills") == 2
            assert stored(store, pod.evidence.skills) == {"x": B}
            await pod.until(70.0)
            assert pod.count("tell_skills") == 3
            assert stored(store, pod.evidence.skills) == {}

    asyncio.run(main())


def test_a_pass_that_does_not_say_leaves_it_as_told(rig: Make) -> None:
    """None is no empty set; a reconciler without sets tells none."""

    async def main() -> None:
        async with rig(installing({"x": A}, None), every_s=10.0) as pod:
            await pod.until(30.0)
            assert pod.evidence.skills == digest_of(encoded({"x": A}))
        async with rig(pod_id="two") as other:
            await other.until(60.0)
            assert (other.evidence.skills, other.count("tell_skills")) == ("", 0)

    asyncio.run(main())


def test_the_set_is_told_once_redis_is_back(rig: Make, store: MemoryStore) -> None:
    """Redis goes away in the pass: the pod tries again once it beats again, and holds no longer for it than else."""

    async def script(checkpoint: Checkpoint) -> PassResult:
        await pod.clock.sleep(4.5)
        pod.bus.unreachable = True
        return PassResult(installed={"x": A})

    async def main() -> None:
        async with pod:
            await pod.until(30.0)
            assert pod.stood[-1] == (10.0, State.HOLDING)
            assert pod.evidence.skills == ""
            pod.bus.unreachable = False
            await pod.until(34.0)
            assert stored(store, pod.evidence.skills) == {"x": A}

    pod = rig(script, every_s=1000.0)
    asyncio.run(main())


def test_a_server_that_refuses_is_not_hammered(rig: Make, store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    """Out of memory, or an ACL of an earlier release: the pod runs on, beats on, and tries less and less often."""
    caplog.set_level(logging.WARNING, "skillbus.pod.inventory")

    async def main() -> None:
        async with rig(installing({"x": A}), every_s=1000.0) as pod:
            await pod.until(3.0)
            store.data.pop(PROD.skills_key(pod.evidence.skills))
            pod.work.script = installing({"x": B})
            store.refusal = OOM
            pod.pod._tasks.loop.request("manual")  # type: ignore[union-attr]
            await pod.until(300.0)
            assert pod.stands(State.RUNNING)
            assert 5 <= pod.count("tell_skills") <= 10
            assert pod.evidence.skills == digest_of(encoded({"x": A})), "what it last told"
            store.refusal = ""
            await pod.until(700.0)
            assert stored(store, pod.evidence.skills) == {"x": B}

    asyncio.run(main())
    assert all("the set of skills is not told yet" in text for text in caplog.messages)


def test_a_lost_set_is_told_anew(rig: Make, store: MemoryStore) -> None:
    """Redis loses its data: the digest goes from the heartbeat, and the next pass tells the set again."""

    async def main() -> None:
        async with rig(installing({"x": A}), every_s=50.0, require_armed=False) as pod:
            await pod.until(3.0)
            digest = pod.evidence.skills
            store.lose_data()
            await pod.until(7.0)
            assert pod.evidence.skills == ""
            await pod.until(60.0)
            assert pod.evidence.skills == digest
            assert stored(store, digest) == {"x": A}

    asyncio.run(main())


def test_a_sync_tells_the_set_anew(rig: Make, store: MemoryStore) -> None:
    """Somebody who found it missing has a way to get it back."""

    async def main() -> None:
        async with rig(installing({"x": A}), every_s=1000.0) as pod:
            await pod.until(3.0)
            store.data.pop(PROD.skills_key(pod.evidence.skills))
            store.publish(PROD.sync_channel, b'{"id": "s1"}')
            await pod.until(6.0)
            assert stored(store, pod.evidence.skills) == {"x": A}

    asyncio.run(main())


def test_nothing_of_a_set_stays_in_memory(rig: Make) -> None:
    """Neither the mapping that the pass gave nor its text: only the digest."""

    class Weak(dict[str, str]):
        pass

    given: list[weakref.ref[Weak]] = []

    async def script(checkpoint: Checkpoint) -> PassResult:
        skills = Weak({"x": A})
        given.append(weakref.ref(skills))
        return PassResult(installed=skills)

    async def main() -> None:
        async with rig(script, every_s=1000.0) as pod:
            await pod.until(5.0)
            assert pod.evidence.skills
            pod.ended.clear()  # the test's own listener keeps what it was told
            gc.collect()
            assert [skills() for skills in given] == [None]
            assert not [one for one in gc.get_objects() if isinstance(one, bytes) and b'"skills":{"x"' in one]

    asyncio.run(main())


def test_too_large_a_set_is_not_told(rig: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It is no reason to fail a pass; the log says why the heartbeat says nothing."""
    caplog.set_level(logging.WARNING, "skillbus.pod.inventory")

    async def main() -> None:
        async with rig(installing({f"s{n}": A for n in range(SKILLS_LIMIT + 1)})) as pod:
            await pod.until(5.0)
            assert (pod.evidence.skills, pod.count("tell_skills")) == ("", 0)
            assert [ended.outcome for ended in pod.ended] == ["ok"]

    asyncio.run(main())
    assert "2001 names, and 2000 can be" in caplog.text


@pytest.mark.parametrize("bad", [{"x": "short"}, {"a b": A}, {7: A}, ["x"], {"x": None}, {"x" * 65: A}], ids=repr)
def test_a_set_that_is_none_fails_the_pass(rig: Make, bad: object) -> None:
    """With a sentence; nothing of it is told."""

    async def script(checkpoint: Checkpoint) -> PassResult:
        return PassResult(installed=bad)  # type: ignore[arg-type]

    async def main() -> None:
        async with rig(script) as pod:
            await pod.until(3.0)
            assert pod.evidence.last_pass.outcome == "failed"
            assert "what it says is installed is no" in pod.evidence.last_pass.errors[0]
            assert pod.count("tell_skills") == 0

    asyncio.run(main())


def test_a_stopped_pod_still_tells_what_it_holds(rig: Make, store: MemoryStore) -> None:
    """Killed in a pass that had changed the disk: first the heartbeat says that it stopped, then what lies there."""

    class Told(PassAborted):
        result = PassResult(counts={"added": 1}, installed={"x": B})

    async def script(checkpoint: Checkpoint) -> PassResult:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Told("aborted") from None
        raise AssertionError

    async def main() -> None:
        async with rig(script) as pod:
            await pod.until(4.0)
            store.publish(FLEET.kill_channel, b"now")
            await pod.until(4.1)
            assert pod.evidence.state is State.STOPPED
            assert stored(store, pod.evidence.skills) == {"x": B}
            calls = pod.bus.calls
            assert "beat" in calls[calls.index("write_record") : calls.index("tell_skills")]

    asyncio.run(main())

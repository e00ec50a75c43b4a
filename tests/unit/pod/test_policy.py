"""Policy: the one word that stops, in the environment and in a file."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from skillbus.core.latch import CauseKind, State
from skillbus.pod.policy import PolicyFile, check_environment, forces_off
from skillbus.pod.switch import Switch
from tests.fakes.clock import FakeClock
from tests.fakes.memory_bus import MemoryStore
from tests.unit.pod.rig import FLEET, Rig, endless

Make = Callable[..., Rig]

STOPS = ["force-off", "FORCE-OFF", "Force-Off", " force-off ", "\tforce-off\n", "force-off\r\n", "\u00a0force-off"]
LETS = [
    "",
    "force_off",
    "force off",
    "forceoff",
    "force-off!",
    "off",
    "no-force-off",
    "force-offf",
    "on",
    "force\u2010off",
]


@pytest.mark.parametrize("value", STOPS)
def test_the_word_stops(value: str) -> None:
    """Trimmed, in any case."""
    assert forces_off(value)


@pytest.mark.parametrize("value", LETS)
def test_no_other_word_stops(value: str) -> None:
    """``force_off`` is not it."""
    assert not forces_off(value)


@pytest.mark.parametrize("name", ["SKILLBUS_POLICY", "NBI_SKILLS_MANAGEMENT_POLICY"])
def test_either_variable_stops(name: str) -> None:
    """And says which."""
    switch = Switch(FakeClock(), 6.0, require_armed=True)
    check_environment(switch, {name: "Force-Off"})
    assert [cause.kind for cause in switch.causes] == [CauseKind.POLICY]
    assert name in switch.standing.why
    assert switch.standing.state is State.STOPPED


def test_one_variable_does_not_overrule_the_other() -> None:
    """Any one stops; none can overrule another."""
    switch = Switch(FakeClock(), 6.0, require_armed=True)
    check_environment(switch, {"SKILLBUS_POLICY": "on", "NBI_SKILLS_MANAGEMENT_POLICY": "force-off"})
    assert switch.latched


def test_other_variables_stop_nothing() -> None:
    """Neither another name nor another word."""
    switch = Switch(FakeClock(), 6.0, require_armed=True)
    check_environment(switch, {"POLICY": "force-off", "SKILLBUS_POLICY": "force_off"})
    assert not switch.latched


def test_the_environment_is_read_before_each_cycle(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set between two cycles, it stops the next one, and writes nothing."""

    async def main() -> None:
        async with rig(every_s=10.0) as pod:
            await pod.until(5.0)
            monkeypatch.setenv("SKILLBUS_POLICY", " FORCE-off ")
            await pod.until(9.999999)
            assert pod.stands(State.RUNNING)
            await pod.until(10.0)
            assert pod.stands(State.STOPPED)
            assert pod.work.began_at_s == [0.0]
            assert pod.tombstones == []
            monkeypatch.delenv("SKILLBUS_POLICY")
            await pod.until(60.0)
            assert pod.stands(State.STOPPED)

    asyncio.run(main())


def test_the_file_is_read_at_each_heartbeat(rig: Make, tmp_path: Path) -> None:
    """It changes under a running pod: the pass ends at the next beat."""
    policy = tmp_path / "policy"
    policy.write_text("on\n")

    async def main() -> None:
        async with rig(endless, policy_file=policy) as pod:
            await pod.until(4.1)
            policy.write_text("  Force-OFF\n")
            await pod.until(5.999999)
            assert pod.stands(State.RUNNING)
            await pod.until(6.0)
            assert pod.stands(State.STOPPED)
            assert [cause.kind for cause in pod.evidence.causes] == [CauseKind.POLICY_FILE]
            assert pod.tombstones == []
            policy.write_text("on")
            await pod.until(20.0)
            assert pod.stands(State.STOPPED)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["absent", "folder", "loop"])
def test_a_file_that_cannot_be_read_holds(rig: Make, tmp_path: Path, kind: str) -> None:
    """Named but unreadable: hold, not latch; mended, the pod runs."""
    policy = tmp_path / "policy"
    policy.write_text("on")

    def spoil() -> None:
        policy.unlink()
        if kind == "folder":
            policy.mkdir()
        elif kind == "loop":
            policy.symlink_to(policy)

    def mend() -> None:
        if kind == "folder":
            policy.rmdir()
        elif kind == "loop":
            policy.unlink()
        policy.write_text("on")

    async def main() -> None:
        async with rig(endless, policy_file=policy) as pod:
            await pod.until(4.1)
            spoil()
            await pod.until(6.0)
            assert pod.stands(State.HOLDING)
            assert str(policy) in pod.why
            assert not pod.work.busy
            mend()
            await pod.until(8.0)
            assert pod.stands(State.RUNNING)

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"force-off\x00", b"x" * 10_000 + b"force-off"])
def test_a_file_that_says_something_else_lets_run(rig: Make, tmp_path: Path, content: bytes) -> None:
    """Bytes that are no text and a file of any length are not the word."""
    policy = tmp_path / "policy"
    policy.write_bytes(content)

    async def main() -> None:
        async with rig(policy_file=policy) as pod:
            assert pod.stands(State.RUNNING)

    asyncio.run(main())


def test_a_file_that_stops_lets_nothing_begin(rig: Make, tmp_path: Path) -> None:
    """It is read before the first beat, hence before the first pass."""
    policy = tmp_path / "policy"
    policy.write_text("force-off")

    async def main() -> None:
        async with rig(policy_file=policy) as pod:
            await pod.until(10.0)
            assert pod.stands(State.STOPPED)
            assert pod.work.began_at_s == []

    asyncio.run(main())


def test_a_fifo_deafens_nobody(rig: Make, tmp_path: Path, store: MemoryStore) -> None:
    """A file that is none holds, with a sentence; the pod beats and hears on."""
    policy = tmp_path / "policy"
    os.mkfifo(policy)

    async def main() -> None:
        async with rig(policy_file=policy) as pod:
            await pod.until(10.0)
            assert pod.stands(State.HOLDING)
            assert "not a regular file" in pod.why
            store.publish(FLEET.kill_channel)
            await pod.until(10.0)
            assert pod.stands(State.STOPPED)

    asyncio.run(main())


def test_a_read_that_hangs_holds_and_stays_the_only_one(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given a second once; later checks do not wait for it. What it says in the end is heeded."""
    answer, reads = threading.Event(), []

    def hanging(path: Path) -> str:
        reads.append(path)
        answer.wait(10)
        return "force-off"

    monkeypatch.setattr("skillbus.pod.policy._text_of", hanging)

    async def main() -> None:
        switch = Switch(clock, 6.0, require_armed=True)
        file = PolicyFile(switch, Path("/sick/policy"), clock)
        first = asyncio.create_task(file.check())
        await clock.advance(0.999)
        assert not first.done()
        await clock.advance(0.001)
        assert first.done()
        assert "no answer within 1 s" in switch.standing.why
        await file.check()
        await file.check()
        assert len(reads) == 1
        answer.set()
        read = file._read
        assert read is not None
        await read
        await file.check()
        assert [cause.kind for cause in switch.causes] == [CauseKind.POLICY_FILE]

    asyncio.run(main())

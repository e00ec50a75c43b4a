"""``skillbus.kill`` and ``skillbus.status`` on a real Redis with a real pod: what a bot in Python gets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import skillbus
from skillbus.bots import NotRecorded, kill_async, status_async
from skillbus.control.acl import AclUser, Role, acl_line
from skillbus.control.kill import OrderUnconfirmed
from skillbus.errors import BadSettings, RetryLater
from tests.pods import GROUP, arm, eventually, evidence_of, own_server, process_pod, record_of
from tests.servers import RealServer
from tests.unit.test_public_api import modules_after


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's own settings."""
    for name in [name for name in os.environ if name.startswith("SKILLBUS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def fleet(redis_server: RealServer, tmp_path: Path) -> Iterator[RealServer]:
    """An armed fleet with one pod that runs, in group ``eu``."""
    arm(redis_server)
    argv = [sys.executable, "-m", "skillbus", "run", "--every", "1h", "--", "true"]
    with process_pod(redis_server, tmp_path, argv, SKILLBUS_GROUPS="eu"):
        eventually(lambda: any(beat.state == "running" for beat in evidence_of(redis_server)), "the pod runs")
        yield redis_server


def _given(server: RealServer) -> dict[str, Any]:
    return {"redis_url": server.url, "fleet": "prod"}


def test_kill_and_status(fleet: RealServer) -> None:
    """One call stops, waits for the proof, and says it in a sentence; the look before and after says the same."""
    assert skillbus.status(**_given(fleet)).headline == "fleet 'prod': RUNNING 1"
    killed = skillbus.kill("token leaked", by="scanner", incident="https://e.org/1", timeout="20s", **_given(fleet))
    assert (killed.is_first, killed.is_proved) == (True, True)
    assert killed.sentence.startswith("recorded: fleet 'prod' is killed: \"token leaked\" by scanner via python")
    assert "1 of 1 stopped" in killed.sentence
    record = record_of(fleet)
    assert record is not None
    assert (record.id, record.via, record.incident) == (killed.id, "python", "https://e.org/1")
    seen = skillbus.status(**_given(fleet))
    assert (seen.word, seen.counts) == ("STOPPED", {"stopped": 1})


def test_a_second_kill_shows_the_first(fleet: RealServer) -> None:
    """It succeeds, and the record that stands is the first."""
    first = skillbus.kill("one", **_given(fleet))
    second = skillbus.kill("two", **_given(fleet))
    assert (second.id, second.is_first, second.is_proved) == (first.id, False, True)
    assert "was killed before" in second.sentence


def test_group_without_waiting(fleet: RealServer) -> None:
    """A part, at once: nothing is proved, and nothing is claimed."""
    killed = skillbus.kill("x", group="eu", wait=False, **_given(fleet))
    assert not killed.is_proved
    assert killed.report.certificate is None
    assert record_of(fleet) is None
    assert record_of(fleet, GROUP) is not None


def test_nobody_there(redis_server: RealServer) -> None:
    """Recorded, and said that no pod is known: a name with a typing error must not look like success."""
    killed = skillbus.kill("x", pod="nobody", timeout=0.1, **_given(redis_server))
    assert not killed.is_proved
    assert "no pod is known in pod 'nobody' of fleet 'prod'" in killed.sentence


def test_to_be_awaited(fleet: RealServer) -> None:
    """Both, in the caller's own loop."""

    async def main() -> tuple[str, str]:
        killed = await kill_async("x", timeout="20s", **_given(fleet))
        return killed.sentence, (await status_async(**_given(fleet))).word

    sentence, word = asyncio.run(main())
    assert "1 of 1 stopped" in sentence
    assert word == "STOPPED"


def test_inside_a_running_loop(redis_server: RealServer) -> None:
    """The synchronous form works in a notebook, a callback, a handler of somebody's loop; its thread ends with it."""

    async def main() -> bool:
        return skillbus.kill("x", wait=False, **_given(redis_server)).is_first

    assert asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("skillbus-bot")]


def test_no_redis() -> None:
    """It raises: whoever ignores what is returned must not believe that anything was stopped."""
    with pytest.raises(RetryLater, match="is it up"):
        skillbus.kill("x", timeout=0.1, redis_url="redis://127.0.0.1:1/0", fleet="prod")
    with pytest.raises(RetryLater):
        skillbus.status(redis_url="redis://127.0.0.1:1/0", fleet="prod")


def test_no_answer(tmp_path: Path) -> None:
    """Sent, and nothing heard: it may be stored, and the error says no more than that."""
    with own_server(tmp_path) as server:
        server.freeze()
        try:
            with pytest.raises((OrderUnconfirmed, RetryLater)):
                skillbus.kill("x", timeout=0.2, command_timeout_s=0.2, **_given(server))
        finally:
            server.thaw()


def test_published_not_recorded_raises(tmp_path: Path) -> None:
    """Out of memory: the error says both, and holds the report."""
    with own_server(tmp_path, "maxmemory-policy noeviction") as server:
        server.cli("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(NotRecorded, match=r"published, NOT recorded.*give it again") as caught:
            skillbus.kill("x", wait=False, timeout=0.1, **_given(server))
        assert isinstance(caught.value.report.answers.receivers, int)


def test_with_the_credentials_of_a_bot(tmp_path: Path) -> None:
    """What ``skillbus acl --role bot`` prints is enough to kill; what it may not read is not claimed to be proved."""
    line = acl_line("prod", AclUser(Role.BOT, "scanner", hashlib.sha256(b"pw").hexdigest()))
    with own_server(tmp_path) as server:
        server.cli("ACL", "SETUSER", *line.split()[1:])
        url = server.url.replace("//", "//scanner:pw@")
        killed = skillbus.kill("token leaked", by="scanner", redis_url=url, fleet="prod", timeout="5s")
        assert not killed.is_proved
        assert "is killed" in killed.sentence
        assert "the proof could not be read" in killed.sentence
        record = record_of(server)
        assert record is not None
        assert (record.by, record.via) == ("scanner", "python")


@pytest.mark.parametrize(
    "wrong",
    [{"group": "a", "pod": "b"}, {"group": "a/b"}, {"pod": ""}, {"timeout": "soon"}, {"flet": "prod"}],
)
def test_arguments_that_cannot_be(redis_server: RealServer, wrong: dict[str, Any]) -> None:
    """Nothing is stopped: an empty group is not the fleet."""
    with pytest.raises(BadSettings):
        skillbus.kill("x", **{**_given(redis_server), **wrong})
    assert not redis_server.cli("KEYS", "*killed*")


def test_what_it_loads() -> None:
    """Neither a web framework nor the command line, nor the room of pods."""
    loaded = modules_after("import skillbus; skillbus.kill; skillbus.status")
    assert loaded.isdisjoint({"fastapi", "starlette", "uvicorn", "jinja2", "slack_sdk", "typer", "rich"})
    assert not {name for name in loaded if name.startswith(("skillbus.console", "skillbus.cli"))}

"""The check that a test leaves nothing behind, tried on things left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading

import pytest

from tests import leftovers
from tests.leftovers import Watch


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "GRACE_S", 0.1)


def found(watch: Watch, *session_pids: int) -> str:
    """All that the watch tells, as one text."""
    return "\n".join(watch.leftovers(frozenset(session_pids)))


def test_nothing_left_is_nothing_told() -> None:
    """What began and ended within the watch does not show."""
    watch = Watch()
    with socket.socket():
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert found(watch) == ""


def test_a_thread_is_told_by_its_name() -> None:
    """A thread that goes on is left behind; one that ends within the grace is not."""
    watch, end = Watch(), threading.Event()
    thread = threading.Thread(target=end.wait, name="lingerer")
    thread.start()
    assert found(watch) == "thread lingerer"
    end.set()
    assert found(watch) == ""
    thread.join()


def test_a_child_is_told_by_its_command_unless_it_serves_the_session() -> None:
    """A child process that lives is left behind, a session's server is not."""
    watch = Watch()
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert "sleep 60" in found(watch)
        assert found(watch, child.pid) == ""
    finally:
        child.kill()
        child.wait()


def test_an_orphan_is_found_by_its_mark() -> None:
    """A grandchild whose parent died is nobody's child, and is found all the same."""
    watch = Watch()
    ran = subprocess.run(
        ["sh", "-c", "sleep 61 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE, text=True, check=True
    )
    try:
        assert "sleep 61" in found(watch)
    finally:
        os.kill(int(ran.stdout), 9)


def test_files_and_listening_sockets_are_told_apart() -> None:
    """A descriptor left open is told, with what it is."""
    watch = Watch()
    with open(os.devnull, "rb"), socket.create_server(("127.0.0.1", 0)):
        told = found(watch)
    assert "open file: descriptor" in told
    assert "/dev/null" in told
    assert "listening socket: descriptor" in told


def test_a_task_that_asyncio_run_had_to_cancel_is_told() -> None:
    """A background task that the main one did not await is left behind, though asyncio cancels it without a word."""

    async def main() -> None:
        background = asyncio.create_task(asyncio.sleep(60), name="forgotten")
        await asyncio.sleep(0)
        assert not background.done()

    watch = Watch()
    with watch.tasks():
        asyncio.run(main())
    assert "task forgotten" in found(watch)

"""How the guard kills a family, one look after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from skillbus.reconcilers import guard
from tests.unit.reconcilers.scripted import HELD_S


def sleeper() -> subprocess.Popen[bytes]:
    """A process that stays until it is killed."""
    return subprocess.Popen(["sleep", "3600"])


def is_stopped(process: subprocess.Popen[bytes]) -> bool:
    """Whether it is, or soon will be: a signal takes effect when its process is scheduled next."""
    until = time.monotonic() + HELD_S
    while time.monotonic() < until:
        if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.001)
    return False


def test_all_are_stopped_before_the_first_is_killed() -> None:
    """It looks again until nobody new shows up. Who was seen stands still meanwhile, and makes no room by dying."""
    family = [sleeper() for _ in range(3)]
    seen = guard.all_processes()
    looks: list[int] = []

    def find() -> guard.Found:
        assert all(is_stopped(process) for process in family[: len(looks)])
        looks.append(1)
        return {process.pid: seen[process.pid][1] for process in family[: len(looks)]}

    assert guard.freeze_and_kill(find) == 3
    assert len(looks) == 4
    assert [process.wait(HELD_S) for process in family] == [-9, -9, -9]


def test_a_family_that_is_new_at_every_look_is_killed_in_time_all_the_same() -> None:
    """Looking has an end, or those who were stopped would stand there for ever."""
    process = sleeper()
    started = guard.all_processes()[process.pid][1]
    looks: list[int] = []

    def find() -> guard.Found:
        looks.append(1)
        return {process.pid: started, 10**7 + len(looks): "0"}

    assert guard.freeze_and_kill(find) > 1
    assert process.wait(HELD_S) == -9


def test_whoever_got_an_id_anew_is_not_signalled() -> None:
    """Ids are given again. The start time tells the one who was meant from the one who has the id now."""
    process = sleeper()
    guard.signal_all({process.pid: "1"}, signal.SIGKILL)
    guard.signal_all({process.pid: guard.all_processes()[process.pid][1]}, signal.SIGTERM)
    assert process.wait(HELD_S) == -signal.SIGTERM


def test_descendants_are_found_whatever_they_are_called() -> None:
    """A process' name can hold spaces, parentheses and line ends; that must not hide it, nor its children."""
    script = r"""printf 'a) R 1 (\n' >/proc/$$/comm; sleep 3600 & wait"""
    others = guard.descendants()  # a server of the session

    def found() -> dict[int, str]:
        return {pid: began for pid, began in guard.descendants().items() if pid not in others}

    process = subprocess.Popen(["sh", "-c", script])
    until = time.monotonic() + HELD_S
    while len(found()) < 2 and time.monotonic() < until:
        time.sleep(0.001)
    assert process.pid in found()
    assert len(found()) == 2
    assert os.getpid() not in found()
    assert guard.freeze_and_kill(found) == 2
    assert process.wait(HELD_S) == -9

"""``skillbus status --watch`` on a real terminal and into a pipe: live, in place, as much as fits, and never stale."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from skillbus.clock import boottime_s
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import State
from tests.integration.hostile import HOSTILE
from tests.pods import GROUP, PROD, WatchedPod, Worker, arm, environ_of, eventually, order, own_server, reset
from tests.servers import RealServer, Word, fill

_HOME = "\x1b[H"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A terminal with a command on it."""

    def __init__(self, env: Mapping[str, str], rows: int, columns: int, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self._sent = ""
        self.resize(rows, columns)
        settings = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "skillbus", "status", "--watch", *words],
            env=settings | {"TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def resize(self, rows: int, columns: int) -> None:
        """Of the terminal; the command is told, as a terminal does it."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "process"):
            self.process.send_signal(signal.SIGWINCH)

    def sent(self) -> str:
        """Everything so far, as it was sent."""
        with suppress(OSError):  # EIO: the command has ended
            while select.select([self._ours], [], [], 0)[0]:
                chunk = os.read(self._ours, 65536)
                if not chunk:
                    break
                self._sent += chunk.decode("utf-8", "replace")
        return self._sent

    def frame(self, *, raw: bool = False) -> list[str]:
        """The lines of the last whole frame."""
        frames = self.sent().split(_HOME)
        shown = frames[-2] if len(frames) > 2 else ""
        return [(line if raw else _CONTROL.sub("", line)).rstrip() for line in shown.split("\n")]

    def until(self, text: str) -> list[str]:
        """The first frame that holds ``text``."""

        def found() -> list[str] | None:
            shown = self.frame()
            return shown if any(text in line for line in shown) else None

        shown: list[str] = eventually(found, f"{text!r} is shown; it is {self.frame()}")
        return shown

    def end(self, number: signal.Signals) -> int:
        """By a signal; its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(15)
        self.sent()
        return code

    def close(self) -> None:
        """At any cost."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


@contextmanager
def screen(server: RealServer, rows: int = 24, columns: int = 100, *words: str) -> Iterator[Screen]:
    """A terminal of this size on which the fleet is watched."""
    shown = Screen(environ_of(server), rows, columns, *words)
    try:
        yield shown
    finally:
        shown.close()


def fake_fleet(server: RealServer, count: int, **odd: Any) -> None:
    """Heartbeats of now, without pods behind them; ``odd`` is so for the last three."""
    now = server.cli("TIME")
    assert isinstance(now, list)
    now_ms = int(now[0]) * 1000  # type: ignore[arg-type]
    beat = Heartbeat(
        incarnation="i", state=State.RUNNING, beat_at_ms=now_ms, armed=True, lease_s=3000.0, groups=("eu",), quiet=True
    )
    commands: list[tuple[Word, ...]] = []
    for number in range(count):
        told = beat.model_copy(update=odd if number >= count - 3 else {})
        commands.append(("HSET", PROD.pod_key(f"web-{number:04}"), "i", told.to_bytes()))
        commands.append(("ZADD", PROD.roster_key, now_ms, f"web-{number:04}"))
    fill(server, commands)


def test_it_is_live_and_in_place(redis_server: RealServer, tmp_path: Path) -> None:
    """Each frame overwrites the last; kill, new size and reset show; ^C leaves the terminal as it was: exit 130."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, groups=("eu",)) as one, WatchedPod(redis_server, tmp_path, "two"):
        one.until_works()
        with screen(redis_server) as shown:
            lines = shown.until("RUNNING 2")
            assert re.search(r"as of \d\d:\d\d:\d\dZ by the server's clock: 2 pods, 0 not as they should be", lines[1])
            assert any(re.match(r"one +running +\d s ago +yes", line) for line in lines)
            order(redis_server, GROUP, HOSTILE)
            lines = shown.until("RUNNING 1 (1 stopped)")
            assert all(line.isprintable() for line in lines)
            shown.resize(8, 60)
            narrow = eventually(lambda: (f := shown.frame()) and len(f) <= 8 and f, "it is redrawn")
            assert max(len(line) for line in narrow) <= 60
            reset(redis_server, GROUP)
            shown.until("reset, they wait for a restart"[:20])
            assert shown.end(signal.SIGINT) == 130
            sent = shown.sent()
        assert sent.count("\x1b[?1049h") == sent.count("\x1b[?1049l") == 1, "the alternate screen, and back"
        assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l"), "the cursor is back"
        assert "last seen at " in sent[sent.index("\x1b[?1049l") :]
        assert "Traceback" not in sent


def test_sigterm_leaves_the_terminal_as_it_was(redis_server: RealServer) -> None:
    """As ^C does."""
    arm(redis_server)
    with screen(redis_server) as shown:
        shown.until("RUNNING 0")
        assert shown.end(signal.SIGTERM) == 143
        assert "\x1b[?1049l" in shown.sent()
        assert "Traceback" not in shown.sent()


def test_a_large_fleet_is_summarised(redis_server: RealServer) -> None:
    """Counted by state and group, then the stragglers, no more lines than there are; killed, who runs is first."""
    arm(redis_server)
    fake_fleet(redis_server, 1000, state=State.HOLDING, groups=("us",))
    with screen(redis_server, 16, 100) as shown:
        lines = shown.until("RUNNING 997 (3 holding)")
        assert len(lines) <= 16
        told = "\n".join(lines)
        assert "1,000 pods, 3 not as they should be" in told
        assert re.search(r"\nall +997 +3\n", told)
        assert re.search(r"\nus +- +3\n", told), "the group with trouble is shown"
        rows = [line.split()[:2] for line in lines if line.startswith("web-")]
        assert rows[:3] == [[f"web-{number:04}", "holding"] for number in (997, 998, 999)]
        assert rows[3:4] == [["web-0000", "running"]]
        assert re.search(r"… and 99\d more, none of them a straggler", told)
        order(redis_server, reason="all")
        lines = shown.until("STOPPING 0/1000")
        assert "1,000 not as they should be" in "\n".join(lines)
        assert len(lines) <= 16
        shown.resize(40, 100)
        eventually(lambda: 30 < len(shown.frame()) <= 40, "it grows")


def test_when_redis_goes_away(tmp_path: Path) -> None:
    """The figures stay, grey, under since when; once Redis is back they are fresh again."""
    with own_server(tmp_path) as server, WatchedPod(server, tmp_path) as pod:
        pod.until_works()
        with screen(server) as shown:
            shown.until("RUNNING 1")
            server.freeze()
            lines = shown.until("UNKNOWN for ")
            assert "no answer from redis://" in lines[0]
            assert re.match(r"What follows is NOT NOW, but as of \d\d:\d\d:\d\dZ:", lines[1])
            assert any(line.startswith("one ") for line in lines)
            (row,) = (line for line in shown.frame(raw=True) if _CONTROL.sub("", line).startswith("one "))
            assert "\x1b[90m" in row, "grey"
            assert "\x1b[32m" not in row, "and not green"
            first_s = _unknown_s(shown)
            eventually(lambda: _unknown_s(shown) > first_s, "since when goes on")
            server.thaw()
            eventually(lambda: "UNKNOWN" not in shown.frame()[0], "it is back")
            shown.until("1 pod")


def _unknown_s(shown: Screen) -> int:
    match = re.match(r"UNKNOWN for (\d+) s", shown.frame()[0])
    return int(match[1]) if match else -1


@contextmanager
def piped(server: RealServer, *words: str) -> Iterator[_Lines]:
    """The lines that it prints into a pipe, as they come; ended by SIGTERM."""
    command = [sys.executable, "-m", "skillbus", "status", "--watch", *words]
    with subprocess.Popen(command, env=environ_of(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.set_blocking(process.stdout.fileno(), False)
        try:
            yield _Lines(process.stdout.fileno())
        finally:
            process.terminate()
            process.wait(15)
            assert process.stderr.read() == b""


class _Lines(list[str]):
    """Grows while it is looked at."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._rest = ""

    def more(self) -> list[str]:
        """All so far."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._descriptor, 65536):
                *whole, self._rest = (self._rest + chunk.decode()).split("\n")
                self.extend(whole)
        return list(self)


def test_json_is_one_line_for_each_change(tmp_path: Path) -> None:
    """First everything, then what has changed and only that; beats alone are silent; a lost Redis is a line, too."""
    with own_server(tmp_path) as server, WatchedPod(server, tmp_path, worker=Worker(changes_count=1)) as one:
        one.until(lambda: len(one.passes) == 1, "its pass")
        with piped(server, "-o", "json") as lines:
            eventually(lines.more, "the first line")
            first = json.loads(lines[0])
            assert (first["schema_version"], first["command"], first["change"]) == (1, "status", "all")
            assert [pod["pod"] for pod in first["pods"]] == ["one"]
            eventually(lambda: _is_settled(lines), "nothing but beats")
            known_count = len(lines)
            order(server, GROUP, "nobody is in it")
            eventually(lambda: len(lines.more()) > known_count, "a group's kill that no pod tells of", 20)
            told = json.loads(lines[known_count])
            assert (told["change"], [kill["scope"] for kill in told["kills"]]) == ("fleet", [str(GROUP)])
            assert "pods" not in told
            order(server)
            eventually(lambda: _last(lines, "pod").get("word") == "stopped", "the pod's line")
            assert _last(lines, "fleet")["counts"] == {"stopped": 1}
            server.freeze()
            eventually(lambda: _last(lines, "lost"), "Redis is lost")
            assert "no answer" in _last(lines, "lost")["error"]
            server.thaw()
            eventually(lambda: _last(lines, "back"), "and back")
            assert all(json.loads(line)["schema_version"] == 1 for line in lines.more())


def _is_settled(lines: _Lines) -> bool:
    """Whether two seconds of beats brought no line."""
    count, until_s = len(lines.more()), boottime_s() + 2.5
    while boottime_s() < until_s:
        select.select([], [], [], 0.1)
    return len(lines.more()) == count


def _last(lines: _Lines, change: str) -> dict[str, Any]:
    found = [told for told in map(json.loads, lines.more()) if told["change"] == change]
    return found[-1] if found else {}


def test_into_a_pipe_it_says_what_is_new(redis_server: RealServer, tmp_path: Path) -> None:
    """The headline, whenever it is another; no control characters."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        with piped(redis_server) as lines:
            eventually(lines.more, "the headline")
            assert lines[0] == "fleet 'prod': RUNNING 1"
            order(redis_server, reason=HOSTILE)
            eventually(lambda: lines.more()[-1].startswith("fleet 'prod': STOPPED 1"), "it stops")
            assert all(line.isprintable() for line in lines)

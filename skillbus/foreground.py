"""A pod in the foreground: what ``skillbus run`` becomes once its words are understood.

A process of its own making: the command line's libraries weigh as much as a tenth of an idle pod, and are not needed
any more. So ``cli/run.py`` ends in an exec of this module, with the same process id, and with what it was told in the
environment, in one variable that no program inherits. Heavy imports are inside, for the command line imports this too.
"""

from __future__ import annotations

import importlib.machinery
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import skillbus
from skillbus.output import ERROR, INTERRUPTED, KILLED, OK, UNKNOWN, Output, print_json, say, spoken

if TYPE_CHECKING:
    from skillbus.core.outcome import Outcome, PassResult
    from skillbus.pod.pod import Pod
    from skillbus.pod.switch import Standing
    from skillbus.settings import Settings

TOLD = "SKILLBUS_RUN_TOLD"
"""The variable in which the command line passes on what it was told."""

_ONCE_PATIENCE_S = 5.0
"""Seconds that ``--once`` waits for a pod that holds: long enough for a reconnect, short enough for a script."""

_ERASE = "\r\x1b[K"

_END_GRACE_S = 3.0
"""Seconds beyond the program's own grace in which a pod must have ended after SIGTERM."""


def become(
    given: Mapping[str, Any],
    program: Sequence[str],
    *,
    once: bool,
    output: Output,
    rollback: tuple[str, str] | None = None,
) -> NoReturn:
    """Replace this process by a pod in the foreground.

    Args:
        given: settings by name, as ``Settings.load`` takes them.
        rollback: a skill's name and the digest to restore, for ``skillbus rollback``.
    """
    told = {"given": dict(given), "program": list(program), "once": once, "output": output, "rollback": rollback}
    command = [sys.executable, "-P", *_ourselves(), *sys.argv[1:]]
    os.execve(sys.executable, command, os.environ | {TOLD: json.dumps(told)})  # noqa: S606 (no shell is what we want)


def _ourselves() -> tuple[str, ...]:
    """This module, for a Python that does not look into the working folder: it is not to import what lies there.

    From a checkout that is not installed we are found in that folder alone, and so we say where. Not in PYTHONPATH, for
    the program of a pod would inherit it.
    """
    package = importlib.machinery.PathFinder.find_spec("skillbus", [path for path in sys.path[1:] if path])
    if package is not None and package.origin is not None:  # A folder of that name without us is no package.
        return ("-m", "skillbus.foreground")
    folder = str(Path(skillbus.__file__).resolve().parent.parent)
    run = f"sys.path.append({folder!r}); runpy.run_module('skillbus.foreground', run_name='__main__', alter_sys=True)"
    return ("-c", f"import runpy, sys; {run}")


def main() -> None:
    """Be the pod that ``become`` describes."""
    told = json.loads(os.environ.pop(TOLD, "null"))
    if told is None:
        raise SystemExit("skillbus.foreground is not for calling: use skillbus run")
    output = Output(told["output"])
    verb = "rollback" if told["rollback"] else "run"
    with spoken(verb, output):
        from skillbus.garbage import spare_what_is_here
        from skillbus.settings import Settings

        once = bool(told["once"])
        progress = _Progress(once)
        _log(progress, told_as_result=once and output is Output.TABLE and progress.is_shown)
        settings = _paced(Settings.load(**told["given"]), once)
        pod = _pod(settings, told["program"], told["rollback"], progress.tell)
        spare_what_is_here()
        runner = _Runner(pod, settings.pod.stop_grace_s + _END_GRACE_S)
        code, result, outcome = runner.once(progress.clear) if once else runner.forever()
        if once and output is Output.JSON:
            print_json(verb, _fields(pod, runner.standing, code, result, outcome))
        elif result is not None and outcome is not None:
            sys.stdout.write(summary(outcome, result, pod.last_pass.took_s if pod.last_pass else 0.0))
        sys.stdout.flush()
        if not runner.ended:
            # A pass that will not end must not keep the process: the guard ends what a program left behind.
            os._exit(code or ERROR)
        raise SystemExit(code)


def summary(outcome: Outcome, result: PassResult, took_s: float) -> str:
    """What a pass did, for a person: each warning and error, what was undone, and a last line that says it all."""
    from skillbus.core.text import harmless

    lines = [f"warning: {harmless(text, 2000)}" for text in result.warnings]
    lines += [f"error: {harmless(text, 2000)}" for text in result.errors]
    lines += [f"undone: {harmless(name)}" for name in result.reverted]
    done = ", ".join(f"{count} {word}" for word, count in result.counts.items() if count)
    errors = f", {len(result.errors)} error{'s' if len(result.errors) > 1 else ''}" if result.errors else ""
    words = {"ok": done or "done", "failed": done or "nothing done", "aborted": f"aborted: {done or 'nothing done'}"}
    return "\n".join([*lines, harmless(f"{words[outcome]}{errors} in {took_s:.1f} s", 2000)]) + "\n"


class _Progress:
    """What a pass is at, in one line on stderr that each text overwrites; nothing where there is no terminal.

    It is told from the pod's threads, and shares stderr with the log, which clears the line first.
    """

    def __init__(self, once: bool) -> None:
        self.is_shown = once and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.Lock()
        self._lies_there = False

    def tell(self, text: str) -> None:
        """Show ``text`` instead of what was there."""
        if not self.is_shown:
            return
        from skillbus.core.text import harmless

        try:
            width = os.get_terminal_size(sys.stderr.fileno()).columns
        except OSError:
            width = 80
        with self._lock:
            self._lies_there = True
            self._write(_ERASE + harmless(text, max(width - 1, 20)))

    def clear(self) -> None:
        """Take it away."""
        with self._lock:
            if self._lies_there:
                self._lies_there = False
                self._write(_ERASE)

    def _write(self, text: str) -> None:
        with suppress(OSError, UnicodeError):  # Progress must not fail a pass.
            sys.stderr.write(text)
            sys.stderr.flush()


class _LogHandler(logging.StreamHandler[TextIO]):
    """Lines of the log, above the line of progress."""

    def __init__(self, progress: _Progress) -> None:
        super().__init__(sys.stderr)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.clear()
        super().emit(record)


def _log(progress: _Progress, *, told_as_result: bool) -> None:
    """To stderr. A person who watches one pass is told its result at the end, and is not told it twice."""
    level = logging.WARNING if told_as_result else logging.INFO
    logging.basicConfig(handlers=[_LogHandler(progress)], level=level, format="%(asctime)s %(levelname)s %(message)s")
    if os.environ.get("SKILLBUS_DEBUG"):
        return
    logging.getLogger("skillbus.pod.pod").addFilter(_without_traceback)
    if told_as_result:
        logging.getLogger("skillbus.pod.loop").setLevel(logging.CRITICAL)


def _paced(settings: Settings, once: bool) -> Settings:
    """Who asks for one pass, or looks on, does not wait for a share of a spread. Who sets one looks on with it."""
    if not once and (settings.pod.spread_s is not None or not sys.stderr.isatty()):
        return settings
    return settings.with_pod(spread_s=0.0)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Why a pod broke is one sentence here. Passes its record on."""
    if record.levelno >= logging.CRITICAL:
        record.exc_info = None
    return True


def _pod(settings: Settings, program: list[str], rollback: list[str] | None, tell: Callable[[str], None]) -> Pod:
    from skillbus.errors import BadSettings
    from skillbus.wiring import command_pod, rollback_pod, skills_pod

    if rollback:
        return rollback_pod(settings, *rollback, tell=tell)
    if program:
        return command_pod(settings, program)
    if not settings.skills.skills_manifest:
        raise BadSettings("nothing to run: give --manifest SRC for skills, or -- PROGRAM ARG… for a program")
    return skills_pod(settings, tell=tell)


class _Runner:
    """A pod's life in the foreground: signals end it, a second one at once."""

    def __init__(self, pod: Pod, grace_s: float) -> None:
        self._pod = pod
        self._grace_s = grace_s
        self._news = threading.Event()
        self._signal: int | None = None
        self._passed: tuple[Outcome, PassResult] | None = None
        self.ended = True
        self.standing: Standing | None = None  # how the pod stood before it ended
        pod.on_pass(self._on_pass)
        pod.on_change(lambda standing: self._news.set())

    def _on_pass(self, ended: Any) -> None:
        self._passed = (ended.outcome, replace(ended.result, installed=None))  # of which nothing is shown
        self._news.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        self._news.set()

    def _start(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._pod.start()

    def _stop(self) -> None:
        self.ended = self._pod.stop(self._grace_s)
        if not self.ended:
            say(f"skillbus: the pass did not end within {self._grace_s:g} s: ending without it")

    def _raise_if_broken(self) -> None:
        """A thread that ended unasked is a pod that broke, whether or not it left an error."""
        from skillbus.pod.pod import root_cause

        if self._pod.failure is not None:
            cause = root_cause(self._pod.failure)
            raise cause if isinstance(cause, Exception) else RuntimeError(f"the pod broke: {type(cause).__name__}")
        if self._pod.wait(0):
            raise RuntimeError("the pod ended by itself")

    def forever(self) -> tuple[int, None, None]:
        """Until a signal. A stopped pod stays, alive and visible."""
        self._start()
        while self._signal is None and not self._pod.wait(0):
            self._news.wait(1.0)  # a pod that breaks sets no event
            self._news.clear()
        self._raise_if_broken()
        self._stop()
        return (INTERRUPTED if self._signal == signal.SIGINT else OK), None, None

    def once(self, clear: Callable[[], None]) -> tuple[int, PassResult | None, Outcome | None]:
        """Until one pass has ended, or it is clear that there will be none; ``clear`` takes the progress away."""
        from skillbus.clock import boottime_s

        self._start()
        patience_until_s = boottime_s() + _ONCE_PATIENCE_S
        while (code := self._once_code(boottime_s() >= patience_until_s)) is None:
            self._news.wait(0.2)
            self._news.clear()
        self._raise_if_broken()
        self.standing = standing = self._pod.standing
        self._stop()
        clear()
        if code in (KILLED, UNKNOWN):
            say(f"skillbus: nothing done: {standing.why or 'no answer from Redis yet'}")
        outcome, result = self._passed or (None, None)
        return code, result, outcome

    def _once_code(self, out_of_patience: bool) -> int | None:
        from skillbus.core.latch import State
        from skillbus.core.outcome import Outcome

        if self._signal is not None:
            return INTERRUPTED
        if self._pod.wait(0):
            return ERROR
        standing = self._pod.standing
        if self._pod.switch.latched:
            return KILLED if standing.quiet else None
        if self._passed is not None:
            return {Outcome.OK: OK, Outcome.FAILED: ERROR, Outcome.ABORTED: UNKNOWN}[self._passed[0]]
        if standing.quiet and out_of_patience and standing.state is not State.RUNNING:
            return UNKNOWN
        return None


def _fields(
    pod: Pod, standing: Standing | None, code: int, result: PassResult | None, outcome: Outcome | None
) -> dict[str, Any]:
    standing = standing or pod.standing
    return {
        "exit_code": code,
        "pod": pod.identity.pod_id,
        "state": standing.state,
        "why": standing.why,
        "outcome": outcome,
        "counts": dict(result.counts) if result else {},
        "warnings": list(result.warnings) if result else [],
        "errors": list(result.errors) if result else [],
        "reverted": list(result.reverted) if result else [],
    }


if __name__ == "__main__":
    main()

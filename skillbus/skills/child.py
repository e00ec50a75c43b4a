"""The parent's side of fetcher.py: one child per pass, several jobs at once, and no trust in what it answers.

The child is started by the first job, or a moment before it, and killed with SIGKILL, with whatever it started, and
seen dead, when the pass is over, is cancelled, or when an answer is late, too long or none. Then the next job starts
another. Its environment is a short list, so that no secret of the pod is in it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import skillbus
from skillbus import errors
from skillbus.clock import Clock
from skillbus.core.text import harmless
from skillbus.errors import BadArchive, BadBundle, BadManifest, DiskRefused, RateLimited, SkillbusError
from skillbus.errors import SourceUnavailable as Unavailable
from skillbus.skills.options import SkillsOptions
from skillbus.skills.quiet import to_the_end

JOB_S = 180.0
"""Seconds without a word until a job counts as lost. Longer than the child's own limit for a download."""

JOB_TOTAL_S = 900.0
"""Seconds for a whole job: a child that keeps telling of progress, and of nothing else, keeps no pass alive."""

MAX_ANSWER_BYTES = 4 * 1024 * 1024
_PACKAGE_FOLDER = str(Path(skillbus.__file__).resolve().parent.parent)
COMMAND: tuple[str, ...] = (sys.executable, "-S", "-P", "-X", "utf8", "-m", "skillbus.skills.fetcher")
"""Without ``site``, which takes as long to start as all that the child does need. So it is told our path."""

_KINDS = (Unavailable, BadManifest, BadBundle, BadArchive, DiskRefused)
_PASSED_ON: tuple[str, ...] = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK")
_PASSED_ON += tuple(name for word in ("http_proxy", "https_proxy", "no_proxy") for name in (word, word.upper()))

OnLine = Callable[[str, dict[str, Any]], None]
"""Called with ``progress`` or ``landed``, and what the child says of it."""


class ChildDied(Unavailable):
    """The child gave no answer: it crashed, met one of its limits, or said something senseless."""


@dataclass(slots=True)
class _Job:
    """A job under way. ``ended`` is set with either an answer or a failure."""

    on_line: OnLine
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    heard: bool = False
    answer: dict[str, Any] | None = None
    failure: SkillbusError | None = None


class Child:
    """The child process of one pass."""

    def __init__(self, options: SkillsOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._jobs: dict[int, _Job] = {}
        self._starting = asyncio.Lock()
        self._last_id = 0

    async def start(self) -> None:
        """Start it, for who knows that there will be a job and has something else to do meanwhile.

        What goes wrong with it is the job's to tell.
        """
        with suppress(OSError):
            await self._started()

    async def parse_manifest(self, raw: bytes) -> Any:
        """The plain data in a manifest's bytes.

        Raises:
            SkillbusError: as ``ask``.
        """
        return (await self.ask({"job": "manifest", "data": base64.b64encode(raw).decode()})).get("data")

    async def ask(self, job: dict[str, Any], on_line: OnLine = lambda kind, said: None) -> dict[str, Any]:
        """Have one job done.

        Returns:
            The answer, of which nothing is checked but that it is an object.

        Raises:
            ChildDied: it gave no sound answer.
            SkillbusError: as the child says.
        """
        waiting = _Job(on_line)
        try:
            await self._send_job(job, waiting)
            until_s = self._clock.now_s() + JOB_TOTAL_S
            while not await self._clock.wait(waiting.ended, min(JOB_S, max(0.0, until_s - self._clock.now_s()))):
                over = self._clock.now_s() >= until_s
                if over or not waiting.heard:
                    limit_s = JOB_TOTAL_S if over else JOB_S
                    raise _died(f"gave no answer in {limit_s:g} s")
                waiting.heard = False
        except ChildDied:
            await self.kill()
            raise
        except OSError as error:
            died = await self.kill()
            raise _died(died or str(error)) from None
        except BaseException:
            await self.kill()
            raise
        if waiting.failure is not None:
            if isinstance(waiting.failure, ChildDied):
                died = await self.kill()
                raise _died(died) if died else waiting.failure
            raise waiting.failure
        assert waiting.answer is not None  # noqa: S101 - it ended
        return waiting.answer

    async def kill(self) -> str:
        """SIGKILL the child with all it started, and see it dead. How it had died, in words, if by itself."""
        process, self._process = self._process, None
        reader, self._reader = self._reader, None
        self._fail_all(ChildDied("the process that reads it was ended: it will be tried again"))
        if reader is not None:
            reader.cancel()
        return "" if process is None else await to_the_end(_ended(process, reader, self._clock))

    # ---- sending ---------------------------------------------------------------------------------------------------

    async def _send_job(self, job: dict[str, Any], waiting: _Job) -> None:
        await self._started()
        self._last_id += 1
        self._jobs[self._last_id] = waiting
        await self._send({"id": self._last_id, **job})

    async def _started(self) -> None:
        async with self._starting:
            if self._process is None:
                await self._start()

    async def _start(self) -> None:
        env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        path = os.pathsep.join(dict.fromkeys([_PACKAGE_FOLDER, *(part for part in sys.path if part)]))
        self._process = await asyncio.create_subprocess_exec(
            *COMMAND,
            str(os.getpid()),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            cwd="/",
            env=env | {"PYTHONPATH": path},
            limit=MAX_ANSWER_BYTES,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(self._process), name="skills.child")
        await self._send(self.hello())

    def hello(self) -> dict[str, Any]:
        """The first line: what the child may do."""
        options = self._options
        return {
            "token": options.token,
            "token_hosts": [host.lower() for host in options.token_hosts],
            "local_hosts": [host.lower() for host in options.local_hosts],
            "redirect_hosts": [host.lower() for host in options.redirect_hosts],
            "github": dict(options.github),
            "max_archive_bytes": options.max_archive_mb * 1024 * 1024,
            "strict": options.strict,
        }

    async def _send(self, line: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise BrokenPipeError("was ended")
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        await self._process.stdin.drain()

    # ---- reading ---------------------------------------------------------------------------------------------------

    async def _read(self, process: Process) -> None:
        """Hand each line to its job, until the child says something senseless or no more."""
        assert process.stdout is not None  # noqa: S101 - started with a pipe
        try:
            while True:
                line = await process.stdout.readline()
                if not line.endswith(b"\n"):
                    raise _died("ended")
                self._take(line)
        except ValueError:
            self._fail_all(_died("gave an answer that is too long"))
        except OverflowError:  # a number that no float holds
            self._fail_all(_died("gave no sound answer"))
        except ChildDied as error:
            self._fail_all(error)

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            raise _died("gave no sound answer") from None
        job = self._jobs.get(said["id"]) if isinstance(said, dict) and isinstance(said.get("id"), int) else None
        if job is None:
            raise _died("answered something else")
        job.heard = True
        for kind in ("progress", "landed"):
            if isinstance(said.get(kind), dict):
                job.on_line(kind, said[kind])
                return
        if isinstance(said.get("ok"), dict):
            job.answer = said["ok"]
        else:
            job.failure = self.error(said.get("error"))
        del self._jobs[said["id"]]
        job.ended.set()

    def error(self, told: Any) -> SkillbusError:
        """The error that the child speaks of.

        Raises:
            ChildDied: it is none.
        """
        if not (isinstance(told, list) and 2 <= len(told) <= 3 and all(isinstance(word, str) for word in told[:2])):
            raise _died("gave no sound answer")
        kind, text = getattr(errors, told[0], None), told[1]
        if not (isinstance(kind, type) and issubclass(kind, _KINDS)):
            raise _died("gave no sound answer")
        if self._options.token:
            text = text.replace(self._options.token, "********")
        text = harmless(text, 600)
        if issubclass(kind, RateLimited):
            wait_s = told[2] if len(told) == 3 and isinstance(told[2], int | float) else 60.0
            return kind(text, min(max(1.0, float(wait_s)), 3600.0))
        return kind(text)

    def _fail_all(self, failure: ChildDied) -> None:
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            job.failure = failure
            job.ended.set()


def _died(how: str) -> ChildDied:
    return ChildDied(f"the process that reads it {how}: it will be tried again")


async def _ended(process: Process, reader: asyncio.Task[None] | None, clock: Clock) -> str:
    """Kill, reap, and close the pipes. A child that had ended by itself has its return code for a word."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - started with pipes
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    while _group_lives(process.pid):
        await clock.sleep(0.01)
    if reader is not None:
        await asyncio.wait({reader})
        reader.cancelled() or reader.exception()
    process.stdin.close()
    with suppress(OSError):
        await process.stdin.wait_closed()
    with suppress(ValueError):
        while await process.stdout.read(MAX_ANSWER_BYTES):
            pass
    code = process.returncode or 0
    if code == -signal.SIGKILL:
        return ""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended by itself with code {code}"


def _group_lives(group: int) -> bool:
    """Whether anything that the child started (git, ssh) still runs. One that only waits to be reaped does not."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    for entry in os.scandir("/proc") if Path("/proc/self").exists() else ():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                state, _, pgrp = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:3]
                if int(pgrp) == group and state not in "ZX":
                    return True
    return False

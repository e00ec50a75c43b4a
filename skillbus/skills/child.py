"""The parent's side of fetcher.py: one child per pass, one job at a time, and no trust in what it answers.

The child is started by the first job and killed with SIGKILL, and seen dead, when the pass is over, is cancelled, or
when an answer is late, too long or none. Then the next job starts another: a parser that crashes costs one entry.
Its environment is a short list, so that no secret of the pod is in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

import skillbus
from skillbus import errors
from skillbus.clock import Clock
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError, SourceUnavailable
from skillbus.skills.options import SkillsOptions
from skillbus.skills.quiet import to_the_end

JOB_S = 180.0
"""Seconds until a job counts as lost. Longer than the child's own limit for a download."""

MAX_ANSWER_BYTES = 1 * 1024 * 1024
_PACKAGE_FOLDER = str(Path(skillbus.__file__).resolve().parent.parent)
COMMAND: tuple[str, ...] = (sys.executable, "-P", "-X", "utf8", "-m", "skillbus.skills.fetcher")
_KINDS = ("SourceUnavailable", "BadManifest", "BadBundle", "BadArchive", "DiskRefused")
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


class Child:
    """The child process of one pass."""

    def __init__(self, options: SkillsOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._process: Process | None = None
        self._id = 0

    async def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Have one job done.

        Returns:
            The answer, of which nothing is checked but that it is an object.

        Raises:
            SkillbusError: as the child says, or because it gave no sound answer.
        """
        self._id += 1
        try:
            if self._process is None:
                await self._start()
            return self._checked(await self._exchange({"id": self._id, **job}))
        except (_NoAnswer, OSError) as error:
            died = await self.kill()
            raise SourceUnavailable(f"the process that reads it {died or error}: it will be tried again") from None
        except SkillbusError:
            raise
        except BaseException:
            await self.kill()
            raise

    async def kill(self) -> str:
        """SIGKILL the child and see it dead. How it had died, in words, if it had by itself; else nothing."""
        process, self._process = self._process, None
        return "" if process is None else await to_the_end(_ended(process))

    async def _start(self) -> None:
        env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            *COMMAND,
            str(os.getpid()),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            cwd="/",
            env=env | {"PYTHONPATH": _PACKAGE_FOLDER},
            limit=MAX_ANSWER_BYTES,
        )
        options = self._options
        await self._send(
            {
                "token": options.token,
                "token_hosts": [host.lower() for host in options.token_hosts],
                "local_hosts": [host.lower() for host in options.local_hosts],
                "max_archive_bytes": options.max_archive_mb * 1024 * 1024,
                "strict": options.strict,
            }
        )

    async def _send(self, line: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None  # noqa: S101, PT018 - started with a pipe
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        await self._process.stdin.drain()

    async def _exchange(self, job: dict[str, Any]) -> bytes:
        answered = asyncio.Event()
        exchange = asyncio.create_task(self._send_and_read(job), name="skills.child")
        exchange.add_done_callback(lambda _: answered.set())
        try:
            if not await self._clock.wait(answered, JOB_S):
                raise _NoAnswer(f"gave no answer in {JOB_S:g} s")
            return exchange.result()
        finally:
            exchange.cancel()
            await asyncio.wait({exchange})
            exchange.cancelled() or exchange.exception()

    async def _send_and_read(self, job: dict[str, Any]) -> bytes:
        await self._send(job)
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018 - started with a pipe
        try:
            line = await self._process.stdout.readline()
        except ValueError:
            raise _NoAnswer("gave an answer that is too long") from None
        if not line.endswith(b"\n"):
            raise _NoAnswer("ended")
        return line

    def _checked(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            raise _NoAnswer("gave no sound answer") from None
        if not isinstance(answer, dict) or answer.get("id") != self._id:
            raise _NoAnswer("answered something else")
        if isinstance(answer.get("ok"), dict):
            found: dict[str, Any] = answer["ok"]
            return found
        raise self._error(answer.get("error"))

    def _error(self, told: Any) -> SkillbusError:
        if not isinstance(told, list) or len(told) != 2 or told[0] not in _KINDS or not isinstance(told[1], str):
            raise _NoAnswer("gave no sound answer")
        text = told[1]
        if self._options.token:
            text = text.replace(self._options.token, "********")
        error = getattr(errors, told[0])(harmless(text, 600))
        assert isinstance(error, SkillbusError)  # noqa: S101 - one of _KINDS
        return error


class _NoAnswer(Exception):
    """The child did not do as it should. It is not to be used any more."""


async def _ended(process: Process) -> str:
    """Kill, reap, and close the pipes. A child that had ended by itself has its return code for a word."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - started with pipes
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
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

"""Environment and policy file -> latch (docs/protocol.md §2). Both latch this process alone and write nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from skillbus.clock import Clock
from skillbus.core.latch import CauseKind
from skillbus.pod.switch import Switch
from skillbus.settings import POLICY_NAMES

_FORCE_OFF = "force-off"
_LIMIT = 4096

_READ_WITHIN_S = 1.0
"""A healthy disk answers in milliseconds; half a heartbeat of waiting for a sick one makes no pod late."""


def forces_off(value: str) -> bool:
    """Whether ``value`` is the word that stops: trimmed, any case. ``force_off`` is not it."""
    return value.strip().lower() == _FORCE_OFF


def forced_off_by(environ: Mapping[str, str] = os.environ) -> str:
    """The policy variable that forces a stop; empty if none does."""
    return next((name for name in POLICY_NAMES if forces_off(environ.get(name, ""))), "")


def check_environment(switch: Switch, environ: Mapping[str, str] = os.environ) -> None:
    """Before each cycle: trip the latch if a policy variable forces it."""
    if name := forced_off_by(environ):
        switch.trip(CauseKind.POLICY, f"{name} is {_FORCE_OFF}")


class PolicyFile:
    """The policy file, read in a thread, one read at a time: what blocks there neither deafens the pod nor piles up."""

    def __init__(self, switch: Switch, path: Path, clock: Clock) -> None:
        self._switch = switch
        self._path = path
        self._clock = clock
        self._read: asyncio.Future[str] | None = None

    async def check(self) -> None:
        """At each heartbeat: trip the latch if the file forces it; hold while it is named but cannot be read."""
        if self._read is None:
            self._read = asyncio.get_running_loop().run_in_executor(None, _text_of, self._path)
            done = asyncio.Event()
            self._read.add_done_callback(lambda _: done.set())
            await self._clock.wait(done, _READ_WITHIN_S)
        if not self._read.done():
            self._hold(f"no answer within {_READ_WITHIN_S:g} s")
            return
        read, self._read = self._read, None
        try:
            text = read.result()
        except OSError as error:
            self._hold(error.strerror)
            return
        self._switch.release("policy_file")
        if forces_off(text):
            self._switch.trip(CauseKind.POLICY_FILE, f"{self._path} says {_FORCE_OFF}")

    def _hold(self, why: str | None) -> None:
        sentence = f"the policy file {self._path} cannot be read ({why}): mend it, or name none"
        self._switch.hold("policy_file", sentence)


def _text_of(path: Path) -> str:
    """The beginning of a regular file. Anything else may block for ever, or say something else to each reader."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return os.read(fd, _LIMIT).decode("utf-8", "replace")
    finally:
        os.close(fd)

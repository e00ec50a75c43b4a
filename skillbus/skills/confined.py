"""What the child process may use, and when it ends: limits of the kernel, set by the child on itself.

They hold for whatever it starts, too (git).
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MEMORY_BYTES = 1024 * 1024 * 1024
CPU_S = 60
"""Seconds of CPU for each job under way."""

OPEN_FILES = 512
_STACK_BYTES = 1024 * 1024
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL = 9
_M_ARENA_MAX = -8


def harden(parent: int) -> None:
    """Die with the parent, gain no rights, and stay within limits."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # It died before the line above: nobody would ever end us.
        sys.exit(1)
    # glibc would reserve 64 MB of addresses for each thread, of the gigabyte there is, and spread what is in use.
    with suppress(AttributeError):
        libc.mallopt(_M_ARENA_MAX, 1)
    threading.stack_size(_STACK_BYTES)
    os.umask(0o022)
    limit("AS", MEMORY_BYTES)
    limit("CORE", 0)
    limit("NOFILE", OPEN_FILES)


def limit(what: str, most: int) -> None:
    """Lower one of the kernel's limits: ``what`` as in ``RLIMIT_…``."""
    kind = getattr(resource, f"RLIMIT_{what}")
    _, hard = resource.getrlimit(kind)
    lower = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (lower, lower))


class Cpu:
    """Each job under way has its seconds: the kernel ends a process that uses more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @contextmanager
    def of_one_job(self) -> Iterator[None]:
        """While in here, one job is under way."""
        with self._lock:
            self._count += 1
            self._allow()
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                self._allow()

    def _allow(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(usage.ru_utime + usage.ru_stime) + 1 + CPU_S * max(1, self._count)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))

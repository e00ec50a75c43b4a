"""What a test left behind: threads, processes, listening sockets, open files, tasks.

A pod that does not end cleanly shows here first: in a test that was green and a thread that went on. Processes are
found twice: as children, and (when their parent died and left them to init, as a guard's bug would) by a mark in
their environment that this run alone bears.

Each kind gets a short grace: ending is asynchronous, lingering is not.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import psutil

GRACE_S = 3.0
_MARK_NAME = "LEFTOVER_MARK"
_MARK_VALUE = f"{os.getpid()}-{secrets.token_hex(4)}"
os.environ[_MARK_NAME] = _MARK_VALUE
_cancel_all_tasks = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]


class Watch:
    """What is there when a test begins, to compare with when it has ended."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._pids = _pids()
        self._files = _files()
        self._tasks: list[str] = []

    @contextmanager
    def tasks(self) -> Iterator[None]:
        """Note every task that still runs when the main one of an ``asyncio.run`` has returned.

        asyncio cancels them without a word. Its own hook for that is private, and the only one there is.
        """

        def noting(loop: asyncio.AbstractEventLoop) -> None:
            self._tasks.extend(f"task {task.get_name()}: {task.get_coro()}" for task in asyncio.all_tasks(loop))
            _cancel_all_tasks(loop)

        with mock.patch("asyncio.runners._cancel_all_tasks", noting):
            yield

    def leftovers(self, session_pids: frozenset[int]) -> list[str]:
        """One line for each thing left, after the grace. ``session_pids``: servers that may stay."""
        until = time.monotonic() + GRACE_S
        return [
            *self._tasks,
            *self._left_threads(until),
            *self._left_processes(until, session_pids),
            *self._left_files(until),
        ]

    def _left_threads(self, until: float) -> list[str]:
        left = []
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                left.append(f"thread {thread.name}")
        return left

    def _left_processes(self, until: float, session_pids: frozenset[int]) -> list[str]:
        found = [
            process
            for process in _ours_among(_pids() - self._pids)
            if process.pid not in session_pids and not _is_of(process, session_pids)
        ]
        _, alive = psutil.wait_procs(found, timeout=max(0.0, until - time.monotonic()))
        return [_told(process) for process in alive]

    def _left_files(self, until: float) -> list[str]:
        left = _files() - self._files
        while left and time.monotonic() < until:
            gc.collect()
            left &= _files()
            if left:
                time.sleep(0.02)
        if not left:
            return []
        listening = {connection.fd for connection in psutil.Process().net_connections() if _listens(connection.status)}
        return [
            f"{'listening socket' if descriptor in listening else 'open file'}: descriptor {descriptor} -> {target}"
            for descriptor, target in sorted(left)
        ]


def _listens(status: str) -> bool:
    return status == psutil.CONN_LISTEN


def _files() -> set[tuple[int, str]]:
    """Every open descriptor of this process with what it is; a socket or pipe is told apart by its inode."""
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        try:
            found.add((int(entry.name), os.readlink(entry.path)))  # noqa: PTH115 - a pipe's target is no path
        except FileNotFoundError:
            continue
    # The listing's own descriptor shows in the listing, and is closed by now.
    return {(number, target) for number, target in found if not target.startswith(f"/proc/{os.getpid()}/fd")}


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - twice a test: it must be cheap


def _ours_among(pids: set[int]) -> set[psutil.Process]:
    """Those of ``pids`` that are our descendants, or bear this run's mark."""
    if not pids:
        return set()
    found = {process for process in psutil.Process().children(recursive=True) if process.pid in pids}
    mark = f"{_MARK_NAME}={_MARK_VALUE}".encode()
    for pid in pids:
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(psutil.Process(pid))
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


def _is_of(process: psutil.Process, session_pids: frozenset[int]) -> bool:
    """Whether it is the child of a session server: one that rewrites its append-only file."""
    try:
        return process.ppid() in session_pids
    except psutil.NoSuchProcess:
        return True


def _told(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} ({process.status()}): {' '.join(process.cmdline())[:200]}"
    except psutil.NoSuchProcess:
        return f"process {process.pid}"

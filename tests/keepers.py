"""Keepers for tests: in this process, watched from outside, or as a process of their own to be killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from skillbus.bus.connect import Endpoint
from skillbus.bus.embedded import tied_to_us
from skillbus.console.keeper import keeper_of
from skillbus.core.scope import Fleet, Scope
from tests.pods import PROD, eventually
from tests.servers import RealServer

_PROGRAM = """
import asyncio, sys
from pathlib import Path
from skillbus.bus.connect import Endpoint
from skillbus.console.keeper import keeper_of
from skillbus.core.scope import Fleet

async def main():
    keeper = keeper_of(Fleet("prod"), Endpoint(sys.argv[1]), Path(sys.argv[2]))
    life = asyncio.create_task(keeper.run())
    while not keeper.standing.hears:
        await asyncio.sleep(0.005)
    print("hears", flush=True)
    await life

asyncio.run(main())
"""


class RunningKeeper:
    """A real keeper in this process. ``with`` starts it and waits for its end."""

    def __init__(self, server: RealServer | str, folder: Path, *, fleet: Fleet = PROD, **login: Any) -> None:
        """``login``: of an ``Endpoint``."""
        url = server if isinstance(server, str) else server.url
        self.folder = folder
        self.keeper = keeper_of(fleet, Endpoint(url, **login), folder)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="running-keeper")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life: asyncio.Task[None] | None = None

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._life = asyncio.create_task(self.keeper.run())
            self._ready.set()
            with suppress(asyncio.CancelledError):
                await self._life

        asyncio.run(main())

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._life is not None
        self._loop.call_soon_threadsafe(self._life.cancel)
        self._thread.join()

    @property
    def standing(self) -> Any:
        """Its ``KeeperStanding``."""
        return self.keeper.standing

    @property
    def tombstones(self) -> list[str]:
        """The names of its tombstones."""
        return tombstones_in(self.folder)

    def until_hears(self) -> None:
        """Wait until it hears."""
        eventually(lambda: self.standing.hears, "the keeper hears")


def tombstones_in(folder: Path) -> list[str]:
    """The names of the tombstones of a keeper with this state folder."""
    return sorted(path.name for path in (folder / "keeper" / "tombstones").glob("*.json"))


@contextmanager
def keeper_process(server: RealServer, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A keeper in a process of its own, that hears. SIGKILLed at the end, if a test has not."""
    argv = tied_to_us([sys.executable, "-c", _PROGRAM, server.url, str(folder)])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"hears\n"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def audited(server: RealServer, kind: str = "kill", scope: Scope | None = None) -> list[dict[str, str]]:
    """The entries of that kind (and scope) in control's stream."""
    rows = server.cli("XRANGE", PROD.audit_key, "-", "+")
    assert isinstance(rows, list)
    found = []
    for row in rows:
        assert isinstance(row, list)
        fields = row[1]
        assert isinstance(fields, list)
        words = [word.decode("utf-8", "replace") for word in fields if isinstance(word, bytes)]
        found.append(dict(zip(words[::2], words[1::2], strict=True)))
    return [entry for entry in found if entry["kind"] == kind and (scope is None or entry["scope"] == scope.label)]

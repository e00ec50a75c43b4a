"""The app on a socket: uvicorn, with a limit on how long anybody may take to send a request's head.

At its end it first closes the streams, which would never end by themselves, and then waits for what is being answered.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from skillbus.console.app import create_app
from skillbus.console.console import Console
from skillbus.console.tls import see_that_it_fits
from skillbus.errors import BadSettings
from skillbus.settings import http_address

_HEAD_S = 10.0
"""Seconds within which the head of a request must have come."""

_HEAD_BYTES = 32 * 1024
_GRACE_S = 5
_FILES = 65_536

_SWITCH_S = 0.0005
"""Seconds after which a thread that works gives way to one that waits. CPython's own are ten times as many."""

_OLD_EVERY = 1000
"""Searches of the young for garbage, to one of everything: about an hour with a fleet of thousands."""


class _Prompt(H11Protocol):
    """A connection that says nothing holds a descriptor; so it is closed."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer = self.loop.call_later(_HEAD_S, self._end)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(_HEAD_S, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _end(self) -> None:
        if not self._is_answering and not self.transport.is_closing():
            self.transport.close()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ConsoleServer(Server):
    """One console on one socket.

    Attributes:
        told: called with the address once it listens.
        caught: the signal that ended it.
    """

    def __init__(self, console: Console, told: Callable[[str], None]) -> None:
        settings = console.settings
        host, port = http_address(settings.console_listen)
        certfile, keyfile = settings.console_certfile, settings.console_keyfile
        super().__init__(
            Config(
                create_app(console),
                host=host,
                port=port,
                http=_Prompt,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # doorway.py reads them, from those who are trusted
                server_header=False,
                h11_max_incomplete_event_size=_HEAD_BYTES,
                timeout_graceful_shutdown=_GRACE_S,
                ssl_certfile=certfile,
                ssl_keyfile=keyfile,
            )
        )
        self._console = console
        self._told = told
        self.caught: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            for server in self.servers:
                for one in server.sockets[:1]:
                    self._told(self._address(*one.getsockname()[:2]))

    def _address(self, host: str, port: int) -> str:
        scheme = "https" if self.config.ssl_certfile else "http"
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme}://{shown}:{port}/"

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything."""
        self._console.feed.end()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end it; they are not raised again behind it, for an orderly end is none by a signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int) -> None:
        self.caught = self.caught or number
        self.handle_exit(number, None)


async def serve(console: Console, told: Callable[[str], None]) -> int | None:
    """Serve until a signal comes; which one.

    Raises:
        BadSettings: the address or the certificate cannot be used.
    """
    _raise_files_limit()
    _stay_prompt()
    if console.settings.console_certfile is not None:
        see_that_it_fits(console.settings.console_certfile, console.settings.console_keyfile)
    server = ConsoleServer(console, told)
    try:
        await server.serve()
    except ssl.SSLError as error:  # the files were exchanged since
        raise BadSettings(f"the certificate cannot be used: {error}") from None
    except SystemExit:
        where = console.settings.console_listen
        raise BadSettings(f"cannot listen on {where}: is it taken? give --listen another") from None
    return server.caught


def _stay_prompt() -> None:
    """While one thread reads ten thousand pods, a kill and the keeper's record wait no longer than they must.

    Both wait for the interpreter at every answer from Redis. And a search for garbage among all that is known of ten
    thousand pods stops every thread for a quarter of a second; nothing that lives long here goes in circles.
    """
    sys.setswitchinterval(_SWITCH_S)
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _OLD_EVERY)


def _raise_files_limit() -> None:
    """Each stream is a descriptor, and the usual soft limit of 1024 is meant for select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

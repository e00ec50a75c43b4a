"""One connection for one request: to an address that was checked, with limits on silence and on the whole.

Nothing here decides where to go (route.py), reads an answer (response.py) or says what it means (answer.py).
"""

from __future__ import annotations

import base64
import os
import re
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from skillbus.clock import boottime_s
from skillbus.errors import SourceUnavailable
from skillbus.skills.sources.response import Response
from skillbus.skills.sources.route import Place, Trust

if TYPE_CHECKING:
    import ssl

CONNECT_S = 10.0
"""Seconds until an address counts as dead."""

SILENCE_S = 20.0
"""Seconds a server may say nothing."""

_MAX_TUNNEL_BYTES = 16 * 1024
_TARGET = re.compile(r"[!-~]+")
_PROXY_NAMES = ("https_proxy", "HTTPS_PROXY")


class Wire:
    """A connected socket. Any thread may ``abort`` it, which ends at once whatever another does with it."""

    def __init__(self, connected: socket.socket, until_s: float) -> None:
        """Args: ``until_s``: when the whole must be over, by ``boottime_s``."""
        self._socket = connected
        self._until_s = until_s
        # TLS replaces the socket, and a shutdown acts on what is behind all descriptors: so this one is always right.
        self._stop = connected.dup()

    def abort(self) -> None:
        """End it: a read or write that waits returns at once."""
        with suppress(OSError):
            self._stop.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Give the descriptors back. Only when no thread uses it any more."""
        self._socket.close()
        self._stop.close()

    def tunnel(self, place: Place, authorization: str) -> None:
        """Have a proxy connect us to ``place``.

        Raises:
            OSError: it does not.
        """
        host = f"[{place.host}]" if ":" in place.host else place.host
        lines = [f"CONNECT {host}:{place.port} HTTP/1.1", f"Host: {host}:{place.port}", authorization]
        self._send(line for line in lines if line)
        said = b""
        while b"\r\n\r\n" not in said:
            more = self._receive(1)  # Not a byte further: what follows belongs to TLS.
            said += more
            if not more or len(said) > _MAX_TUNNEL_BYTES:
                raise ConnectionError("the proxy broke off")
        words = said.split(b" ", 2)
        if len(words) < 2 or words[1] != b"200":
            raise ConnectionRefusedError("the proxy refused")

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS, and see that it is ``host``.

        Raises:
            OSError: it is not; ``ssl.SSLError`` is one.
        """
        self._wait_at_most()
        self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def ask(self, target: str, headers: Mapping[str, str]) -> Response:
        """Send a GET and read the answer's head.

        Raises:
            OSError, HttpParserError: no sound answer.
            ValueError: the target or a header would be more than one.
        """
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if not _TARGET.fullmatch(target) or any(not line.isprintable() for line in lines):
            raise ValueError("a request that would be read otherwise than it is meant")
        self._send(lines)
        return Response(self._receive)

    def _send(self, lines: Iterable[str]) -> None:
        self._wait_at_most()
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def _receive(self, size: int) -> bytes:
        self._wait_at_most()
        return self._socket.recv(size)

    def _wait_at_most(self) -> None:
        left_s = self._until_s - boottime_s()
        if left_s <= 0:
            raise TimeoutError("the time for the whole is over")
        self._socket.settimeout(min(SILENCE_S, left_s))


def proxy_for(place: Place, trust: Trust) -> tuple[str, int, str] | None:
    """The proxy of the environment for ``place``: its host, port, and header line with a password, if it has one.

    ``HTTPS_PROXY``, less ``NO_PROXY``, in either case. A host in ``local_hosts`` is reached without:
    so plain http never goes through one.

    Raises:
        SourceUnavailable: what is set there is no http proxy.
    """
    if place.scheme != "https" or place.is_local(trust):
        return None
    name = next((name for name in _PROXY_NAMES if os.environ.get(name)), "")
    if not name:
        return None
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # undocumented, and old

    if proxy_bypass_environment(place.authority):
        return None
    value = os.environ[name]
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http":
        raise SourceUnavailable(f"{name} names no proxy that can be used: write it as http://host:port")
    if parts.username is None:
        return host, port, ""
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return host, port, f"Proxy-Authorization: Basic {base64.b64encode(secret).decode()}"


def import_client() -> None:
    """Import what the first request would: for who has a moment to spare now and none then."""
    import httptools  # noqa: F401

    if any(os.environ.get(name) for name in _PROXY_NAMES):
        from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # noqa: F401

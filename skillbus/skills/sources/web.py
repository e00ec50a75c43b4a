"""HTTP for manifests and sources, with the rules that no client library has by itself.

- https only; plain http only to hosts that the operator named, or (the operator's own manifest) to loopback.
- A host is resolved once, every address is checked, and the connection goes to the checked address: a manifest cannot
  point us at loopback or link-local services, whatever the name looks like. The certificate is checked for the name.
- No automatic redirects: at most five, to the same host or to ``redirect_hosts``, each checked like a first url. The
  operator's own manifest has none at all.
- The token goes to the hosts it is meant for, by scheme, host and port, decided at each hop anew; a host that a
  redirect led to never gets it.
- No error shows a query, which may hold a secret, or the token; nothing is retried.
- ``HTTPS_PROXY`` is honoured by CONNECT. A proxy looks names up by itself, so addresses cannot be pinned: only names
  that are plainly this machine's (localhost, an address written out) are refused then.

``ask`` is for the pod's process: a few bytes, and over at once when it is cancelled. ``get`` is for the child.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from skillbus.clock import boottime_s
from skillbus.errors import BadManifest, SourceUnavailable
from skillbus.skills.sources.answer import Answer, Told, check_status, in_words
from skillbus.skills.sources.response import Response
from skillbus.skills.sources.route import Place, Route, Trust
from skillbus.skills.sources.wire import CONNECT_S, SILENCE_S, Wire, proxy_for

if TYPE_CHECKING:
    import ssl

__all__ = ["ASK_S", "CONNECT_S", "SILENCE_S", "TOTAL_S", "Answer", "Told", "Trust", "Web"]

TOTAL_S = 120.0
"""Seconds one download may take. The parent gives up somewhat later, and less politely."""

ASK_S = 30.0
"""Seconds one question may take, its redirects included."""

MAX_ADDRESSES = 4
"""Addresses of one host that are tried, each for at most ``CONNECT_S``."""

_THREAD = "skills.web"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_Address = tuple[int, Any]


class _Asking(NamedTuple):
    """What ``ask`` was told; its words there."""

    etag: str
    modified: str
    max_bytes: int
    headers_only: bool
    own: bool
    allowed: frozenset[int]

    @property
    def conditions(self) -> dict[str, str]:
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.modified} if self.modified else {}

    def told(self, response: Response, route: Route) -> Told | None:
        """What was said; None if it was a redirect, which ``route`` follows then."""
        place = route.place
        if response.status in _REDIRECTS:
            route.follow(response.header("Location"))
            return None
        if response.status == 304 and self.conditions:
            return Told(304, changed=False, etag=self.etag, modified=self.modified)
        check_status(response, place, self.allowed, had_token=route.gets_token)
        answer = Answer(response, place, lambda _: None)
        body = b"" if self.headers_only or answer.status != 200 else answer.read(self.max_bytes)
        if body is None:
            text = f"{place.shown} is longer than {self.max_bytes // 1024} KB"
            raise BadManifest(text) if self.own else SourceUnavailable(f"{text}: check the url")
        return Told(answer.status, changed=True, etag=answer.ref, modified=answer.modified, body=body)


class Web:
    """The client: one connection for each request. ``get`` may be used by several threads at once.

    Attributes:
        trust: the hosts that the operator named, and the token.
    """

    def __init__(self, trust: Trust, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        """``on_bytes`` hears how many bytes of a body came in, each time some do."""
        self.trust = trust
        self._on_bytes = on_bytes
        self._tls_context: ssl.SSLContext | None = None

    async def ask(
        self,
        url: str,
        *,
        etag: str = "",
        modified: str = "",
        accept: str = "*/*",
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 0,
        headers_only: bool = False,
        own: bool = False,
        allowed: frozenset[int] = frozenset(),
    ) -> Told:
        """One small, conditional GET. Cancelled, it is over at once: no thread of it goes on, but a lookup of a name.

        Args:
            etag: what is known, to be told whether it changed; or else ``modified``, a Last-Modified header.
            headers: more of them. No secrets: they go along with every redirect.
            max_bytes: what the body may weigh; more is an error.
            headers_only: leave the body unread.
            own: it is the operator's own manifest: it may lie on this machine, and may not redirect.
            allowed: answers other than 200 that are no error; their body is not read.

        Raises:
            BadManifest: the url, or where it leads, is not allowed.
            RateLimited: the server wants to be left alone.
            SourceUnavailable: no good answer.
        """
        from skillbus.skills.quiet import (
            in_own_thread,
            to_the_end,
        )  # The pod has it, and the child has no use for an event loop.

        asking = _Asking(etag, modified, max_bytes, headers_only, own, allowed)
        sent = {"Accept": accept, **(headers or {}), **asking.conditions}
        until_s = boottime_s() + ASK_S
        route = Route(url, self.trust, own=own)

        def exchanged(wire: Wire, tunnel: str | None) -> Told | None:
            return asking.told(self._exchange(wire, route, tunnel, sent), route)

        while True:
            wire, tunnel = await self._dialled(route, until_s)
            try:
                told = await to_the_end(in_own_thread(partial(exchanged, wire, tunnel), _THREAD), wire.abort)
            finally:
                wire.end()
            if told is not None:
                return told

    @contextmanager
    def get(
        self,
        url: str,
        *,
        accept: str = "*/*",
        headers: Mapping[str, str] | None = None,
        allowed: frozenset[int] = frozenset(),
    ) -> Iterator[Answer]:
        """GET ``url``, following redirects by the rules above. Blocks: for the child.

        Raises:
            BadManifest, RateLimited, SourceUnavailable: as ``ask``.
        """
        until_s = boottime_s() + TOTAL_S
        route = Route(url, self.trust, own=False)
        sent = {"Accept": accept, **(headers or {})}
        while True:
            wire, tunnel = self._dialled_blocking(route, until_s)
            try:
                response = self._exchange(wire, route, tunnel, sent)
                if response.status not in _REDIRECTS:
                    check_status(response, route.place, allowed, had_token=route.gets_token)
                    yield Answer(response, route.place, self._on_bytes)
                    return
                route.follow(response.header("Location"))
            finally:
                wire.end()

    # ---- one hop ---------------------------------------------------------------------------------------------------

    async def _dialled(self, route: Route, until_s: float) -> tuple[Wire, str | None]:
        """A connection to the hop's host, or to the proxy, and then what a tunnel needs."""
        import asyncio

        from skillbus.skills.quiet import in_own_thread

        proxy = proxy_for(route.place, self.trust)
        host, port = proxy[:2] if proxy else (route.place.host, route.place.port)
        found = await in_own_thread(lambda: _looked_up(host, port, route.place), _THREAD)
        addresses = self._checked(route, found, tunnelled=proxy is not None)
        failure: Exception = OSError()
        for family, address in addresses:
            dialled = socket.socket(family, socket.SOCK_STREAM)
            try:
                dialled.setblocking(False)
                async with asyncio.timeout(_left_s(until_s)):
                    await asyncio.get_running_loop().sock_connect(dialled, address)
                return Wire(dialled, until_s), proxy and proxy[2]
            except OSError as error:  # TimeoutError is one.
                dialled.close()
                failure = error
            except BaseException:
                dialled.close()
                raise
        raise _no_connection(host, port, route.place, failure)

    def _dialled_blocking(self, route: Route, until_s: float) -> tuple[Wire, str | None]:
        proxy = proxy_for(route.place, self.trust)
        host, port = proxy[:2] if proxy else (route.place.host, route.place.port)
        addresses = self._checked(route, _looked_up(host, port, route.place), tunnelled=proxy is not None)
        failure: Exception = OSError()
        for family, address in addresses:
            dialled = socket.socket(family, socket.SOCK_STREAM)
            try:
                dialled.settimeout(_left_s(until_s))
                dialled.connect(address)
                return Wire(dialled, until_s), proxy and proxy[2]
            except OSError as error:
                dialled.close()
                failure = error
        raise _no_connection(host, port, route.place, failure)

    def _checked(self, route: Route, found: list[_Address], *, tunnelled: bool) -> list[_Address]:
        if tunnelled:
            route.check_name()
        else:
            route.check([str(address[0]) for _, address in found])
        return found[:MAX_ADDRESSES]

    def _exchange(self, wire: Wire, route: Route, tunnel: str | None, sent: Mapping[str, str]) -> Response:
        place = route.place
        headers = {"Host": place.authority, "User-Agent": "skillbus", "Accept-Encoding": "identity"}
        headers |= {"Connection": "close", **sent}
        if route.gets_token:
            headers["Authorization"] = f"Bearer {self.trust.token}"
        with in_words(place):
            if tunnel is not None:
                wire.tunnel(place, tunnel)
            if place.scheme == "https":
                wire.secure(self._tls(), place.host)
            return wire.ask(place.target, headers)

    def _tls(self) -> ssl.SSLContext:
        if self._tls_context is None:
            import ssl

            self._tls_context = ssl.create_default_context()
        return self._tls_context


def _looked_up(host: str, port: int, place: Place) -> list[_Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SourceUnavailable(f"{place.shown}: the name {host} cannot be resolved: check it, and DNS") from None
    return list(dict.fromkeys((int(one[0]), one[4]) for one in found))


def _left_s(until_s: float) -> float:
    return max(0.001, min(CONNECT_S, until_s - boottime_s()))


def _no_connection(host: str, port: int, place: Place, failure: Exception) -> SourceUnavailable:
    if isinstance(failure, TimeoutError):
        return SourceUnavailable(f"{place.shown}: {host}:{port} did not answer in time: it will be tried again")
    return SourceUnavailable(f"{place.shown}: no connection to {host}:{port}: it will be tried again")

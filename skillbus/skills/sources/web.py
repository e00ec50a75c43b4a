"""HTTP for manifests and archives, with the rules that no client library has by itself.

- https only; plain http only to hosts that the operator named, or (the operator's own manifest) to loopback.
- A host is resolved once, every address is checked, and the connection goes to the checked address: a manifest cannot
  point us at loopback or link-local services, whatever the name looks like.
- No automatic redirects: at most five, each checked like a first url. A manifest has none at all.
- The token goes to the hosts it is meant for, by scheme, host and port, at each hop anew.
- No error shows a query, which may hold a secret; no proxy is used; nothing is retried.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3

from skillbus.clock import boottime_s
from skillbus.core.text import harmless
from skillbus.errors import BadManifest, SourceUnavailable
from skillbus.skills.rules import shown_url

MAX_REDIRECTS = 5
CONNECT_S = 10.0
SILENCE_S = 20.0
"""Seconds a server may say nothing."""

TOTAL_S = 120.0
"""Seconds one download may take. The parent gives up somewhat later, and less politely."""

_CHUNK = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Trust:
    """Which hosts the operator named. ``host`` or ``host:port``, lower case.

    Attributes:
        token: the secret; never shown.
    """

    token: str | None = field(repr=False)
    token_hosts: frozenset[str]
    local_hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Place:
    """A url, taken apart and found acceptable."""

    scheme: str
    host: str
    port: int
    target: str
    shown: str


class Answer:
    """A good answer, its body still to be read."""

    def __init__(self, response: Any, place: _Place, until_s: float) -> None:
        self._response = response
        self._place = place
        self._until_s = until_s
        self.ref = harmless(response.headers.get("ETag", ""), 200)

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives.

        Raises:
            SourceUnavailable: it broke off, or took too long.
        """
        try:
            for chunk in self._response.stream(_CHUNK, decode_content=False):
                if boottime_s() > self._until_s:
                    raise SourceUnavailable(
                        f"{self._place.shown} took longer than {TOTAL_S:g} s: it will be tried again"
                    )
                yield chunk
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _unavailable(self._place, error) from None


class Web:
    """The client. One request at a time, one connection each."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    @contextmanager
    def get(self, url: str) -> Iterator[Answer]:
        """GET ``url``, following redirects by the rules above.

        Raises:
            BadManifest: the url, or where it leads, is not allowed.
            SourceUnavailable: no good answer.
        """
        until_s = boottime_s() + TOTAL_S
        place = self._place(url)
        for _ in range(MAX_REDIRECTS + 1):
            with self._asked(place, self._checked_addresses(place)) as response:
                if response.status not in _REDIRECTS:
                    self._check_status(response.status, place)
                    yield Answer(response, place, until_s)
                    return
                url = _joined(url, response.headers.get("Location", ""), place)
            following = self._place(url)
            if place.scheme == "https" and following.scheme != "https":
                raise BadManifest(f"{place.shown} redirects from https to plain http, which is refused")
            place = following
        raise SourceUnavailable(f"{place.shown}: more than {MAX_REDIRECTS} redirects")

    def get_own(self, url: str, max_bytes: int) -> bytes:
        """GET the operator's own manifest, which may lie on this machine and may not redirect.

        Raises:
            BadManifest, SourceUnavailable: as ``get``.
        """
        until_s = boottime_s() + TOTAL_S
        place = _taken_apart(url)
        addresses = _resolved(place)
        if place.scheme == "http" and not (self._is_local(place) or all(_is_loopback(one) for one in addresses)):
            raise BadManifest(
                f"{place.shown}: plain http only to this machine or a host in SKILLBUS_SKILLS_LOCAL_HOSTS"
            )
        with self._asked(place, addresses) as response:
            if response.status in _REDIRECTS:
                raise BadManifest(f"{place.shown} redirects, which a manifest may not: set its final address")
            self._check_status(response.status, place)
            body = b""
            for chunk in Answer(response, place, until_s).chunks():
                body += chunk
                if len(body) > max_bytes:
                    raise BadManifest(f"{place.shown} is longer than {max_bytes // 1024} KB")
            return body

    def _place(self, url: str) -> _Place:
        place = _taken_apart(url)
        if place.scheme == "http" and not self._is_local(place):
            raise BadManifest(f"{place.shown}: use https; plain http only to a host in SKILLBUS_SKILLS_LOCAL_HOSTS")
        return place

    def _is_local(self, place: _Place) -> bool:
        return not self._trust.local_hosts.isdisjoint({place.host, f"{place.host}:{place.port}"})

    def _checked_addresses(self, place: _Place) -> list[str]:
        addresses = _resolved(place)
        if not self._is_local(place) and any(_is_inside(address) for address in addresses):
            raise BadManifest(
                f"{place.shown} leads to this machine or its own link, which a manifest may not unless the host "
                "is in SKILLBUS_SKILLS_LOCAL_HOSTS"
            )
        return addresses

    def _headers(self, place: _Place) -> dict[str, str]:
        default = _PORTS[place.scheme] == place.port
        host = f"[{place.host}]" if ":" in place.host else place.host
        headers = {"Host": host if default else f"{host}:{place.port}"}
        headers |= {"User-Agent": "skillbus", "Accept": "*/*", "Accept-Encoding": "identity"}
        if self._gets_token(place):
            headers["Authorization"] = f"Bearer {self._trust.token}"
        return headers

    def _gets_token(self, place: _Place) -> bool:
        if not self._trust.token or (place.scheme != "https" and not self._is_local(place)):
            return False
        names = {f"{place.host}:{place.port}"}
        if (place.scheme, place.port) == ("https", 443):
            names.add(place.host)
        return not self._trust.token_hosts.isdisjoint(names)

    def _check_status(self, status: int, place: _Place) -> None:
        if status == 200:
            return
        if status in {401, 403}:
            had = "the token was refused" if self._gets_token(place) else "it wants a token, and none is meant for it"
            raise SourceUnavailable(f"{place.shown} answered {status}: {had} (SKILLBUS_SKILLS_TOKEN, _TOKEN_HOSTS)")
        hint = "check the url" if status == 404 else "it will be tried again"
        raise SourceUnavailable(f"{place.shown} answered {status}: {hint}")

    @contextmanager
    def _asked(self, place: _Place, addresses: list[str]) -> Iterator[Any]:
        pool, response = self._connected(place, addresses)
        try:
            yield response
        finally:
            response.close()
            pool.close()

    def _connected(self, place: _Place, addresses: list[str]) -> tuple[Any, Any]:
        failure: Exception = OSError("no address")
        for address in addresses:
            pool = _pool(place, address)
            try:
                return pool, pool.urlopen(
                    "GET",
                    place.target,
                    headers=self._headers(place),
                    redirect=False,
                    retries=False,
                    assert_same_host=False,
                    preload_content=False,
                )
            except (urllib3.exceptions.HTTPError, OSError) as error:
                pool.close()
                failure = error
        raise _unavailable(place, failure) from None


def _pool(place: _Place, address: str) -> urllib3.HTTPConnectionPool:
    timeout = urllib3.Timeout(connect=CONNECT_S, read=SILENCE_S)
    if place.scheme == "http":
        return urllib3.HTTPConnectionPool(address, place.port, timeout=timeout, maxsize=1)
    return urllib3.HTTPSConnectionPool(
        address,
        place.port,
        timeout=timeout,
        maxsize=1,
        cert_reqs="CERT_REQUIRED",
        server_hostname=place.host,
        assert_hostname=place.host,
    )


def _taken_apart(url: str) -> _Place:
    shown = shown_url(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadManifest(f"{shown}: it cannot be read as a url") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise BadManifest(f"{shown}: only https urls with a host can be fetched")
    if parts.username is not None or parts.password is not None:
        raise BadManifest(f"{shown}: a url may hold no user or password: set SKILLBUS_SKILLS_TOKEN")
    if not parts.hostname.isascii() or not url.isprintable() or " " in url:
        raise BadManifest(f"{shown}: only printable ASCII host names without spaces can be fetched")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Place(parts.scheme, parts.hostname.lower().rstrip("."), port or _PORTS[parts.scheme], target, shown)


def _joined(url: str, location: str, place: _Place) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise BadManifest(f"{place.shown} redirects to something that cannot be read as a url") from None


def _resolved(place: _Place) -> list[str]:
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SourceUnavailable(f"{place.shown}: the name {place.host} cannot be resolved: check it, and DNS") from None
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def _plain_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address itself, or the IPv4 one that it stands for."""
    plain = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(plain, ipaddress.IPv6Address):
        if plain in ipaddress.ip_network("64:ff9b::/96"):
            return ipaddress.IPv4Address(int(plain) & 0xFFFFFFFF)
        return plain.ipv4_mapped or plain.sixtofour or plain
    return plain


def _is_loopback(address: str) -> bool:
    return _plain_address(address).is_loopback


def _is_inside(address: str) -> bool:
    plain = _plain_address(address)
    return (
        plain.is_loopback or plain.is_link_local or plain.is_unspecified or plain.is_multicast or plain.is_reserved
    ) or plain in ipaddress.ip_network("0.0.0.0/8" if plain.version == 4 else "::/96")


def _unavailable(place: _Place, error: Exception) -> SourceUnavailable:
    if isinstance(error, urllib3.exceptions.SSLError):
        return SourceUnavailable(
            f"{place.shown}: its TLS certificate was not accepted (SSL_CERT_FILE names more roots)"
        )
    # The first is a kind of the second, though nothing timed out.
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return SourceUnavailable(f"{place.shown}: no connection to {place.host}:{place.port}: it will be tried again")
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError):
        return SourceUnavailable(f"{place.shown} did not answer in time: it will be tried again")
    return SourceUnavailable(f"{place.shown}: the answer broke off ({type(error).__name__}): it will be tried again")

"""Where a request may go, and what it may take along: the rules of the web that need no socket. Pure.

A url comes from a manifest, which is not trusted. It is taken apart once, and from then on only its parts are used, so
that what was checked is what is asked.
"""

from __future__ import annotations

import ipaddress
import string
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from skillbus.errors import BadManifest, SourceUnavailable
from skillbus.skills.rules import shown_url

MAX_REDIRECTS = 5
PORTS = {"https": 443, "http": 80}


class Trust(NamedTuple):
    """Which hosts the operator named. ``host`` (its https port 443) or ``host:port``, lower case.

    Attributes:
        token: the secret; never shown.
        token_hosts: those that it is sent to.
        local_hosts: those that may lie on this machine or its link, or be spoken to without TLS. Without a port: any.
        redirect_hosts: those that a download may be redirected to, besides the one that was asked.
    """

    token: str | None
    token_hosts: frozenset[str]
    local_hosts: frozenset[str]
    redirect_hosts: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Trust(token_hosts={set(self.token_hosts)}, local_hosts={set(self.local_hosts)}, …)"


class Place(NamedTuple):
    """A url, taken apart and found readable.

    Attributes:
        target: path and query, as the request line has them.
        shown: the url without its secrets.
    """

    scheme: str
    host: str
    port: int
    target: str
    shown: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials are bound to."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """``host``, or ``host:port`` where the port is not the scheme's own; for the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if PORTS[self.scheme] == self.port else f"{host}:{self.port}"

    def is_among(self, hosts: frozenset[str]) -> bool:
        """Whether ``hosts`` names this place: a bare name means https on port 443."""
        names = {f"{self.host}:{self.port}"}
        if (self.scheme, self.port) == ("https", 443):
            names.add(self.host)
        return not hosts.isdisjoint(names)

    def is_local(self, trust: Trust) -> bool:
        """Whether the operator named it as a host that may be on this machine, or without TLS."""
        return not trust.local_hosts.isdisjoint({self.host, f"{self.host}:{self.port}"})


def taken_apart(url: str) -> Place:
    """``url`` as a place.

    Raises:
        BadManifest: it is none that can be fetched.
    """
    shown = shown_url(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadManifest(f"{shown}: it cannot be read as a url") from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise BadManifest(f"{shown}: only https urls with a host can be fetched")
    if parts.username is not None or parts.password is not None:
        raise BadManifest(f"{shown}: a url may hold no user or password: set SKILLBUS_SKILLS_TOKEN")
    if not parts.hostname.isascii() or not url.isprintable() or " " in url:
        raise BadManifest(f"{shown}: only printable ASCII host names without spaces can be fetched")
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=string.punctuation)
    return Place(parts.scheme, parts.hostname.lower().rstrip("."), port or PORTS[parts.scheme], target, shown)


class Route:
    """From a first url over its redirects, each hop checked like the first.

    Attributes:
        place: the hop that is to be asked now.
    """

    def __init__(self, url: str, trust: Trust, *, own: bool) -> None:
        """``own``: the operator's manifest, which may lie on this machine and may not redirect."""
        self._trust = trust
        self._own = own
        self._hops = 0
        self._url = url
        self.place = taken_apart(url)
        self._first = self.place
        if not own:
            self._check_scheme()

    def _check_scheme(self) -> None:
        if self.place.scheme == "http" and not self.place.is_local(self._trust):
            raise BadManifest(
                f"{self.place.shown}: use https; plain http only to a host in SKILLBUS_SKILLS_LOCAL_HOSTS"
            )

    @property
    def gets_token(self) -> bool:
        """Whether this hop is the one the token is meant for: never a host that a redirect led to."""
        place = self.place
        if not self._trust.token or place.origin != self._first.origin or not place.is_among(self._trust.token_hosts):
            return False
        return place.scheme == "https" or place.is_local(self._trust)

    def check(self, addresses: Sequence[str]) -> None:
        """See that none of the addresses of the present hop's host is one that it may not lead to.

        Raises:
            BadManifest: one is.
        """
        if self.place.is_local(self._trust):
            return
        if self._own:
            if self.place.scheme == "http" and not all(map(is_loopback, addresses)):
                raise BadManifest(
                    f"{self.place.shown}: plain http only to this machine or a host in SKILLBUS_SKILLS_LOCAL_HOSTS"
                )
        elif any(map(is_inside, addresses)):
            raise BadManifest(
                f"{self.place.shown} leads to this machine or its own link, which a manifest may not unless the host "
                "is in SKILLBUS_SKILLS_LOCAL_HOSTS"
            )

    def check_name(self) -> None:
        """For a proxy, which looks names up by itself: refuse what is plainly this machine or its link.

        Raises:
            BadManifest: it is.
        """
        host = self.place.host
        if host == "localhost" or host.endswith(".localhost"):
            self.check(["127.0.0.1"])
        try:
            self.check([str(ipaddress.ip_address(host))])
        except ValueError:
            if host.replace(".", "").isdigit() or host.startswith("0x"):  # 127.1, 2130706433: a number, not a name
                self.check(["127.0.0.1"])

    def follow(self, location: str) -> None:
        """Go on to ``location``.

        Raises:
            BadManifest: it may not be gone to.
        """
        before = self.place
        if self._own:
            raise BadManifest(f"{before.shown} redirects, which a manifest may not: set its final address")
        if not location:
            raise SourceUnavailable(f"{before.shown} redirects to nowhere: check the url")
        self._hops += 1
        if self._hops > MAX_REDIRECTS:
            raise SourceUnavailable(f"{self._first.shown}: more than {MAX_REDIRECTS} redirects: check the url")
        try:
            self._url = urljoin(self._url, location)
        except ValueError:
            raise BadManifest(f"{before.shown} redirects to something that cannot be read as a url") from None
        self.place = taken_apart(self._url)
        if before.scheme == "https" and self.place.scheme != "https":
            raise BadManifest(f"{before.shown} redirects from https to plain http, which is refused")
        self._check_scheme()
        if not (self._is_same_host() or self.place.is_among(self._trust.redirect_hosts)):
            raise BadManifest(
                f"{before.shown} redirects to {self.place.authority}, which is not in SKILLBUS_SKILLS_REDIRECT_HOSTS: "
                "use the final address, or add the host"
            )

    def _is_same_host(self) -> bool:
        """Whether the hop is the host first asked, or that host with TLS instead of without."""
        return self.place.origin in {self._first.origin, ("https", self._first.host, PORTS["https"])}


def _plain_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address itself, or the IPv4 one that it stands for."""
    plain = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(plain, ipaddress.IPv6Address):
        if plain in ipaddress.ip_network("64:ff9b::/96"):
            return ipaddress.IPv4Address(int(plain) & 0xFFFFFFFF)
        return plain.ipv4_mapped or plain.sixtofour or plain
    return plain


def is_loopback(address: str) -> bool:
    """Whether it is this machine's own, in whatever dress."""
    return _plain_address(address).is_loopback


def is_inside(address: str) -> bool:
    """Whether it is this machine's, or its link's, or nobody's. A company's own net is none of these."""
    plain = _plain_address(address)
    return (
        plain.is_loopback or plain.is_link_local or plain.is_unspecified or plain.is_multicast or plain.is_reserved
    ) or plain in ipaddress.ip_network("0.0.0.0/8" if plain.version == 4 else "::/96")

"""Sentinel: who is the master now, asked anew before each connection is made (docs/decisions/sentinel.md).

A connection is all that is different: it looks for its server first, and refuses one that does not call itself master.
So whatever drops a connection (a server that died, one that hangs, READONLY) leads to the master of that moment, and
nothing else in the house knows of Sentinels. What it deliberately does not do: subscribe to a Sentinel, read from a
replica, retry. Time is short: within one command timeout it has asked them all, all at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from redis import exceptions as wire
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from skillbus.errors import BadSettings

SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
"""The schemes that name Sentinels, and that of the servers behind them; both are reached in the same way."""

OWN_QUERY = frozenset({"sentinel_username", "sentinel_password"})
HOW = "write redis+sentinel://host:26379,host2:26379/service/0 (rediss+sentinel://… for TLS)"

_PORT = 26379
_HOSTS_LIMIT = 16
_SHARE = 0.4
"""Of the command timeout: for the Sentinels' answers. The rest is for the master that they name."""


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The Sentinels of a URL, and whom to ask them for.

    Attributes:
        addresses: ``(host, port)`` of each.
        service: the name that they give to the master.
        options: of a connection to one of them: its login and TLS.
    """

    addresses: tuple[tuple[str, int], ...]
    service: str
    options: Mapping[str, Any]

    async def master(self, timeout_s: float) -> tuple[str, int]:
        """The master's address: the word of the Sentinel with the youngest configuration, of all that answer in time.

        Once most of them have answered, nobody waits for the rest: without most of them there is no failover.

        Raises:
            redis.exceptions.RedisError: none of them knows a master; in the words of the first that said why.
        """
        asked = [asyncio.ensure_future(self._ask(host, port, timeout_s)) for host, port in self.addresses]
        found: list[tuple[int, str, int]] = []
        refusals: list[Exception] = []
        try:
            for answer in asyncio.as_completed(asked, timeout=timeout_s):
                try:
                    found.append(await answer)
                except TimeoutError:
                    break
                except Exception as error:
                    refusals.append(error)
                if len(found) > len(asked) // 2:
                    break
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if found:
            return max(found)[1:]
        denied = (wire.AuthenticationError, wire.NoPermissionError)
        why = next((error for error in refusals if isinstance(error, denied)), None) or next(iter(refusals), None)
        if isinstance(why, wire.RedisError):
            raise type(why)(f"no Sentinel names the master {self.service!r}: {why}")
        raise wire.ConnectionError(f"no Sentinel names the master {self.service!r}: none answers ({why or 'silence'})")

    async def _ask(self, host: str, port: int, timeout_s: float) -> tuple[int, str, int]:
        """``(configuration epoch, host, port)``, as one Sentinel says."""
        kind = SSLConnection if "ssl_cert_reqs" in self.options else Connection
        connection: Any = kind(host=host, port=port, **self._timed(timeout_s))
        try:
            await connection.connect()
            await connection.send_command("SENTINEL", "MASTER", self.service)
            flat = [word.decode("utf-8", "replace") for word in await connection.read_response()]
            told = dict(zip(flat[::2], flat[1::2], strict=False))
            return int(told.get("config-epoch", 0)), told["ip"], int(told["port"])
        finally:
            with suppress(Exception):
                await connection.disconnect(nowait=True)

    def _timed(self, timeout_s: float) -> dict[str, Any]:
        times = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        return {
            **self.options,
            **times,
            "protocol": 2,
            "decode_responses": False,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
        }


class _AtMaster:
    """What a connection of the client becomes: it asks for the master, goes there, and hears it say that it is one."""

    sentinels: Sentinels
    patience_s: float
    host: str
    port: int
    server = ""

    async def _connect(self) -> None:
        self.host, self.port = await self.sentinels.master(self.patience_s * _SHARE)
        type(self).server = f"{self.host}:{self.port}"
        await super()._connect()  # type: ignore[misc]

    async def on_connect(self) -> None:
        """Log in as always; then only a master will do: a Sentinel may be behind the times."""
        await super().on_connect()  # type: ignore[misc]
        connection: Any = self
        await connection.send_command("ROLE")
        role = await connection.read_response()
        if role[0] != b"master":
            said = role[0].decode("utf-8", "replace")
            raise wire.ConnectionError(f"{self.host}:{self.port}, which Sentinel names, says that it is a {said}")


def connection_class(sentinels: Sentinels, timeout_s: float, *, is_tls: bool) -> type[Any]:
    """The class of connections to the master that ``sentinels`` know."""
    kind = SSLConnection if is_tls else Connection
    return type("MasterConnection", (_AtMaster, kind), {"sentinels": sentinels, "patience_s": timeout_s})


def server_of(client: Any) -> str:
    """Where the one connection of ``client`` leads, by its last word from Sentinels; empty: its URL names none.

    Its class is its own, as ``connection_class`` made it: so what one client found is nothing that another one reads.
    """
    return str(getattr(client.connection_pool.connection_class, "server", ""))


def split_url(url: str) -> SplitResult:
    """A Redis URL taken apart. Of several Sentinels, newer Pythons take a bracket for the end of the only host.

    Raises:
        ValueError: it is no URL.
    """
    scheme, colon, rest = url.partition("://")
    if not colon or scheme.lower() not in SCHEMES:
        return urlsplit(url)
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    return urlsplit(f"{scheme}://sentinels{rest[len(netloc) :]}")._replace(netloc=netloc)


def is_sentinel(url: str) -> bool:
    """Whether a URL names Sentinels."""
    return split_url(url).scheme.lower() in SCHEMES


def server_url(parts: SplitResult) -> str:
    """The URL of the server behind the Sentinels, with a host that stands for whichever it will be.

    Raises:
        BadSettings: the URL names no service, or more than that and a database.
    """
    names = [name for name in parts.path.split("/") if name]
    if not 1 <= len(names) <= 2:
        raise BadSettings(f"a Sentinel URL's path is the master's name there, and a database: {HOW}")
    if len(names) == 2 and not (names[1].isascii() and names[1].isdigit() and len(names[1]) < 10):
        raise BadSettings(f"a Sentinel URL's path ends in the number of a database: {HOW}")
    login = parts.netloc.rpartition("@")[0]
    netloc = f"{login}@sentinel" if login else "sentinel"
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in OWN_QUERY]
    path = f"/{names[1]}" if len(names) == 2 else ""
    return urlunsplit((SCHEMES[parts.scheme.lower()], netloc, path, urlencode(query), ""))


def sentinels_of(parts: SplitResult, username: str | None, password: str | None) -> Sentinels:
    """The Sentinels that a URL names. Their login is one of their own: ``None`` is none.

    Raises:
        BadSettings: an address is none.
    """
    query = dict(parse_qsl(parts.query))
    addresses = tuple(_address(text) for text in parts.netloc.rpartition("@")[2].split(","))
    if len(addresses) > _HOSTS_LIMIT:
        raise BadSettings(f"{len(addresses)} Sentinels are more than anybody has: name {_HOSTS_LIMIT} at most")
    login = {
        "username": username or query.get("sentinel_username"),
        "password": password or query.get("sentinel_password"),
    }
    service = unquote(next(name for name in parts.path.split("/") if name))
    tls = {name: value for name, value in parse_url(server_url(parts)).items() if name.startswith("ssl_")}
    if SCHEMES[parts.scheme.lower()] == "rediss":
        tls.setdefault("ssl_cert_reqs", "required")
    return Sentinels(addresses, service, {**tls, **{name: word for name, word in login.items() if word}})


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.strip().rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text.strip(), str(_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BadSettings(f"{text[:80]!r} is no address of a Sentinel: {HOW}")
    return host, int(port)

"""URL -> client, with every timeout explicit; and the one translation of what the client raises.

Why nothing is left to the client's defaults: they hold one GET against a silent server for 58 s (docs/protocol.md §7).
So its retry is switched off, its health check too (it sends PINGs and never looks for the answer), and RESP2 in bytes
is spoken, which its subscriber reads without mistakes. Who retries, and until when, is tenacity's business in ``pod``.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl

from redis import exceptions as wire
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from skillbus.bus.sentinel import (
    OWN_QUERY,
    SCHEMES,
    Sentinels,
    connection_class,
    is_sentinel,
    sentinels_of,
    server_url,
    split_url,
)
from skillbus.errors import BadSettings, BusDenied, BusNotReady, BusUnreachable, SkillbusError

Client = Any
"""A ``redis.asyncio.Redis``. The library's annotations mix its RESP2, RESP3 and decoded answers, and cannot be used."""

_SCHEMES = ("redis", "rediss", "unix", *SCHEMES)
_HOW = "write redis://host:6379/0, rediss://… (TLS), unix:///path or redis+sentinel://host:26379/service/0"
_QUERY = frozenset({"db", "username", "password"})
# What can be said in text. A query overrules what we pass, so anything else would undo a guarantee of ours.
_TLS_WORDS = ("keyfile", "certfile", "cert_reqs", "ca_certs", "ca_data", "ca_path", "check_hostname", "ciphers")
_TLS_QUERY = frozenset({f"ssl_{word}" for word in _TLS_WORDS} | {"ssl_password"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where Redis is, and who we are there.

    Attributes:
        sentinel_username: who we are at the Sentinels, if the URL names some and they ask.
    """

    url: str = field(repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout_s: float = 1.0
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            parts = split_url(self.url)
        except ValueError as error:
            raise BadSettings(f"the Redis URL cannot be read ({_first_line(error)}): {_HOW}") from None
        if "://" not in self.url:
            tail = self.url.rpartition("@")[2].partition("?")[0]
            raise BadSettings(f"{tail!r} is no Redis URL, for it has no scheme: {_HOW}")
        scheme = parts.scheme.lower()
        if "cluster" in scheme:
            raise BadSettings(
                f"a {scheme}:// URL is not supported: a fleet needs one master, not Redis Cluster; {_HOW}"
            )
        if scheme not in _SCHEMES:
            raise BadSettings(f"{self.shown!r} is no Redis URL: {_HOW}")
        _check_options(parts, self.shown)
        try:
            _check_tls(self._options)
        except ValueError as error:
            raise BadSettings(f"{self.shown!r} is no Redis URL: {_first_line(error)}") from None
        except Exception as error:
            raise BadSettings(f"{self.shown!r} has an ssl_ option that cannot be used: {_why(error)}") from None
        if is_sentinel(self.url):
            self.sentinels  # noqa: B018 - it raises

    @property
    def shown(self) -> str:
        """The URL without user, password and query."""
        parts = split_url(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def _options(self) -> dict[str, Any]:
        """What the URL says of a connection to the server itself."""
        parts = split_url(self.url)
        return dict(parse_url(server_url(parts) if is_sentinel(self.url) else self.url))

    @property
    def sentinels(self) -> Sentinels | None:
        """The Sentinels that know the master; None: the URL names the master itself."""
        if not is_sentinel(self.url):
            return None
        return sentinels_of(split_url(self.url), self.sentinel_username, self.sentinel_password)

    @property
    def user(self) -> str:
        """The ACL user that we are there; empty: the server's default one."""
        return self.username or str(self._options.get("username") or "")

    @property
    def database(self) -> int:
        """The database number that all keys live in."""
        return int(self._options.get("db", 0))

    def client(self, name: str) -> Client:
        """A client that holds one connection at most: commands queue for it, so that a pod never needs a third."""
        given = {"username": self.username, "password": self.password}
        options: dict[str, Any] = {
            "socket_timeout": self.timeout_s,
            "socket_connect_timeout": self.timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "health_check_interval": 0,
            "protocol": 2,
            "decode_responses": False,
            "client_name": name,
            "driver_info": None,
            **{key: value for key, value in given.items() if value is not None},
        }
        if split_url(self.url).scheme.lower() != "unix":
            options |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
        options |= self._options
        sentinels = self.sentinels
        if sentinels is not None:
            is_tls = options.pop("connection_class", Connection) is SSLConnection
            options["connection_class"] = connection_class(sentinels, self.timeout_s, is_tls=is_tls)
        pool = BlockingConnectionPool(max_connections=1, timeout=self.timeout_s, **options)
        return Redis.from_pool(pool)


def _check_options(parts: SplitResult, shown: str) -> None:
    scheme = parts.scheme.lower()
    if scheme not in ("unix", *SCHEMES) and not re.fullmatch(r"/?[0-9]{0,9}/?", parts.path):
        raise BadSettings(f"{shown!r} is no Redis URL: its path is the number of a database: write …/0")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        what = repr(name[:40]) if value else "an option without a value"
        if name in _TLS_QUERY and not scheme.startswith("rediss"):
            raise BadSettings(f"{shown!r} has {what} in its query, which is for TLS: write rediss://…, or leave it out")
        if name not in _QUERY | _TLS_QUERY | (OWN_QUERY if scheme in SCHEMES else frozenset()):
            raise BadSettings(
                f"{shown!r} has {what} in its query, which cannot be set there: leave it out "
                "(db, username, password and, for rediss://, the ssl_ options can; for times see SKILLBUS_*)"
            )
        if name == "db" and not re.fullmatch("[0-9]{1,9}", value):
            raise BadSettings(f"{shown!r} has a db in its query that is no number: write ?db=0")


def _check_tls(options: dict[str, Any]) -> None:
    """Make what the ssl_ options ask for, so that a bad one is told now and not at the first connection."""
    if options.get("connection_class") is SSLConnection:
        kwargs = {name: value for name, value in options.items() if name != "connection_class"}
        SSLConnection(**kwargs).ssl_context.get()


def _why(error: Exception) -> str:
    """A file's fault by its own words; the path is the operator's, and is shown."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f" ({error.filename})" if error.filename else "")
    return _first_line(error)


def _keepalive() -> dict[int, int]:
    """A peer that vanished is noticed by the kernel within 6 s, also while data is in flight."""
    user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
    return {user_timeout: 6000} if user_timeout is not None else {}


@contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Whatever the client raises inside becomes an error of ours, with the next step.

    A cancellation inside stays one. The client sends with ``asyncio.wait_for``, which before Python 3.12 swallows the
    cancellation that comes together with its result: the task would go on for ever, and its pod never end.
    """
    task = asyncio.current_task()
    cancels_count = task.cancelling() if task else 0
    try:
        try:
            yield
        finally:
            if task and task.cancelling() > cancels_count:
                raise asyncio.CancelledError
    except SkillbusError:
        raise
    except Exception as error:
        raise error_of(error, endpoint) from error


_NOT_READY = (wire.BusyLoadingError, wire.ReadOnlyError, wire.ClusterDownError, wire.TryAgainError)
_DENIED = (wire.AuthenticationError, wire.AuthorizationError, wire.NoPermissionError)


def error_of(error: Exception, endpoint: Endpoint) -> SkillbusError:
    """The error of ours for ``error``. The order matters: an AuthenticationError is a ConnectionError too.

    Whatever is left is a broken connection too: a parser that reads nonsense raises anything (docs/protocol.md §7: a
    TypeError, a ValueError, a RecursionError …), and a listener outlives every error.
    """
    where = endpoint.shown
    said = _first_line(error)
    if isinstance(error, _DENIED):
        return BusDenied(f"{where} refuses us: {said}: check user, password and ACL (docs/protocol.md §5)")
    if isinstance(error, _NOT_READY):
        return BusNotReady(f"{where} cannot serve this now: {said}")
    if isinstance(error, wire.TimeoutError | TimeoutError):
        return BusUnreachable(f"no answer from {where} within {endpoint.timeout_s:g} s: is it up?")
    if isinstance(error, wire.ConnectionError):
        return BusUnreachable(f"no connection to {where}: {said}: is it up?")
    if isinstance(error, wire.ResponseError):
        return BusNotReady(f"{where} answers, but refuses: {said}")
    return BusUnreachable(f"the connection to {where} broke ({type(error).__name__})")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")

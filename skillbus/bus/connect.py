"""URL -> client, with every timeout explicit; and the one translation of what the client raises.

Why nothing is left to the client's defaults: they hold one GET against a silent server for 58 s (docs/protocol.md §7).
So its retry is switched off, its health check too (it sends PINGs and never looks for the answer), and RESP2 in bytes
is spoken, which its subscriber reads without mistakes. Who retries, and until when, is tenacity's business in ``pod``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from redis import exceptions as wire
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from skillbus.errors import BadSettings, BusDenied, BusNotReady, BusUnreachable, SkillbusError

Client = Any
"""A ``redis.asyncio.Redis``. The library's annotations mix its RESP2, RESP3 and decoded answers, and cannot be used."""

_NOT_YET = ("sentinel", "cluster")
_SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where Redis is, and who we are there."""

    url: str = field(repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout_s: float = 1.0

    def __post_init__(self) -> None:
        scheme = urlsplit(self.url).scheme.lower()
        if any(word in scheme for word in _NOT_YET):
            raise BadSettings(
                f"a {scheme}:// URL is not supported yet: give the master's own redis:// or rediss:// URL"
            )
        if scheme not in _SCHEMES:
            raise BadSettings(
                f"{self.shown!r} is no Redis URL: write redis://host:6379/0, rediss://… (TLS) or unix:///path"
            )
        try:
            parse_url(self.url)
        except ValueError as error:
            raise BadSettings(f"{self.shown!r} is no Redis URL: {_first_line(error)}") from None

    @property
    def shown(self) -> str:
        """The URL without user, password and query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def database(self) -> int:
        """The database number that all keys live in."""
        return int(parse_url(self.url).get("db", 0))

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
        if urlsplit(self.url).scheme.lower() != "unix":
            options |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
        pool = BlockingConnectionPool.from_url(self.url, max_connections=1, timeout=self.timeout_s, **options)
        return Redis.from_pool(pool)


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
# Besides Redis' own errors: what its parser lets through on a connection that died or spoke nonsense (§7).
_BROKEN = (OSError, TypeError, IndexError, UnicodeDecodeError, AttributeError, EOFError)


def error_of(error: Exception, endpoint: Endpoint) -> SkillbusError:
    """The error of ours for ``error``. The order matters: an AuthenticationError is a ConnectionError too."""
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
    if isinstance(error, (*_BROKEN, wire.RedisError)):
        return BusUnreachable(f"the connection to {where} broke ({type(error).__name__})")
    raise error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")

"""One connection for looking at a server: any command, each with its answer or the server's own words against it.

Doctor asks what many credentials may not ask, and a refusal is an answer there. So nothing raises: what was refused,
unanswered or cut is an ``Unseen`` that says why, and nobody can take it for a value.

What it deliberately does not do: retry, decide, or name a key. It is not for pods and not for orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlunsplit

from redis import exceptions as wire

from skillbus.bus.connect import Endpoint, translated
from skillbus.bus.sentinel import OWN_QUERY, SCHEMES, split_url
from skillbus.core.text import harmless
from skillbus.errors import BadSettings, SkillbusError

_OURS = frozenset({"username", "password"})


@dataclass(frozen=True, slots=True)
class Unseen:
    """What could not be seen.

    Attributes:
        why: the server's words, or what went wrong on the way; fit to be shown.
        denied: whether the ACL refuses these credentials the command itself, a key or a channel of it.
        needs_login: whether the server wants to know who asks (NOAUTH), or does not believe it (WRONGPASS).
        answered: whether the server answered at all.
        read_only: whether a write was refused because the server is a replica, whoever asked.
    """

    why: str
    denied: bool = False
    needs_login: bool = False
    answered: bool = True
    read_only: bool = False


class Probe:
    """A connection to one server. ``async with`` drops it."""

    def __init__(self, endpoint: Endpoint, name: str = "") -> None:
        """``name``: none by default, for a connection that is not logged in may not set one."""
        self.endpoint = endpoint
        self._client = endpoint.client(name)

    async def __aenter__(self) -> Probe:
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(Exception):  # it is being dropped, and whatever broke it has been told
            await self._client.aclose()

    async def ask(self, *words: str | int) -> Any:
        """The answer to one command in RESP2 (bytes, ints, lists), or an ``Unseen``."""
        return (await self.ask_all([words]))[0]

    async def ask_all(self, commands: Sequence[Sequence[str | int]]) -> list[Any]:
        """The same for many commands in one round trip."""
        try:
            with translated(self.endpoint):
                connection = await self._client.connection_pool.get_connection()
                try:
                    await connection.send_packed_command(connection.pack_commands(commands))
                    return [await self._one(connection) for _ in commands]
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
                finally:
                    await self._client.connection_pool.release(connection)
        except SkillbusError as error:
            cause = error.__cause__
            return [_unseen(cause if isinstance(cause, Exception) else error, str(error))] * len(commands)

    async def _one(self, connection: Any) -> Any:
        try:
            return await connection.read_response(disconnect_on_error=False)
        except wire.ResponseError as error:
            return _unseen(error, str(error))
        except wire.AuthenticationError as error:  # a ConnectionError to redis-py; an answer like any other to us
            return _unseen(error, str(error))


def _unseen(error: Exception, text: str) -> Unseen:
    login = isinstance(error, wire.AuthenticationError | wire.AuthenticationWrongNumberOfArgsError)
    return Unseen(
        harmless(text.strip() or type(error).__name__, 200).rstrip("."),
        denied=isinstance(error, wire.NoPermissionError),
        needs_login=login,
        answered=login or isinstance(error, wire.ResponseError),
        read_only=isinstance(error, wire.ReadOnlyError),
    )


def endpoint_at(endpoint: Endpoint, address: str, *, logged_in: bool, database: bool = True) -> Endpoint:
    """Another server, or this one (``address`` empty), reached as ``endpoint`` is: TLS options and all.

    Args:
        address: ``host:port``; of an IPv6 host ``[::1]:6379``, or ``::1:6379`` as servers write it.
        logged_in: with our user and password; otherwise as nobody.
        database: and in our database, which a Sentinel does not have.

    Raises:
        BadSettings: no address.
    """
    parts = split_url(endpoint.url)
    login, _, host = parts.netloc.rpartition("@")
    scheme = parts.scheme
    if address:
        host = _netloc(address)
        scheme = "redis" if scheme.lower() == "unix" else SCHEMES.get(scheme.lower(), scheme)
    is_socket = scheme.lower() == "unix"
    left_out = (frozenset() if logged_in else _OURS) | {"db"} | (OWN_QUERY if address else frozenset())
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in left_out]
    number = endpoint.database if logged_in and database else 0
    if is_socket:
        query.append(("db", str(number)))
    path = parts.path if is_socket or scheme.lower() in SCHEMES else f"/{number}"
    netloc = f"{login}@{host}" if logged_in and login else host
    url = urlunsplit((scheme, netloc, path, urlencode(query), ""))
    if not logged_in:
        return replace(endpoint, url=url, username=None, password=None)
    return replace(endpoint, url=url)


def _netloc(address: str) -> str:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or any(c in "/@?#" or not c.isprintable() for c in host):
        raise BadSettings(f"{address[:80]!r} is no address of a server: write HOST:PORT")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def word_of(answer: Any) -> str:
    """A bulk or simple answer as text."""
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)

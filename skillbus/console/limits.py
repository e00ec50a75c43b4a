"""How much anybody may send, and how often somebody may fail to prove who they are. Bounded memory throughout.

A valid token is never turned away, wherever it comes from: who floods the door from the address of the on-call must not
take the kill away. The limit keeps guesses from costing more than a line.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skillbus.clock import Clock
from skillbus.console.problems import Refused, answer_of

BODY_LIMIT = 1024 * 1024
"""Bytes of any request."""

_BODY_S = 20.0
"""Seconds within which a request must have been sent."""

_ADDRESSES_LIMIT = 10_000
_BURST = 10
_EACH_S = 6.0
"""Seconds after which one more failure is forgiven."""


class Failures:
    """Failed authentications, by the address that they came from."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def note(self, address: str) -> float:
        """One more from there. Seconds that it must wait; 0: it need not yet."""
        key, now_s = _network(address), self._clock.now_s()
        at_s = max(now_s, self._full_at_s.pop(key, now_s)) + _EACH_S
        wait_s = at_s - now_s - _BURST * _EACH_S
        self._full_at_s[key] = min(at_s, now_s + (_BURST + 1) * _EACH_S)
        while len(self._full_at_s) > _ADDRESSES_LIMIT:
            self._full_at_s.popitem(last=False)
        return max(0.0, wait_s)


def _network(address: str) -> str:
    """Of IPv6 the network that one customer has: 2^64 addresses are not 2^64 people."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return f"{int(found) >> 64:x}::/64"
    return str(found)


class BodyLimit:
    """ASGI: no request is longer than ``BODY_LIMIT``, nor takes longer to arrive than ``_BODY_S``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > BODY_LIMIT:
            await answer_of(_too_long())(scope, receive, send)
            return
        body = _Body(receive)
        try:
            await self._app(scope, body.receive, send)
        except Refused as refused:
            await answer_of(refused)(scope, receive, send)


class _Body:
    """One request's body on its way in."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._size = 0
        self._is_whole = False
        self._until_s = 0.0

    async def receive(self) -> Message:
        """The next part of it.

        Raises:
            Refused: 413, it is too long; 408, it takes too long.
        """
        if self._is_whole:  # From here on only the end of the connection is awaited.
            return await self._receive()
        now_s = asyncio.get_running_loop().time()
        self._until_s = self._until_s or now_s + _BODY_S
        try:
            async with asyncio.timeout_at(self._until_s):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, f"the request did not arrive within {_BODY_S:g} s", headers=_CLOSE) from None
        self._is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > BODY_LIMIT:
            raise _too_long()
        return message


_CLOSE = {"Connection": "close"}


def _too_long() -> Refused:
    return Refused(413, f"a request has {BODY_LIMIT} bytes at most", headers=_CLOSE)

"""One subscriber connection. It never heals by itself: a silent reconnect is the gap in which a kill is lost.

Left to itself the client connects anew after a lost connection and subscribes again, before it raises or without. What
was published meanwhile is gone, and what the new connection was handed goes when we drop it. So a second connection is
refused here before it has subscribed to anything; and confirmations are counted, a second one counting as a break.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from skillbus.bus.connect import Client, Endpoint, translated
from skillbus.bus.sentinel import server_of
from skillbus.core.ports import Message
from skillbus.errors import BusUnreachable


class RedisSubscription:
    """A subscription on a connection of its own. Keeps its client alive: a collected client closes the socket."""

    def __init__(self, client: Client, pubsub: Any, endpoint: Endpoint) -> None:
        self._client = client
        self._pubsub = pubsub
        self._endpoint = endpoint
        self._confirmed: set[str] = set()

    @classmethod
    async def open(
        cls, endpoint: Endpoint, channels: Sequence[str], name: str, patterns: Sequence[str] = ()
    ) -> RedisSubscription:
        """Connect and ask for ``channels`` and ``patterns``. Their confirmations are yet to come, through ``get``."""
        client = endpoint.client(name)
        subscription = cls(client, client.pubsub(), endpoint)
        try:
            with translated(endpoint):
                await subscription._pubsub.subscribe(*channels)
                subscription._refuse_another()
                if patterns:
                    await subscription._pubsub.psubscribe(*patterns)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    def _refuse_another(self) -> None:
        """Whenever the client makes another connection, this subscription ends instead."""
        connection = self._pubsub.connection
        connection.deregister_connect_callback(self._pubsub.on_connect)
        connection.register_connect_callback(self._made_anew)

    async def _made_anew(self, connection: Any) -> None:
        await connection.disconnect()
        raise BusUnreachable(f"the connection to {self._endpoint.shown} was lost: subscribing again")

    @property
    def confirmed(self) -> frozenset[str]:
        """The channels and patterns whose confirmation was counted on this connection."""
        return frozenset(self._confirmed)

    @property
    def server(self) -> str:
        """The address that it leads to, where Sentinels name it."""
        return server_of(self._client)

    async def get(self, timeout_s: float) -> Message | None:
        """The next message, or None after ``timeout_s`` or a confirmation."""
        with translated(self._endpoint):
            raw = await self._pubsub.get_message(timeout=timeout_s)
        if raw is None:
            return None
        if raw["type"] in ("subscribe", "psubscribe"):
            self._count(_text(raw["channel"]))
            return None
        if raw["type"] not in ("message", "pmessage"):
            return None
        return Message(_text(raw["channel"]), _payload(raw["data"]))

    def _count(self, channel: str) -> None:
        if channel in self._confirmed:
            raise BusUnreachable(f"the connection to {self._endpoint.shown} was lost and made anew: subscribing again")
        self._confirmed.add(channel)

    async def close(self) -> None:
        """Drop the connection. Never raises: what is being dropped is usually broken already."""
        for close in (self._pubsub.aclose, self._client.aclose):
            with suppress(Exception):
                await close()


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


def _payload(raw: Any) -> bytes:
    return raw if isinstance(raw, bytes) else str(raw).encode("utf-8", "replace")

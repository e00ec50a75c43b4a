"""The audit on Redis: one stream that control and keepers write, and one for each bot (docs/protocol.md §1).

Streams are long, and an entry may hold a whole certificate, so they are read in small pages, from either end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redis import exceptions as wire

from skillbus.bus.connect import Client, Endpoint, translated
from skillbus.core.scope import NAME, Fleet
from skillbus.settings import user_at_host

AUDIT_LIMIT = 100_000
"""Entries that an audit stream keeps, about (docs/protocol.md §1)."""

PAGE_COUNT = 100
"""Entries that are read at once. An entry is half a MiB at most, so this bounds what a reader holds."""


_TRIES = 5
"""Times to add an entry once because the stream moved under it."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One entry as it lies in its stream. Its id, made by the server, bears the time: server time in ms."""

    id: str
    fields: dict[str, str]

    @property
    def at_ms(self) -> int:
        """When the server took it."""
        return int(self.id.partition("-")[0])


class AuditStreams:
    """What one client may write and read of a fleet's audit.

    Attributes:
        own: the key that it writes: control's, until the server says that only a bot's is permitted.
    """

    def __init__(self, fleet: Fleet, endpoint: Endpoint, client: Client) -> None:
        self._fleet = fleet
        self._endpoint = endpoint
        self._client = client
        self.own = fleet.audit_key

    def signed(self, entry: Mapping[str, str]) -> dict[str, str]:
        """``entry`` with where it comes from."""
        return {"from": user_at_host()[:256], **entry}

    async def write(self, entry: Mapping[str, str]) -> str:
        """Add an entry; its id. A bot, who may not write control's stream, writes its own from then on."""
        with translated(self._endpoint):
            try:
                return await self._add(entry)
            except wire.NoPermissionError:
                if not self.turn_to_bot():
                    raise
                return await self._add(entry)

    async def write_once(
        self, entry: Mapping[str, str], covers: Callable[[Mapping[str, str]], bool], since_ms: int
    ) -> bool:
        """Add an entry to control's stream, unless one since then, in any stream, ``covers`` it: whether it was added.

        ``WATCH audit; XREVRANGE audit; MULTI; XADD audit; EXEC``: of several who do the same, one adds. If others keep
        writing meanwhile it is added all the same: rather twice than not at all.
        """
        for key in (await self.keys())[1:]:
            if await self._covered(self._client, key, covers, since_ms):
                return False
        for _ in range(_TRIES):
            with translated(self._endpoint):
                async with self._client.pipeline(transaction=True) as pipe:
                    await pipe.watch(self._fleet.audit_key)
                    if await self._covered(pipe, self._fleet.audit_key, covers, since_ms):
                        return False
                    pipe.multi()
                    pipe.xadd(self._fleet.audit_key, self.signed(entry), maxlen=AUDIT_LIMIT, approximate=True)
                    try:
                        await pipe.execute()
                    except wire.WatchError:
                        continue
                    return True
        await self.write(entry)
        return True

    async def _covered(self, client: Any, key: str, covers: Callable[[Mapping[str, str]], bool], since_ms: int) -> bool:
        end = "+"
        with translated(self._endpoint):
            while rows := rows_of(await client.xrevrange(key, max=end, min=str(max(0, since_ms)), count=PAGE_COUNT)):
                if any(covers(row.fields) for row in rows):
                    return True
                end = f"({rows[-1].id}"
        return False

    async def _add(self, entry: Mapping[str, str]) -> str:
        raw = await self._client.xadd(self.own, self.signed(entry), maxlen=AUDIT_LIMIT, approximate=True)
        return _text(raw)

    def turn_to_bot(self) -> bool:
        """Write the stream of the bot whose credentials these are; whether they can be a bot's, and were not turned."""
        name = self._endpoint.user
        if self.own != self._fleet.audit_key or not NAME.fullmatch(name):
            return False
        self.own = self._fleet.bot_audit_key(name)
        return True

    async def keys(self) -> list[str]:
        """The stream of control, and that of every bot that ever wrote one (SCAN)."""
        prefix = self._fleet.bot_audit_key("x").removesuffix("x")
        with translated(self._endpoint):
            found = self._client.scan_iter(match=f"{prefix}*", count=1000, _type="stream")
            names = {_text(key).removeprefix(prefix) async for key in found}
        bots = sorted(name for name in names if NAME.fullmatch(name))
        return [self._fleet.audit_key, *(self._fleet.bot_audit_key(name) for name in bots)]

    def source_of(self, key: str) -> str:
        """``control``, or ``bot:<name>``."""
        return key.removeprefix(self._fleet.audit_key).lstrip(":") or "control"

    async def older(self, key: str, before: str = "+", since_ms: int = 0) -> list[AuditRow]:
        """A page of what lies before that id (itself left out), the newest first. Empty: there is no more."""
        end = before if before == "+" else f"({before}"
        with translated(self._endpoint):
            return rows_of(await self._client.xrevrange(key, max=end, min=str(since_ms), count=PAGE_COUNT))

    async def younger(self, key: str, after: str = "", since_ms: int = 0) -> list[AuditRow]:
        """A page of what lies behind that id (itself left out), the oldest first. Empty: there is no more."""
        begin = f"({after}" if after else str(since_ms)
        with translated(self._endpoint):
            return rows_of(await self._client.xrange(key, min=begin, max="+", count=PAGE_COUNT))


def rows_of(raw: Any) -> list[AuditRow]:
    """A server's answer to XRANGE."""
    return [AuditRow(_text(name), {_text(k): _text(v) for k, v in (fields or {}).items()}) for name, fields in raw]


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


async def rows_since(pipe: Any, key: str, known: Mapping[str, str]) -> list[AuditRow]:
    """What was added to a stream since the entry that is known of it."""
    found: list[AuditRow] = []
    last = known.get(key, "")
    while page := rows_of(await pipe.xrange(key, min=f"({last}" if last else "-", max="+", count=PAGE_COUNT)):
        found += page
        last = page[-1].id
    return found

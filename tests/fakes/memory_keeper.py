"""A keeper's bus in memory: ``KeeperBus`` of core/ports.py over the store that pods share, held to the same suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from skillbus.core.ports import Reading
from skillbus.core.scope import Scope
from skillbus.errors import BusDenied, BusNotReady
from tests.fakes.memory_bus import MemoryBus


class MemoryKeeperBus(MemoryBus):
    """One keeper's way to the store.

    Attributes:
        audit_denied: the words with which the server refuses the audit alone; empty: it does not.
    """

    audit_denied = ""

    async def speak(self, scopes: Sequence[Scope], channel: str, echo: bytes) -> Reading:
        """Read every scope, and send an echo."""
        self.calls.append("speak")
        async with self._lock:
            await self._reach()
            if self._store.read_only:
                raise BusNotReady("no master")
            reading = self._store.look(scopes)
            self._store.publish(channel, echo)
            await self._answer()
            return reading

    async def killed_scopes(self) -> list[Scope]:
        """Every scope that has a record."""
        self.calls.append("killed_scopes")
        await self._reach()
        prefix = self._fleet.scope.killed_key
        names = [key.removeprefix(prefix) for key in sorted(self._store.data) if key.startswith(prefix)]
        await self._answer()
        return [scope for scope in map(self._fleet.of_suffix, names) if scope is not None]

    async def tell(self, entry: Mapping[str, str], covers: Callable[[Mapping[str, str]], bool], since_ms: int) -> bool:
        """Add an entry, unless one covers it."""
        self.calls.append("tell")
        await self._reach()
        if self.audit_denied:
            raise BusDenied(self.audit_denied)
        if self._store.refusal:
            raise BusNotReady(self._store.refusal)
        if any(at_ms >= since_ms and covers(fields) for at_ms, fields in self._store.audit):
            return False
        self._store.audit.append((self._store.now_ms, dict(entry)))
        await self._answer()
        return True

    async def tidy_roster(self, silent_s: float) -> int:
        """Remove the silent from the roster."""
        self.calls.append("tidy_roster")
        await self._reach()
        since_ms = self._store.now_ms - round(silent_s * 1000)
        found = [place for place, score in self._store.roster.items() if score <= since_ms]
        gone = [place for place in found if not self._store.hash_at(self._fleet.pod_key(place[1]))]
        for place in gone:
            del self._store.roster[place]
        return len(gone)

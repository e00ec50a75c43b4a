"""Look for what would keep the switch from working, before an incident shows it. Nothing is changed.

Reading is here, judging is in findings*.py. What these credentials could do to a record is asked (ACL DRYRUN) or, where
that is refused, tried on the record of a pod that does not exist, in forms that write nothing even where they are
allowed. It is never tried on a record that may stand, and no kill is ever published to see whether it could be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from skillbus.bus.connect import Endpoint
from skillbus.bus.probe import Probe, Unseen, word_of
from skillbus.clock import boottime_s, wall_ms
from skillbus.control.attempts import powers_of
from skillbus.control.facts import Clock, Drills, Facts, KeyFacts, NodeFacts, SentinelFacts
from skillbus.control.findings import Finding, worst_first
from skillbus.control.findings_access import access_findings, sentinel_finding
from skillbus.control.findings_fleet import fleet_findings
from skillbus.control.findings_server import node_findings
from skillbus.control.nodes import at_most, look_at_node, look_at_sentinel, replicas_of
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.roster import PodView, view
from skillbus.core.scope import NAME, Fleet

_PINGS = 5
_CHUNK = 500
_DRILL_PAGE = 50
"""Entries asked for at once: a certificate among them may be half a MiB."""

_DRILL_PAGES = 20


@dataclass(frozen=True, slots=True)
class Doctor:
    """One examination.

    Attributes:
        pod_id: of the pod whose settings these are; empty if they are nobody's.
        groups: that the pod belongs to.
        sentinels: ``host:port`` of Sentinels to ask.
    """

    fleet: Fleet
    endpoint: Endpoint
    pod_id: str = ""
    groups: tuple[str, ...] = ()
    sentinels: tuple[str, ...] = ()

    async def examine(self) -> list[Finding]:
        """Every finding, worst first. Never raises for what a server does: that is a finding."""
        return judge(await self.look())

    async def look(self) -> Facts:
        """Everything that can be seen now."""
        sentinels = await asyncio.gather(*(look_at_sentinel(self.endpoint, name) for name in self._sentinel_names))
        here = await look_at_node(self.endpoint, self.fleet, "", is_local=self._is_local)
        async with Probe(self.endpoint) as probe:
            user = word_or_unseen(await probe.ask("ACL", "WHOAMI"))
            pings_ms = await self._pings(probe)
            clock = await self._clock(probe)
            pods, strange_count = await self._pods(probe)
            return Facts(
                fleet=self.fleet.name,
                kill_channel=self.fleet.scope.kill_channel,
                url=self.endpoint.shown,
                is_local=self._is_local,
                is_tls=urlsplit(self.endpoint.url).scheme.lower().startswith("rediss"),
                database=self.endpoint.database,
                is_pod=bool(self.pod_id),
                user=user,
                pings_ms=pings_ms,
                clock=clock,
                nodes=(here, *await self._others(here, sentinels)),
                sentinels=tuple(sentinels),
                powers=await powers_of(probe, self.fleet, user),
                deaf_to=await self._deaf_to(),
                keys=await self._keys(probe),
                armed=_there(await probe.ask("GET", self.fleet.scope.epoch_key)),
                pods=pods,
                strange_count=strange_count,
                numsub_count=await self._numsub(probe),
                drills=await self._drills(probe),
            )

    @property
    def _sentinel_names(self) -> list[str]:
        """Those that were named, and those of the URL."""
        addresses = self.endpoint.sentinels.addresses if self.endpoint.sentinels else ()
        named = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses]
        return list(dict.fromkeys((*self.sentinels, *named)))

    @property
    def _is_local(self) -> bool:
        parts = urlsplit(self.endpoint.url)
        host = parts.hostname or "localhost"
        return parts.scheme.lower() == "unix" or host in ("localhost", "::1") or host.startswith("127.")

    async def _others(self, here: NodeFacts, sentinels: Sequence[SentinelFacts]) -> list[NodeFacts]:
        """Who may be the master after a failover: the replicas, and whatever the Sentinels know."""
        host = urlsplit(self.endpoint.url).netloc.rpartition("@")[2]
        known = [*replicas_of(here), *(node for sentinel in sentinels for node in sentinel.nodes)]
        wanted = at_most(dict.fromkeys(name for name in known if name != host))
        found = await asyncio.gather(
            *(look_at_node(self.endpoint, self.fleet, name, is_local=self._is_local) for name in wanted)
        )
        return [node for node in found if not _is_same(node, here)]

    # -- the server -----------------------------------------------------------------------------------------------

    async def _pings(self, probe: Probe) -> tuple[float, ...]:
        took = []
        for _ in range(_PINGS):
            began_s = boottime_s()
            if isinstance(await probe.ask("PING"), Unseen):
                break
            took.append((boottime_s() - began_s) * 1000)
        return tuple(took)

    async def _clock(self, probe: Probe) -> Clock | Unseen:
        began_s = boottime_s()
        answer = await probe.ask("TIME")
        took_ms = (boottime_s() - began_s) * 1000
        if isinstance(answer, Unseen):
            return answer
        server_ms = int(answer[0]) * 1000 + int(answer[1]) // 1000
        return Clock(server_ms, wall_ms() - round(took_ms / 2), took_ms)

    async def _deaf_to(self) -> tuple[tuple[str, str], ...]:
        """The kill channels of this fleet (of this pod) that may not be subscribed. A connection of its own."""
        scopes = self.fleet.scopes_of(self.pod_id, self.groups) if self.pod_id else (self.fleet.scope,)
        async with Probe(self.endpoint) as probe:
            answers = [(s.kill_channel, await probe.ask("SUBSCRIBE", s.kill_channel)) for s in scopes]
        return tuple((channel, answer.why) for channel, answer in answers if isinstance(answer, Unseen))

    # -- what stands there ----------------------------------------------------------------------------------------

    async def _keys(self, probe: Probe) -> tuple[KeyFacts, ...] | Unseen:
        """Every record and epoch of the fleet."""
        prefix = self.fleet.scope.killed_key.removesuffix("killed")
        names: set[str] = set()
        cursor = "0"
        while True:
            answer = await probe.ask("SCAN", cursor, "MATCH", f"{prefix}[ek]*", "COUNT", 1000)
            if isinstance(answer, Unseen):
                return answer
            cursor = word_of(answer[0])
            names |= {name for raw in answer[1] if self._is_ours(name := word_of(raw))}
            if cursor == "0":
                break
        found = [await self._key(probe, name) for name in sorted(names)]
        denied = next((one for one in found if isinstance(one, Unseen)), None)
        return denied or tuple(one for one in found if isinstance(one, KeyFacts))

    def _is_ours(self, name: str) -> bool:
        keys = (self.fleet.scope.killed_key, self.fleet.scope.epoch_key)
        return any(name.startswith(key) and self.fleet.of_suffix(name.removeprefix(key)) is not None for key in keys)

    async def _key(self, probe: Probe, name: str) -> KeyFacts | Unseen | None:
        """None: it has gone meanwhile."""
        is_epoch = name.startswith(self.fleet.scope.epoch_key)
        kind, ttl = await probe.ask_all([("TYPE", name), ("TTL", name)])
        if isinstance(kind, Unseen) or isinstance(ttl, Unseen):
            return kind if isinstance(kind, Unseen) else ttl
        value = await probe.ask("GET", name) if is_epoch and kind == b"string" else b"0"
        if kind == b"none":
            return None
        return KeyFacts(name, is_epoch, word_of(kind), int(ttl), word_of(value).removeprefix("-").isdecimal())

    async def _pods(self, probe: Probe) -> tuple[tuple[PodView, ...] | Unseen, int]:
        """``(every pod of the roster, how many fields of their hashes are no evidence)``."""
        answer = await probe.ask("ZRANGE", self.fleet.roster_key, 0, -1)
        if isinstance(answer, Unseen):
            return answer, 0
        ids = [name for raw in answer if NAME.fullmatch(name := word_of(raw))]
        beats: dict[str, list[Heartbeat]] = {}
        strange_count = 0
        now_ms = 0
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            time, *hashes = await probe.ask_all([("TIME",), *(("HGETALL", self.fleet.pod_key(one)) for one in chunk)])
            for pod_id, raw in zip(chunk, hashes, strict=True):
                if isinstance(raw, Unseen) and (raw.denied or not raw.answered):
                    return raw, 0
                read = [] if isinstance(raw, Unseen) else [Heartbeat.parse(value) for value in raw[1::2]]
                beats[pod_id] = [one for one in read if one is not None]
                strange_count += len(read) - len(beats[pod_id])
            now_ms = int(time[0]) * 1000 + int(time[1]) // 1000 if not isinstance(time, Unseen) else now_ms
        return tuple(view(now_ms, beats)), strange_count

    async def _numsub(self, probe: Probe) -> int | Unseen:
        answer = await probe.ask("PUBSUB", "NUMSUB", self.fleet.scope.kill_channel)
        return answer if isinstance(answer, Unseen) else int(answer[1])

    async def _drills(self, probe: Probe) -> Drills | Unseen:
        """The youngest good and bad drill among the last entries of the audit."""
        good_ms = bad_ms = count = 0
        end = "+"
        for _ in range(_DRILL_PAGES):
            rows = await probe.ask("XREVRANGE", self.fleet.audit_key, end, "-", "COUNT", _DRILL_PAGE)
            if isinstance(rows, Unseen):
                return rows
            for row in rows:
                at_ms, entry = _entry(row)
                if entry.get("kind") == "drill-result" and entry.get("scope") == "fleet":
                    good_ms = good_ms or (at_ms if entry.get("ok") == "1" else 0)
                    bad_ms = bad_ms or (at_ms if entry.get("ok") != "1" else 0)
            count += len(rows)
            if good_ms or len(rows) < _DRILL_PAGE:
                break
            end = f"({word_of(rows[-1][0])}"
        return Drills(good_ms, bad_ms, count)


def judge(facts: Facts) -> list[Finding]:
    """Every finding of these facts, worst first. A server that cannot be asked leaves nothing else to judge."""
    found = [finding for node in facts.nodes for finding in node_findings(facts, node)]
    found += access_findings(facts)
    found += [sentinel_finding(facts, sentinel) for sentinel in facts.sentinels]
    if not facts.here.failure:
        found += fleet_findings(facts)
    return worst_first(found)


def word_or_unseen(answer: Any) -> str | Unseen:
    """A word, or why there is none."""
    return answer if isinstance(answer, Unseen) else word_of(answer)


def _there(answer: Any) -> bool | Unseen:
    """Whether a key is there. A wrong type is: the error says so, and another check tells it."""
    if isinstance(answer, Unseen):
        return True if answer.why.startswith("WRONGTYPE") else answer
    return answer is not None


def _entry(row: Any) -> tuple[int, dict[str, str]]:
    words = [word_of(raw) for raw in row[1] or ()]
    return int(word_of(row[0]).partition("-")[0]), dict(zip(words[::2], words[1::2], strict=False))


def _is_same(node: NodeFacts, here: NodeFacts) -> bool:
    """Whether a node is the server of the URL under another name."""
    infos = [{} if isinstance(one.info, Unseen) else one.info for one in (node, here)]
    return infos[0].get("run_id", "") == infos[1].get("run_id", "-")

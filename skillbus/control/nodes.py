"""Looking at one server, and at one Sentinel. What is refused there is a fact, not an error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from skillbus.bus.connect import Endpoint
from skillbus.bus.probe import Probe, Unseen, endpoint_at, word_of
from skillbus.control.attempts import entry_of
from skillbus.control.facts import Entry, NodeFacts, SentinelFacts
from skillbus.core.scope import Fleet
from skillbus.core.text import harmless
from skillbus.errors import BadSettings

_NODES = 16
"""As many as anybody has; a Sentinel that names thousands is not believed that far."""

_CONFIG = ("client-output-buffer-limit", "appendfsync", "min-replicas-to-write", "maxclients")


def at_most(names: Iterable[str]) -> list[str]:
    """The first few."""
    return list(islice(names, _NODES))


async def look_at_node(endpoint: Endpoint, fleet: Fleet, address: str, *, is_local: bool) -> NodeFacts:
    """One server; with an empty ``address`` the one of the URL."""
    try:
        ours = endpoint_at(endpoint, address, logged_in=True) if address else endpoint
    except BadSettings as error:
        return NodeFacts(harmless(address, 80), failure=str(error), entry=Entry.UNSURE)
    async with Probe(ours) as probe:
        pinged = await probe.ask("PING")
        failure = _failure(pinged)
        if failure:
            is_there = isinstance(pinged, Unseen) and pinged.answered
            entry = await entry_of(endpoint, fleet, address) if is_there else Entry.UNSURE
            return NodeFacts(ours.shown, failure=failure, entry=entry)
        info, role, *settings = await probe.ask_all([("INFO",), ("ROLE",), *(("CONFIG", "GET", x) for x in _CONFIG)])
    fields = info if isinstance(info, Unseen) else _fields(word_of(info))
    return NodeFacts(
        name=ours.shown,
        info=fields,
        config=_settings(settings),
        role=_role(role, fields),
        entry=await entry_of(endpoint, fleet, address),
        files_limit=_files_limit(fields) if is_local else None,
    )


def _failure(pinged: Any) -> str:
    """Why nothing can be asked. Any answer that is not about who we are is one, also an error (MISCONF)."""
    if isinstance(pinged, Unseen) and (pinged.needs_login or not pinged.answered):
        return pinged.why
    return ""


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, _, value in pairs if name}


def _settings(answers: list[Any]) -> dict[str, str] | Unseen:
    refused = next((one for one in answers if isinstance(one, Unseen)), None)
    if refused is not None:
        return refused
    return {word_of(one[0]): word_of(one[1]) for one in answers if len(one) >= 2}


def _role(answer: Any, info: dict[str, str] | Unseen) -> str | Unseen:
    if not isinstance(answer, Unseen):
        return word_of(answer[0])
    return info["role"] if not isinstance(info, Unseen) and "role" in info else answer


def _files_limit(info: dict[str, str] | Unseen) -> int | None:
    """How many files the server's process may open, if it is one of this machine that we may look at."""
    if isinstance(info, Unseen) or not re.fullmatch(r"\d{1,10}", pid := info.get("process_id", "")):
        return None
    try:
        folder = Path("/proc", pid)
        if not re.match("redis|valkey", (folder / "comm").read_text()):
            return None
        found = re.search(r"^Max open files\s+(\d+)", (folder / "limits").read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) if found else None


def replicas_of(node: NodeFacts) -> list[str]:
    """The addresses of the replicas that are connected to it."""
    if isinstance(node.info, Unseen):
        return []
    lines = [value for name, value in node.info.items() if re.fullmatch(r"slave\d+", name)]
    found = (re.match(r"ip=([^,]*),port=(\d+)", line) for line in lines)
    return [f"{one[1]}:{one[2]}" for one in found if one]


async def look_at_sentinel(endpoint: Endpoint, address: str) -> SentinelFacts:
    """One Sentinel: first as nobody, then, if it wants a login, as whom the settings name for Sentinels, then as us."""
    name = harmless(address, 80)
    answer: Any = None
    try:
        ways = _ways_in(endpoint, address)
    except BadSettings as error:
        return SentinelFacts(name, failure=str(error))
    for there in ways:
        async with Probe(there) as probe:
            answer = await probe.ask("SENTINEL", "MASTERS")
            if not isinstance(answer, Unseen):
                return await _watched(probe, name, [_pairs(one) for one in answer])
        if not answer.needs_login and not answer.denied:
            break
    return SentinelFacts(name, failure=answer.why)


def _ways_in(endpoint: Endpoint, address: str) -> list[Endpoint]:
    nobody = endpoint_at(endpoint, address, logged_in=False)
    own = endpoint.sentinels.options if endpoint.sentinels else {}
    username = endpoint.sentinel_username or own.get("username")
    password = endpoint.sentinel_password or own.get("password")
    named = [replace(nobody, username=username, password=password)] if password else []
    return [nobody, *named, endpoint_at(endpoint, address, logged_in=True, database=False)]


async def _watched(probe: Probe, name: str, masters: list[dict[str, str]]) -> SentinelFacts:
    nodes = []
    for master in masters:
        nodes.append(_address(master))
        replicas = await probe.ask("SENTINEL", "REPLICAS", master.get("name", ""))
        if not isinstance(replicas, Unseen):
            nodes += [_address(_pairs(one)) for one in replicas]
    named = tuple((harmless(one.get("name", "?"), 64), one.get("runid", "")) for one in masters)
    return SentinelFacts(name, masters=named, nodes=tuple(nodes))


def _pairs(flat: Any) -> dict[str, str]:
    words = [word_of(raw) for raw in flat]
    return dict(zip(words[::2], words[1::2], strict=False))


def _address(fields: dict[str, str]) -> str:
    return f"{fields.get('ip', '?')}:{fields.get('port', '?')}"

"""What is wrong with a server: this one, or one that would be the master after a failover. Pure.

Of another node nothing is ``broken`` but a door that stands open: it does not serve today.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from skillbus.bus.probe import Unseen
from skillbus.control.facts import Entry, Facts, NodeFacts
from skillbus.control.findings import Finding, Severity, broken, counted, note, ok, unseen, warning

_FULL = 0.9
_CROWDED = 0.9
_PUBSUB_BYTES = 2 * 1024 * 1024
"""A kill order may be 1 MiB long (docs/protocol.md §2), and must fit beside what else a slow pod has not read."""

_SPARE_FILES = 32
"""What a Redis opens besides its clients, as its own start-up reckons."""


def node_findings(facts: Facts, node: NodeFacts) -> Iterator[Finding]:
    """Every check of one server."""
    found = [*_checks(facts, node), *([] if node.failure and node.entry is Entry.UNSURE else [_entry(node)])]
    if node is facts.here:
        yield from found
        return
    for one in found:
        is_door = one.id == "default-user"
        severity = Severity.WARNING if one.severity is Severity.BROKEN and not is_door else one.severity
        yield replace(one, severity=severity, node=node.name)


def _checks(facts: Facts, node: NodeFacts) -> Iterator[Finding]:
    if node.failure:
        yield _unreachable(facts, node)
        return
    yield ok("reachable", f"{node.name} answers")
    if node is facts.here:
        yield _role(node)
    if isinstance(node.info, Unseen):
        for check, what in _OF_INFO:
            yield unseen(check, what, node.info)
        return
    info = node.info
    yield _version(info)
    yield _mode(info)
    yield _persistence(info, node.config)
    yield _eviction(info)
    yield _memory(info)
    yield _connections(facts, node, info)
    yield _buffers(node.config)
    yield from _replication(facts, node, info)


_OF_INFO = (
    ("version", "the server's version"),
    ("persistence", "whether the server keeps what it is told"),
    ("eviction", "the eviction policy"),
    ("memory", "the memory left"),
    ("connections", "how many connections there is room for"),
    ("replicas", "how many replicas there are"),
)


def _unreachable(facts: Facts, node: NodeFacts) -> Finding:
    if node is facts.here:
        return broken(
            "reachable",
            node.failure,
            "start it, or correct SKILLBUS_REDIS_URL, user and password; until then pods hold",
        )
    return warning(
        "reachable",
        f"{node.failure}: after a failover to it pods would hold",
        "start it, and give it the same users: they are not replicated (skillbus acl)",
    )


def _role(node: NodeFacts) -> Finding:
    if isinstance(node.role, Unseen):
        return unseen("role", "whether it is a master", node.role)
    if node.role != "master":
        info = {} if isinstance(node.info, Unseen) else node.info
        where = f" ({info['master_host']}:{info.get('master_port', '?')})" if "master_host" in info else ""
        cure = f"give the master's URL{where}: pods hold at a replica, and it takes no order"
        return broken("role", f"{node.name} is no master but a {node.role}", cure)
    return ok("role", "it is a master")


def _version(info: Mapping[str, str]) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "?")
    major = _number(info.get("redis_version", "0").partition(".")[0]) or 0
    if major >= 7:
        return ok("version", f"{name} {version}")
    if major == 6:
        cure = "go to Redis 7 or Valkey; until then use the two-connection form of docs/acl.md"
        return warning("version", f"{name} {version} has no ACL selectors: least privilege cannot be had there", cure)
    return broken("version", f"{name} {version} has no ACLs: whoever may stop can undo it", "go to Redis 7 or Valkey")


def _mode(info: Mapping[str, str]) -> Finding:
    if info.get("cluster_enabled") == "1":
        return warning("mode", "it is part of a Redis Cluster, which is not supported", "use one master with replicas")
    return ok("mode", "it is no cluster")


def _persistence(info: Mapping[str, str], config: Mapping[str, str] | Unseen) -> Finding:
    if "aof_enabled" not in info:
        return unseen("persistence", "whether the server keeps what it is told", Unseen("INFO does not say"))
    if info["aof_enabled"] != "1":
        cure = "CONFIG SET appendonly yes, then CONFIG REWRITE (deploy/redis/redis.conf)"
        return broken("persistence", "no append-only file: a restart of the server forgets a kill", cure)
    if info.get("aof_last_write_status", "ok") != "ok":
        cure = "make room on the server's disk, or mend it"
        return broken("persistence", "the append-only file cannot be written: orders are published, not stored", cure)
    if not isinstance(config, Unseen) and config.get("appendfsync") == "no":
        cure = "CONFIG SET appendfsync everysec, then CONFIG REWRITE"
        return warning("persistence", "appendfsync is no: a power cut loses up to 30 s of orders", cure)
    return ok("persistence", "it has an append-only file")


def _eviction(info: Mapping[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "")
    cure = "CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE; give the fleet a Redis of its own"
    if policy == "noeviction":
        return ok("eviction", "nothing is evicted")
    if not policy:
        return unseen("eviction", "the eviction policy", Unseen("INFO does not say"))
    if policy.startswith("allkeys"):
        return broken("eviction", f"maxmemory-policy is {policy}: a record can be evicted to make room", cure)
    return warning("eviction", f"maxmemory-policy is {policy}: the pods' evidence can be evicted", cure)


def _memory(info: Mapping[str, str]) -> Finding:
    limit, used = _number(info.get("maxmemory")), _number(info.get("used_memory"))
    if limit is None or used is None:
        return unseen("memory", "the memory left", Unseen("INFO does not say"))
    cure = "raise maxmemory, or move what else is stored there to another Redis"
    if limit and used >= limit:
        return broken("memory", "maxmemory is reached: orders are published, but not stored", cure)
    if limit and used >= limit * _FULL:
        return warning("memory", f"{used * 100 // limit} % of maxmemory is used", cure)
    return ok("memory", f"{used * 100 // limit} % of maxmemory is used" if limit else "maxmemory is not limited")


def _connections(facts: Facts, node: NodeFacts, info: Mapping[str, str]) -> Finding:
    """Two for each pod, docs/protocol.md §7."""
    limit, count = _number(info.get("maxclients")), _number(info.get("connected_clients")) or 0
    limit = limit if limit is not None or isinstance(node.config, Unseen) else _number(node.config.get("maxclients"))
    if limit is None:
        return unseen("connections", "how many connections there is room for", Unseen("INFO does not say"))
    pods = () if isinstance(facts.pods, Unseen) else facts.pods
    live_count = sum(len(pod.current) for pod in pods)
    cure = "raise maxclients, and the limit of open files of the server's process (deploy/redis/redis.conf: 50000)"
    if limit < 2 * live_count:
        seen = (
            f"maxclients {limit} is less than two for each of {counted(live_count, 'live pod')}: some are turned away"
        )
        return broken("connections", seen, cure)
    if limit < 2 * len(pods):
        return warning("connections", f"maxclients {limit} is less than two for each of {len(pods)} pods", cure)
    if count >= limit * _CROWDED:
        return warning("connections", f"{count} of {limit} connections are taken", cure)
    files = node.files_limit
    if files is not None and files < min(limit + _SPARE_FILES, 2 * len(pods) + _SPARE_FILES):
        return warning("connections", f"its process may open {files} files, too few for maxclients {limit}", cure)
    if isinstance(facts.pods, Unseen):
        return unseen("connections", f"maxclients is {limit}; the roster it must suffice for", facts.pods)
    return ok("connections", f"{count} of {limit} connections are taken")


def _buffers(config: Mapping[str, str] | Unseen) -> Finding:
    if isinstance(config, Unseen):
        cure = "look again as somebody who may CONFIG GET; stock is 32mb 8mb 60"
        return unseen("pubsub-buffer", "the pub/sub output buffer limits", config, cure)
    found = re.search(r"\bpubsub (\d+) (\d+) (\d+)", config.get("client-output-buffer-limit", ""))
    if found is None:
        return unseen("pubsub-buffer", "the pub/sub output buffer limits", Unseen("CONFIG GET does not say"))
    hard, soft = int(found[1]), int(found[2])
    cure = 'CONFIG SET client-output-buffer-limit "pubsub 33554432 8388608 60", then CONFIG REWRITE'
    if hard == 0 and soft == 0:
        return note("pubsub-buffer", "a pod that does not read can fill the server's memory", cure)
    if 0 < hard < _PUBSUB_BYTES or 0 < soft < _PUBSUB_BYTES:
        return warning(
            "pubsub-buffer", f"listeners are cut off at {min(filter(None, (hard, soft)))} bytes unread", cure
        )
    return ok("pubsub-buffer", "listeners have room for a long order")


def _replication(facts: Facts, node: NodeFacts, info: Mapping[str, str]) -> Iterator[Finding]:
    if info.get("role") != "master":
        if node is not facts.here:
            yield _link(info)
        return
    if node is not facts.here:
        return
    count, good = _number(info.get("connected_slaves")) or 0, _number(info.get("min_slaves_good_slaves"))
    config = {} if isinstance(node.config, Unseen) else node.config
    wanted = _number(config.get("min-replicas-to-write")) or (1 if good is not None else 0)
    absent = [name for name, value in info.items() if re.fullmatch(r"slave\d+", name) and "state=online" not in value]
    cure = "start the missing replicas, or lower min-replicas-to-write"
    if good is not None and good < wanted:
        seen = f"min-replicas-to-write wants {wanted} and {good} are there: orders are published, but not stored"
        yield broken("replicas", seen, cure)
    elif absent:
        yield warning("replicas", f"{len(absent)} of {count} replicas are not in step", "wait, or look at their logs")
    elif count:
        yield ok("replicas", f"{counted(count, 'replica')} connected")
    else:
        seen = "no replica: with this machine a record is gone until a latched pod writes it back"
        yield note("replicas", seen, "add a replica, if this machine may be lost")


def _link(info: Mapping[str, str]) -> Finding:
    if info.get("master_link_status") == "up":
        return ok("replicas", "its link to the master is up")
    return warning(
        "replicas", "its link to the master is down: it does not get orders", "look at its log; check masterauth"
    )


def _entry(node: NodeFacts) -> Finding:
    cure = "user default off (skillbus acl prints it), there and in its ACL file: users are not replicated"
    match node.entry:
        case Entry.SHUT:
            return ok("default-user", "nobody gets in without a password")
        case Entry.UNSURE:
            return note("default-user", "whether the user default lets anybody in cannot be seen", cure)
    seen = f"the user default is {node.entry}: whoever reaches the port can delete the record"
    return broken("default-user", seen, cure)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text) else None

"""Facts -> findings. That the facts are read as they are: tests/integration/test_cli_doctor.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from skillbus.bus.probe import Unseen
from skillbus.control.doctor import judge
from skillbus.control.facts import Clock, Drills, Entry, Facts, KeyFacts, Means, NodeFacts, Powers, SentinelFacts
from skillbus.control.findings import Finding, Severity, named
from skillbus.core.latch import State
from skillbus.core.roster import PodView, view
from tests.unit.core.beats import T0, beat

KILL = "skillbus:prod:kill"
DAY = 86_400_000
DENIED = Unseen("NOPERM this user has no permissions", denied=True)
SILENT = Unseen("no answer from redis://h:6379/0 within 1 s: is it up?", answered=False)

INFO = {
    "redis_version": "7.0.15",
    "run_id": "r0",
    "role": "master",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "maxmemory": "1000",
    "used_memory": "100",
    "maxmemory_policy": "noeviction",
    "maxclients": "50000",
    "connected_clients": "9",
    "connected_slaves": "1",
    "slave0": "ip=h2,port=6379,state=online,offset=1,lag=0",
}
CONFIG = {
    "client-output-buffer-limit": "normal 0 0 0 slave 0 0 0 pubsub 33554432 8388608 60",
    "appendfsync": "everysec",
}
HEARS = (KILL, "skillbus:prod:kill:pod:one", "skillbus:prod:drill")
UNDO = dict.fromkeys(["DEL", "UNLINK", "EXPIRE", "SET epoch", "FLUSHALL"], False)


def pods(*pod_ids: str, now_ms: int = T0 + 500, **fields: Any) -> tuple[PodView, ...]:
    """Live pods that hear and write as users of their own, or what ``fields`` say."""
    told = {"armed": True, "hears": HEARS, **fields}
    return tuple(view(now_ms, {pod_id: [beat(**{"user": f"pod-{pod_id}"} | told)] for pod_id in pod_ids}))


def node(name: str = "redis://h:6379/0", info: dict[str, str] | Unseen = INFO, **fields: Any) -> NodeFacts:
    """A server as it should be."""
    return NodeFacts(name, info=info, **{"config": CONFIG, **fields})


def facts(**fields: Any) -> Facts:
    """A fleet of two pods where everything is as it should be, but for ``fields``."""
    healthy = Facts(
        fleet="prod",
        kill_channel=KILL,
        url="rediss://h:6379/0",
        is_local=False,
        is_tls=True,
        database=0,
        is_pod=False,
        user="viewer",
        pings_ms=(1.0, 2.0, 1.0),
        clock=Clock(T0 + 500, T0 + 499, 1.0),
        nodes=(node(),),
        sentinels=(),
        powers=Powers(Means.ASKED, UNDO, True),
        deaf_to=(),
        keys=(KeyFacts("skillbus:{prod}:epoch", is_epoch=True),),
        armed=True,
        pods=pods("one", "two"),
        strange_count=0,
        numsub_count=3,
        drills=Drills(good_ms=T0 - DAY, entries_count=4),
    )
    return replace(healthy, **fields)


def with_info(**fields: str | None) -> dict[str, Any]:
    """The one server says this, too; None: it does not say it."""
    told = {name: value for name, value in {**INFO, **fields}.items() if value is not None}
    return {"nodes": (node(info=told),)}


def found(given: Facts, check: str) -> Finding:
    """The worst finding of this check."""
    return next(one for one in judge(given) if one.id == check)


def test_a_healthy_fleet_has_nothing_but_fine_checks() -> None:
    """What is right is ok, and nothing else is said."""
    assert {one.severity for one in judge(facts())} == {Severity.OK}


CASES: list[tuple[str, Severity, dict[str, Any], str]] = [
    ("reachable", Severity.BROKEN, {"nodes": (node(failure="no answer"),)}, "no answer"),
    ("role", Severity.BROKEN, {"nodes": (node(role="slave"),)}, "no master"),
    ("role", Severity.NOTE, {"nodes": (node(role=DENIED),)}, "cannot be seen with these credentials"),
    ("version", Severity.WARNING, with_info(redis_version="6.2.14"), "no ACL selectors"),
    ("version", Severity.BROKEN, with_info(redis_version="5.0.14"), "no ACLs"),
    ("version", Severity.BROKEN, with_info(redis_version="nonsense"), "no ACLs"),
    ("version", Severity.OK, with_info(redis_version="7.2.4", valkey_version="9.1.2"), "Valkey 9.1.2"),
    ("mode", Severity.WARNING, with_info(cluster_enabled="1"), "Cluster"),
    ("persistence", Severity.BROKEN, with_info(aof_enabled="0"), "forgets a kill"),
    ("persistence", Severity.BROKEN, with_info(aof_last_write_status="err"), "not stored"),
    ("persistence", Severity.WARNING, {"nodes": (node(config={**CONFIG, "appendfsync": "no"}),)}, "power cut"),
    ("persistence", Severity.NOTE, with_info(aof_enabled=None), "cannot be seen"),
    ("persistence", Severity.NOTE, {"nodes": (node(info=DENIED),)}, "cannot be seen with these credentials"),
    ("eviction", Severity.BROKEN, with_info(maxmemory_policy="allkeys-lru"), "allkeys-lru"),
    ("eviction", Severity.WARNING, with_info(maxmemory_policy="volatile-ttl"), "evidence"),
    ("eviction", Severity.NOTE, with_info(maxmemory_policy=None), "cannot be seen"),
    ("memory", Severity.BROKEN, with_info(used_memory="1000"), "maxmemory is reached"),
    ("memory", Severity.WARNING, with_info(used_memory="900"), "90 %"),
    ("memory", Severity.OK, with_info(maxmemory="0"), "not limited"),
    ("connections", Severity.BROKEN, with_info(maxclients="3"), "turned away"),
    ("connections", Severity.WARNING, {**with_info(maxclients="5"), "pods": (*pods("a"), PodView("b", ()), PodView("c", ()))}, "two for each"),  # noqa: E501
    ("connections", Severity.WARNING, with_info(connected_clients="45000"), "are taken"),
    ("connections", Severity.WARNING, {"nodes": (node(files_limit=16),)}, "16 files"),
    ("connections", Severity.NOTE, {"pods": DENIED}, "the roster"),
    ("pubsub-buffer", Severity.WARNING, {"nodes": (node(config={"client-output-buffer-limit": "pubsub 9 9 9"}),)}, "9 bytes"),  # noqa: E501
    ("pubsub-buffer", Severity.NOTE, {"nodes": (node(config={"client-output-buffer-limit": "pubsub 0 0 0"}),)}, "fill"),
    ("pubsub-buffer", Severity.NOTE, {"nodes": (node(config=DENIED),)}, "cannot be seen with these credentials"),
    ("replicas", Severity.NOTE, with_info(connected_slaves="0", slave0=None), "no replica"),
    ("replicas", Severity.WARNING, with_info(slave0="ip=h,port=1,state=wait_bgsave"), "not in step"),
    ("replicas", Severity.BROKEN, with_info(min_slaves_good_slaves="0"), "not stored"),
    ("default-user", Severity.BROKEN, {"nodes": (node(entry=Entry.STRAIGHT),)}, "delete the record"),
    ("default-user", Severity.BROKEN, {"nodes": (node(entry=Entry.AFTER_RESET),)}, "after RESET"),
    ("default-user", Severity.NOTE, {"nodes": (node(entry=Entry.UNSURE),)}, "cannot be seen"),
    ("tls", Severity.WARNING, {"is_tls": False}, "in the clear"),
    ("tls", Severity.OK, {"is_tls": False, "is_local": True}, "does not leave"),
    ("database", Severity.NOTE, {"database": 5}, "database 5"),
    ("latency", Severity.WARNING, {"pings_ms": (60.0, 80.0, 70.0)}, "70 ms"),
    ("latency", Severity.NOTE, {"pings_ms": ()}, "no PING"),
    ("clock", Severity.WARNING, {"clock": Clock(T0, T0 + 9000, 1.0)}, "9.0 s behind"),
    ("clock", Severity.NOTE, {"clock": SILENT}, "cannot be seen (no answer"),
    ("user", Severity.WARNING, {"user": "default"}, "password of all"),
    ("user", Severity.NOTE, {"user": DENIED}, "cannot be seen with these credentials"),
    ("undo", Severity.NOTE, {"powers": Powers(Means.TRIED, {"DEL": True, "SET epoch": True}, True)}, "can reset"),
    ("undo", Severity.WARNING, {"powers": Powers(Means.TRIED, {**UNDO, "DEL": True}, True), "is_pod": True}, "a pod"),
    ("undo", Severity.WARNING, {"powers": Powers(Means.ASKED, {**UNDO, "EXPIRE": True}, True)}, "EXPIRE (ACL DRYRUN)"),
    ("undo", Severity.OK, {"powers": Powers(Means.TRIED, {"DEL": False}, DENIED)}, "FLUSHALL was not tried"),
    ("undo", Severity.NOTE, {"powers": SILENT}, "cannot be seen"),
    ("publish", Severity.NOTE, {"powers": Powers(Means.TRIED, UNDO, DENIED)}, "it would be one"),
    ("publish", Severity.NOTE, {"powers": Powers(Means.ASKED, UNDO, False)}, "may not publish"),
    ("publish", Severity.OK, {"powers": Powers(Means.ASKED, UNDO, False), "is_pod": True}, "cannot stop others"),
    ("publish", Severity.WARNING, {"is_pod": True}, "this pod may publish"),
    ("hearing", Severity.NOTE, {"deaf_to": ((KILL, "NOPERM"),)}, KILL),
    ("hearing", Severity.BROKEN, {"deaf_to": ((KILL, "NOPERM"),), "is_pod": True}, KILL),
    ("armed", Severity.WARNING, {"armed": False}, "not armed"),
    ("armed", Severity.NOTE, {"armed": DENIED}, "cannot be seen"),
    ("records", Severity.BROKEN, {"keys": (KeyFacts("k", is_epoch=False, ttl_s=60),)}, "expire in 60 s"),
    ("records", Severity.BROKEN, {"keys": (KeyFacts("e", is_epoch=True, ttl_s=0),)}, "expire"),
    ("records", Severity.BROKEN, {"keys": (KeyFacts("e", is_epoch=True, kind="hash"),)}, "a hash"),
    ("records", Severity.BROKEN, {"keys": (KeyFacts("e", is_epoch=True, is_number=False),)}, "no number"),
    ("records", Severity.WARNING, {"keys": (KeyFacts("k", is_epoch=False, kind="hash"),)}, "stops all the same"),
    ("records", Severity.NOTE, {"keys": DENIED}, "cannot be seen with these credentials"),
    ("pods", Severity.WARNING, {"pods": ()}, "no live pod"),
    ("pods", Severity.WARNING, {"pods": pods("one", now_ms=T0 + 60_000)}, "no live pod"),
    ("pods", Severity.NOTE, {"strange_count": 1}, "1 hash field"),
    ("pods", Severity.NOTE, {"pods": DENIED}, "cannot be seen with these credentials"),
    ("deaf", Severity.BROKEN, {"pods": pods("one", "two", armed=False)}, "2 of 2 live pods deaf"),
    ("deaf", Severity.BROKEN, {"pods": pods("one", armed=False, hears=())}, "one"),
    ("not-yet", Severity.NOTE, {"pods": pods("one", armed=False, started_at_ms=T0 - 1000)}, "just started"),
    ("wrong-prefix", Severity.BROKEN, {"pods": pods("one", hears=("skillbus:other:kill",))}, f"not to {KILL}"),
    ("old-protocol", Severity.WARNING, {"pods": pods("one", v=0)}, "older than 1"),
    ("holding", Severity.NOTE, {"pods": pods("one", state=State.HOLDING)}, "holding"),
    ("twins", Severity.WARNING, {"pods": tuple(view(T0, {"one": [beat("i1", armed=True), beat("i2", armed=True)]}))}, "one"),  # noqa: E501
    ("unvouched", Severity.WARNING, {"pods": pods("one", vouched=False)}, "cannot be vouched for: one"),
    ("listeners", Severity.BROKEN, {"numsub_count": 0}, "no connection hears"),
    ("listeners", Severity.WARNING, {"numsub_count": 1}, "1 connection for 2 live pods"),
    ("listeners", Severity.OK, {"numsub_count": 9}, "9 connections"),
    ("listeners", Severity.NOTE, {"numsub_count": DENIED}, "cannot be seen"),
    ("drill", Severity.WARNING, {"drills": Drills()}, "no drill is on record"),
    ("drill", Severity.WARNING, {"drills": Drills(good_ms=T0 - 40 * DAY)}, "40 days ago"),
    ("drill", Severity.WARNING, {"drills": Drills(good_ms=T0 - DAY, bad_ms=T0 - 3_600_000)}, "1 hour ago, was not"),
    ("drill", Severity.OK, {"drills": Drills(good_ms=T0 - 60_000, bad_ms=T0 - DAY)}, "1 minute ago"),
    ("drill", Severity.NOTE, {"drills": DENIED}, "cannot be seen"),
    ("sentinel", Severity.WARNING, {"sentinels": (SentinelFacts("s:1", failure="no answer"),)}, "s:1: no answer"),
    ("sentinel", Severity.BROKEN, {"sentinels": (SentinelFacts("s:1", masters=(("m", "r9"),)),)}, "watches m"),
    ("sentinel", Severity.OK, {"sentinels": (SentinelFacts("s:1", masters=(("m", "r0"),)),)}, "watches it as m"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "severity", "given", "said"), CASES, ids=[f"{c[0]}-{c[1]}-{c[3]}" for c in CASES])
def test_each_fault_is_found_with_its_cure(check: str, severity: Severity, given: dict[str, Any], said: str) -> None:
    """One fact changed: that check says so, as badly as it is, and what to do; what is fine needs no cure."""
    one = found(facts(**given), check)
    assert (one.severity, said in one.seen) == (severity, True), one
    assert bool(one.cure) is (severity is not Severity.OK)


def test_what_cannot_be_seen_is_never_fine() -> None:
    """With everything refused no check is ok but those that need no server's answer."""
    blind = facts(
        user=DENIED,
        clock=DENIED,
        nodes=(node(info=DENIED, config=DENIED, role=DENIED, entry=Entry.UNSURE),),
        powers=DENIED,
        keys=DENIED,
        armed=DENIED,
        pods=DENIED,
        numsub_count=DENIED,
        drills=DENIED,
        pings_ms=(),
    )
    fine = {one.id for one in judge(blind) if one.severity is Severity.OK}
    assert fine == {"reachable", "tls", "database", "hearing"}


def test_a_server_that_cannot_be_asked_leaves_nothing_else_to_judge() -> None:
    """No answer: one broken finding, and none that would be a guess."""
    judged = judge(facts(nodes=(node(failure="no answer", entry=Entry.UNSURE),)))
    assert [one.id for one in judged] == ["reachable", "tls", "database"]


def test_another_node_warns_of_a_failover_and_its_open_door_is_broken_today() -> None:
    """A replica without AOF, or one that is away, is a warning; one that lets anybody in is broken; each is named."""
    bare = node("redis://h2:6379/0", {**INFO, "role": "slave", "aof_enabled": "0"}, entry=Entry.STRAIGHT)
    away = node("redis://h3:6379/0", failure="no answer", entry=Entry.UNSURE)
    judged = [one for one in judge(facts(nodes=(node(), bare, away))) if one.severity is not Severity.OK]
    assert [(one.id, one.severity, one.node) for one in judged] == [
        ("default-user", Severity.BROKEN, "redis://h2:6379/0"),
        ("persistence", Severity.WARNING, "redis://h2:6379/0"),
        ("replicas", Severity.WARNING, "redis://h2:6379/0"),
        ("reachable", Severity.WARNING, "redis://h3:6379/0"),
    ]


def test_the_worst_comes_first() -> None:
    """Broken, warnings, notes, fine ones: whatever the order in which they were found."""
    judged = judge(facts(armed=False, database=3, drills=Drills(), keys=(KeyFacts("k", is_epoch=False, ttl_s=1),)))
    order = [one.severity for one in judged]
    assert order == sorted(order, key=list(Severity).index)
    assert judged[0].id == "records"


def test_many_names_are_few_words() -> None:
    """A fleet of thousands is not listed."""
    assert named(f"pod-{n}" for n in range(4500)).endswith(" and 4495 more")

"""``skillbus drill`` as a real process, with real pods on a real server: it tells who would hear, and stops none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skillbus.core.latch import State
from tests.integration.hostile import HOSTILE, is_harmless
from tests.pods import (
    PROD,
    WatchedPod,
    arm,
    environ_of,
    eventually,
    evidence_of,
    order,
    own_server,
    record_of,
    skillbus,
    skillbus_on_terminal,
)
from tests.servers import RealServer


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RealServer]:
    """A server to mistreat."""
    with own_server(tmp_path) as server:
        yield server


def until_armed(server: RealServer, *pods: str) -> None:
    """Wait until they hear, and say so."""
    for pod_id in pods:
        eventually(lambda: any(beat.armed for beat in evidence_of(server, pod_id)), "it hears")  # noqa: B023


def test_every_pod_answers_and_works_on(redis_server: RealServer, tmp_path: Path) -> None:
    """Exit 0 with the times; status and history tell of it; no latch, no record, no tombstone, no pass disturbed."""
    arm(redis_server)
    env = environ_of(redis_server)
    with WatchedPod(redis_server, tmp_path) as one, WatchedPod(redis_server, tmp_path, "two") as two:
        one.until_works()
        two.until_works()
        until_armed(redis_server, "one", "two")
        before = skillbus("status", env=env)
        told = skillbus("drill", "--by", "oncall", env=env)
        as_json = skillbus("drill", "-o", "json", env=env)
        one.until_works()
        two.until_works()
        assert [pod.was_ever_latched() for pod in (one, two)] == [False, False]
        assert (one.passes, two.passes, one.tombstones(), two.tombstones()) == ([], [], [], [])
        after, after_json = skillbus("status", env=env), skillbus("status", "-o", "json", env=env)
        history = skillbus("history", "--kind", "drill-result", env=env)
    assert "no good drill is known: skillbus drill" in before.out
    assert told.code == 0, told
    assert "drill: 2 of 2 answered: p50 " in told.out
    assert "2 connections hear kills of the fleet, 2 pods live" in told.out
    assert (as_json.code, as_json.json["good"], as_json.json["asked"], as_json.json["missing"]) == (0, True, 2, [])
    assert as_json.json["subscribers"] == {"drill": 2, "kill": 2}
    assert 0 <= as_json.json["answered_s"]["p50"] <= as_json.json["answered_s"]["max"] < 5
    assert "last good drill" in after.out
    assert after_json.json["last_good_drill"]["sentence"].startswith("2 of 2 answered")
    assert history.out.count("2 of 2 answered") == 2
    assert record_of(redis_server) is None
    assert redis_server.cli("XLEN", PROD.audit_key) == 4


def test_a_stopped_fleet_answers_too(redis_server: RealServer, tmp_path: Path) -> None:
    """And stays as it was: the record and the stopped pods are untouched."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        order(redis_server)
        one.until_latched()
        eventually(lambda: [b for b in evidence_of(redis_server) if b.armed and b.quiet], "it says so")
        record, tombstones = record_of(redis_server), eventually(one.tombstones, "its own disk says so too")
        told = skillbus("drill", env=environ_of(redis_server))
        assert (told.code, one.state, record_of(redis_server)) == (0, State.STOPPED, record), told
        assert one.tombstones() == tombstones


def test_a_group_and_a_pod(redis_server: RealServer, tmp_path: Path) -> None:
    """Only they are asked, and only they answer."""
    arm(redis_server)
    env = environ_of(redis_server)
    with WatchedPod(redis_server, tmp_path, groups=("eu",)) as one, WatchedPod(redis_server, tmp_path, "two") as two:
        one.until_works()
        two.until_works()
        until_armed(redis_server, "one", "two")
        group = skillbus("drill", "--group", "eu", "-o", "json", env=env)
        pod = skillbus("drill", "--pod", "two", "-o", "json", env=env)
        nobody = skillbus("drill", "--group", "us", env=env)
        assert "no good drill is known" in skillbus("status", env=env).out
        drills = [[beat.drill for beat in evidence_of(redis_server, name)] for name in ("one", "two")]
    assert (group.code, [reply["pod_id"] for reply in group.json["pods"]]) == (0, ["one"]), group
    assert (pod.code, [reply["pod_id"] for reply in pod.json["pods"]]) == (0, ["two"]), pod
    assert (nobody.code, "no live pod is known in group 'us' of fleet 'prod'" in nobody.out) == (5, True), nobody
    assert [drill.id for found in drills for drill in found if drill] == [group.json["id"], pod.json["id"]]


def test_nobody_is_there(redis_server: RealServer) -> None:
    """Exit 5."""
    told = skillbus("drill", env=environ_of(redis_server))
    assert (told.code, "drill: no live pod is known in fleet 'prod'" in told.out) == (5, True), told


def test_redis_is_down(own: RealServer) -> None:
    """Exit 4, one sentence, and no drill is claimed."""
    own.kill()
    told = skillbus("drill", env=environ_of(own))
    as_json = skillbus("drill", "-o", "json", env=environ_of(own))
    assert (told.code, told.out, len(told.err.splitlines())) == (4, "", 1), told
    assert (as_json.code, as_json.json["exit_code"]) == (4, 4)


def test_who_may_not(own: RealServer) -> None:
    """A viewer's credentials: exit 4, with what to check; nothing is sent."""
    own.cli("ACL", "SETUSER", "viewer", "on", ">pw", "~*", "+@read", "+@connection", "+time", "+role", "allchannels")
    env = environ_of(own, SKILLBUS_REDIS_USERNAME="viewer", SKILLBUS_REDIS_PASSWORD="pw")
    told = skillbus("drill", env=env)
    assert (told.code, "ACL" in told.err) == (4, True), told
    assert own.cli("EXISTS", PROD.audit_key) == 0


def test_wrong_words(redis_server: RealServer) -> None:
    """Exit 2."""
    env = environ_of(redis_server)
    for words in (["--timeout", "soon"], ["--group", "a", "--pod", "b"]):
        assert skillbus("drill", *words, env=env).code == 2


def test_hostile_words_are_shown_harmless(redis_server: RealServer, tmp_path: Path) -> None:
    """Whoever calls it what."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        until_armed(redis_server, "one")
        told = skillbus_on_terminal("drill", "--by", HOSTILE, env=environ_of(redis_server))
        status = skillbus("status", env=environ_of(redis_server))
        history = skillbus("history", env=environ_of(redis_server))
    assert told.code == 0, told
    for ran in (status, history):
        is_harmless(ran)

"""Credentials that are wrong, too small, or changed under a running pod: it holds, says why, and never works deaf."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skillbus.control.acl import AclUser, Role, acl_line
from skillbus.core.latch import State
from tests.pods import FAST, WatchedPod, environ_of, eventually, evidence_of, order, own_server, record_of, skillbus
from tests.servers import RealServer

LINE = acl_line("prod", AclUser(Role.POD, "pod", hashlib.sha256(b"pw").hexdigest(), pod_id="one"))
AS_POD = FAST | {"redis_username": "pod", "redis_password": "pw"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server that all tests of this file share; each sets the user anew."""
    with own_server(tmp_path_factory.mktemp("guarded")) as server:
        yield server


def grant(server: RealServer, line: str) -> None:
    """Set the pod's user to exactly this line."""
    server.cli("ACL", "SETUSER", *line.split()[1:] if "(" not in line else _words(line))


def _words(line: str) -> list[str]:
    return re.findall(r"\([^)]*\)|\S+", line)[1:]


def test_what_skillbus_acl_prints_is_enough(guarded: RealServer, tmp_path: Path) -> None:
    """With exactly the pod's line it hears, works, records and leaves evidence."""
    grant(guarded, LINE)
    with WatchedPod(guarded, tmp_path, **AS_POD) as pod:
        pod.until_works()
        eventually(lambda: any(beat.armed for beat in evidence_of(guarded)), "it hears")
        guarded.publish("skillbus:prod:kill", "leaked")
        pod.until_latched()
        assert eventually(lambda: record_of(guarded), "it is recorded").reason == "leaked"
    guarded.cli("DEL", "skillbus:{prod}:killed")


@pytest.mark.parametrize("command", ["role", "time", "exists", "get", "hset", "zadd", "subscribe", "publish"])
def test_a_missing_permission_holds(guarded: RealServer, tmp_path: Path, command: str) -> None:
    """Without any one of the commands that prove something, the pod holds, names what is refused, and does nothing."""
    grant(guarded, re.sub(rf"\+{command}\b(?!\|)", "", LINE))
    with WatchedPod(guarded, tmp_path, **AS_POD) as pod:
        pod.until(lambda: pod.state is State.HOLDING and "refuses" in pod.why, "it holds and says why")
        assert re.search(rf"'{command}'|no permissions|ACL", pod.why)
        lines = len(pod.standings)
        grant(guarded, LINE)
        pod.until_works()
        assert all(standing.state is not State.RUNNING for standing in pod.standings[:lines])


def test_a_kill_that_may_not_be_recorded_still_stops(guarded: RealServer, tmp_path: Path) -> None:
    """Without SETNX (a tenant) a message stops the pod; it keeps its tombstone, and records once it may."""
    grant(guarded, LINE.replace("+setnx", ""))
    with WatchedPod(guarded, tmp_path, **AS_POD) as pod:
        pod.until_works()
        guarded.publish("skillbus:prod:kill", "leaked")
        pod.until_latched()
        eventually(pod.tombstones, "there is a tombstone")
        assert record_of(guarded) is None
        assert "(not recorded yet)" in pod.why
        grant(guarded, LINE)
        eventually(lambda: record_of(guarded), "it is recorded")
    guarded.cli("DEL", "skillbus:{prod}:killed")


def test_a_wrong_password(guarded: RealServer, tmp_path: Path) -> None:
    """Holding, with what to check, without the password, and nothing done; the right one would have worked."""
    grant(guarded, LINE)
    with WatchedPod(guarded, tmp_path, **(AS_POD | {"redis_password": "hunter2"})) as pod:
        pod.until(lambda: "check user, password and ACL" in pod.why, "it holds")
        assert (pod.state, pod.works_count) == (State.HOLDING, 0)
        assert "hunter2" not in pod.why


def test_a_password_rotated_under_a_running_pod(guarded: RealServer, tmp_path: Path) -> None:
    """Connections that stand go on; once they are lost it holds, saying why; a kill is obeyed once it may read."""
    grant(guarded, LINE)
    with WatchedPod(guarded, tmp_path, **AS_POD) as pod:
        pod.until_works()
        guarded.cli("ACL", "SETUSER", "pod", "resetpass", ">other")
        guarded.cli("CLIENT", "KILL", "TYPE", "PUBSUB")
        guarded.cli("CLIENT", "KILL", "USER", "pod")
        pod.until(lambda: "check user, password and ACL" in pod.why, "it holds")
        pod.until(lambda: pod.pod.standing.quiet, "its pass has ended")
        count = pod.works_count
        order(guarded)
        grant(guarded, LINE)
        pod.until_latched()
        assert pod.works_count == count
    guarded.cli("DEL", "skillbus:{prod}:killed")


def test_a_pod_says_as_whom_it_writes(guarded: RealServer, tmp_path: Path) -> None:
    """By ACL WHOAMI, which its line permits. By it a certificate tells a user of its own from one that all share."""
    grant(guarded, LINE)
    guarded.cli("DEL", "skillbus:{prod}:killed")
    with WatchedPod(guarded, tmp_path, **AS_POD) as pod, WatchedPod(guarded, tmp_path, "two", **FAST) as other:
        pod.until_works()
        other.until_works()
        said = eventually(lambda: {b.user for name in ("one", "two") for b in evidence_of(guarded, name)}, "they beat")
        assert said == {"pod", "default"}
        env = environ_of(guarded)
        shared = eventually(lambda: _finding(skillbus("doctor", "-o", "json", env=env).json), "doctor says so")
        assert shared["severity"] == "warning"
        assert skillbus("status", "-o", "json", env=env).json["identity"] == "shared"
        assert "identity: shared" in skillbus("status", env=env).out
        told = skillbus("kill", "x", "-o", "json", env=env).json
        proof = told["certificate"]
        assert proof["identity"] == "shared", told
        assert "1 pod as the ACL user 'default'" in proof["identity_sentence"]
        kept = skillbus("history", told["record"]["id"], env=env).out
        assert "identity: shared" in kept
    guarded.cli("DEL", "skillbus:{prod}:killed")


def test_who_may_not_ask_says_nothing(guarded: RealServer, tmp_path: Path) -> None:
    """Lines of an earlier release lack WHOAMI: the pod works all the same, and names no user."""
    grant(guarded, LINE.replace("+acl|whoami ", ""))
    with WatchedPod(guarded, tmp_path, **AS_POD) as pod:
        pod.until_works()
        last = max(evidence_of(guarded), key=lambda beat: beat.started_at_ms)
        assert last.user == ""


def _finding(told: dict[str, Any]) -> dict[str, Any] | None:
    return next((one for one in told["findings"] if one["id"] == "identity"), None)

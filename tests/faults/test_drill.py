"""Drills of fleets in which something is wrong: who would not hear is named, and whatever happens nobody is stopped."""

from __future__ import annotations

import random
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from skillbus.core.heartbeat import DrillLine
from skillbus.core.latch import State
from skillbus.core.orders import DrillOrder, KillOrder, KillRecord
from tests.pods import (
    FAST,
    FLEET,
    GROUP,
    PROD,
    Holding,
    Path2Redis,
    WatchedPod,
    arm,
    ended,
    environ_of,
    eventually,
    evidence_of,
    launched,
    order,
    own_server,
    process_pod,
    record_of,
    skillbus,
    subscriber_ids,
    text_of,
)
from tests.servers import RawClient, RealServer

WORKS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
from skillbus.core.outcome import PassResult
from skillbus.settings import Settings
from skillbus.wiring import pod_of

class Works:
    vouched = True

    async def reconcile(self, checkpoint):
        checkpoint()
        return PassResult()

with pod_of(Settings.load(), Works(), work="") as pod:
    signal.sigwait([signal.SIGTERM])
"""


def until_armed(server: RealServer, *pods: str) -> None:
    """Wait until they hear, and say so."""
    for pod_id in pods:
        eventually(lambda: any(beat.armed for beat in evidence_of(server, pod_id)), f"{pod_id} hears")  # noqa: B023


def answers_of(server: RealServer, pod_id: str = "one") -> list[DrillLine]:
    """The drills of which a pod tells, the last one first."""
    beat = max(evidence_of(server, pod_id), key=lambda beat: beat.beat_at_ms)
    return [line for line in (beat.drill, *beat.drills_before) if line is not None]


def has_answered(server: RealServer, name: str, pod_id: str = "one") -> bool:
    """Whether the pod tells that this drill went all the way."""
    return any(line.id == name and line.answered_at_ms for line in answers_of(server, pod_id))


def test_a_frozen_pod(redis_server: RealServer, tmp_path: Path) -> None:
    """SIGSTOP: Redis counts it among those who hear, the drill names it. Thawed, it answers, and was not stopped."""
    arm(redis_server)
    argv, env = [sys.executable, "-c", WORKS], environ_of(redis_server)
    with (
        WatchedPod(redis_server, tmp_path) as one,
        process_pod(redis_server, tmp_path / "frozen", argv, "frozen") as process,
    ):
        one.until_works()
        until_armed(redis_server, "one", "frozen")
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it is frozen")
        told = skillbus("drill", "--timeout", "1s", "-o", "json", env=env)
        assert told.code == 5, told
        assert (told.json["receivers"], told.json["asked"], told.json["missing"]) == (2, 2, ["frozen"])
        assert told.json["sentence"].startswith("1 of 2 answered: p50 ")
        process.send_signal(signal.SIGCONT)
        eventually(lambda: has_answered(redis_server, told.json["id"], "frozen"), "it answers what it finds")
        again = skillbus("drill", env=env)
        assert again.code == 0, again
        assert [beat.causes for beat in evidence_of(redis_server, "frozen")] == [()]
        one.until_works()
    assert record_of(redis_server) is None
    assert not one.was_ever_latched()


def test_a_pod_whose_subscriber_was_cut(tmp_path: Path) -> None:
    """CLIENT KILL, and no way back to its channels: it beats and is deaf, the drill says so; let in, it answers."""
    with own_server(tmp_path) as server:
        server.cli("ACL", "SETUSER", "pod", "on", ">pw", "~*", "+@all", "resetchannels", "&skillbus:prod:*")
        given: dict[str, Any] = {"redis_username": "pod", "redis_password": "pw", "reconciler": Holding({})}
        with WatchedPod(server, tmp_path, **given) as deaf, WatchedPod(server, tmp_path, "two") as two:
            two.until_works()
            until_armed(server, "one", "two")
            (listening,) = [name for name in subscriber_ids(server) if b"one" in _name_of(server, name)]
            server.cli("ACL", "SETUSER", "pod", "resetchannels", "&skillbus:prod:echo:*", "&skillbus:prod:events")
            server.cli("CLIENT", "KILL", "ID", listening)
            eventually(lambda: not any(beat.armed for beat in evidence_of(server)), "it says that it is deaf")
            told = skillbus("drill", "--timeout", "1s", env=environ_of(server))
            assert told.code == 5, told
            assert "1 did not answer: one" in told.out
            assert "it says itself that it is deaf" in told.out
            assert "only 1 connections hear kills of the fleet, and 2 pods live" in told.out
            server.cli("ACL", "SETUSER", "pod", "&skillbus:prod:*")
            until_armed(server, "one")
            assert skillbus("drill", env=environ_of(server)).code == 0
            assert [pod.was_ever_latched() for pod in (deaf, two)] == [False, False]


def _name_of(server: RealServer, client_id: bytes) -> bytes:
    """What a connection calls itself."""
    return text_of(server.cli("CLIENT", "LIST", "ID", client_id)).encode().partition(b" name=")[2].split(b" ")[0]


def test_a_pod_that_hears_nothing(tmp_path: Path) -> None:
    """Messages are swallowed on the way: PUBLISH and NUMSUB count it, nobody else is deceived."""
    with own_server(tmp_path) as server, Path2Redis(server) as path, WatchedPod(path.url, tmp_path, **FAST) as pod:
        pod.until_works()
        until_armed(server, "one")
        path.deafens = True
        told = skillbus("drill", "--timeout", "500ms", "-o", "json", env=environ_of(server))
        assert (told.code, told.json["missing"]) == (5, ["one"]), told
        path.deafens = False
        pod.until_works()
        until_armed(server, "one")
        assert skillbus("drill", env=environ_of(server)).code == 0
        assert not pod.was_ever_latched()


def test_a_pod_of_an_old_version(redis_server: RealServer, tmp_path: Path) -> None:
    """It listens to the channel and says nothing: the drill tells that its version cannot."""
    arm(redis_server)
    env = environ_of(redis_server)
    with WatchedPod(redis_server, tmp_path) as one, RawClient(redis_server.port) as old:
        one.until_works()
        until_armed(redis_server, "one")
        old.send("SUBSCRIBE", FLEET.kill_channel, PROD.drill_channel)
        old.read()
        old.read()
        seconds, _ = redis_server.cli("TIME")  # type: ignore[misc]
        beat = b'{"v":1,"incarnation":"i1","state":"running","beat_at_ms":%s500,"version":"0.0.9"}' % seconds
        redis_server.cli("HSET", PROD.pod_key("old"), "i1", beat)
        redis_server.cli("ZADD", PROD.roster_key, 1, "old")
        told = skillbus("drill", "--timeout", "1s", env=env)
    assert told.code == 5, told
    assert "1 of 2 answered" in told.out
    assert "its version (0.0.9) knows no drills" in told.out


def test_redis_starts_anew_in_between(tmp_path: Path) -> None:
    """The waiting goes on; who answered before counts; who did not is named; the result is kept. No pod was stopped."""
    argv = [sys.executable, "-c", WORKS]
    with (
        own_server(tmp_path) as server,
        WatchedPod(server, tmp_path, **FAST) as one,
        process_pod(server, tmp_path / "frozen", argv, "frozen") as process,
    ):
        one.until_works()
        until_armed(server, "one", "frozen")
        process.send_signal(signal.SIGSTOP)
        drill = launched("drill", "--timeout", "6s", "-o", "json", env=environ_of(server))
        eventually(lambda: answers_of(server) and answers_of(server)[0].answered_at_ms, "one has answered")
        server.kill()
        server.start()
        told = ended(drill)
        assert told.code == 5, told
        assert (told.json["asked"], told.json["missing"], told.json["audited"]) == (2, ["frozen"], True)
        process.send_signal(signal.SIGCONT)
        one.until_works()
        until_armed(server, "one", "frozen")
        eventually(lambda: len(subscriber_ids(server)) == 2, "both hear again")
        assert skillbus("drill", env=environ_of(server)).code == 0
        assert not one.was_ever_latched()


def test_fifty_pods(redis_server: RealServer, tmp_path: Path) -> None:
    """All of them answer, one drill after the other; no pass was begun or ended for it, no latch moved."""
    arm(redis_server)
    names = [f"pod-{number:02}" for number in range(50)]
    with ExitStack() as stack:
        pods = [stack.enter_context(WatchedPod(redis_server, tmp_path, name, reconciler=Holding({}))) for name in names]
        for pod in pods:
            pod.until(lambda: len(pod.passes) == 1, "its first pass")  # noqa: B023
        until_armed(redis_server, *names)
        for _ in range(2):
            told = skillbus("drill", "-o", "json", env=environ_of(redis_server))
            assert told.code == 0, told
            assert (told.json["asked"], told.json["missing"]) == (50, [])
            assert len({reply["pod_id"] for reply in told.json["pods"]}) == 50
        assert {pod.state for pod in pods} == {State.RUNNING}
        assert [pod.name for pod in tmp_path.glob("*/tombstones/*")] == []
        assert {len(pod.passes) for pod in pods} == {1}
        assert not any(pod.was_ever_latched() for pod in pods)
    assert record_of(redis_server) is None


def test_a_drill_during_a_kill(redis_server: RealServer, tmp_path: Path) -> None:
    """Before, between and behind the orders, in one write: each drill is answered, and the kill is a kill."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, groups=("eu",)) as one:
        one.until_works()
        until_armed(redis_server, "one")
        kill = KillOrder(id="k1", by="test", via="cli", reason="stop")
        words = [
            ("PUBLISH", PROD.drill_channel, DrillOrder("before").to_bytes()),
            ("SETNX", FLEET.killed_key, kill.record(fallback_id="k1", now_ms=0).to_bytes()),
            ("PUBLISH", FLEET.kill_channel, kill.to_bytes()),
            ("PUBLISH", PROD.drill_channel, DrillOrder("between").to_bytes()),
            ("PUBLISH", GROUP.kill_channel, b"and the group"),
            ("PUBLISH", PROD.drill_channel, DrillOrder("behind").to_bytes()),
        ]
        with RawClient(redis_server.port) as client:
            for one_command in words:
                client.send(*one_command)
            for _ in words:
                client.read()
        one.until_latched()
        for name in ("before", "between", "behind"):
            eventually(lambda: has_answered(redis_server, name), f"{name} is answered")  # noqa: B023
        assert all(line.trips for line in answers_of(redis_server))
        eventually(lambda: record_of(redis_server, GROUP), "the group's kill is recorded")
        record = record_of(redis_server)
        assert record is not None
        assert record.id == "k1"
        assert len(eventually(lambda: one.tombstones()[1:] and one.tombstones(), "both tombstones")) == 2
        standing = one.pod.standing
        told = skillbus("drill", env=environ_of(redis_server))
        assert (told.code, one.pod.standing) == (0, standing), told


def test_nothing_on_the_drill_channel_stops_anybody(redis_server: RealServer, tmp_path: Path) -> None:
    """Orders, records, replays, bursts and noise: the pod works on, hears on, and a kill still kills."""
    noise = random.Random(4)
    arm(redis_server)
    like_kills = [
        b"stop",
        b"",
        KillOrder(id="k1", by="oncall", via="cli", reason="stop").to_bytes(),
        KillRecord(id="k2", reason="stop").to_bytes(),
        b'{"v":1,"id":"k3","timeout_s":10,"reason":"stop","scope":"fleet","kind":"kill"}',
        b'{"v":1,"id":"k4","timeout_s":10,"scope":"pod:one","channel":"skillbus:prod:kill"}',
        DrillOrder("replayed").to_bytes(),
    ]
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        until_armed(redis_server, "one")
        listening, memory = subscriber_ids(redis_server), one.pod.switch.memory
        with RawClient(redis_server.port) as client:
            for payload in like_kills * 50:
                client.call("PUBLISH", PROD.drill_channel, payload)
            for number in range(500):
                client.call("PUBLISH", PROD.drill_channel, noise.randbytes(noise.choice((1, 9, 70, 3000))))
                client.call("PUBLISH", PROD.drill_channel, DrillOrder(f"d{number}").to_bytes())
        one.until_works()
        assert (one.pod.switch.memory.obeyed, one.pod.switch.causes) == (memory.obeyed, ())
        assert (one.state, one.passes, one.tombstones()) == (State.RUNNING, [], [])
        assert not one.was_ever_latched()
        assert record_of(redis_server) is None
        assert subscriber_ids(redis_server) == listening
        eventually(lambda: [beat for beat in evidence_of(redis_server) if beat.ignored_count > 800], "it counts them")
        answered = eventually(lambda: _answered_later(redis_server), "a second later it answers again")
        assert answered.code == 0, answered
        order(redis_server)
        one.until_latched()
        tripped_at_s = one.pod.standing.tripped_at_s
        assert tripped_at_s is not None
        assert max(one.worker.changes) <= tripped_at_s


def _answered_later(server: RealServer) -> object:
    """A good drill. Right behind a burst it may be one too many, which is what the limit is for."""
    told = skillbus("drill", "--timeout", "1s", env=environ_of(server))
    return told if told.code == 0 else None

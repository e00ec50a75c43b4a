"""A subscriber connection that breaks, is refused, or goes silent: the pod notices by its own voice, and says so."""

from __future__ import annotations

import random
from pathlib import Path

from skillbus.core.latch import State
from tests.pods import FAST, FLEET, Path2Redis, WatchedPod, eventually, evidence_of, order, own_server, subscriber_ids
from tests.servers import RealServer


def hears(server: RealServer) -> bool:
    """Whether the pod says that every kill channel is heard."""
    return any(beat.armed and not beat.ended_at_ms for beat in evidence_of(server))


def test_a_subscriber_that_is_torn_away_again_and_again(tmp_path: Path) -> None:
    """Each time it subscribes anew and counts as hearing only then; a kill in the gap is obeyed all the same."""
    gaps = random.Random(9)
    with own_server(tmp_path) as server, WatchedPod(server, tmp_path, **FAST) as pod:
        pod.until_works()
        seen: set[bytes] = set()
        for _ in range(8):
            (listening,) = eventually(lambda: subscriber_ids(server), "it listens")
            assert listening not in seen
            seen.add(listening)
            server.cli("CLIENT", "KILL", "ID", listening)
            eventually(lambda: subscriber_ids(server) not in ([], [listening]), "it listens anew")  # noqa: B023
            if gaps.random() < 0.5:
                eventually(lambda: hears(server), "it says so")
        pod.until_works()
        assert not pod.was_ever_latched()
        server.cli("CLIENT", "KILL", "TYPE", "PUBSUB")
        order(server)
        pod.until_latched()


def test_a_silent_subscriber_connection(tmp_path: Path) -> None:
    """Swallowed messages: the echo does not come back, the pod says that it is deaf and holds, its heartbeats obey."""
    with own_server(tmp_path) as server, Path2Redis(server) as path, WatchedPod(path.url, tmp_path, **FAST) as pod:
        pod.until_works()
        eventually(lambda: hears(server), "it hears")
        subscriptions_count = path.subscriptions_count
        path.deafens = True
        pod.until(lambda: "deaf" in pod.why, "it notices")
        assert pod.state is State.HOLDING
        eventually(lambda: not hears(server), "its evidence says so too")
        pod.until(lambda: path.subscriptions_count > subscriptions_count, "it subscribes anew")
        pod.until(lambda: "no confirmation" in pod.why, "and is not content with a connection that says nothing")
        path.deafens = False
        pod.until_works()
        eventually(lambda: hears(server), "it hears again")
        assert server.publish(FLEET.kill_channel, "the bare message") >= 1
        pod.until_latched()


def test_a_deaf_pod_obeys_the_record(tmp_path: Path) -> None:
    """A kill that a deaf pod cannot hear reaches it by the polled record; PUBLISH counted it as a receiver."""
    with own_server(tmp_path) as server, Path2Redis(server) as path, WatchedPod(path.url, tmp_path, **FAST) as pod:
        pod.until_works()
        path.deafens = True
        order(server)
        pod.until_latched()
        tripped_at_s = pod.pod.standing.tripped_at_s
        assert tripped_at_s is not None
        assert max(pod.worker.changes) <= tripped_at_s


def test_a_channel_that_is_denied(tmp_path: Path) -> None:
    """One denied kill channel: the pod holds, names the ACL, and never works deaf; granted, it runs."""
    with own_server(tmp_path) as server:
        channels = ["&skillbus:prod:kill", "&skillbus:prod:drill", "&skillbus:prod:sync", "&skillbus:prod:echo:*"]
        own = FLEET.kill_channel + ":pod:one"
        server.cli("ACL", "SETUSER", "pod", "on", ">pw", "~*", "+@all", "resetchannels", *channels)
        given = FAST | {"redis_username": "pod", "redis_password": "pw"}
        with WatchedPod(server, tmp_path, **given) as pod:
            pod.until(lambda: "not subscribed" in pod.why, "it holds")
            assert "ACL" in pod.why
            server.cli("ACL", "SETUSER", "pod", f"&{own}", "&skillbus:prod:events")
            pod.until_works()
            before_s = pod.worker.changes[0]
            assert pod.works_count >= 1
            server.cli("ACL", "SETUSER", "pod", "resetchannels", *channels, "&skillbus:prod:events")
            pod.until(lambda: "not subscribed" in pod.why, "it holds again")
            assert pod.state is State.HOLDING
            assert before_s
            order(server)
            pod.until_latched()

"""Any bytes on any channel: on a kill channel they kill, elsewhere they end no listener."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from skillbus.core.latch import State
from tests.pods import (
    FAST,
    FLEET,
    PROD,
    Complaining,
    WatchedPod,
    Worker,
    arm,
    eventually,
    evidence_of,
    record_of,
    subscriber_ids,
)
from tests.servers import RawClient, RealServer

ORDERS = {
    "empty": b"",
    "not UTF-8": b"\xff\xfe\x00\x80",
    "truncated JSON": b'{"reason": "tok',
    "1 MiB": b"x" * (1 << 20),
    "no object": b"[1, 2]",
    "wrong fields": b'{"id": 7, "reason": {"a": []}, "at": null, "v": "x"}',
    "deep": b'{"a":' * 10_000,
    "a lone surrogate": b'{"reason": "\\ud800", "by": "\\udfff"}',
    "a reset by name": b"reset",
    "a reset by shape": b'{"v":1,"kind":"reset","confirm":"prod","epoch":99999999999999}',
    "an epoch": b'{"v":1,"epoch":18446744073709551616,"lifted":true}',
}


@pytest.mark.parametrize("name", ORDERS)
def test_any_bytes_on_a_kill_channel_kill(redis_server: RealServer, tmp_path: Path, name: str) -> None:
    """The first payload kills and is recorded, whatever it is; nothing that follows it undoes that."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path) as pod:
        pod.until_works()
        redis_server.publish(FLEET.kill_channel, ORDERS[name])
        pod.until_latched()
        record = eventually(lambda: record_of(redis_server), "it is recorded")
        assert record.heard_by == "one"
        eventually(pod.tombstones, "there is a tombstone")
        tripped_at_s = pod.pod.standing.tripped_at_s
        assert tripped_at_s is not None
        with RawClient(redis_server.port) as client:
            for payload in ORDERS.values():
                client.call("PUBLISH", FLEET.kill_channel, payload)
        assert max(pod.worker.changes) <= tripped_at_s
        assert record_of(redis_server) == record
        assert pod.state is State.STOPPED
    assert pod.pod.failure is None


def test_what_a_reconciler_says_cannot_end_its_pod(redis_server: RealServer, tmp_path: Path) -> None:
    """File names that are no text, escapes and line ends in errors and counts: shown harmless, and the pod goes on."""
    arm(redis_server)
    words = ("a name \udcff\udcfe that is no UTF-8", "\x1b[31m\n" * 500)
    with WatchedPod(redis_server, tmp_path, reconciler=Complaining(*words), **FAST) as pod:
        pod.until(lambda: len(pod.passes) == 1, "its first pass")
        last = eventually(lambda: [beat.last_pass for beat in evidence_of(redis_server) if beat.last_pass], "it tells")
        assert [text.isprintable() for text in (*last[0].errors, *last[0].counts)] == [True] * 4
        redis_server.publish(FLEET.kill_channel, "and it hears")
        pod.until_latched()


def test_any_bytes_elsewhere_end_no_listener(redis_server: RealServer, tmp_path: Path) -> None:
    """Seeded noise on drill, sync, events and echo: the same connection listens on, nobody works, a kill kills."""
    noise = random.Random(20)
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, worker=Worker(changes_count=1)) as pod:
        pod.until(lambda: len(pod.passes) == 1, "its first pass")
        listening = eventually(lambda: subscriber_ids(redis_server), "it listens")
        channels = [PROD.drill_channel, PROD.sync_channel, PROD.events_channel, PROD.echo_channel("one")]
        with RawClient(redis_server.port) as client:
            for payload in [*ORDERS.values(), b'{"v":9,"what":"is this"}', b'{"id":1}']:
                for channel in channels:
                    client.call("PUBLISH", channel, payload)
            for _ in range(400):
                payload = noise.randbytes(noise.choice((1, 7, 60, 2000)))
                client.call("PUBLISH", noise.choice(channels), payload)
            client.call("PUBLISH", PROD.sync_channel, b'{"v":1,"id":"wanted"}')
        pod.until(lambda: len(pod.passes) == 2, "the pass that somebody asked for")
        last = pod.pod.last_pass
        assert last is not None
        assert last.trigger == "wanted"
        assert (len(pod.passes), pod.state) == (2, State.RUNNING)
        redis_server.cli("PUBLISH", PROD.sync_channel, b'{"id":"\\udfff\\u001b[31m"}')
        pod.until(lambda: len(pod.passes) == 3, "an id of any text is one")
        assert subscriber_ids(redis_server) == listening
        redis_server.publish(FLEET.kill_channel, b"")
        pod.until_latched()

"""A sync: whose pass counts for it, and who need not be asked."""

from __future__ import annotations

import json

import pytest

from skillbus.bus.operator_bus import OperatorBus
from skillbus.control.sync import FleetIsKilled, SyncReport, sync
from skillbus.core.heartbeat import PassLine
from skillbus.core.latch import State
from skillbus.errors import BadSettings
from tests.unit.control.operators import Redis


def synced(redis: Redis, monkeypatch: pytest.MonkeyPatch, began_ms: int, trigger: str) -> SyncReport:
    """A sync of pod ``a``, which ends a pass that began ``began_ms`` after it was published."""
    redis.pod("a")
    publish = OperatorBus.publish

    async def and_a_pass(bus: OperatorBus, channel: str, fields: dict[str, object]) -> int:
        line = PassLine(id="p", outcome="ok", trigger=trigger, began_at_ms=redis.now_ms + began_ms, took_s=0.1)
        redis.pod("a", last_pass=line)
        return await publish(bus, channel, fields)

    monkeypatch.setattr(OperatorBus, "publish", and_a_pass)
    return redis.run(lambda bus: sync(bus, by="me", timeout_s=0.0))


@pytest.mark.parametrize(("began_ms", "counts"), [(5_000, True), (-5_000, False)])
def test_a_pass_that_began_after_the_sync_counts(monkeypatch: pytest.MonkeyPatch, began_ms: int, counts: bool) -> None:
    """Two syncs at once are one pass, which bears one of their ids."""
    report = synced(Redis(), monkeypatch, began_ms, "another")
    assert ([pod_id for pod_id, _ in report.passes], report.missing) == ((["a"], ()) if counts else ([], ("a",)))


def test_who_is_stopped_is_not_waited_for() -> None:
    """All of them: refused at once, with exit code 3, and nothing is published or audited."""
    redis = Redis()
    redis.pod("a", State.STOPPED)
    redis.pod("b", State.STOPPING)
    redis.pod("c", State.RUNNING, age_ms=60_000)
    with pytest.raises(FleetIsKilled, match="all 2 pods are stopped: nothing reconciles") as caught:
        redis.run(lambda bus: sync(bus, by="me", timeout_s=0.0))
    assert caught.value.exit_code == 3
    assert redis.audit() == []


def test_who_is_at_work_says_at_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own words, or that it works; not who has not begun, and not who is done."""
    redis = Redis()
    redis.pod("a", doing="fetches github.com/o/r: 2 skills")
    redis.pod("b")
    redis.pod("c", quiet=True)
    report = redis.run(lambda bus: sync(bus, by="me", timeout_s=0.0))
    assert report.missing == ("a", "b", "c")
    assert report.doing == (("a", "fetches github.com/o/r: 2 skills"), ("b", "works"))


def published(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What goes out on the sync channel, from here on."""
    sent: list[dict[str, object]] = []
    publish = OperatorBus.publish

    async def noting(bus: OperatorBus, channel: str, fields: dict[str, object]) -> int:
        sent.append(json.loads(json.dumps(dict(fields))))
        return await publish(bus, channel, fields)

    monkeypatch.setattr(OperatorBus, "publish", noting)
    return sent


@pytest.mark.parametrize(
    ("pods_count", "asked_s", "within_s"),
    [(1, None, 0.0), (50, None, 0.0), (51, None, 10.0), (51, 0.0, 0.0), (1, 7.5, 7.5)],
)
def test_a_large_fleet_is_spread_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, pods_count: int, asked_s: float | None, within_s: float
) -> None:
    """Up to 50 pods at once, more within 10 s; a window that was asked for is what goes out."""
    redis = Redis()
    for number in range(pods_count):
        redis.pod(f"p{number}")
    redis.pod("stopped", State.STOPPED)
    sent = published(redis, monkeypatch)
    report = redis.run(lambda bus: sync(bus, by="me", timeout_s=0.0, within_s=asked_s))
    assert report.within_s == within_s
    assert sent == [{"v": 1, "id": report.id, "by": "me", "within_s": within_s}]
    assert len(report.missing) == pods_count


def test_nobody_waits_less_than_the_pods_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that is not over before the timeout: refused before anything is published or audited."""
    redis = Redis()
    redis.pod("a")
    sent = published(redis, monkeypatch)
    with pytest.raises(BadSettings, match="make --timeout longer"):
        redis.run(lambda bus: sync(bus, by="me", timeout_s=10.0, within_s=10.0))
    assert (sent, redis.audit()) == ([], [])


def test_who_leaves_a_source_alone_is_not_waited_for_in_vain() -> None:
    """It makes no pass in time, so the answer comes at once, and says until when it rests."""
    redis = Redis()
    until_ms = redis.now_ms + 3_600_000
    redis.pod("a", rests_until_ms=until_ms)
    redis.pod("b", rests_until_ms=redis.now_ms - 1)
    done = PassLine(id="p", outcome="ok", began_at_ms=redis.now_ms + 60_000, took_s=0.1)
    redis.pod("b", last_pass=done)
    seen: list[SyncReport] = []
    report = redis.run(lambda bus: sync(bus, by="me", timeout_s=50.0, on_progress=seen.append))
    assert (report.missing, report.resting) == (("a",), (("a", until_ms),))
    assert [pod_id for pod_id, _ in report.passes] == ["b"]
    assert report.took_s < 5.0
    assert seen[-1] == report


def test_who_rests_for_less_than_we_wait_is_waited_for() -> None:
    """Its pass may still come in time."""
    redis = Redis()
    redis.pod("a", rests_until_ms=redis.now_ms + 200)
    report = redis.run(lambda bus: sync(bus, by="me", timeout_s=0.5))
    assert report.missing == ("a",)
    assert report.took_s >= 0.5

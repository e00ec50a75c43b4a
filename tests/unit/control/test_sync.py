"""A sync: whose pass counts for it, and who need not be asked."""

from __future__ import annotations

import pytest

from skillbus.bus.operator_bus import OperatorBus
from skillbus.control.sync import FleetIsKilled, SyncReport, sync
from skillbus.core.heartbeat import PassLine
from skillbus.core.latch import State
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

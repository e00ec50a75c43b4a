"""What an operator reads of thousands of pods: everybody in his place, and nothing that another wrote breaks it."""

from __future__ import annotations

import pytest

from skillbus.bus.evidence import scores_of
from skillbus.bus.operator_bus import OperatorBus
from tests.unit.control.operators import PROD, Redis


@pytest.mark.parametrize("count", [0, 1, 500, 501, 1203])
def test_each_pod_has_its_own_evidence(count: int) -> None:
    """However many are asked in one go; who left none has an empty list. The time is told also if nobody is asked."""
    redis = Redis()
    ids = [f"p{n}" for n in range(count)]
    for pod_id in ids[::2]:
        redis.pod(pod_id, host=pod_id)

    async def test(bus: OperatorBus) -> None:
        began_ms = redis.now_ms
        server_ms, found = await bus.heartbeats(ids)
        assert began_ms <= server_ms <= redis.now_ms
        hosts = {pod_id: [beat.host for beat in beats] for pod_id, beats in found.items()}
        assert hosts == {pod_id: [] if n % 2 else [pod_id] for n, pod_id in enumerate(ids)}

    redis.run(test)


def test_a_score_is_a_hint_whatever_it_is() -> None:
    """Anybody who may beat can write the roster: what is no name is nobody, what is no instant is long ago."""
    redis = Redis()
    redis.hand.zadd(PROD.roster_key, {"a": 5.5, "b": float("inf"), "c": float("-inf"), "not a name": 7, "d": 1e300})
    roster = redis.run(lambda bus: bus.roster())
    assert (roster["a"], roster["b"], roster["c"]) == (5, 0, 0)
    assert roster.keys() == {"a", "b", "c", "d"}
    assert scores_of([b"a", b"nan", b"b", b"words", b"c"]) == {"a": 0, "b": 0}

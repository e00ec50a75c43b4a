"""A set of skills is sent by who finds none there."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import NoPermissionError

from skillbus.bus.redis_bus import RedisBus


@pytest.mark.parametrize(("there", "sent"), [(1, []), (0, [b"set"]), (NoPermissionError("no"), [b"set"])])
def test_a_set_that_is_there_is_not_sent_again(there: int | Exception, sent: list[bytes]) -> None:
    """Where rules of before forbid the question, the set is sent as it was before."""
    wrote: list[bytes] = []

    async def exists(key: str) -> int:
        if isinstance(there, Exception):
            raise there
        return there

    async def setnx(key: str, value: bytes) -> None:
        wrote.append(value)

    client = SimpleNamespace(exists=exists, setnx=setnx)
    bus: Any = SimpleNamespace(_client=client, _fleet=SimpleNamespace(skills_key=str), _endpoint=None)
    asyncio.run(RedisBus.tell_skills(cast(RedisBus, bus), "digest", b"set"))
    assert wrote == sent

"""Who holds a skill, read from Redis: few questions, however many pods, and nobody is believed without a digest."""

from __future__ import annotations

from typing import Any

import pytest

from skillbus.bus.operator_bus import OperatorBus
from skillbus.control import holders as module
from skillbus.control.holders import find_holders, wanted
from skillbus.core.holdings import Held, Wanted
from skillbus.core.skillset import SET_BYTES_LIMIT, digest_of, encoded
from skillbus.errors import BadSettings
from tests.unit.control.operators import PROD, Redis

A, B = "a" * 64, "b" * 64


def put(redis: Redis, skills: dict[str, str]) -> str:
    """A set in Redis, as a pod puts it there; its digest."""
    value = encoded(skills)
    redis.hand.set(PROD.skills_key(digest_of(value)), value)
    return digest_of(value)


def test_many_pods_few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 pods with two sets: one look at the hashes, one at the two sets."""
    redis = Redis()
    old, new = put(redis, {"pdf": A, "x": B}), put(redis, {"pdf": B})
    for number in range(300):
        redis.pod(f"p{number:03d}", skills=old if number < 100 else new)
    asked: list[list[str]] = []
    read = OperatorBus.skill_sets

    async def noting(bus: OperatorBus, digests: Any) -> Any:
        asked.append(list(digests))
        return await read(bus, digests)

    monkeypatch.setattr(OperatorBus, "skill_sets", noting)
    found = redis.run(lambda bus: find_holders(bus, Wanted("pdf")))
    assert [(row.digest, len(row.pods)) for row in found.held] == [(B, 200), (A, 100)]
    assert asked == [sorted([old, new])]


def test_a_forged_set_is_not_believed() -> None:
    """Another value under that digest, one of another type, one that goes on for ever, and none at all: unreadable."""
    redis = Redis()
    value = encoded({"pdf": A})
    right = put(redis, {"pdf": A, "y": B})
    keys = [digest_of(value + str(n).encode()) for n in range(4)]
    redis.hand.set(PROD.skills_key(keys[0]), value)
    redis.hand.rpush(PROD.skills_key(keys[1]), "x")
    redis.hand.set(PROD.skills_key(keys[2]), b"x" * (SET_BYTES_LIMIT * 3))
    for number, digest in enumerate(keys):
        redis.pod(f"p{number}", skills=digest)
    redis.pod("good", skills=right)
    redis.pod("odd", skills="*")
    found = redis.run(lambda bus: find_holders(bus, Wanted("pdf")))
    assert found.held == (Held(A, ("good",)),)
    assert found.unreadable == ("odd", "p0", "p1", "p2", "p3")


def test_made_up_sets_are_read_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile pod cannot make the operator's machine hold everything at once."""
    monkeypatch.setattr(module, "_CHUNK", 2)
    redis = Redis()
    for number in range(5):
        redis.pod(f"p{number}", skills=put(redis, {"pdf": A, f"s{number}": B}))
    found = redis.run(lambda bus: find_holders(bus, Wanted("pdf")))
    assert found.held == (Held(A, ("p0", "p1", "p2", "p3", "p4")),)


@pytest.mark.parametrize(
    ("text", "looked_for"),
    [
        ("pdf", Wanted("pdf")),
        ("data-eda@1A2b", Wanted("data-eda", "1a2b")),
        ("pdf@sha256:" + A, Wanted("pdf", A)),
    ],
)
def test_what_a_person_writes(text: str, looked_for: Wanted) -> None:
    """A name, and the first digits of a digest if need be."""
    assert wanted(text) == looked_for


@pytest.mark.parametrize("text", ["", "@", "pdf@", "a b", "pdf@xyz", "pdf@" + "a" * 65, "@abc", "pdf@a@b", "*"])
def test_what_names_no_skill(text: str) -> None:
    """Said so, with how to write one."""
    with pytest.raises(BadSettings, match="write NAME, or NAME@"):
        wanted(text)

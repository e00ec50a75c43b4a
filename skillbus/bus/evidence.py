"""The roster, and the pods' own hashes, read by the thousand: what ``status``, kills and drills look at.

An answer is made evidence while the server is at the next ones. Nothing here judges it: core does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import exceptions as wire

from skillbus.bus.bulk import Command, ask_by_turns, ask_many, pairs
from skillbus.bus.connect import Client, Endpoint, error_of
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.scope import NAME, Fleet
from skillbus.garbage import unswept

_CHUNK = 500
"""Hashes asked for in one go: about half a megabyte of answers."""


async def read_roster(client: Client, command: Command, endpoint: Endpoint) -> list[bytes]:
    """The answer to one question to the roster."""
    (answer,) = await ask_many(client, [command], endpoint.timeout_s)
    if isinstance(answer, Exception):
        raise error_of(answer, endpoint)
    return list(answer)


def scores_of(answer: list[bytes]) -> dict[str, int]:
    """Pod ids and scores in an answer WITHSCORES. A score that no instant can have is 0."""
    words = iter(answer)
    found = ((name.decode("utf-8", "replace"), _instant(score)) for name, score in zip(words, words, strict=False))
    return {name: at_ms for name, at_ms in found if NAME.fullmatch(name)}


def _instant(score: bytes) -> int:
    try:
        return int(float(score))
    except (ValueError, OverflowError):
        return 0


async def read_evidence(
    client: Client, fleet: Fleet, pod_ids: Sequence[str], endpoint: Endpoint
) -> tuple[int, dict[str, list[Heartbeat]]]:
    """``(server time in ms before the first was read, evidence by pod id)``. A pod without a hash has an empty list."""
    found: dict[str, list[Heartbeat]] = {}
    told: list[int] = []
    left = iter(pod_ids)
    denials: list[Exception] = []

    def take(answers: list[Any]) -> None:
        if not told:
            told.append(_time_ms(answers.pop(0), endpoint))
        denials.extend(answer for answer in answers if isinstance(answer, wire.NoPermissionError))
        with unswept():
            found.update((next(left), _evidence(answer)) for answer in answers)

    turns: list[list[Command]] = [
        [("HGETALL", fleet.pod_key(pod_id)) for pod_id in pod_ids[start : start + _CHUNK]]
        for start in range(0, max(len(pod_ids), 1), _CHUNK)
    ]
    turns[0].insert(0, ("TIME",))
    await ask_by_turns(client, turns, take, endpoint.timeout_s)
    if denials:  # Not before: the connection that gave an order is asked further things.
        raise error_of(denials[0], endpoint)
    return told[0], found


def _time_ms(answer: Any, endpoint: Endpoint) -> int:
    if isinstance(answer, Exception):
        raise error_of(answer, endpoint)
    seconds, micros = answer
    return int(seconds) * 1000 + int(micros) // 1000


def _evidence(raw: Any) -> list[Heartbeat]:
    parsed = (Heartbeat.parse(value) for value in pairs(raw).values())
    return [heartbeat for heartbeat in parsed if heartbeat is not None]

"""What a webhook is: a pure reading of one delivery. Each kind is one file beside this one, and nothing else names it.

A webhook can order a kill and nothing else. Its file never sees Redis, a socket or a clock: it is given the raw bytes,
the secrets and the time, and says what they ask for. Who sent it is proved on these bytes before anything parses them.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from skillbus.core.orders import KillOrder
from skillbus.core.text import harmless

TOLERANCE_S = 300
"""How far a signed timestamp may be from this machine's clock: what Slack and Standard Webhooks both ask for."""

_REASON_LIMIT = 500
_NAME_LIMIT = 120


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request, as it came.

    Attributes:
        body: the raw bytes, over which signatures are made.
        headers: by name in lower case.
        secrets: those in force, one at least; any of them proves the sender, so that they can be rotated.
        now_s: this machine's wall clock, seconds since 1970. Senders sign theirs, and no other can be compared with it.
        options: what else was set for this webhook, by name; each is a tuple of words.
    """

    body: bytes
    headers: Mapping[str, str]
    secrets: tuple[str, ...]
    now_s: float
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """One kill that a delivery asks for.

    Attributes:
        scope: ``fleet``, ``group:<name>``, ``pod:<id>``, or foreign text that names none; empty: all that the webhook
            is bound to. Whether it may be stopped is not decided here.
    """

    order: KillOrder
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is proved who sent it, and it asks for this.

    Attributes:
        orders: one at least.
        delivery_id: what a repetition of this delivery bears, too. Empty: its sender gives it no name.
    """

    orders: tuple[Asked, ...]
    delivery_id: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """It is proved who sent it, and it asks for nothing."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not proved who sent it (401), they may not (403), or it cannot be read (400)."""

    why: str
    status: int = 401


Verdict = Accepted | Ignored | Refused


class Became(StrEnum):
    """What became of one order."""

    RECORDED = "recorded"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Done:
    """One order, behind it.

    Attributes:
        scope: its label, as asked for or bound to.
        became: recorded: a record stands in its scope. failed: it is not known that one does, and a retry is worth it.
            refused: this webhook may not stop that, or nothing is called so.
        sentence: what is so now, for a person.
    """

    scope: str
    became: Became
    sentence: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender is told."""

    status: int
    body: Mapping[str, Any]


def told(verdict: Verdict, done: Sequence[Done]) -> Answer:
    """The answer for a sender that reads the status: 2xx is done or nothing to do, 503 is worth a retry."""
    if isinstance(verdict, Refused):
        return Answer(verdict.status, {"outcome": "refused", "why": verdict.why})
    if isinstance(verdict, Ignored):
        return Answer(200, {"outcome": "ignored", "why": verdict.why})
    found = {one.became for one in done}
    orders = [{"scope": one.scope, "became": str(one.became), "told": one.sentence} for one in done]
    if Became.FAILED in found:
        return Answer(503, {"outcome": "failed", "orders": orders})
    if Became.RECORDED in found:
        return Answer(200, {"outcome": "killed", "orders": orders})
    return Answer(403, {"outcome": "refused", "why": "this webhook may not stop that", "orders": orders})


_SECRET_LENGTH = 16


def _long_enough(secret: str) -> None:
    if len(secret) < _SECRET_LENGTH:
        raise ValueError(f"it is shorter than {_SECRET_LENGTH} characters: make one with: openssl rand -hex 32")


@dataclass(frozen=True, slots=True)
class Webhook:
    """One kind of sender. A module here holds one, named ``WEBHOOK``; its name and path are those of the file.

    Attributes:
        read: what a delivery asks for. Pure; raises nothing on any bytes.
        options: names of further settings, ``SKILLBUS_WEBHOOK_<NAME>_<OPTION>``, each a list of words.
        check_secret: raises ``ValueError``, with what it should be, for a secret that cannot be one.
        answer: what the sender is told.
        wait_s: for so many seconds an answer may wait for proof, because somebody reads it.
    """

    read: Callable[[Delivery], Verdict]
    options: frozenset[str] = frozenset()
    check_secret: Callable[[str], None] = _long_enough
    answer: Callable[[Verdict, Sequence[Done]], Answer] = told
    wait_s: float = 0.0


# -- what most of them need --------------------------------------------------------------------------------------------


def is_one_of(candidates: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether any is any. Every pair is compared, each in constant time, so that how long it takes tells nothing."""
    found = False
    for right in expected:
        for given in candidates:
            found |= hmac.compare_digest(given.encode("utf-8", "replace"), right.encode("utf-8", "replace"))
    return found


def stale(timestamp: str, now_s: float) -> Refused | None:
    """Why a signed timestamp (whole seconds since 1970) is refused; None if it is of now."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return Refused("the timestamp is missing, or no number of seconds")
    away_s = round(now_s - int(timestamp))
    if abs(away_s) <= TOLERANCE_S:
        return None
    older = "older" if away_s > 0 else "newer"
    return Refused(f"the delivery is {abs(away_s)} s {older} than this machine's clock: a replay, or is a clock wrong?")


def json_object(body: bytes) -> dict[str, Any] | Refused:
    """The object in ``body``, or why there is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return Refused("the body is not JSON that can be read", 400)
    return value if isinstance(value, dict) else Refused("the body is JSON, but no object", 400)


def text_at(value: Any, *path: str) -> str:
    """The text at ``path`` in nested objects; empty if there is none, or it is no text."""
    found = at(value, *path)
    return found if isinstance(found, str) else ""


def at(value: Any, *path: str) -> Any:
    """What lies at ``path`` in nested objects; None if nothing does."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def order_of(via: str, *, by: str, reason: str, incident: str = "") -> KillOrder:
    """An order in foreign words, made harmless: they end up on terminals, in logs, on pages."""
    return KillOrder(
        by=harmless(by, _NAME_LIMIT), via=via, reason=harmless(reason, _REASON_LIMIT), incident=harmless(incident, 250)
    )

"""Orders and records: what is sent, and what is persisted under ``killed`` (docs/protocol.md §2).

An order cannot be malformed: every payload on a kill channel is one. A record cannot be unreadable: if the key exists,
the scope is killed, whatever the value. So nothing here raises on any bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from skillbus.core.scope import NAME
from skillbus.core.text import harmless

PROTOCOL_VERSION = 1

REASON_LIMIT = 4096
"""Bytes of a reason that an order keeps (docs/protocol.md §2)."""

RECORD_LIMIT = 1024
"""Bytes of a record that anybody reads (docs/protocol.md §2), hence also the most that we write."""

ID_LIMIT = 128
"""Bytes of an id that anybody keeps: few enough that a record of 1 KiB always holds it whole, however it is escaped."""

_V_LIMIT = 1_000_000
_WAIT_LIMIT_S = 1e9
_JSON_LIMIT = 64 * 1024
"""A payload longer than this is not tried as JSON: nobody's order is that long, and parsing costs time in a stop."""


def iso(at_ms: int) -> str:
    """Milliseconds since 1970 as ``2026-01-31T14:02:11.123Z``."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def _clean(text: str, limit: int) -> str:
    """``text`` cut to ``limit`` bytes of valid UTF-8, lone surrogates replaced."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def _json_object(payload: bytes) -> dict[str, Any] | None:
    if len(payload) > _JSON_LIMIT or not payload.lstrip().startswith(b"{"):
        return None
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text_fields(value: dict[str, Any], names: tuple[str, ...], limit: int) -> dict[str, str]:
    return {name: _clean(value[name], limit) for name in names if isinstance(value.get(name), str)}


def payload_digest(payload: bytes) -> str:
    """By what whoever hears a raw message knows it again: it brings no id, and no two hearers could agree on one."""
    return hashlib.sha256(payload).hexdigest()[:32]


class KillOrder(BaseModel):
    """A kill as it was sent. Fields nobody gave are empty."""

    model_config = ConfigDict(frozen=True)

    id: str = ""
    at: str = ""
    by: str = ""
    via: str = "pubsub"
    reason: str = ""
    incident: str = ""

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """The order in ``payload``: any bytes are one. What is no JSON object becomes the reason, cut at 4 KiB."""
        value = _json_object(payload)
        if value is None:
            head = payload[: REASON_LIMIT + 4].decode("utf-8", "replace")
            return cls(reason=_clean(head, REASON_LIMIT))
        fields = _text_fields(value, ("at", "by", "via", "incident"), 256) | _text_fields(value, ("id",), ID_LIMIT)
        fields |= _text_fields(value, ("reason",), REASON_LIMIT)
        return cls(**{name: text for name, text in fields.items() if text})

    def to_bytes(self) -> bytes:
        """The payload for a kill channel."""
        return json.dumps({"v": PROTOCOL_VERSION, **self.model_dump()}, ensure_ascii=False).encode()

    def record(self, *, fallback_id: str, now_ms: int, heard_by: str = "") -> KillRecord:
        """The record of this order, as the first that heard it would persist it.

        Args:
            fallback_id: the record's id if the order brought none.
            now_ms: server time, for an order that says no time.
            heard_by: the pod or keeper that heard a raw message; empty for whoever sent the order itself.
        """
        return KillRecord(
            id=self.id or fallback_id,
            at=self.at or iso(now_ms),
            by=self.by,
            via=self.via,
            reason=self.reason,
            incident=self.incident,
            heard_by=heard_by,
        )


@dataclass(frozen=True, slots=True)
class DrillOrder:
    """A drill as it was sent. The opposite of a kill: what is not exactly one is none, and a kill order is none either.

    Attributes:
        id: matches ``core.scope.NAME``. A pod answers each once.
        timeout_s: for so long somebody waits for answers. It also tells a drill from any other message.
        scope: the label of the scope that is asked: who is not in it stays silent.
    """

    id: str
    by: str = ""
    timeout_s: float = 10.0
    scope: str = "fleet"

    @classmethod
    def parse(cls, payload: bytes) -> Self | None:
        """The drill in ``payload``, or None: it is none, and means nothing."""
        value = _json_object(payload) or {}
        fields = _text_fields(value, ("id", "by", "scope"), 256)
        timeout_s = value.get("timeout_s")
        if not NAME.fullmatch(fields.get("id", "")):
            return None
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 <= timeout_s < _WAIT_LIMIT_S:
            return None
        return cls(**fields, timeout_s=float(timeout_s))

    def to_bytes(self) -> bytes:
        """The payload for the drill channel."""
        return json.dumps({"v": PROTOCOL_VERSION, **asdict(self), "by": _clean(self.by, 256)}).encode()


class KillRecord(BaseModel):
    """What is persisted under ``killed``. Unknown fields are kept; none of its numbers is ever compared."""

    model_config = ConfigDict(frozen=True, extra="allow")

    v: int = PROTOCOL_VERSION
    id: str
    at: str = ""
    by: str = ""
    via: str = ""
    reason: str = ""
    incident: str = ""
    heard_by: str = ""

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The record in ``raw``: any bytes are one. Without an id of its own it gets one made of its bytes."""
        made_id = "raw-" + hashlib.sha256(raw).hexdigest()[:16]
        value = _json_object(raw)
        if value is None:
            return cls(id=made_id, reason=_clean(raw.decode("utf-8", "replace"), RECORD_LIMIT))
        known = ("at", "by", "via", "reason", "incident", "heard_by")
        fields = {_clean(name, RECORD_LIMIT): x for name, x in value.items() if name not in (*known, "id", "v")}
        fields |= _text_fields(value, known, RECORD_LIMIT) | _text_fields(value, ("id",), ID_LIMIT)
        if isinstance(value.get("v"), int) and 0 <= value["v"] <= _V_LIMIT:
            fields["v"] = value["v"]
        return cls(**fields | {"id": fields.get("id") or made_id})

    def to_bytes(self) -> bytes:
        """At most 1 KiB: the reason is shortened, then unknown fields are dropped, until it fits."""
        fields = self.model_dump()
        for candidate in _shrinking(fields):
            raw = json.dumps(candidate, ensure_ascii=False).encode("utf-8", "replace")
            if len(raw) <= RECORD_LIMIT:
                return raw
        return json.dumps({"v": self.v, "id": self.id}, ensure_ascii=False).encode("utf-8", "replace")

    def sentence(self) -> str:
        """Who, why and when, for a person: ``"token leaked" by oncall via cli at 2026-01-31T14:02:11.123Z``."""
        parts = [f'"{harmless(self.reason)}"' if self.reason else "no reason given"]
        parts += [f"by {harmless(self.by, 80)}"] if self.by else []
        parts += [f"via {harmless(self.via, 40)}"] if self.via else []
        parts += [f"at {harmless(self.at, 40)}"] if self.at else []
        return " ".join(parts)


def _shrinking(fields: dict[str, Any]) -> list[dict[str, Any]]:
    known = {name: fields[name] for name in KillRecord.model_fields}
    full, plain = [], []
    for limit in (RECORD_LIMIT, 512, 256, 64):
        cut = {"reason": _clean(fields["reason"], limit)}
        full.append(fields | cut)
        plain.append(known | cut)
    short = {name: _clean(x, 64) if isinstance(x, str) and name != "id" else x for name, x in known.items()}
    return [*full, *plain, short]

"""Standard Webhooks: any sender that keeps to https://www.standardwebhooks.com, version 1.0.0.

    {"type": "skillbus.kill", "data": {"reason": "token leaked", "scope": "group:batch", "by": "scanner"}}

Every field of ``data`` may be missing; ``incident`` is a further one. Other types are ignored, unless
``SKILLBUS_WEBHOOK_STANDARD_TYPES`` lists the types that kill: so an event that a product sends anyway can be an order.

Symmetric signatures (``v1``) alone. The reference library is not used here: it reads the clock by itself, takes a
timestamp that is no whole number, and lets a header that is none end in errors of its own; the tests sign with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from skillbus.console.webhooks.webhook import (
    Accepted,
    Asked,
    Delivery,
    Ignored,
    Refused,
    Verdict,
    Webhook,
    at,
    is_one_of,
    json_object,
    order_of,
    stale,
    text_at,
)

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_TYPE = "skillbus.kill"


def read(delivery: Delivery) -> Verdict:
    """What this event asks for."""
    delivery_id = delivery.headers.get("webhook-id", "")
    timestamp = delivery.headers.get("webhook-timestamp", "")
    if not delivery_id:
        return Refused("webhook-id is missing")
    given = [part[3:] for part in delivery.headers.get("webhook-signature", "").split(" ") if part.startswith("v1,")]
    signed = f"{delivery_id}.{timestamp}.".encode("utf-8", "replace") + delivery.body
    if not is_one_of(given, [_signature(secret, signed) for secret in delivery.secrets]):
        return Refused("no signature matches id, timestamp and body")
    if (refused := stale(timestamp, delivery.now_s)) is not None:
        return refused
    payload = json_object(delivery.body)
    if isinstance(payload, Refused):
        return payload
    kind, data = text_at(payload, "type"), payload.get("data")
    if kind not in (delivery.options.get("types") or (_TYPE,)):
        return Ignored(f"an event of type {kind[:80]!r} stops nobody")
    scope = "" if at(data, "scope") is None else text_at(data, "scope") or "?"
    by, reason = text_at(data, "by") or "standard webhook", text_at(data, "reason") or kind
    order = order_of("standard", by=by, reason=reason, incident=text_at(data, "incident"))
    return Accepted((Asked(order, scope),), delivery_id)


def _signature(secret: str, signed: bytes) -> str:
    return base64.b64encode(hmac.new(_key(secret), signed, hashlib.sha256).digest()).decode()


def _key(secret: str) -> bytes:
    """The bytes that a serialized secret stands for.

    Raises:
        ValueError: it stands for none.
    """
    text = secret.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if len(key) not in _KEY_BYTES:
        raise ValueError("it is whsec_ and 24 to 64 random bytes in base64: printf whsec_; openssl rand -base64 32")
    return key


def _check(secret: str) -> None:
    _key(secret)


WEBHOOK = Webhook(read, options=frozenset({"types"}), check_secret=_check)

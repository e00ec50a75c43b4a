"""PagerDuty: webhooks of version 3.

What kills is decided by people in PagerDuty, and by default nothing does that does not say so. An event kills if it is

- ``incident.triggered``, and the incident's title holds the marker ``[skillbus:kill]``, or its service is one of those
  that ``SKILLBUS_WEBHOOK_PAGERDUTY_SERVICES`` lists by id;
- ``incident.annotated``, and the note begins with the marker: so a responder stops the fleet from the app on a phone.

``[skillbus:kill group:batch]`` and ``[skillbus:kill pod:pod-17]`` name a scope. Every other event is ignored; that an
incident is resolved resets nothing.

Signatures are HMAC-SHA256 of the raw body, one for each secret that is in force over there; deliveries come at least
once, in order, and are retried for about 20 minutes. Nothing signed says when a delivery was sent, only when the event
occurred, hence the wide window.
(https://developer.pagerduty.com/docs/verifying-webhook-signatures, …/docs/webhooks-overview, …/docs/webhook-behavior)
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from skillbus.console.webhooks.webhook import (
    Accepted,
    Answer,
    Asked,
    Delivery,
    Done,
    Ignored,
    Refused,
    Verdict,
    Webhook,
    is_one_of,
    json_object,
    order_of,
    text_at,
    told,
)

WINDOW_S = 3600
"""An event that occurred longer ago is refused. PagerDuty retries for 20 minutes, behind what is queued before it."""

_AHEAD_S = 300
_MARKER = re.compile(r"\[skillbus:kill(?: ((?:group|pod):[A-Za-z0-9._-]{1,64}|fleet))?\]")


def read(delivery: Delivery) -> Verdict:
    """What this event asks for."""
    header = delivery.headers.get("x-pagerduty-signature", "")
    given = [part.strip().removeprefix("v1=") for part in header.split(",") if part.strip().startswith("v1=")]
    right = [hmac.new(key.encode(), delivery.body, hashlib.sha256).hexdigest() for key in delivery.secrets]
    if not is_one_of(given, right):
        return Refused("no signature matches the body")
    payload = json_object(delivery.body)
    if isinstance(payload, Refused):
        return payload
    event = payload.get("event")
    event_id, kind = text_at(event, "id"), text_at(event, "event_type")
    if not event_id or not kind:
        return Refused("the event has no id, or no type", 400)
    asked = _asked(event, kind, delivery.options.get("services", ()))
    if isinstance(asked, Ignored):
        return asked
    return _too_old(text_at(event, "occurred_at"), delivery.now_s) or Accepted((asked,), event_id)


def _asked(event: Any, kind: str, services: tuple[str, ...]) -> Asked | Ignored:
    data = event.get("data")
    if kind == "incident.triggered":
        text, incident = text_at(data, "title"), text_at(data, "html_url")
        marker = _MARKER.search(text)
        is_meant = marker is not None or text_at(data, "service", "id") in services
    elif kind == "incident.annotated":
        text, incident = text_at(data, "content"), text_at(data, "incident", "html_url")
        marker = _MARKER.match(text)
        is_meant = marker is not None
    else:
        return Ignored(f"an event of type {kind[:80]!r} stops nobody")
    if not is_meant:
        return Ignored("neither the marker [skillbus:kill] nor a service that is listed")
    reason = " ".join(_MARKER.sub(" ", text).split()) or "an incident was triggered"
    by = text_at(event, "agent", "summary") or text_at(data, "service", "summary") or "pagerduty"
    scope = (marker[1] or "") if marker else ""
    return Asked(order_of("pagerduty", by=by, reason=reason, incident=incident), scope)


def _too_old(occurred_at: str, now_s: float) -> Refused | None:
    try:
        at = datetime.fromisoformat(occurred_at)
        age_s = now_s - at.timestamp()
    except (ValueError, OverflowError):
        at, age_s = None, 0.0
    if at is None or at.tzinfo is None:
        return Refused("the event does not say when it occurred", 400)
    if -_AHEAD_S <= age_s <= WINDOW_S:
        return None
    return Refused(f"the event occurred {age_s:.0f} s ago by this machine's clock: a replay, or is a clock wrong?")


def answer(verdict: Verdict, done: Sequence[Done]) -> Answer:
    """The plain answer; but no 403 for an order that may not be: after three, PagerDuty sends nothing for a day."""
    plain = told(verdict, done)
    return replace(plain, status=200) if plain.status == 403 else plain


WEBHOOK = Webhook(read, options=frozenset({"services"}), answer=answer)

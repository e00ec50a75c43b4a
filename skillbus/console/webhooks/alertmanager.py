"""Prometheus Alertmanager: the payload of its webhook receiver, version 4.

Kills for each *firing* alert with the label ``skillbus_action="kill"``, in the scope that ``skillbus_group`` or
``skillbus_pod`` names, else in all that this webhook is bound to. ``resolved`` never resets anything: it is ignored.

Alertmanager names no delivery and signs none; ``http_config`` sends a bearer token, or a password. It tells again what
goes on firing, and a kill that is given twice is one kill, so nothing is refused as a repetition. It retries 5xx for as
long as the alert fires, and nothing else.
(https://prometheus.io/docs/alerting/latest/configuration/#webhook_config)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

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
    text_at,
)
from skillbus.core.orders import KillOrder


def read(delivery: Delivery) -> Verdict:
    """What the firing alerts of this group ask for."""
    if not is_one_of(_credentials(delivery.headers), delivery.secrets):
        return Refused("the bearer token, or password, is missing or wrong")
    payload = json_object(delivery.body)
    if isinstance(payload, Refused):
        return payload
    if payload.get("version") != "4":
        return Refused("the payload is not Alertmanager's version 4", 400)
    alerts = payload.get("alerts")
    if not isinstance(alerts, list):
        return Refused("the payload has no list of alerts", 400)
    firing: dict[str, list[Any]] = {}
    for alert in alerts:
        if text_at(alert, "status") == "firing" and text_at(alert, "labels", "skillbus_action") == "kill":
            firing.setdefault(_scope(alert), []).append(alert)
    if not firing:
        return Ignored("no alert here is firing with the label skillbus_action=kill")
    return Accepted(tuple(Asked(_order(payload, found), scope) for scope, found in firing.items()))


def _credentials(headers: Mapping[str, str]) -> list[str]:
    """The bearer token, or the password of whatever user."""
    kind, _, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return [rest.strip()]
    if kind.lower() != "basic":
        return []
    try:
        return [base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]]
    except (binascii.Error, ValueError):
        return []


def _scope(alert: Any) -> str:
    """As the labels name it. Of two labels the one that reaches further wins. No label: all that may be stopped."""
    for kind in ("group", "pod"):
        if at(alert, "labels", f"skillbus_{kind}") is not None:
            return f"{kind}:{text_at(alert, 'labels', f'skillbus_{kind}')}"
    return ""


def _order(payload: Mapping[str, Any], alerts: list[Any]) -> KillOrder:
    first = alerts[0]
    said = (text_at(first, "annotations", name) for name in ("summary", "description", "message"))
    name = text_at(first, "labels", "alertname") or "an alert"
    reason = next((f"{name}: {text}" for text in said if text), name)
    more = f" (and {len(alerts) - 1} more alerts)" if len(alerts) > 1 else ""
    link = text_at(first, "generatorURL") or text_at(payload, "externalURL")
    by = text_at(payload, "receiver") or "alertmanager"
    return order_of("alertmanager", by=by, reason=reason[:400] + more, incident=link)


WEBHOOK = Webhook(read)

"""The Alertmanager webhook: which alerts kill, what, and whom it believes."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from skillbus.console.webhooks.alertmanager import read
from tests.unit.console.webhooks.deliveries import (
    HOSTILE,
    OLD_SECRET,
    SECRET,
    WRONG,
    accepted,
    delivery,
    ignored,
    raw,
    refused,
)

BEARER = {"authorization": f"Bearer {SECRET}"}


def _alert(status: str = "firing", **labels: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": "SkillTokenLeaked", "skillbus_action": "kill", **labels},
        "annotations": {"summary": "a token was seen in a public place"},
        "startsAt": "2027-01-15T08:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.example.org/graph?g0.expr=up",
        "fingerprint": "1a30ba71cca2921f",
    }


def _payload(*alerts: Any, **more: Any) -> bytes:
    """A notification as Alertmanager documents it (https://prometheus.io/docs/alerting/latest/configuration/)."""
    head = {"version": "4", "groupKey": '{}:{alertname="x"}', "truncatedAlerts": 0, "status": "firing"}
    tail = {"receiver": "skillbus", "externalURL": "http://alertmanager.example.org:9093", "alerts": list(alerts)}
    return raw(head | tail | more)


def test_firing_alert_with_the_label_kills() -> None:
    """One order, without a scope of its own, with the alert's words, its link, and the receiver as who."""
    found = accepted(read(delivery(_payload(_alert()), BEARER)))
    (asked,) = found.orders
    assert asked.scope == ""
    assert asked.order.reason == "SkillTokenLeaked: a token was seen in a public place"
    assert (asked.order.by, asked.order.via) == ("skillbus", "alertmanager")
    assert asked.order.incident == "http://prometheus.example.org/graph?g0.expr=up"
    assert found.delivery_id == "", "Alertmanager tells again what goes on firing: nothing is a repetition"


@pytest.mark.parametrize(
    "alert",
    [
        _alert("resolved"),
        _alert(skillbus_action="Kill"),
        _alert(skillbus_action="reset"),
        {**_alert(), "labels": {"alertname": "x"}},
        {**_alert(), "labels": None},
        "firing",
        None,
        [],
    ],
)
def test_everything_else_is_ignored(alert: Any) -> None:
    """Resolved never does anything; neither does an alert without exactly this label, nor what is no alert."""
    assert "skillbus_action=kill" in ignored(read(delivery(_payload(alert), BEARER)))


def test_no_alert_at_all_is_ignored() -> None:
    """An empty group asks for nothing."""
    ignored(read(delivery(_payload(), BEARER)))


def test_alerts_of_one_scope_are_one_order() -> None:
    """A storm of alerts gives one order for each scope that it names; the wider of two labels wins."""
    storm = [_alert() for _ in range(50)]
    parts = [_alert(skillbus_group="batch"), _alert(skillbus_pod="p1"), _alert(skillbus_pod="p2", skillbus_group="eu")]
    found = accepted(read(delivery(_payload(*storm, _alert("resolved", skillbus_group="no"), *parts), BEARER)))
    assert [asked.scope for asked in found.orders] == ["", "group:batch", "pod:p1", "group:eu"]
    assert found.orders[0].order.reason.endswith("(and 49 more alerts)")


def test_bearer_and_basic_and_both_secrets_of_a_rotation() -> None:
    """Any secret in force proves the sender, as a bearer token or as the password of whatever user."""
    for secret in (SECRET, OLD_SECRET):
        basic = base64.b64encode(f"any:{secret}".encode()).decode()
        for value in (f"Bearer {secret}", f"bearer {secret}", f"Basic {basic}"):
            given = delivery(_payload(_alert()), {"authorization": value}, secrets=(SECRET, OLD_SECRET))
            accepted(read(given))


@pytest.mark.parametrize(
    "value",
    [
        "",
        SECRET,
        "Bearer",
        "Bearer ",
        f"Bearer {WRONG}",
        f"Bearer {SECRET}x",
        "Bearer é",
        "Basic",
        "Basic ???",
        "Basic w6k=",
        f"Basic {SECRET}",
        f"Digest {SECRET}",
    ],
)
def test_whoever_cannot_prove_it_is_refused(value: str) -> None:
    """No header, another scheme, a wrong or longer token, a password that is not one: 401, and nothing is parsed."""
    assert "missing or wrong" in refused(read(delivery(b"not even JSON", {"authorization": value})))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"version":4}',
        b'{"version":"3","alerts":[]}',
        b'{"version":"4"}',
        b'{"version":"4","alerts":{}}',
        b'{"version":"4","alerts":' + b"9" * 5000 + b"}",
    ],
)
def test_what_cannot_be_read_is_400(body: bytes) -> None:
    """From a proved sender, too: Alertmanager does not retry a 4xx."""
    refused(read(delivery(body, BEARER)), 400)


def test_hostile_words_are_harmless_and_short() -> None:
    """No control, format or bidi character of an alert's words is left, and none is longer than a record can hold."""
    alert = _alert(skillbus_group="../\n\x00") | {"annotations": {"summary": HOSTILE}, "generatorURL": HOSTILE}
    (asked,) = accepted(read(delivery(_payload(alert, receiver=HOSTILE), BEARER))).orders
    for words in (asked.order.reason, asked.order.by, asked.order.incident):
        assert words.isprintable()
        assert len(words) <= 500
    assert asked.scope == "group:../\n\x00", "no scope; the door refuses it"


def test_wrong_types_inside_an_alert() -> None:
    """Labels and annotations of other types are no words; a scope that is no text names none, and is not the fleet."""
    alert = {"status": "firing", "labels": {"skillbus_action": "kill", "skillbus_pod": 7}, "annotations": [1]}
    (asked,) = accepted(read(delivery(_payload(alert, receiver=None, externalURL=1), BEARER))).orders
    assert asked.scope == "pod:"
    assert (asked.order.reason, asked.order.by, asked.order.incident) == ("an alert", "alertmanager", "")

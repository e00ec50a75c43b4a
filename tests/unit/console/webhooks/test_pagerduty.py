"""The PagerDuty webhook: signatures, and which events kill."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from skillbus.console.webhooks.pagerduty import WINDOW_S, answer, read
from skillbus.console.webhooks.webhook import Became, Done, Refused
from tests.unit.console.webhooks.deliveries import (
    HOSTILE,
    NOW_S,
    OLD_SECRET,
    SECRET,
    WRONG,
    accepted,
    delivery,
    ignored,
    pagerduty_signed,
    raw,
    refused,
)

# PagerDuty's own client library has this vector: github.com/PagerDuty/go-pagerduty, webhookv3/webhookv3_test.go.
VECTOR_SECRET = "lDQHScfUeXUKaQRNF+8XIiDKZ7XX3itBAYzwU0TARw8lJqRnkKl2iB1anSb0Z+IK"
VECTOR_SIGNATURE = "v1=0c0b9495b893a39e70d1fea2fe11fbe0a825f88b9f67846f6cc07dd2bc5476cd"
VECTOR_BODY = (
    '{"event":{"id":"01BWDWL3NYY7LUFPZCC28QUCMK","event_type":"incident.priority_updated","resource_type":"incident",'
    '"occurred_at":"2021-04-26T17:36:27.458Z","agent":{"html_url":"https://acme.pagerduty.com/users/PLH1HKV",'
    '"id":"PLH1HKV","self":"https://api.pagerduty.com/users/PLH1HKV","summary":"Tenex Engineer",'
    '"type":"user_reference"},"client":null,"data":{"id":"PGR0VU2","type":"incident",'
    '"self":"https://api.pagerduty.com/incidents/PGR0VU2","html_url":"https://acme.pagerduty.com/incidents/PGR0VU2",'
    '"number":2,"status":"triggered","title":"A little bump in the road","service":{'
    '"html_url":"https://acme.pagerduty.com/services/PF9KMXH","id":"PF9KMXH",'
    '"self":"https://api.pagerduty.com/services/PF9KMXH","summary":"API Service","type":"service_reference"},'
    '"assignees":[{"html_url":"https://acme.pagerduty.com/users/PTUXL6G","id":"PTUXL6G",'
    '"self":"https://api.pagerduty.com/users/PTUXL6G","summary":"User 123","type":"user_reference"}],'
    '"escalation_policy":{"html_url":"https://acme.pagerduty.com/escalation_policies/PUS0KTE","id":"PUS0KTE",'
    '"self":"https://api.pagerduty.com/escalation_policies/PUS0KTE","summary":"Default",'
    '"type":"escalation_policy_reference"},"teams":[{"html_url":"https://acme.pagerduty.com/teams/PFCVPS0",'
    '"id":"PFCVPS0","self":"https://api.pagerduty.com/teams/PFCVPS0","summary":"Engineering","type":"team_reference"}],'
    '"priority":{"html_url":"https://acme.pagerduty.com/account/incident_priorities","id":"PSO75BM",'
    '"self":"https://api.pagerduty.com/priorities/PSO75BM","summary":"P1","type":"priority_reference"},'
    '"urgency":"high","conference_bridge":{"conference_number":1000,"conference_url":"https://example.com"},'
    '"resolve_reason":null}}}'
)


def event(kind: str = "incident.triggered", *, at_s: float = NOW_S, **data: Any) -> dict[str, Any]:
    """An event in the shape of PagerDuty's documentation, less what nobody here reads."""
    incident = {
        "id": "PGR0VU2",
        "type": "incident",
        "html_url": "https://acme.pagerduty.com/incidents/PGR0VU2",
        "title": "Token leaked [skillbus:kill]",
        "service": {"id": "PF9KMXH", "summary": "Skills", "type": "service_reference"},
    }
    return {
        "event": {
            "id": "01BWDWL3NYY7LUFPZCC28QUCMK",
            "event_type": kind,
            "resource_type": "incident",
            "occurred_at": datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "agent": {"id": "PLH1HKV", "summary": "Tenex Engineer", "type": "user_reference"},
            "client": None,
            "data": incident | data,
        }
    }


def note(content: str) -> dict[str, Any]:
    """A responder's note."""
    incident = {"id": "PGR0VU2", "html_url": "https://acme.pagerduty.com/incidents/PGR0VU2"}
    found = event("incident.annotated")
    found["event"]["data"] = {"id": "P2LA89X", "type": "incident_note", "content": content, "incident": incident}
    return found


def _read(value: Any, **given: Any) -> Any:
    return read(delivery(*pagerduty_signed(raw(value)), **given))


def test_public_vector() -> None:
    """PagerDuty's own example is believed; and, being no trigger, it stops nobody."""
    given = delivery(VECTOR_BODY.encode(), {"x-pagerduty-signature": VECTOR_SIGNATURE}, secrets=(VECTOR_SECRET,))
    assert "incident.priority_updated" in ignored(read(given))


def test_public_vector_of_a_mismatch() -> None:
    """… and the one that theirs calls a mismatch is refused."""
    wrong = "v1=7020c8a7ec668a9b7012bc3dd82e483394b038f4230acc6785efbf2a7d8bcaf5"
    refused(read(delivery(VECTOR_BODY.encode(), {"x-pagerduty-signature": wrong}, secrets=(VECTOR_SECRET,))))


def test_triggered_with_the_marker_kills() -> None:
    """Who triggered it, the title without the marker, the incident's address, and the event's id to know it again."""
    found = accepted(_read(event()))
    (asked,) = found.orders
    assert (asked.scope, asked.order.reason, asked.order.by) == ("", "Token leaked", "Tenex Engineer")
    assert asked.order.incident == "https://acme.pagerduty.com/incidents/PGR0VU2"
    assert asked.order.via == "pagerduty"
    assert found.delivery_id == "01BWDWL3NYY7LUFPZCC28QUCMK"


def test_triggered_in_a_listed_service_kills() -> None:
    """A service that is meant for this needs no marker; any other does."""
    without = event(title="Token leaked", agent=None)
    accepted(_read(without, services=("POTHER", "PF9KMXH")))
    ignored(_read(without, services=("POTHER",)))
    ignored(_read(without))


@pytest.mark.parametrize(
    "kind", ["acknowledged", "resolved", "reopened", "escalated", "priority_updated", "unheard_of"]
)
def test_other_events_stop_nobody(kind: str) -> None:
    """Not even with the marker and in a listed service: only what newly happens, or is said, is an order."""
    ignored(_read(event(f"incident.{kind}"), services=("PF9KMXH",)))


def test_ping_is_ignored() -> None:
    """What PagerDuty sends to try a subscription is answered with 200."""
    ignored(_read(event("pagey.ping")))


def test_note_that_begins_with_the_marker_kills() -> None:
    """A responder's note stops; one that only speaks of the marker does not."""
    (asked,) = accepted(_read(note("[skillbus:kill] token leaked"))).orders
    assert (asked.order.reason, asked.order.by) == ("token leaked", "Tenex Engineer")
    ignored(_read(note("do not write [skillbus:kill] lightly")))


@pytest.mark.parametrize(
    ("marker", "scope"),
    [
        ("[skillbus:kill]", ""),
        ("[skillbus:kill fleet]", "fleet"),
        ("[skillbus:kill group:batch]", "group:batch"),
        ("[skillbus:kill pod:pod-17]", "pod:pod-17"),
    ],
)
def test_marker_names_a_scope(marker: str, scope: str) -> None:
    """As the marker says."""
    (asked,) = accepted(_read(note(f"{marker} why"))).orders
    assert asked.scope == scope


@pytest.mark.parametrize(
    "marker", ["[skillbus:kill group:]", "[skillbus:kill all]", "[skillbus: kill]", "skillbus:kill"]
)
def test_what_is_nearly_the_marker_is_none(marker: str) -> None:
    """A marker that cannot be read must not stop more than it was meant to."""
    ignored(_read(event(title=marker)))


def test_any_signature_with_any_secret() -> None:
    """While a secret is rotated, either side may hold two."""
    body = raw(event())
    accepted(read(delivery(*pagerduty_signed(body, WRONG, SECRET))))
    accepted(read(delivery(*pagerduty_signed(body, OLD_SECRET), secrets=(SECRET, OLD_SECRET))))
    made = pagerduty_signed(body)[1]["x-pagerduty-signature"]
    accepted(read(delivery(body, {"x-pagerduty-signature": f" v2=00, {made} ,"})))


@pytest.mark.parametrize("header", ["", "v1=", "v1=é", "v1", ",,,", "v1=" + "0" * 64])
def test_no_good_signature(header: str) -> None:
    """Nothing is parsed that is not signed."""
    refused(read(delivery(b"not even JSON", {"x-pagerduty-signature": header})))


def test_another_version_of_signature_is_none() -> None:
    """The right digest under another version, or under none, proves nothing."""
    body, headers = pagerduty_signed(raw(event()))
    for prefix in ("v2=", "", "V1=", "v1:"):
        refused(
            read(delivery(body, {"x-pagerduty-signature": headers["x-pagerduty-signature"].replace("v1=", prefix)}))
        )


def test_signature_is_of_the_raw_body() -> None:
    """One space more, and it is another body."""
    body, headers = pagerduty_signed(raw(event()))
    refused(read(delivery(body + b" ", headers)))
    refused(read(delivery(body, headers, secrets=(WRONG,))))


@pytest.mark.parametrize(
    ("age_s", "is_refused"), [(WINDOW_S, False), (WINDOW_S + 1, True), (-300, False), (-301, True)]
)
def test_old_events_are_refused(age_s: float, is_refused: bool) -> None:
    """Within the time in which PagerDuty retries it is no replay; the sentence names the clock, too."""
    verdict = _read(event(at_s=NOW_S - age_s))
    if is_refused:
        assert "clock" in refused(verdict)
    else:
        accepted(verdict)


@pytest.mark.parametrize("at", ["", "yesterday", "2027-01-15T08:00:00", 7])
def test_event_without_an_instant(at: Any) -> None:
    """What cannot be dated could be replayed for ever."""
    given = event()
    given["event"]["occurred_at"] = at
    refused(_read(given), 400)


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"{}", b'{"event":null}', b'{"event":[]}', b'{"event":{"id":1,"event_type":2}}', b"[" * 200_000],
)
def test_what_cannot_be_read_is_400(body: bytes) -> None:
    """Signed nonsense."""
    refused(read(delivery(*pagerduty_signed(body))), 400)


def test_wrong_types_and_hostile_words() -> None:
    """They are no words, or harmless ones."""
    given = event(title=HOSTILE[:300] + "[skillbus:kill]", html_url=7, service=[])
    given["event"]["agent"] = "nobody"
    (asked,) = accepted(_read(given)).orders
    assert asked.order.reason.isprintable()
    assert (asked.order.by, asked.order.incident) == ("pagerduty", "")
    given["event"]["data"] = "text"
    ignored(_read(given))


def test_an_order_that_may_not_be_is_no_failure() -> None:
    """PagerDuty drops a subscription for a day after three 4xx; only a failure to record is worth its retry."""
    asked = accepted(_read(event()))
    assert answer(asked, [Done("group:a", Became.REFUSED, "no")]).status == 200
    assert answer(asked, [Done("fleet", Became.FAILED, "no answer")]).status == 503
    assert answer(asked, [Done("fleet", Became.RECORDED, "done"), Done("fleet", Became.REFUSED, "no")]).status == 200
    assert answer(Refused("no signature"), []).status == 401

"""Standard Webhooks: against the reference library, the published vector, and whoever cannot sign."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Reference

from skillbus.console.webhooks.standard import WEBHOOK, read
from tests.unit.console.webhooks.deliveries import (
    HOSTILE,
    NOW_S,
    accepted,
    delivery,
    ignored,
    raw,
    refused,
    standard_signed,
)

# From the reference implementations' own tests: github.com/standard-webhooks/standard-webhooks, libraries/*.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_ID, VECTOR_AT_S, VECTOR_BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
KILL = {"type": "skillbus.kill", "data": {"reason": "token leaked", "by": "scanner", "incident": "https://e.org/1"}}


def _read(value: Any, *secrets: str, **given: Any) -> Any:
    return read(delivery(*standard_signed(raw(value), *(secrets or (SECRET,))), secrets=(SECRET,), **given))


def test_published_vector() -> None:
    """The signature that every reference implementation makes is believed, at its time; the event stops nobody."""
    headers = {
        "webhook-id": VECTOR_ID,
        "webhook-timestamp": str(VECTOR_AT_S),
        "webhook-signature": f"v1,bm9wZQ== {VECTOR_SIGNATURE} v1a,hnO3f9T8Ytu9HwrX",
    }
    ignored(read(delivery(VECTOR_BODY, headers, secrets=(SECRET,), now_s=VECTOR_AT_S + 299)))
    refused(read(delivery(VECTOR_BODY, headers, secrets=(OTHER,), now_s=VECTOR_AT_S)))
    assert "clock" in refused(read(delivery(VECTOR_BODY, headers, secrets=(SECRET,), now_s=VECTOR_AT_S + 301)))


def test_what_the_reference_library_signs_is_believed() -> None:
    """Interoperable with those who use the library, for any text."""
    body = raw(KILL | {"text": "é \u202e €"}).decode()
    signature = Reference(SECRET).sign("msg_é.1", datetime.fromtimestamp(NOW_S, UTC), body)
    headers = {"webhook-id": "msg_é.1", "webhook-timestamp": f"{NOW_S:.0f}", "webhook-signature": signature}
    assert accepted(read(delivery(body.encode(), headers, secrets=(SECRET,)))).delivery_id == "msg_é.1"


def test_kill_in_the_sender_s_words() -> None:
    """Reason, who and incident as given; the id to know it again."""
    found = accepted(_read(KILL))
    (asked,) = found.orders
    assert (asked.scope, found.delivery_id) == ("", "msg_1")
    told = asked.order.model_dump(include={"reason", "by", "incident", "via"})
    assert told == {"reason": "token leaked", "by": "scanner", "incident": "https://e.org/1", "via": "standard"}


@pytest.mark.parametrize("data", [None, {}, [], "x", {"reason": 7, "by": None}])
def test_every_word_may_be_missing(data: Any) -> None:
    """The type alone is an order."""
    (asked,) = accepted(_read({"type": "skillbus.kill", "data": data})).orders
    assert (asked.scope, asked.order.reason, asked.order.by) == ("", "skillbus.kill", "standard webhook")


@pytest.mark.parametrize(
    ("scope", "asked_for"), [("group:eu", "group:eu"), (None, ""), ("all", "all"), ("", "?"), (7, "?")]
)
def test_scope(scope: Any, asked_for: str) -> None:
    """As given; what is there and is no text names no scope, and never falls back to more than was meant."""
    (asked,) = accepted(_read({"type": "skillbus.kill", "data": {"scope": scope}})).orders
    assert asked.scope == asked_for


def test_types_can_be_chosen() -> None:
    """By default one type kills; with a list, those in it do, and only those."""
    event = {"type": "secret.leaked", "data": {}}
    ignored(_read(event))
    accepted(_read(event, types=("secret.leaked", "x")))
    ignored(_read(KILL, types=("secret.leaked",)))
    ignored(_read({"data": {}}))


def test_rotation_on_either_side() -> None:
    """Two signatures here, or two secrets there."""
    accepted(_read(KILL, OTHER, SECRET))
    accepted(read(delivery(*standard_signed(raw(KILL), OTHER), secrets=(SECRET, OTHER))))
    refused(_read(KILL, OTHER))


def test_everything_is_signed() -> None:
    """Another body, id or timestamp is another signature."""
    body, headers = standard_signed(raw(KILL), SECRET)
    for changed in ({"webhook-id": "msg_2"}, {"webhook-timestamp": f"{NOW_S + 1:.0f}"}):
        refused(read(delivery(body, headers | changed, secrets=(SECRET,))))
    refused(read(delivery(body + b"\n", headers, secrets=(SECRET,))))
    for name in headers:
        rest = {key: value for key, value in headers.items() if key != name}
        refused(read(delivery(body, rest, secrets=(SECRET,))))


def test_id_and_timestamp_cannot_swap_bytes() -> None:
    """``a.1`` at ``2`` and ``a`` at ``1.2`` would be signed alike: a timestamp with a point is none."""
    body, headers = standard_signed(raw(KILL), SECRET, delivery_id="a", at=f"1.{NOW_S:.0f}")
    refused(read(delivery(body, headers, secrets=(SECRET,))))


@pytest.mark.parametrize("at", ["", "x", "-1", "1e9", "٣", "²", "9" * 40, f"{NOW_S - 301:.0f}", f"{NOW_S + 301:.0f}"])
def test_timestamps_that_are_refused(at: str) -> None:
    """Rightly signed, and still none, or too far away."""
    refused(read(delivery(*standard_signed(raw(KILL), SECRET, at=at), secrets=(SECRET,))))


def test_a_delivery_without_an_id_is_refused() -> None:
    """However rightly signed: nothing could know it again."""
    refused(read(delivery(*standard_signed(raw(KILL), SECRET, delivery_id=""), secrets=(SECRET,))))


def test_another_version_of_signature_is_none() -> None:
    """The right digest under another version, or under none, proves nothing."""
    body, headers = standard_signed(raw(KILL), SECRET)
    for prefix in ("v2,", "v1a,", "", "v1 ", "V1,"):
        changed = headers["webhook-signature"].replace("v1,", prefix)
        refused(read(delivery(body, headers | {"webhook-signature": changed}, secrets=(SECRET,))))


@pytest.mark.parametrize("signature", ["", "v1,", "v1", "v1,é", "v1,,,", " ", "v2," + VECTOR_SIGNATURE[3:]])
def test_headers_that_are_none(signature: str) -> None:
    """Nothing raises."""
    headers = {"webhook-id": "a", "webhook-timestamp": f"{NOW_S:.0f}", "webhook-signature": signature}
    refused(read(delivery(raw(KILL), headers, secrets=(SECRET,))))


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"\xff", b"[" * 200_000])
def test_signed_nonsense_is_400(body: bytes) -> None:
    """From a proved sender, too."""
    refused(read(delivery(*standard_signed(body, SECRET), secrets=(SECRET,))), 400)


def test_hostile_words() -> None:
    """Harmless, and short."""
    (asked,) = accepted(_read({"type": "skillbus.kill", "data": {"reason": HOSTILE, "by": HOSTILE}})).orders
    assert asked.order.reason.isprintable()
    assert asked.order.by.isprintable()
    assert len(asked.order.reason) <= 500


@pytest.mark.parametrize("secret", ["whsec_", "whsec_AAAA", "plain text", "whsec_" + "A" * 200, "é" * 40])
def test_secrets_that_are_none(secret: str) -> None:
    """Told at start, with how to make one."""
    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        WEBHOOK.check_secret(secret)


def test_secrets_that_are_some() -> None:
    """With and without the prefix, as the reference takes them."""
    WEBHOOK.check_secret(SECRET)
    WEBHOOK.check_secret(SECRET.removeprefix("whsec_"))

"""The Slack slash command: signatures, words, and what people read."""

from __future__ import annotations

from typing import Any

import pytest

from skillbus.console.webhooks.slack import USAGE, answer, read
from skillbus.console.webhooks.webhook import Accepted, Became, Done, Ignored, Refused
from tests.unit.console.webhooks.deliveries import (
    HOSTILE,
    NOW_S,
    OLD_SECRET,
    SECRET,
    WRONG,
    accepted,
    delivery,
    ignored,
    refused,
    slack,
    slack_signed,
)

# The worked example of https://docs.slack.dev/authentication/verifying-requests-from-slack
VECTOR_SECRET, VECTOR_AT = "8f742231b10e8888abcd99yyyzzz85a5", "1531420618"
VECTOR_SIGNATURE = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
VECTOR_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&"
    b"channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&"
    b"response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&"
    b"trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)


def _read(text: str, **given: Any) -> Any:
    return read(delivery(*slack(text), **given))


def test_vector_of_the_documentation() -> None:
    """It is believed at its time; its text is empty, so it is answered with how to use the command."""
    headers = {"x-slack-signature": VECTOR_SIGNATURE, "x-slack-request-timestamp": VECTOR_AT}
    given = delivery(VECTOR_BODY, headers, secrets=(VECTOR_SECRET,), now_s=float(VECTOR_AT) + 60)
    assert ignored(read(given)) == USAGE
    refused(read(delivery(VECTOR_BODY, headers, secrets=(WRONG,), now_s=float(VECTOR_AT))))
    assert "clock" in refused(
        read(delivery(VECTOR_BODY, headers, secrets=(VECTOR_SECRET,), now_s=float(VECTOR_AT) + 301))
    )


def test_words_are_the_reason() -> None:
    """Who by their name in Slack; the signature to know a repetition."""
    found = accepted(_read("token leaked, see #inc-42"))
    (asked,) = found.orders
    assert (asked.scope, asked.order.reason, asked.order.by) == ("", "token leaked, see #inc-42", "alice")
    assert asked.order.via == "slack"
    assert found.delivery_id.startswith("v0=")


@pytest.mark.parametrize("text", ["", "  ", "help"])
def test_no_words_explain(text: str) -> None:
    """A command without a reason is a question; it stops nobody."""
    assert ignored(_read(text)) == USAGE


def test_scopes_come_first() -> None:
    """Several, each once; behind the first other word they are a part of the reason. A scope needs no reason."""
    found = accepted(_read("group:eu pod:p1 group:eu it is group:us that leaked"))
    assert [asked.scope for asked in found.orders] == ["group:eu", "pod:p1"]
    assert found.orders[0].order.reason == "it is group:us that leaked"
    assert [asked.scope for asked in accepted(_read("group:eu")).orders] == ["group:eu"]
    assert [asked.scope for asked in accepted(_read("group:e/u x")).orders] == ["group:e/u"], "the door refuses it"
    assert ignored(_read(" ".join(f"pod:p{i}" for i in range(21)))) == USAGE


def test_name_or_id() -> None:
    """Slack may leave the name out."""
    assert accepted(read(delivery(*slack("x", user_name="")))).orders[0].order.by == "U2"
    assert accepted(read(delivery(*slack("x", user_name="", user_id="")))).orders[0].order.by == "somebody"


def test_only_those_who_may() -> None:
    """With a list of users, or of channels, everybody else is refused, and told so in words."""
    accepted(_read("x", users=("U1", "U2"), channels=("C1",)))
    assert "user_id 'U2'" in refused(_read("x", users=("U1",)), 403)
    assert "channel_id 'C1'" in refused(_read("x", channels=("C9",)), 403)


def test_slack_s_own_check() -> None:
    """Slack looks now and then whether somebody is here."""
    ignored(read(delivery(*slack_signed(b"ssl_check=1&token=x"))))


def test_rotation() -> None:
    """Any secret in force."""
    for secret in (SECRET, OLD_SECRET):
        accepted(read(delivery(*slack("x", secret=secret), secrets=(SECRET, OLD_SECRET))))
    refused(read(delivery(*slack("x", secret=WRONG), secrets=(SECRET, OLD_SECRET))))


def test_signature_is_of_the_raw_body() -> None:
    """The same form, written otherwise, is another body."""
    body, headers = slack("token leaked")
    refused(read(delivery(body.replace(b"+", b"%20"), headers)))


@pytest.mark.parametrize("at", ["", "x", "1.5", "-1", "٣", "²", "9" * 40, f"{NOW_S - 301:.0f}", f"{NOW_S + 301:.0f}"])
def test_timestamps_that_are_refused(at: str) -> None:
    """Rightly signed, and still none, or too far away. (SignatureVerifier raises on some of these.)"""
    refused(read(delivery(*slack_signed(b"text=x", at=at))))


@pytest.mark.parametrize("at_s", [NOW_S - 300, NOW_S + 300])
def test_edges_of_the_window(at_s: float) -> None:
    """Five minutes either way are of now."""
    accepted(read(delivery(*slack("x", at_s=at_s))))


@pytest.mark.parametrize("signature", ["", "v0=", "v0=é", "v1=0"])
def test_signatures_that_are_none(signature: str) -> None:
    """Nothing raises."""
    headers = {"x-slack-request-timestamp": f"{NOW_S:.0f}", "x-slack-signature": signature}
    refused(read(delivery(b"text=x", headers)))


def test_bodies_that_are_none() -> None:
    """What is not UTF-8 Slack did not send; a form with more fields than any has is not read."""
    refused(read(delivery(*slack_signed(b"text=\xff"))))
    refused(read(delivery(*slack_signed(b"a=1&" * 200))), 400)
    assert ignored(read(delivery(*slack_signed(b'{"json":1}')))) == USAGE


def test_hostile_words() -> None:
    """Harmless, and short."""
    body, headers = slack("x" + HOSTILE.replace("\ud800", ""), user_name="\u202eevil\x1b")
    (asked,) = accepted(read(delivery(body, headers))).orders
    assert asked.order.reason.isprintable()
    assert asked.order.by.isprintable()
    assert len(asked.order.reason) <= 500


# -- what people read --------------------------------------------------------------------------------------------------


def test_everybody_reads_what_was_stopped() -> None:
    """In the channel, with nothing in it that Slack would take for a call or a link."""
    done = [Done("fleet", Became.RECORDED, "fleet 'prod' is killed: \"<!channel> & <http://x|y>\" by alice")]
    given = answer(Accepted(()), done)
    assert given.status == 200
    assert given.body["response_type"] == "in_channel"
    assert given.body["text"] == "fleet 'prod' is killed: \"&lt;!channel&gt; &amp; &lt;http://x|y&gt;\" by alice"


def test_everybody_reads_that_it_failed() -> None:
    """200, because Slack shows nothing else; the words say that it is not recorded."""
    given = answer(Accepted(()), [Done("fleet", Became.FAILED, "no answer"), Done("pod:p", Became.REFUSED, "may not")])
    assert (given.status, given.body["response_type"]) == (200, "in_channel")
    assert given.body["text"] == "NOT recorded (fleet), give it again: no answer\nNOT stopped: may not"


def test_usage_is_for_who_asked() -> None:
    """Nobody else in the channel sees it."""
    assert answer(Ignored(USAGE), []).body == {"response_type": "ephemeral", "text": USAGE}


def test_who_may_not_is_told_in_slack_and_a_stranger_is_not() -> None:
    """A proved Slack shows words; whoever is not Slack gets a status."""
    given = answer(Refused("user_id 'U9' is not among those who may stop", 403), [])
    assert (given.status, given.body["response_type"]) == (200, "ephemeral")
    assert "Nobody was stopped" in given.body["text"]
    assert answer(Refused("the signature does not match"), []).status == 401

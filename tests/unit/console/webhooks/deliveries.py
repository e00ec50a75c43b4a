"""Deliveries as senders make them, with a clock that stands still."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

from skillbus.console.webhooks.webhook import Accepted, Delivery, Ignored, Refused, Verdict

NOW_S = 1_800_000_000.0

SECRET, OLD_SECRET, WRONG = "s3cr3t-of-this-test-0001", "s3cr3t-of-this-test-0000", "s3cr3t-of-somebody-else-9"

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202egnp.exe\x00\ud800\n\r" + "x" * 5000


def delivery(body: bytes, headers: dict[str, str], **given: Any) -> Delivery:
    """One delivery to a webhook with ``SECRET``, at ``NOW_S``."""
    return Delivery(body, headers, given.pop("secrets", (SECRET,)), given.pop("now_s", NOW_S), given)


def accepted(verdict: Verdict) -> Accepted:
    """The verdict, which must accept."""
    assert isinstance(verdict, Accepted), verdict
    return verdict


def refused(verdict: Verdict, status: int = 401) -> str:
    """Why it was refused; it must be, with this status."""
    assert isinstance(verdict, Refused), verdict
    assert verdict.status == status, verdict
    return verdict.why


def ignored(verdict: Verdict) -> str:
    """Why it was ignored; it must be."""
    assert isinstance(verdict, Ignored), verdict
    return verdict.why


def raw(value: Any) -> bytes:
    """JSON, lone surrogates included."""
    return json.dumps(value).encode()


def slack(text: str, *, secret: str = SECRET, at_s: float = NOW_S, **form: str) -> tuple[bytes, dict[str, str]]:
    """``(body, headers)`` of a slash command."""
    fields = {
        "user_id": "U2",
        "user_name": "alice",
        "channel_id": "C1",
        "command": "/stop-skills",
        "text": text,
        **form,
    }
    return slack_signed(urlencode(fields, errors="surrogatepass").encode(), secret=secret, at=f"{at_s:.0f}")


def slack_signed(body: bytes, *, secret: str = SECRET, at: str = f"{NOW_S:.0f}") -> tuple[bytes, dict[str, str]]:
    """Any body, signed as Slack does."""
    made = hmac.new(secret.encode(), b"v0:" + at.encode() + b":" + body, hashlib.sha256).hexdigest()
    return body, {"x-slack-signature": f"v0={made}", "x-slack-request-timestamp": at}


def pagerduty_signed(body: bytes, *secrets: str) -> tuple[bytes, dict[str, str]]:
    """Any body, signed as PagerDuty does: once for each secret."""
    made = [hmac.new(key.encode(), body, hashlib.sha256).hexdigest() for key in secrets or (SECRET,)]
    return body, {"x-pagerduty-signature": ",".join(f"v1={one}" for one in made)}


def standard_signed(
    body: bytes, *secrets: str, delivery_id: str = "msg_1", at: str = f"{NOW_S:.0f}"
) -> tuple[bytes, dict[str, str]]:
    """Any body, signed as Standard Webhooks asks for."""
    content = f"{delivery_id}.{at}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    made = [base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys]
    signature = " ".join(f"v1,{one}" for one in made)
    return body, {"webhook-id": delivery_id, "webhook-timestamp": at, "webhook-signature": signature}

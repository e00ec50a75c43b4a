"""Slack: a slash command, ``/stop-skills token leaked``.

    /stop-skills [group:NAME | pod:ID]… REASON

Without words, or with ``help``, it explains itself and stops nobody. Slack proves itself by a signature over the raw
body and a timestamp, waits for three seconds, retries nothing, and shows what it is answered only with 200; so every
answer to Slack itself is 200 with a text, and a kill that failed says so in the channel.
(https://docs.slack.dev/authentication/verifying-requests-from-slack, …/interactivity/implementing-slash-commands)

Whoever may use the command in that workspace may stop, unless ``SKILLBUS_WEBHOOK_SLACK_USERS`` or ``…_CHANNELS`` list
the ids of those who may and of where.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs

from slack_sdk.signature import Clock, SignatureVerifier

from skillbus.console.webhooks.webhook import (
    Accepted,
    Answer,
    Asked,
    Became,
    Delivery,
    Done,
    Ignored,
    Refused,
    Verdict,
    Webhook,
    order_of,
    stale,
    told,
)

USAGE = (
    "Usage: `/stop-skills REASON` stops all that this command reaches; restarted pods stay stopped until an admin "
    "resets. `/stop-skills group:NAME REASON` or `pod:ID REASON` stops a part. Nothing was stopped by this message."
)

_SCOPES_LIMIT = 20


class _Now(Clock):
    """The time that we were given, for the verifier."""

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s

    def now(self) -> float:
        return self._now_s


def read(delivery: Delivery) -> Verdict:
    """What this command asks for."""
    signature = delivery.headers.get("x-slack-signature", "")
    timestamp = delivery.headers.get("x-slack-request-timestamp", "")
    if (refused := stale(timestamp, delivery.now_s)) is not None:
        return refused
    if not _is_signed(delivery, timestamp, signature):
        return Refused("the signature does not match the timestamp and the body")
    form = _form(delivery.body)
    if form is None:
        return Refused("the body is not a form that can be read", 400)
    if form.get("ssl_check") == "1":
        return Ignored("Slack looked whether we are here")
    if (refused := _may_not(form, delivery)) is not None:
        return refused
    scopes, reason = _words(form.get("text", ""))
    if (not scopes and reason in {"", "help"}) or len(scopes) > _SCOPES_LIMIT:
        return Ignored(USAGE)
    by = form.get("user_name") or form.get("user_id") or "somebody"
    order = order_of("slack", by=by, reason=reason)
    return Accepted(tuple(Asked(order, scope) for scope in scopes or ("",)), signature)


def _is_signed(delivery: Delivery, timestamp: str, signature: str) -> bool:
    """Whether any secret in force made this signature. What is not UTF-8, Slack did not send."""
    try:
        body = delivery.body.decode()
        ascii_signature = signature.encode("ascii").decode()
    except UnicodeError:
        return False
    clock, found = _Now(delivery.now_s), False
    for secret in delivery.secrets:
        found |= SignatureVerifier(secret, clock).is_valid(body, timestamp, ascii_signature)
    return found


def _form(body: bytes) -> dict[str, str] | None:
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=100, errors="replace")
    except ValueError:
        return None
    return {name: values[0] for name, values in fields.items()}


def _may_not(form: dict[str, str], delivery: Delivery) -> Refused | None:
    for option, name in (("users", "user_id"), ("channels", "channel_id")):
        allowed = delivery.options.get(option, ())
        if allowed and form.get(name) not in allowed:
            return Refused(f"{name} {form.get(name, '')[:80]!r} is not among those who may stop", 403)
    return None


def _words(text: str) -> tuple[tuple[str, ...], str]:
    """``(the scopes that it begins with, the reason)``."""
    words, scopes = text.split(), []
    while words and words[0].startswith(("group:", "pod:")):
        scopes.append(words.pop(0))
    return tuple(dict.fromkeys(scopes)), " ".join(words)


def answer(verdict: Verdict, done: Sequence[Done]) -> Answer:
    """What the person, or the channel, reads. To somebody who is not Slack: the plain answer."""
    if isinstance(verdict, Refused):
        if verdict.status != 403:
            return told(verdict, done)
        return _said("ephemeral", f"Nobody was stopped: {verdict.why}. Ask whoever runs the console.")
    if isinstance(verdict, Ignored):
        return Answer(200, {"response_type": "ephemeral", "text": verdict.why})
    return _said("in_channel", "\n".join(_line(one) for one in done))


def _line(one: Done) -> str:
    if one.became is Became.RECORDED:
        return one.sentence
    if one.became is Became.REFUSED:
        return f"NOT stopped: {one.sentence}"
    return f"NOT recorded ({one.scope}), give it again: {one.sentence}"


def _said(kind: str, text: str) -> Answer:
    return Answer(200, {"response_type": kind, "text": _escaped(text)})


def _escaped(text: str) -> str:
    """Nobody's reason may call a whole channel, or show a link by another name."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


WEBHOOK = Webhook(read, options=frozenset({"users", "channels"}), answer=answer, wait_s=1.0)

"""Orders and records: any bytes are one, nothing raises, and what is written is at most 1 KiB."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skillbus.core.orders import RECORD_LIMIT, KillOrder, KillRecord, iso
from skillbus.core.text import harmless
from tests import profiles

assert profiles

DEEP = b'{"id": "deep", "x": ' + b"[" * 480 + b"]" * 480 + b"}"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=40),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=10,
)
WORDS = st.text(st.characters(), max_size=300)
FIELDS = st.sampled_from(["v", "id", "at", "by", "via", "reason", "incident", "heard_by", "self", "model_fields", "x"])
OBJECTS = st.dictionaries(FIELDS | st.text(st.characters(), max_size=5), JSON | WORDS, max_size=9).map(
    lambda value: json.dumps(value).encode()
)
PAYLOADS = st.binary(max_size=300) | OBJECTS | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
HOSTILE = [
    b"",
    b"\xff\xfe",
    b"{",
    b"{}",
    b"[]",
    b"null",
    b'{"id": ""}',
    b'{"id": "\\ud800", "reason": "\\udfff"}',
    b'{"\\ud800": 1, "x": "\\ud800"}',
    b'{"v": ' + b"1" * 4000 + b"}",
    b'{"v": ' + b"1" * 5000 + b"}",
    b'{"v": ' + b"1" * 1017 + b"}",
    b'{"v": 1e999, "x": NaN, "y": -Infinity}',
    b'{"v": true, "id": 7, "at": null, "by": []}',
    b'{"self": 1, "cls": 2, "model_fields": 3, "__class__": 4, "": 5}',
    DEEP,
    b"[" * 60_000,
    b'{"x": ' + b"[" * 60_000,
    b'{"id": "' + b"\\u0000" * 256 + b'"}',
    b'{"id": "' + b'\\"' * 256 + b'", "by": "' + b"b" * 256 + b'", "incident": "' + b"i" * 256 + b'"}',
    b"x" * (1024 * 1024),
    b'{"reason": "' + b"x" * (1024 * 1024) + b'"}',
]
hostile = pytest.mark.parametrize("payload", HOSTILE, ids=lambda payload: f"{payload[:16]!r}x{len(payload)}")


def holds_for(payload: bytes) -> None:
    """Everything that must hold for any bytes, heard as an order and read as a record."""
    order = KillOrder.parse(payload)
    assert KillOrder.parse(order.to_bytes()) == order
    assert len(order.reason.encode()) <= 4096
    for record in (order.record(fallback_id="f" * 32, now_ms=1, heard_by="web-1"), KillRecord.parse(payload[:1024])):
        raw = record.to_bytes()
        raw.decode()
        assert len(raw) <= RECORD_LIMIT
        assert record.id
        assert KillRecord.parse(raw).id == record.id
        assert KillRecord.parse(raw).to_bytes() == raw
        assert harmless(record.sentence(), 1000) == record.sentence()


@hostile
def test_a_hostile_payload_is_an_order_and_a_record(payload: bytes) -> None:
    """Nothing raises; a record fits 1 KiB, is UTF-8, has an id, and keeps it over writing and reading."""
    holds_for(payload)


@given(PAYLOADS)
@settings(max_examples=200)
@example(b'{"id": " "}')
def test_any_payload_is_an_order_and_a_record(payload: bytes) -> None:
    """The same for any bytes."""
    holds_for(payload)


def test_plain_text_is_the_reason() -> None:
    """``redis-cli PUBLISH skillbus:prod:kill "manifest compromised"`` is a whole kill."""
    assert KillOrder.parse(b"manifest compromised") == KillOrder(reason="manifest compromised", via="pubsub")
    assert KillOrder.parse("grüße".encode()).reason == "grüße"
    assert KillOrder.parse(b"") == KillOrder()


@pytest.mark.parametrize("payload", [b'{"reason": "cut of', b"[1, 2]", b'"quoted"', b"7", b'{"a" 1}'])
def test_what_is_no_json_object_is_the_reason_word_for_word(payload: bytes) -> None:
    """Truncated JSON, a list, a number: all kill, and say what they said."""
    assert KillOrder.parse(payload).reason == payload.decode()


def test_a_json_order_brings_its_fields() -> None:
    """Texts are taken, other types and unknown fields are not, and nothing else is lost by it."""
    payload = b' {"v": 9, "id": "o1", "at": "now", "by": "oncall", "via": "cli", "reason": "r", "incident": 7, "x": 1}'
    assert KillOrder.parse(payload) == KillOrder(id="o1", at="now", by="oncall", via="cli", reason="r")


@pytest.mark.parametrize("size", [4096, 4097, 5000, 70_000])
def test_a_reason_is_cut_at_4_kib(size: int) -> None:
    """In plain text and in JSON, and never within a character."""
    assert KillOrder.parse(b"x" * size).reason == "x" * 4096
    assert KillOrder.parse(b'{"reason": "' + b"x" * 60_000 + b'"}').reason == "x" * 4096
    assert KillOrder.parse("ü".encode() * size).reason == "ü" * 2048
    assert KillOrder.parse(b"a" + "ü".encode() * size).reason == "a" + "ü" * 2047


def test_a_record_says_who_heard_a_raw_message_and_when() -> None:
    """What the order brought none of is made: an id, the server's time, and who heard it."""
    record = KillOrder(reason="r").record(fallback_id="made", now_ms=1_769_868_131_123, heard_by="web-1")
    assert record == KillRecord(id="made", at="2026-01-31T14:02:11.123Z", via="pubsub", reason="r", heard_by="web-1")
    sent = KillOrder(id="o1", at="then").record(fallback_id="made", now_ms=1)
    assert (sent.id, sent.at, sent.heard_by) == ("o1", "then", "")


def test_a_record_keeps_unknown_fields() -> None:
    """A newer version's field survives reading and writing back."""
    raw = b'{"v": 2, "id": "k", "severity": {"level": 9}, "tags": ["a"]}'
    kept = json.loads(KillRecord.parse(raw).to_bytes())
    assert (kept["severity"], kept["tags"], kept["v"], kept["id"]) == ({"level": 9}, ["a"], 2, "k")


def test_a_record_without_an_id_gets_one_of_its_bytes() -> None:
    """Every reader makes the same id of the same bytes, and another of others; an empty id is none."""
    for raw in (b"", b"by hand", b'{"id": 7}', b'{"id": ""}'):
        made = KillRecord.parse(raw).id
        assert made.startswith("raw-")
        assert KillRecord.parse(raw).id == made
        assert KillRecord.parse(raw + b" ").id != made


def test_what_gives_way_first_is_the_reason() -> None:
    """Who, when and how outlive a long reason; unknown fields go before them."""
    record = KillOrder(id="o1", by="oncall", via="cli", at="then", incident="INC-1", reason="x" * 4096)
    raw = record.record(fallback_id="", now_ms=1).to_bytes()
    kept = KillRecord.parse(raw)
    assert (kept.id, kept.by, kept.via, kept.at, kept.incident) == ("o1", "oncall", "cli", "then", "INC-1")
    assert kept.reason == "x" * 512
    bloated = KillRecord.parse(b'{"id": "k", "by": "oncall", "reason": "r"}').model_copy(update={"x": "y" * 2000})
    assert KillRecord.parse(bloated.to_bytes()).by == "oncall"


def test_a_sentence_is_fit_for_a_terminal() -> None:
    """Who, why and when; no control character, no bidi override, no surrogate."""
    record = KillRecord(id="k", reason="a\x1b[2Jb\u202ec\ud800", by="on\ncall", via="cli", at="then")
    assert record.sentence() == '"a [2Jb c " by on call via cli at then'
    assert KillRecord(id="k").sentence() == "no reason given"


def test_harmless_cuts() -> None:
    """At most ``limit`` long, the cut shown."""
    assert harmless("x" * 300) == "x" * 300
    assert harmless("x" * 301) == "x" * 299 + "…"
    assert len(harmless("\n" * 10_000_000, 10)) == 10


def test_an_instant_is_written_in_milliseconds() -> None:
    """ISO 8601, UTC, three digits."""
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_769_868_131_007) == "2026-01-31T14:02:11.007Z"

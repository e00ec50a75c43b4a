"""A certificate as the audit keeps it: what is read back is what was told, and any bytes are bearable."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.core.audit import CERTIFICATE_LIMIT, at_ms_of, packed, told_of, unpacked
from skillbus.core.certificate import Certificate, Held, Line, Proof
from skillbus.core.orders import KillRecord, iso
from skillbus.core.scope import Fleet
from tests import profiles
from tests.unit.core.beats import T0

assert profiles

RECORD = KillRecord(id="k1", reason="why", by="oncall", at=iso(T0))
SCOPE = Fleet("prod").group("eu")


def certificate(*lines: Line) -> Certificate:
    """A certificate of these lines."""
    return Certificate(RECORD, SCOPE, lines, T0)


def test_what_is_read_back_is_what_was_told() -> None:
    """Each column with its instant, the sentence, the times, what holds it; a life by the beginning of its name."""
    lines = (
        Line("a", "i" * 32, Proof.STOPPED, 0.25, T0 + 250, T0, "its process ended by itself, quiet"),
        Line("b", "j" * 32, Proof.FENCED, 0.0, T0 + 7000, T0, "silent"),
        Line("c", "k" * 32, Proof.UNCONFIRMED, 0.0, 0, T0 - 5, "last said: running"),
        Line("d", "", Proof.UNKNOWN, 0.0, 0, 0, "nothing"),
    )
    told = told_of(certificate(*lines), Held(1, 2, True, 1), interrupted=True)
    back = unpacked(packed(told))
    assert back is not None
    assert [(x.pod_id, x.incarnation, x.proof, x.seconds, x.at_ms, x.last_beat_ms, x.note) for x in back.lines] == [
        ("a", "i" * 8, Proof.STOPPED, 0.25, T0 + 250, 0, "its process ended by itself, quiet"),
        ("b", "j" * 8, Proof.FENCED, 0.0, T0 + 7000, 0, "silent"),
        ("c", "k" * 8, Proof.UNCONFIRMED, 0.0, 0, T0 - 5, "last said: running"),
        ("d", "", Proof.UNKNOWN, 0.0, 0, 0, "nothing"),
    ]
    for name in ("record", "where", "sentence", "complete", "interrupted", "counts", "times_s", "held", "order_ms"):
        assert getattr(back, name) == getattr(told, name)
    assert (back.left_out_count, back.histogram) == (0, ())


def test_a_huge_fleet_keeps_whom_a_person_must_look_at() -> None:
    """At most 512 KiB: the stopped become a histogram that counts each of them; nobody else is left out."""
    stopped = [Line(f"pod-{n:05}", "i" * 32, Proof.STOPPED, n / 1000, T0 + n, T0) for n in range(20_000)]
    missing = [Line(f"lost-{n}", "i" * 32, Proof.UNCONFIRMED, 0.0, 0, T0, "x" * 100) for n in range(50)]
    told = told_of(certificate(*stopped, *missing), None, interrupted=False)
    text = packed(told)
    back = unpacked(text)
    assert back is not None
    assert len(text) <= CERTIFICATE_LIMIT
    assert [line.pod_id for line in back.lines] == [f"lost-{n}" for n in range(50)]
    assert back.left_out_count == sum(count for _, count in back.histogram) == 20_000
    assert dict(back.histogram)[1000] == 500
    assert back.counts == {"stopped": 20_000, "fenced": 0, "unconfirmed": 50, "unknown": 0}
    assert back.times_s == told.times_s


def test_a_fleet_of_which_nobody_stopped_is_bounded_too() -> None:
    """Then some of these are left out, and counted."""
    lines = [Line(f"pod-{n}", "i" * 32, Proof.UNCONFIRMED, 0.0, 0, T0, "é" * 200) for n in range(5000)]
    text = packed(told_of(certificate(*lines), None, interrupted=False))
    back = unpacked(text)
    assert back is not None
    assert len(text) <= CERTIFICATE_LIMIT
    assert 0 < len(back.lines) == 5000 - back.left_out_count


WHOLE = json.loads(packed(told_of(certificate(Line("a", "i", Proof.FENCED, 0.0, T0, T0)), Held(), interrupted=False)))


@given(
    st.text()
    | st.sampled_from(sorted(WHOLE)).flatmap(
        lambda name: st.sampled_from([None, -1, 1e300, "x", [], {}, [[1]], [["a", "i", "f", -1, ""]], "9" * 5000]).map(
            lambda value: json.dumps({**WHOLE, name: value})
        )
    )
)
def test_any_text_is_bearable(text: str) -> None:
    """What is no certificate is None, and never an error; what is one can be told."""
    found = unpacked(text)
    if found is not None:
        packed(found)


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        (iso(T0 + 7), T0 + 7),
        ("2026-01-31T14:02:11+01:00", 1_769_864_531_000),
        ("2026-01-31T14:02:11", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_what_an_order_claims_of_its_time(text: str, at_ms: int | None) -> None:
    """An instant, or nothing: a time without its zone is none."""
    assert at_ms_of(text) == at_ms

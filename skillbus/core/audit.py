"""Entries of the audit, and the certificate of a kill as one of them keeps it (docs/protocol.md §1). Pure.

A certificate is kept so small that the stream can bear it: one short row for each pod, and for a huge fleet only the
rows that a person must look at, and how the times were spread. Whatever is read back was written by others, so what
cannot be read is None and never an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from skillbus.core.certificate import Certificate, Held, Line, Proof
from skillbus.core.credentials import Identity
from skillbus.core.orders import KillRecord
from skillbus.core.scope import Scope

CERTIFICATE_LIMIT = 512 * 1024
"""Bytes of a certificate in the audit, at most."""

_LETTERS = {Proof.STOPPED: "s", Proof.FENCED: "f", Proof.UNCONFIRMED: "u", Proof.UNKNOWN: "?"}
_PROOFS = {letter: proof for proof, letter in _LETTERS.items()}
_BUCKETS_MS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000)


@dataclass(frozen=True, slots=True)
class Told:
    """A certificate as it is told: by the kill that made it, and again from the audit.

    Attributes:
        where: the scope, for people.
        interrupted: whether somebody ended the waiting before its time.
        counts: lines of each proof.
        times_s: p50, p99 and the longest time from order to quiet; None: nobody stopped, or the time is not known.
        lines: those that are kept.
        left_out_count: lines that are not.
        identity: who could have written the evidence: ``own``, ``shared``, ``unknown`` (core/credentials.py).
        identity_sentence: that, for people; empty: it is an older certificate, which did not say.
        histogram: ``(up to so many ms, how many stopped)``, if lines were left out. The last one is open: 0 ms.
    """

    record: KillRecord
    where: str
    sentence: str
    complete: bool
    interrupted: bool
    counts: dict[str, int]
    times_s: tuple[float | None, float | None, float | None]
    lines: tuple[Line, ...]
    held: Held | None = None
    order_ms: int = 0
    left_out_count: int = 0
    histogram: tuple[tuple[int, int], ...] = ()
    identity: str = str(Identity.UNKNOWN)
    identity_sentence: str = ""


def told_of(certificate: Certificate, held: Held | None, *, interrupted: bool) -> Told:
    """``certificate``, ready to be told."""
    return Told(
        record=certificate.record,
        where=str(certificate.scope),
        sentence=certificate.sentence(),
        complete=certificate.complete and not interrupted,
        interrupted=interrupted,
        counts={str(proof): certificate.count(proof) for proof in Proof},
        times_s=(certificate.percentile_s(50), certificate.percentile_s(99), certificate.percentile_s(100)),
        lines=certificate.lines,
        held=held,
        order_ms=certificate.order_ms,
        identity=str(certificate.credentials.identity),
        identity_sentence=certificate.credentials.sentence(),
    )


def packed(told: Told) -> str:
    """``told`` as JSON of at most ``CERTIFICATE_LIMIT`` bytes."""
    whole = _dumped(told, told.lines, ())
    if len(whole) <= CERTIFICATE_LIMIT:
        return whole
    kept = [line for line in told.lines if line.proof is not Proof.STOPPED]
    histogram = _histogram([line for line in told.lines if line.proof is Proof.STOPPED])
    while len(cut := _dumped(told, kept, histogram)) > CERTIFICATE_LIMIT and kept:
        kept = kept[: len(kept) * 3 // 4]
    return cut


def _dumped(told: Told, lines: Sequence[Line], histogram: tuple[tuple[int, int], ...]) -> str:
    fields = {
        "v": 1,
        "record": told.record.model_dump(),
        "where": told.where,
        "sentence": told.sentence,
        "complete": told.complete,
        "interrupted": told.interrupted,
        "counts": told.counts,
        "times_s": told.times_s,
        "held": asdict(told.held) if told.held else None,
        "order_ms": told.order_ms,
        "identity": told.identity,
        "identity_sentence": told.identity_sentence,
        "pods": [_row(line) for line in lines],
        "left_out": len(told.lines) - len(lines),
        "histogram": histogram,
    }
    return json.dumps(fields, separators=(",", ":"))


def _row(line: Line) -> list[Any]:
    """``[pod id, incarnation[:8], proof, ms, note]``: ms from order to quiet, or else an instant of the server."""
    ms = {Proof.STOPPED: round(line.seconds * 1000), Proof.FENCED: line.at_ms}.get(line.proof, line.last_beat_ms)
    return [line.pod_id, line.incarnation[:8], _LETTERS[line.proof], ms, line.note]


def _histogram(stopped: Sequence[Line]) -> tuple[tuple[int, int], ...]:
    counts = dict.fromkeys((*_BUCKETS_MS, 0), 0)
    for line in stopped:
        counts[next((ms for ms in _BUCKETS_MS if line.seconds * 1000 <= ms), 0)] += 1
    return tuple(counts.items())


def unpacked(text: str) -> Told | None:
    """The certificate in ``text``; None if it is none."""
    try:
        value = json.loads(text)
        order_ms = int(value["order_ms"])
        p50_s, p99_s, max_s = (None if found is None else float(found) for found in value["times_s"])
        return Told(
            record=KillRecord.parse(json.dumps(value["record"]).encode()),
            where=str(value["where"]),
            sentence=str(value["sentence"]),
            complete=value["complete"] is True,
            interrupted=value["interrupted"] is True,
            counts={str(name): int(count) for name, count in value["counts"].items()},
            times_s=(p50_s, p99_s, max_s),
            lines=tuple(_line(row, order_ms) for row in value["pods"]),
            held=_held(value["held"]),
            order_ms=order_ms,
            left_out_count=int(value["left_out"]),
            identity=str(value.get("identity", Identity.UNKNOWN)),
            identity_sentence=str(value.get("identity_sentence", "")),
            histogram=tuple((int(ms), int(count)) for ms, count in value["histogram"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        return None


def _line(row: Any, order_ms: int) -> Line:
    pod_id, incarnation, letter, ms, note = row
    proof, ms = _PROOFS[letter], int(ms)
    if not 0 <= ms <= 250_000_000_000_000:
        raise ValueError("no instant")
    name = str(pod_id)
    if proof is Proof.STOPPED:
        return Line(name, str(incarnation), proof, ms / 1000, order_ms + ms, 0, str(note))
    at_ms, beat_ms = (ms, 0) if proof is Proof.FENCED else (0, ms)
    return Line(name, str(incarnation), proof, 0.0, at_ms, beat_ms, str(note))


def _held(value: Any) -> Held | None:
    if value is None:
        return None
    counts = {name: None if (n := value[name]) is None else int(n) for name in ("replicas", "connected")}
    here, there = value["fsynced_here"], value["fsynced_replicas"]
    return Held(
        **counts,
        fsynced_here=None if here is None else bool(here),
        fsynced_replicas=None if there is None else int(there),
    )


def at_ms_of(text: str) -> int | None:
    """The instant that an order or a record claims (``2026-01-31T14:02:11.123Z``), in ms since 1970; None: none."""
    try:
        moment = datetime.fromisoformat(text)
        return round(moment.timestamp() * 1000) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def is_kill_of(fields: dict[str, str], scope: Scope) -> bool:
    """Whether an entry tells of an order to stop ``scope``."""
    return fields.get("kind") == "kill" and fields.get("scope") == scope.label

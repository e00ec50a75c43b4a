"""A certificate in a terminal and as JSON: the same for the kill that made it and for the audit that kept it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from skillbus.cli.console import stdout

if TYPE_CHECKING:
    from skillbus.core.audit import Told
    from skillbus.core.certificate import Line

_ROWS = 60
_STYLES = {"stopped": "green", "fenced": "yellow", "unconfirmed": "bold red", "unknown": "bold red"}


def show_proof(told: Told) -> None:
    """The pods, who is missing first; the times; what holds the record; the sentence to read out."""
    from skillbus.core.text import harmless

    console = stdout()
    if told.lines:
        _table(told)
    if told.left_out_count:
        console.print(f"… and {told.left_out_count} more that were not kept one by one", markup=False)
        console.print(f"  from order to quiet: {_spread(told)}", markup=False)
    console.print(_times(told), markup=False)
    if told.held is not None:
        console.print(f"held {told.held.sentence()}", markup=False)
    if told.identity_sentence:
        console.print(f"identity: {harmless(told.identity_sentence, 400)}", markup=False)
    if told.interrupted:
        console.print("NOT COMPLETE: the waiting was interrupted: who is missing may have stopped since", markup=False)
    console.print(harmless(told.sentence, 2000), markup=False, style="bold")


def _table(told: Told) -> None:
    from rich.table import Table
    from rich.text import Text

    from skillbus.core.text import harmless

    lines = sorted(told.lines, key=lambda line: (line.proof == "stopped", line.pod_id))
    table = Table("pod", "proved", "when", "note", box=None, pad_edge=False, header_style="bold")
    for line in lines[:_ROWS]:
        proof = Text(str(line.proof), style=_STYLES[line.proof])
        table.add_row(Text(harmless(line.pod_id, 80)), proof, _when(line), Text(harmless(line.note)))
    console = stdout()
    console.print(table)
    if len(lines) > _ROWS:
        all_stopped = all(line.proof == "stopped" for line in lines[_ROWS:])
        console.print(f"… and {len(lines) - _ROWS} more" + (", all of them stopped" if all_stopped else ""))


def _when(line: Line) -> str:
    from skillbus.core.certificate import Proof
    from skillbus.core.orders import iso

    if line.proof is Proof.STOPPED:
        return f"after {line.seconds * 1000:.0f} ms"
    if line.proof is Proof.FENCED:
        return f"at {iso(line.at_ms)}"
    return f"last heard {iso(line.last_beat_ms)}" if line.last_beat_ms else "never heard"


def _times(told: Told) -> str:
    p50, p99, most = (f"{seconds * 1000:.0f} ms" if seconds is not None else "" for seconds in told.times_s)
    if p50:
        return f"from order to quiet: p50 {p50}, p99 {p99}, max {most}"
    is_timed = not told.counts.get("stopped", 0)
    return "nobody is stopped yet" if is_timed else "Redis did not tell when the order came, so no times are claimed"


def _spread(told: Told) -> str:
    parts, below = [], 0
    for ms, count in told.histogram:
        if count:
            parts.append(f"{count} within {ms} ms" if ms else f"{count} after more than {below} ms")
        below = ms or below
    return ", ".join(parts) or "not kept"


def proof_fields(told: Told) -> dict[str, Any]:
    """The certificate as JSON fields."""
    p50_s, p99_s, max_s = told.times_s
    return {
        "sentence": told.sentence,
        "complete": told.complete,
        "interrupted": told.interrupted,
        **told.counts,
        "p50_s": p50_s,
        "p99_s": p99_s,
        "max_s": max_s,
        "held": None if told.held is None else {"sentence": told.held.sentence(), **asdict(told.held)},
        "order_ms": told.order_ms,
        "identity": told.identity,
        "identity_sentence": told.identity_sentence,
        "pods": [asdict(line) for line in told.lines],
        "left_out": told.left_out_count,
        "histogram": [{"up_to_ms": ms or None, "stopped": count} for ms, count in told.histogram],
    }

"""``skillbus history``: who ordered what, why, when and from where; and what was proved of a kill, as it was told."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.console import stdout
from skillbus.cli.options import FleetOption, RedisOption, seconds_of, settings_for
from skillbus.cli.proof import proof_fields, show_proof
from skillbus.control.telling_orders import iso_of, what_of
from skillbus.output import SCHEMA_VERSION, Output, print_json, run_async, spoken

if TYPE_CHECKING:
    from skillbus.control.audit import Entry
    from skillbus.control.history import KillStory, Wanted
    from skillbus.settings import Settings

_LIMIT = 50
_KINDS = ("kill", "heard", "certificate", "reset-asked", "reset", "arm", "sync", "drill", "drill-result", "restored")
_KINDS_ALL = (*_KINDS, "tidied", "refused")


class HistoryOutput(StrEnum):
    """How to print: for people, as one JSON object, or as a JSON object a line."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def history(
    kill_id: Annotated[str, typer.Argument(metavar="[KILL-ID]", help="All about one kill, its certificate too.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="24h", help="Not older than this.")] = "",
    kind: Annotated[list[str] | None, typer.Option("--kind", help=f"Only these: {', '.join(_KINDS_ALL)}.")] = None,
    scope: Annotated[str, typer.Option("--scope", help="Only this one: fleet, group:NAME or pod:ID.")] = "",
    by: Annotated[str, typer.Option("--by", help="Only whose name contains this.")] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help=f"The newest so many. Default: {_LIMIT}; jsonl: all.")
    ] = None,
    output: Annotated[
        HistoryOutput, typer.Option("-o", "--output", help="How to print: table, json or jsonl.")
    ] = HistoryOutput.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Show the audit: orders, refusals, resets, drills and certificates, the newest last."""
    with spoken("history", Output.TABLE if output is HistoryOutput.TABLE else Output.JSON):
        settings = settings_for(fleet, redis)
        if kill_id:
            _print_story(run_async(_story(settings, kill_id)), output)
            return
        ago_s = seconds_of("--since", since) if since else None
        wanted = {"kinds": _kinds(kind), "scope": _scope(settings, scope), "by": by}
        if output is HistoryOutput.JSONL and limit is None:
            run_async(_export(settings, wanted, ago_s))
            return
        entries = run_async(_newest(settings, wanted, ago_s, limit or _LIMIT))
        _print(entries, output, limit or _LIMIT)


def _kinds(given: list[str] | None) -> frozenset[str]:
    from skillbus.errors import BadSettings

    unknown = [word for word in given or () if word not in _KINDS_ALL]
    if unknown:
        raise BadSettings(f"--kind: there is no kind {unknown[0][:40]!r}: say one of {', '.join(_KINDS_ALL)}")
    return frozenset(given or ())


def _scope(settings: Settings, text: str) -> str:
    """The label of the scope that ``--scope`` names; empty: of any."""
    from skillbus.core.scope import Fleet
    from skillbus.errors import BadSettings

    if not text:
        return ""
    fleet = Fleet(settings.bus.fleet)
    found = fleet.of_suffix("" if text == "fleet" else f":{text}")
    if found is None:
        raise BadSettings(f"--scope: {text[:80]!r} is no scope: say fleet, group:NAME or pod:ID")
    return found.label


async def _wanted(bus: Any, wanted: dict[str, Any], ago_s: float | None) -> Wanted:
    from skillbus.control.history import Wanted

    since_ms = 0 if ago_s is None else max(0, await bus.now_ms() - round(ago_s * 1000))
    return Wanted(since_ms=since_ms, **wanted)


async def _newest(settings: Settings, wanted: dict[str, Any], ago_s: float | None, limit: int) -> list[Entry]:
    from skillbus.control.history import newest
    from skillbus.wiring import operator_bus

    async with operator_bus(settings) as bus:
        return await newest(bus, await _wanted(bus, wanted, ago_s), limit)


async def _export(settings: Settings, wanted: dict[str, Any], ago_s: float | None) -> None:
    """A line at a time, as it is read: a history may be longer than a memory."""
    from skillbus.control.history import history as every
    from skillbus.wiring import operator_bus

    async with operator_bus(settings) as bus:
        async for entry in every(bus, await _wanted(bus, wanted, ago_s)):
            _print_line(entry)
    sys.stdout.flush()


async def _story(settings: Settings, kill_id: str) -> KillStory:
    from skillbus.control.history import story
    from skillbus.wiring import operator_bus

    async with operator_bus(settings) as bus:
        return await story(bus, kill_id)


def _print(entries: list[Entry], output: HistoryOutput, limit: int) -> None:
    if output is HistoryOutput.JSON:
        print_json("history", {"entries": [_fields(entry) for entry in entries]})
    elif output is HistoryOutput.JSONL:
        for entry in entries:
            _print_line(entry)
        sys.stdout.flush()
    elif entries:
        stdout().print(_table(entries))
        if len(entries) == limit:
            stdout().print(f"the newest {limit}; --limit shows more, -o jsonl exports all", markup=False)
    else:
        stdout().print("nothing of that is in the audit", markup=False)


def _print_line(entry: Entry) -> None:
    import json

    sys.stdout.write(json.dumps({"schema_version": SCHEMA_VERSION, **_fields(entry)}) + "\n")


def _fields(entry: Entry) -> dict[str, Any]:
    """An entry as JSON: its own fields, and where and when it was written."""
    from skillbus.core.audit import unpacked

    told = unpacked(entry.fields["certificate"]) if "certificate" in entry.fields else None
    proof = {"certificate": proof_fields(told)} if told is not None else {}
    return {**entry.fields, **proof, "at": iso_of(entry), "source": entry.source, "entry": entry.id}


def _table(entries: list[Entry]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from skillbus.core.text import harmless

    columns = ("at", "kind", "scope", "by", "via", "from", "what")
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for entry in entries:
        cells = [entry.fields.get(name, "") for name in ("kind", "scope", "by", "via")]
        cells += [entry.fields.get("from") or f"({entry.source})", what_of(entry)]
        table.add_row(iso_of(entry), *(Text(harmless(cell, 200)) for cell in cells))
    return table


def _print_story(found: KillStory, output: HistoryOutput) -> None:
    if output is HistoryOutput.JSONL:
        for entry in found.entries:
            _print_line(entry)
        return
    if output is HistoryOutput.JSON:
        last = proof_fields(found.certificates[-1][1]) if found.certificates else None
        entries = [_fields(entry) for entry in found.entries]
        print_json("history", {"record": found.record_id, "certificate": last, "entries": entries})
        return
    from skillbus.core.text import harmless

    console = stdout()
    console.print(_table(list(found.entries)))
    if not found.certificates:
        console.print("no certificate is kept of it", markup=False)
        return
    entry, told = found.certificates[-1]
    more = f" (there are {len(found.certificates) - 1} earlier ones)" if len(found.certificates) > 1 else ""
    by, origin = entry.fields.get("by") or "?", entry.fields.get("from") or "?"
    said = f"certificate of {told.where}, written at {iso_of(entry)} by {by} from {origin}{more}"
    console.print(f"\n{harmless(said, 600)}", markup=False)
    console.print(f"{harmless(told.where, 200)} was killed: {told.record.sentence()}", markup=False)
    show_proof(told)

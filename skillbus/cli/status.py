"""``skillbus status``: the fleet in one sentence, then its pods, stragglers first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.console import stdout
from skillbus.cli.holders import show_holders
from skillbus.cli.options import FleetOption, OutputOption, RedisOption, settings_for
from skillbus.control.telling import headline, life_of, why_of
from skillbus.garbage import unswept
from skillbus.output import KILLED, Output, print_json, run_async, spoken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from skillbus.control.status import Status
    from skillbus.core.credentials import Credentials
    from skillbus.core.roster import Life, PodView
    from skillbus.settings import Settings

_ROWS = 60
_WIDE = 110
"""Columns of a terminal from which on the digest of a pod's skills leaves room for the rest."""
_SHORT = 8
_STYLES = {
    "running": "green",
    "stopped": "red",
    "stopping": "bold red",
    "holding": "yellow",
    "deaf": "bold yellow",
    "unconfirmed": "bold red",
}


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Redraw until interrupted.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 3 if the fleet is killed.")] = False,
    skill: Annotated[
        str | None, typer.Option("--skill", metavar="NAME[@DIGEST]", help="Which live pods hold this skill.")
    ] = None,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Show the fleet, its kills and its pods."""
    with spoken("status", output):
        settings = settings_for(fleet, redis)
        if skill is not None:
            show_holders(settings, skill, output)
            return
        if watch:
            from skillbus.cli.wall import watch as keep_watch

            run_async(keep_watch(settings, output))
        with unswept():
            seen = run_async(_look(settings))
            _print(seen, output)
        if exit_code and seen.fleet_record is not None:
            raise SystemExit(KILLED)


def _print(seen: Status, output: Output) -> None:
    if output is Output.JSON:
        print_json("status", fields_of(seen))
        return
    console = stdout()
    console.print(headline(seen), markup=False, style="bold")
    for line in kill_lines(seen):
        console.print(line, markup=False)
    if seen.pods:
        console.print(_table(seen))


async def _look(settings: Settings) -> Status:
    from skillbus.control.status import status as look
    from skillbus.wiring import operator_bus

    async with operator_bus(settings) as bus:
        return await look(bus)


def kill_lines(seen: Status) -> list[str]:
    """Every kill that the headline does not name already; and how long ago it was seen that a kill would be heard."""
    kills = [f"{scope} is killed: {record.sentence()}" for scope, record in seen.kills if scope.name]
    return kills + _identity_lines(seen) + _drill_lines(seen)


def _identity_lines(seen: Status) -> list[str]:
    """Only what somebody should know before he believes the table: an identity that is not shared is no news."""
    from skillbus.core.credentials import Identity
    from skillbus.core.text import harmless

    found = _credentials(seen)
    return [f"identity: {harmless(found.sentence(), 400)}"] if found.identity is Identity.SHARED else []


def _credentials(seen: Status) -> Credentials:
    """Of the pods that may still act."""
    from skillbus.core.credentials import of_users

    return of_users((life.pod_id, life.beat.user) for pod in seen.pods for life in pod.current)


def _drill_lines(seen: Status) -> list[str]:
    from skillbus.control.drill import LastDrill
    from skillbus.core.text import harmless

    if isinstance(seen.drill, LastDrill):
        ago_s = max(0, seen.server_ms - seen.drill.at_ms) // 1000
        return [f"last good drill {_ago(ago_s)} ago: {harmless(seen.drill.sentence)}"]
    if seen.drill is None and any(pod.current for pod in seen.pods):
        return ["no good drill is known: skillbus drill rehearses the stop, and stops nothing"]
    return []


def _ago(seconds: int) -> str:
    """In one unit: ``40 s``, ``5 min``, ``3 h``, ``12 days``."""
    for unit_s, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds // unit_s} {unit}"
    return f"{seconds} s"


def _drill_field(seen: Status) -> dict[str, Any] | None:
    """None: no good one is known."""
    from dataclasses import asdict

    from skillbus.control.drill import LastDrill

    if seen.drill is None:
        return None
    return asdict(seen.drill) if isinstance(seen.drill, LastDrill) else {"error": str(seen.drill)}


def _table(seen: Status) -> Table:
    table = pod_table(seen.pods[:_ROWS])
    if len(seen.pods) > _ROWS:
        table.add_row(f"… and {len(seen.pods) - _ROWS} more")
    return table


def pod_table(pods: Sequence[PodView], *, is_grey: bool = False, one_line: bool = False) -> Table:
    """A row for each pod.

    Args:
        is_grey: without colours, for figures that are not fresh.
        one_line: what does not fit is cut, and does not wrap.
    """
    from rich.table import Table
    from rich.text import Text

    from skillbus.core.text import harmless

    shows_skills = stdout().width >= _WIDE and any(life.beat.skills for pod in pods for life in pod.lives)
    extra = ["skills"] if shows_skills else []
    table = Table("pod", "state", "heard from", "hears", "last pass", *extra, "why", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = one_line
    for pod in pods:
        life = life_of(pod)
        word = f"{pod.word} (twin)" if pod.twin else pod.word
        style = "" if is_grey else _STYLES.get(pod.word, "")
        shown = f"[{style}]{word}[/]" if style else word
        if life is None:
            rest = ["-"] * (4 if shows_skills else 3)
            table.add_row(pod.pod_id, shown, *rest, "in the roster; its evidence has expired")
            continue
        skills = [Text(harmless(life.beat.skills[:_SHORT]) or "-")] if shows_skills else []
        told = [Text(harmless(_last_pass(life), 40)), *skills, Text(harmless(why_of(life), 120))]
        table.add_row(pod.pod_id, shown, f"{life.age_s:.0f} s ago", _hears(pod, life), *told)
    return table


def _hears(pod: PodView, life: Life) -> str:
    """Whether, and for how long as of its last beat, by the server's clock."""
    beat = life.beat
    if life not in pod.current:
        return "-"
    if beat.armed:
        since = f", {_ago((beat.beat_at_ms - beat.hears_since_ms) // 1000)}" if beat.hears_since_ms else ""
        return f"yes{since}"
    if beat.state == "starting" or (beat.hears and not pod.deaf):
        return "not yet"
    return f"DEAF {_ago(max(0, beat.beat_at_ms - beat.deaf_since_ms) // 1000)}" if beat.deaf_since_ms else "DEAF"


def _last_pass(life: Life) -> str:
    """Of a pass in flight, what it is at."""
    if life.beat.doing and not life.beat.quiet:
        return f"{life.beat.doing} …"
    last = life.beat.last_pass
    return f"{last.outcome} in {last.took_s:.1f} s" if last else "-"


def fields_of(seen: Status) -> dict[str, Any]:
    """The status as JSON fields."""
    return {**fleet_fields(seen), "pods": [pod_fields(pod) for pod in seen.pods]}


def fleet_fields(seen: Status) -> dict[str, Any]:
    """Of the fleet as a whole."""
    return {
        "fleet": seen.fleet,
        "armed": seen.armed,
        "server_ms": seen.server_ms,
        "headline": headline(seen),
        "kills": [{"scope": str(scope), "record": record.model_dump()} for scope, record in seen.kills],
        "last_good_drill": _drill_field(seen),
        "identity": _credentials(seen).identity,
        "counts": dict(seen.counts()),
    }


def pod_fields(pod: PodView) -> dict[str, Any]:
    """One pod as JSON fields."""
    lives = [
        {"presence": life.presence, "age_s": life.age_s, **life.beat.model_dump(mode="json")} for life in pod.lives
    ]
    return {"pod": pod.pod_id, "word": pod.word, "twin": pod.twin, "incarnations": lives}

"""``skillbus status``: the fleet in one sentence, then its pods, stragglers first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.console import stdout
from skillbus.cli.options import FleetOption, OutputOption, RedisOption, settings_for
from skillbus.output import KILLED, Output, print_json, run_async, spoken

if TYPE_CHECKING:
    from rich.table import Table

    from skillbus.control.status import Status
    from skillbus.core.roster import Life, PodView
    from skillbus.settings import Settings

_ROWS = 200
_STYLES = {"running": "green", "stopped": "red", "stopping": "bold red", "holding": "yellow", "unconfirmed": "bold red"}


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Redraw until interrupted.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 3 if the fleet is killed.")] = False,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Show the fleet, its kills and its pods."""
    with spoken("status", output):
        settings = settings_for(fleet, redis)
        if watch:
            run_async(_watch(settings, output))
        seen = run_async(_look(settings))
        if output is Output.JSON:
            print_json("status", fields_of(seen))
        else:
            console = stdout()
            console.print(headline(seen), markup=False, style="bold")
            for line in _kill_lines(seen):
                console.print(line, markup=False)
            if seen.pods:
                console.print(_table(seen))
        if exit_code and seen.fleet_record is not None:
            raise SystemExit(KILLED)


async def _look(settings: Settings) -> Status:
    from skillbus.control.status import status as look
    from skillbus.wiring import operator_bus

    async with operator_bus(settings) as bus:
        return await look(bus)


async def _watch(settings: Settings, output: Output) -> None:
    """Redraw every second, until interrupted. What cannot be read is said, and the figures are not shown as fresh."""
    import asyncio

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from skillbus.errors import SkillbusError

    with Live(console=stdout(), auto_refresh=False) as live:
        while True:
            try:
                seen = await _look(settings)
            except SkillbusError as error:
                live.update(Text(f"UNKNOWN: {error}", style="bold red"), refresh=True)
            else:
                if output is Output.JSON:
                    print_json("status", fields_of(seen))
                else:
                    lines = [Text(headline(seen), style="bold"), *(Text(line) for line in _kill_lines(seen))]
                    live.update(Group(*lines, _table(seen)), refresh=True)
            await asyncio.sleep(1)


def headline(seen: Status) -> str:
    """One sentence: ``fleet 'prod': RUNNING 44``, ``STOPPING 41/44``, ``STOPPED 44``, with what else there is."""
    counts = seen.counts()
    others = ", ".join(_counted(seen, word, count) for word, count in sorted(counts.items()) if word != "running")
    name, aside = f"fleet '{seen.fleet}': ", f" ({others})" if others else ""
    record = seen.fleet_record
    if record is not None:
        open_count = sum(count for word, count in counts.items() if word not in _ENDED)
        if open_count:
            stopped = f"STOPPING {counts['stopped']}/{counts['stopped'] + open_count}"
        else:
            stopped = f"STOPPED {counts['stopped']}"
        return f"{name}{stopped}: {record.sentence()}"
    if not seen.armed:
        return f"{name}NOT ARMED: its pods hold. A new fleet? run skillbus arm. An old one? its Redis lost its data"
    return f"{name}RUNNING {counts['running']}{aside}"


_ENDED = frozenset({"stopped", "fenced", "ended", "lost"})


def _counted(seen: Status, word: str, count: int) -> str:
    lifted = word == "stopped" and _all_lifted(seen)
    return f"{count} {word}" + (": reset, they wait for a restart" if lifted else "")


def _all_lifted(seen: Status) -> bool:
    """Whether every stopped pod was stopped by kills that were reset since, and by nothing else."""
    lives = [life for pod in seen.pods if pod.word == "stopped" for life in pod.current]
    return all(cause.lifted for life in lives for cause in life.beat.causes)


def _kill_lines(seen: Status) -> list[str]:
    """Every kill that the headline does not name already."""
    return [f"{scope} is killed: {record.sentence()}" for scope, record in seen.kills if scope.name]


def _table(seen: Status) -> Table:
    from rich.table import Table
    from rich.text import Text

    from skillbus.core.text import harmless

    table = Table("pod", "state", "heard from", "hears", "last pass", "why", box=None, pad_edge=False)
    for pod in seen.pods[:_ROWS]:
        life = _life(pod)
        word = f"{pod.word} (twin)" if pod.twin else pod.word
        style = _STYLES.get(pod.word, "")
        shown = f"[{style}]{word}[/]" if style else word
        if life is None:
            table.add_row(pod.pod_id, shown, "-", "-", "-", "in the roster; its evidence has expired")
            continue
        hears = "-" if life not in pod.current else ("yes" if life.beat.armed else "DEAF")
        if life.beat.hears and not life.beat.armed:
            hears = "not yet"
        why = Text(harmless(_why(life), 120))
        table.add_row(pod.pod_id, shown, f"{life.age_s:.0f} s ago", hears, Text(harmless(_last_pass(life), 40)), why)
    if len(seen.pods) > _ROWS:
        table.add_row(f"… and {len(seen.pods) - _ROWS} more", "", "", "", "", "")
    return table


def _life(pod: PodView) -> Life | None:
    lives = pod.current or pod.lives
    return max(lives, key=lambda life: life.beat.beat_at_ms) if lives else None


def _why(life: Life) -> str:
    """Briefly: a kill by its scope, for its record stands above; anything else in the pod's own words."""
    if not life.beat.causes and life.beat.vouched:
        return life.beat.why
    words = []
    for cause in life.beat.causes:
        if not cause.scope:
            words.append(f"{cause.kind}: {cause.reason}")
            continue
        state = (
            "reset, waits for restart" if cause.lifted else ("killed" if cause.recorded else "killed, not recorded yet")
        )
        words.append(f"{cause.scope.replace(':', ' ')} {state}")
    if not life.beat.vouched:
        words.append("its work may go on: end this pod's processes by hand")
    return "; ".join(words)


def _last_pass(life: Life) -> str:
    last = life.beat.last_pass
    return f"{last.outcome} in {last.took_s:.1f} s" if last else "-"


def fields_of(seen: Status) -> dict[str, Any]:
    """The status as JSON fields."""
    return {
        "fleet": seen.fleet,
        "armed": seen.armed,
        "server_ms": seen.server_ms,
        "headline": headline(seen),
        "kills": [{"scope": str(scope), "record": record.model_dump()} for scope, record in seen.kills],
        "counts": dict(seen.counts()),
        "pods": [
            {
                "pod": pod.pod_id,
                "word": pod.word,
                "twin": pod.twin,
                "incarnations": [
                    {"presence": life.presence, "age_s": life.age_s, **life.beat.model_dump(mode="json")}
                    for life in pod.lives
                ],
            }
            for pod in seen.pods
        ],
    }

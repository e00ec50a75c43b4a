"""``skillbus drill``: rehearse the stop. It stops nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.bar import Bar
from skillbus.cli.console import stdout
from skillbus.cli.options import (
    ByOption,
    FleetOption,
    GroupOption,
    OutputOption,
    PodOption,
    RedisOption,
    scope_for,
    seconds_of,
    settings_for,
    whoami,
    words,
)
from skillbus.output import OK, UNKNOWN, UNPROVED, Output, print_json, run_async, say, spoken

if TYPE_CHECKING:
    from skillbus.control.drill import DrillOutcome
    from skillbus.core.drill import DrillReport, Reply
    from skillbus.core.scope import Scope
    from skillbus.settings import Settings

_ROWS = 60
_STYLES = {"answered": "green", "ended": "dim", "silent": "bold red", "stuck": "bold red"}


def drill(
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait for answers.")] = "10s",
    group: GroupOption = None,
    pod: PodOption = None,
    by: ByOption = None,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Rehearse the stop: the way of a kill, up to the latch and back. Stops nothing; says who would not hear."""
    with spoken("drill", output):
        settings = settings_for(fleet, redis)
        scope, timeout_s = scope_for(settings, group, pod), seconds_of("--timeout", timeout)
        outcome = run_async(_drill(settings, scope, words(by or whoami()), timeout_s))
        code = _code(outcome)
        if output is Output.JSON:
            print_json("drill", _fields(outcome, code))
        else:
            _print(outcome)
        if code != OK:
            raise SystemExit(code)


async def _drill(settings: Settings, scope: Scope, by: str, timeout_s: float) -> DrillOutcome:
    from skillbus.control.drill import Drill
    from skillbus.wiring import operator_bus

    bar = Bar("rehearsing")

    def show(report: DrillReport) -> None:
        bar.show(len(report.asked), [reply.pod_id for reply in report.missing])

    async with operator_bus(settings) as bus:
        try:
            return await Drill(bus, scope, by, timeout_s, show).run()
        finally:
            bar.close()


def _code(outcome: DrillOutcome) -> int:
    if outcome.good:
        return OK
    return UNPROVED if outcome.not_seen is None else UNKNOWN


def _print(outcome: DrillOutcome) -> None:
    from skillbus.core.text import harmless
    from skillbus.errors import SkillbusError

    console, report = stdout(), outcome.report
    if report is not None and report.replies:
        console.print(_table(report))
        if len(report.replies) > _ROWS:
            console.print(f"… and {len(report.replies) - _ROWS} more{_others(report)}", markup=False)
        for what, seconds in (("heard", report.heard_s), ("answer", report.answered_s)):
            console.print(f"from order to {what}: {_times(seconds)}", markup=False)
    for line in _asides(outcome):
        console.print(line, markup=False)
    if report is not None:
        console.print(harmless(f"drill: {report.sentence()}", 2000), markup=False, style="bold")
    if outcome.not_seen is not None:
        say(f"skillbus: the answers could not be read ({harmless(str(outcome.not_seen))}): try again")
    if isinstance(outcome.audited, SkillbusError):
        say(f"skillbus: NOT audited, so nobody will know of this drill: {harmless(str(outcome.audited))}")


def _table(report: DrillReport) -> Any:
    from rich.table import Table
    from rich.text import Text

    from skillbus.core.text import harmless

    table = Table("pod", "drill", "heard", "answered", "note", box=None, pad_edge=False, header_style="bold")
    for reply in _worst_first(report)[:_ROWS]:
        word = Text(str(reply.heard), style=_STYLES.get(reply.heard, "bold red"))
        instants = (_ms(reply.heard_s), _ms(reply.answered_s))
        table.add_row(Text(harmless(reply.pod_id, 80)), word, *instants, Text(harmless(reply.note)))
    return table


def _worst_first(report: DrillReport) -> list[Reply]:
    return sorted(report.replies, key=lambda reply: (reply.heard == "answered", reply.heard == "ended", reply.pod_id))


def _others(report: DrillReport) -> str:
    rest = _worst_first(report)[_ROWS:]
    return ", all of them answered" if all(reply.heard == "answered" for reply in rest) else ""


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def _times(seconds: Any) -> str:
    return ", ".join(f"{word} {_ms(seconds(percent))}" for word, percent in (("p50", 50), ("p99", 99), ("max", 100)))


def _asides(outcome: DrillOutcome) -> list[str]:
    """Who listens, as Redis counts it: more than the live pods is fine (keepers, consoles), less is not."""
    report = outcome.report
    if report is None:
        return []
    lines = []
    for count, what in ((outcome.kill_count, "kills of the fleet"), (outcome.drill_count, "drills")):
        if count is not None and count < report.live_count:
            lines.append(
                f"only {count} connections hear {what}, and {report.live_count} pods live: look with skillbus doctor"
            )
    if outcome.kill_count is not None and not lines:
        lines.append(f"{outcome.kill_count} connections hear kills of the fleet, {report.live_count} pods live")
    return lines


def _fields(outcome: DrillOutcome, code: int) -> dict[str, Any]:
    from skillbus.errors import SkillbusError

    report, order = outcome.report, outcome.order
    problems = [one for one in (outcome.not_seen, outcome.audited) if isinstance(one, SkillbusError)]
    fields: dict[str, Any] = {
        "exit_code": code,
        "id": order.id,
        "good": outcome.good,
        "receivers": outcome.receivers,
        "subscribers": {"drill": outcome.drill_count, "kill": outcome.kill_count},
        "audited": isinstance(outcome.audited, str),
        "errors": [str(one) for one in problems],
    }
    if report is None:
        return fields
    return fields | {
        "scope": str(report.scope),
        "order_ms": report.order_ms,
        "sentence": report.sentence(),
        "live": report.live_count,
        "asked": len(report.asked),
        "missing": [reply.pod_id for reply in report.missing],
        "heard_s": _spread(report.heard_s),
        "answered_s": _spread(report.answered_s),
        "pods": [asdict(reply) for reply in _worst_first(report)],
    }


def _spread(seconds: Any) -> dict[str, float | None]:
    return {word: seconds(percent) for word, percent in (("p50", 50), ("p99", 99), ("max", 100))}

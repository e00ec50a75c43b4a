"""``skillbus sync``: reconcile now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from skillbus.cli.console import stdout
from skillbus.cli.options import (
    ByOption,
    FleetOption,
    OutputOption,
    RedisOption,
    settings_for,
    timeout_s_of,
    whoami,
    words,
)
from skillbus.output import ERROR, UNPROVED, Output, print_json, run_async, spoken

if TYPE_CHECKING:
    from skillbus.control.sync import SyncReport
    from skillbus.settings import Settings


def sync(
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait for the passes.")] = "60s",
    by: ByOption = None,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Ask every pod for a pass now. Refused, with exit code 3, while the fleet is killed."""
    with spoken("sync", output):
        settings = settings_for(fleet, redis)
        report = run_async(_sync(settings, words(by or whoami()), timeout_s_of(timeout)))
        _print(report, output)
        if report.missing:
            raise SystemExit(UNPROVED)
        if any(line.outcome != "ok" for _, line in report.passes):
            raise SystemExit(ERROR)


async def _sync(settings: Settings, by: str, timeout_s: float) -> SyncReport:
    from skillbus.control.sync import sync as do
    from skillbus.wiring import operator_bus

    async with operator_bus(settings) as bus:
        return await do(bus, by=by, timeout_s=timeout_s)


def _print(report: SyncReport, output: Output) -> None:
    if output is Output.JSON:
        passes = [{"pod": pod_id, **line.model_dump()} for pod_id, line in report.passes]
        print_json("sync", {"id": report.id, "passes": passes, "missing": list(report.missing)})
        return
    from skillbus.core.text import harmless

    console = stdout()
    for pod_id, line in report.passes:
        counts = " ".join(f"{word}={count}" for word, count in line.counts.items())
        console.print(harmless(f"{pod_id}: {line.outcome} in {line.took_s:.1f} s {counts}"), markup=False)
        for text in line.errors:
            console.print(f"  {harmless(text)}", markup=False)
    if report.missing:
        console.print(f"no pass yet: {', '.join(report.missing)}", markup=False, style="bold red")
    if not report.passes and not report.missing:
        console.print("no pod is there to ask", markup=False)

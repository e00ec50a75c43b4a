"""``skillbus sync``: reconcile now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.bar import Bar
from skillbus.cli.console import stderr, stdout
from skillbus.cli.options import (
    ByOption,
    FleetOption,
    OutputOption,
    RedisOption,
    seconds_of,
    settings_for,
    whoami,
    words,
)
from skillbus.output import ERROR, UNPROVED, Output, print_json, run_async, say, spoken

if TYPE_CHECKING:
    from skillbus.control.sync import SyncReport
    from skillbus.core.heartbeat import PassLine
    from skillbus.settings import Settings

_ROWS = 60


def sync(
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait for the passes.")] = "60s",
    within: Annotated[
        str | None,
        typer.Option("--within", help="Spread the passes over so long. Default: 0s; 10s for more than 50 pods."),
    ] = None,
    by: ByOption = None,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Ask every pod for a pass now. Refused, with exit code 3, while the fleet is killed."""
    with spoken("sync", output):
        settings = settings_for(fleet, redis)
        within_s = None if within is None else seconds_of("--within", within)
        report = run_async(_sync(settings, words(by or whoami()), seconds_of("--timeout", timeout), within_s))
        _print(report, output)
        if report.missing:
            raise SystemExit(UNPROVED)
        if any(line.outcome != "ok" for _, line in report.passes):
            raise SystemExit(ERROR)


async def _sync(settings: Settings, by: str, timeout_s: float, within_s: float | None) -> SyncReport:
    from skillbus.control.sync import sync as do
    from skillbus.wiring import operator_bus

    bar = Bar("reconciling")
    async with operator_bus(settings) as bus:
        try:
            return await do(
                bus,
                by=by,
                timeout_s=timeout_s,
                within_s=within_s,
                on_progress=lambda seen: bar.show(len(seen.passes) + len(seen.missing), seen.missing, seen.doing),
            )
        finally:
            bar.close()


def _print(report: SyncReport, output: Output) -> None:
    if output is Output.JSON:
        print_json("sync", _fields(report))
    else:
        _print_passes(report)
    if not stderr().is_terminal:
        say(f"skillbus: {_sentence(report)}")


def _fields(report: SyncReport) -> dict[str, Any]:
    return {
        "id": report.id,
        "within_s": report.within_s,
        "took_s": round(report.took_s, 3),
        "passes": [{"pod": pod_id, **line.model_dump()} for pod_id, line in report.passes],
        "missing": list(report.missing),
        "stopped": list(report.stopped),
        "resting": [{"pod": pod_id, "until_ms": until_ms} for pod_id, until_ms in report.resting],
        "doing": [{"pod": pod_id, "doing": text} for pod_id, text in report.doing],
    }


def _sentence(report: SyncReport) -> str:
    """What a log of a pipeline keeps."""
    count = len(report.passes) + len(report.missing)
    if not count:
        return "no pass was made"
    failed_count = sum(line.outcome != "ok" for _, line in report.passes)
    failed = f", {failed_count} of them failed" if failed_count else ""
    missing = f"; {len(report.missing)} have not answered" if report.missing else ""
    return f"{len(report.passes)} of {count} pods made a pass in {report.took_s:.1f} s{failed}{missing}"


def _print_passes(report: SyncReport) -> None:
    """Who failed first, and no more than a person reads."""
    from skillbus.core.text import harmless

    console = stdout()
    passes = sorted(report.passes, key=lambda one: (one[1].outcome == "ok", one[0]))
    for pod_id, line in passes[:_ROWS]:
        console.print(harmless(_line(pod_id, line)), markup=False)
        for text in line.errors:
            console.print(f"  {harmless(text)}", markup=False)
    if len(passes) > _ROWS:
        all_ok = all(line.outcome == "ok" for _, line in passes[_ROWS:])
        console.print(f"… and {len(passes) - _ROWS} more" + (", all of them ok" if all_ok else ""), markup=False)
    if report.missing:
        console.print(f"no pass yet: {', '.join(report.missing)}", markup=False, style="bold red")
    for pod_id, text in report.doing[:_ROWS]:
        console.print(harmless(f"  {pod_id} is still at it: {text}"), markup=False)
    for pod_id, until_ms in report.resting[:_ROWS]:
        console.print(_resting(pod_id, until_ms), markup=False)
    if not report.passes and not report.missing:
        console.print("no pod is there to ask", markup=False)


def _line(pod_id: str, line: PassLine) -> str:
    counts = " ".join(f"{word}={count}" for word, count in line.counts.items())
    return f"{pod_id}: {line.outcome} in {line.took_s:.1f} s {counts}"


def _resting(pod_id: str, until_ms: int) -> str:
    from skillbus.core.orders import iso

    return f"  {pod_id} makes no pass before {iso(until_ms)}: a source asked to be left alone"

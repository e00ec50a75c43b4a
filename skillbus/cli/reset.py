"""``skillbus reset`` and ``skillbus arm``: the dangerous direction, so it asks for the fleet's name and a reason."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.console import stdout
from skillbus.cli.options import (
    ByOption,
    FleetOption,
    GroupOption,
    OutputOption,
    PodOption,
    RedisOption,
    scope_for,
    settings_for,
    whoami,
    words,
)
from skillbus.output import ERROR, Output, print_json, run_async, say, spoken

if TYPE_CHECKING:
    from skillbus.control.reset import ResetReport
    from skillbus.core.scope import Scope
    from skillbus.settings import Settings


def reset(
    confirm: Annotated[str, typer.Option("--confirm", help="The fleet's name, typed out.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why it is safe to start again. Audited.")] = "",
    group: GroupOption = None,
    pod: PodOption = None,
    by: ByOption = None,
    force: Annotated[bool, typer.Option("--force", help="Also a scope that has no record and no running pod.")] = False,
    even_recent: Annotated[bool, typer.Option("--even-recent", help="Also if it was ordered again just now.")] = False,
    even_running: Annotated[
        bool, typer.Option("--even-running", help="With --force, also if pods run: it stops them, as a missed kill.")
    ] = False,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Permit a restart (admin). Starts nothing: stopped pods stay stopped until they are restarted."""
    with spoken("reset", output):
        from skillbus.errors import BadSettings

        settings = settings_for(fleet, redis)
        scope = scope_for(settings, group, pod)
        if confirm != settings.bus.fleet:
            raise BadSettings(f"say --confirm {settings.bus.fleet}: this permits pods of that fleet to start again")
        if not reason.strip():
            raise BadSettings('say --reason "…": why is it safe to start again? It goes into the audit')

        even = {"force": force, "even_recent": even_recent, "even_running": even_running}
        given = {"reason": words(reason), "by": words(by or whoami()), **even}
        report = run_async(_do(settings, scope, given, output))
        _print(report, scope, output)
        if report.killed_again is not None:
            raise SystemExit(ERROR)


async def _do(settings: Settings, scope: Scope, given: dict[str, Any], output: Output) -> ResetReport:
    from skillbus.control.reset import Reset
    from skillbus.wiring import operator_bus

    watch_s = 2 * settings.pod.heartbeat_s

    def told() -> None:
        if output is Output.TABLE:
            say(f"reset done; watching for {watch_s:g} s whether it stays …")

    async with operator_bus(settings) as bus:
        return await Reset(bus, scope, **given).do(watch_s, told)


def _print(report: ResetReport, scope: Scope, output: Output) -> None:
    again = report.killed_again
    if output is Output.JSON:
        fields = {
            "scope": str(scope),
            "epoch": report.epoch,
            "lifted": [asdict(order) for order in report.lifted],
            "lifted_left_out": report.left_out_count,
            "waiting": list(report.waiting),
            "killed_again": again.model_dump() if again else None,
        }
        print_json("reset", fields)
        return
    from skillbus.core.text import harmless

    console = stdout()
    for order in report.lifted:
        said = f'lifted: "{order.reason}" by {order.by or "?"} via {order.via or "?"}'
        said += f", heard {order.times} times" if order.times > 1 else ""
        said += {"pods": " (nobody audited it: its pods tell of it)"}.get(order.source, "")
        console.print(harmless(said, 1000), markup=False)
    if report.left_out_count:
        console.print(f"lifted: {report.left_out_count} more orders before these: see skillbus history", markup=False)
    if again is not None:
        who = f" heard by {again.heard_by}" if again.heard_by else ""
        console.print(f"KILLED AGAIN{who}: {again.sentence()}", markup=False, style="bold red")
        return
    console.print(f"{scope} is reset (epoch {report.epoch})", markup=False, style="bold")
    if report.waiting:
        names = ", ".join(report.waiting[:20]) + (" …" if len(report.waiting) > 20 else "")
        console.print(f"{len(report.waiting)} pods are still stopped and wait for a restart: {names}", markup=False)


def arm(
    by: ByOption = None, output: OutputOption = Output.TABLE, fleet: FleetOption = None, redis: RedisOption = None
) -> None:
    """Arm a new fleet (admin): until then its pods hold. Lifts no kill."""
    with spoken("arm", output):
        settings = settings_for(fleet, redis)
        new = run_async(_arm(settings, words(by or whoami())))
        if output is Output.JSON:
            print_json("arm", {"fleet": settings.bus.fleet, "armed": True, "new": new})
        else:
            name = settings.bus.fleet
            stdout().print(f"fleet '{name}' is armed" if new else f"fleet '{name}' was armed before", markup=False)


async def _arm(settings: Settings, by: str) -> bool:
    from skillbus.control.reset import arm as do
    from skillbus.wiring import operator_bus

    async with operator_bus(settings) as bus:
        return await do(bus, by)

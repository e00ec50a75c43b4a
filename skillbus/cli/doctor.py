"""``skillbus doctor``: what would keep the switch from working, before an incident shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.console import stdout
from skillbus.cli.options import FleetOption, OutputOption, RedisOption, settings_for
from skillbus.output import ERROR, Output, print_json, run_async, spoken

if TYPE_CHECKING:
    from skillbus.control.findings import Finding
    from skillbus.settings import Settings

_STYLES = {"broken": "bold red", "warning": "yellow", "note": "", "ok": "green"}


def doctor(
    sentinel: Annotated[
        list[str] | None, typer.Option("--sentinel", metavar="HOST:PORT", help="A Sentinel to ask. May be repeated.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="List the checks that are fine, too.")] = False,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Look for what would keep the switch from working. Changes nothing; exits 1 if something would."""
    with spoken("doctor", output):
        settings = settings_for(fleet, redis)
        found = run_async(_examine(settings, tuple(sentinel or ())))
        if output is Output.JSON:
            print_json("doctor", fields_of(settings, found))
        else:
            _print(found, show_all)
        if _is_broken(found):
            raise SystemExit(ERROR)


async def _examine(settings: Settings, sentinels: tuple[str, ...]) -> list[Finding]:
    from skillbus.control.doctor import Doctor
    from skillbus.core.scope import Fleet
    from skillbus.wiring import endpoint_of

    doctor = Doctor(
        fleet=Fleet(settings.bus.fleet),
        endpoint=endpoint_of(settings.bus),
        pod_id=settings.pod.pod_id,
        groups=settings.pod.groups,
        sentinels=sentinels,
    )
    return await doctor.examine()


def _is_broken(found: list[Finding]) -> bool:
    return any(one.severity == "broken" for one in found)


def _print(found: list[Finding], show_all: bool) -> None:
    from rich.text import Text

    from skillbus.core.text import harmless

    console = stdout()
    for one in found:
        if one.severity == "ok" and not show_all:
            continue
        where = f"{harmless(one.node, 80)}: " if one.node else ""
        line = Text(f"{one.severity:<8}", style=_STYLES[one.severity])
        line.append(f"{one.id}: {where}{harmless(one.seen, 600)}", style="not bold")
        console.print(line)
        if one.cure:
            console.print(Text(f"        cure: {harmless(one.cure, 600)}"))
    fine = sum(one.severity == "ok" for one in found)
    console.print(f"{fine} {'check is' if fine == 1 else 'checks are'} fine", markup=False)
    if _is_broken(found):
        console.print("the switch would NOT work as it should", markup=False, style="bold red")


def fields_of(settings: Settings, found: list[Finding]) -> dict[str, Any]:
    """The findings as JSON fields."""
    from collections import Counter

    from skillbus.settings import shown_url

    return {
        "fleet": settings.bus.fleet,
        "redis": shown_url(settings.bus.redis_url.get_secret_value()),
        "works": not _is_broken(found),
        "counts": dict(Counter(str(one.severity) for one in found)),
        "findings": [
            {"id": one.id, "severity": one.severity, "node": one.node, "seen": one.seen, "cure": one.cure}
            for one in found
        ],
    }

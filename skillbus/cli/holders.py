"""``skillbus status --skill``: which live pods hold a skill, by the digest at which they hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skillbus.cli.console import stdout
from skillbus.output import ERROR, Output, print_json, run_async, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skillbus.core.holdings import Holders, Wanted
    from skillbus.settings import Settings

_NAMES = 4
_SHORT = 12


def show_holders(settings: Settings, text: str, output: Output) -> None:
    """Look, and print. Exit code 1 if nobody holds it."""
    from skillbus.control.holders import wanted

    looked_for = wanted(text)
    found = run_async(_look(settings, looked_for))
    if output is Output.JSON:
        print_json("status", fields_of(settings.bus.fleet, looked_for, found))
    elif found.held:
        _print(settings.bus.fleet, looked_for, found)
    if not found.held:
        say(f"skillbus: {sentence(settings.bus.fleet, looked_for, found)}")
        raise SystemExit(ERROR)


async def _look(settings: Settings, looked_for: Wanted) -> Holders:
    from skillbus.control.holders import find_holders
    from skillbus.wiring import operator_bus

    async with operator_bus(settings) as bus:
        return await find_holders(bus, looked_for)


def fields_of(fleet: str, looked_for: Wanted, found: Holders) -> dict[str, Any]:
    """As JSON fields, with every pod by name."""
    return {
        "fleet": fleet,
        "skill": looked_for.name,
        "prefix": looked_for.prefix,
        "sentence": sentence(fleet, looked_for, found),
        "held": [{"digest": row.digest, "count": len(row.pods), "pods": list(row.pods)} for row in found.held],
        "without": list(found.without),
        "untold": list(found.untold),
        "unreadable": list(found.unreadable),
    }


def sentence(fleet: str, looked_for: Wanted, found: Holders) -> str:
    """Who holds it, and of whom it is not known."""
    at = f" at a digest that begins with {looked_for.prefix}" if looked_for.prefix else ""
    what = f"{looked_for.name!r}{at}"
    pods = {pod for row in found.held for pod in row.pods}
    others = len(found.without)
    if pods:
        hold = "live pod holds" if len(pods) == 1 else "live pods hold"
        text = f"fleet '{fleet}': {len(pods)} {hold} {what}"
        text += f" at {len(found.held)} digests" if len(found.held) > 1 else ""
        text += f", {others} do not" if others else ""
    else:
        text = f"fleet '{fleet}': no live pod holds {what}"
        text += f": {others} hold other sets" if others else ""
    return text + _unknown(found)


def _unknown(found: Holders) -> str:
    text = f"; {len(found.untold)} have not told what they hold since they started" if found.untold else ""
    if found.unreadable:
        text += f"; what {len(found.unreadable)} hold cannot be read: skillbus sync makes them tell it anew"
    return text


def _print(fleet: str, looked_for: Wanted, found: Holders) -> None:
    from rich.table import Table

    console = stdout()
    console.print(sentence(fleet, looked_for, found), markup=False, style="bold")
    table = Table("digest", "pods", "who", box=None, pad_edge=False)
    for row in found.held:
        table.add_row(row.digest[:_SHORT], str(len(row.pods)), _names(row.pods))
    console.print(table)
    for word, pods in (("not told", found.untold), ("unreadable", found.unreadable)):
        if pods:
            console.print(f"{word}: {_names(pods)}", markup=False)


def _names(pods: Sequence[str]) -> str:
    return ", ".join(pods[:_NAMES]) + (f" … and {len(pods) - _NAMES} more" if len(pods) > _NAMES else "")

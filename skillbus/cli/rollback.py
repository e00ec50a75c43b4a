"""``skillbus rollback``: an earlier version of a skill restored, through the same gate as every pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.changes import shown_revision
from skillbus.cli.console import stdout
from skillbus.cli.options import (
    FleetOption,
    OutputOption,
    RedisOption,
    TargetOption,
    refuse_password,
    skills_options_for,
    words,
)
from skillbus.output import Output, print_json, spoken

if TYPE_CHECKING:
    from skillbus.skills.rollback import Managed


def rollback(
    name: Annotated[str, typer.Argument(help="The skill, as its folder is called.")],
    to: Annotated[str, typer.Option("--to", help="How its digest begins. Default: the version before.")] = "",
    target: TargetOption = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the versions that are kept, and do nothing.")] = False,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Restore an earlier version of a skill, and keep it until the manifest asks for a third."""
    with spoken("rollback", output):
        refuse_password(redis)
        from skillbus.skills.rollback import choose, survey

        name = words(name)
        options = skills_options_for(target=target)
        found = survey(dict.fromkeys((*options.targets, *options.project_targets)), name)
        if listed:
            _list(found, name, output)
            return
        digest = choose(found, name, words(to))

        from skillbus.foreground import become

        given = {"fleet": fleet, "redis_url": redis, "skills_targets": target or None}
        become(given, [], once=True, output=output, rollback=(name, digest))


def _list(found: list[Managed], name: str, output: Output) -> None:
    from skillbus.core.text import harmless

    if output is Output.JSON:
        print_json("rollback", {"name": name, "roots": [_fields(one) for one in found]})
        return
    from rich.table import Table
    from rich.text import Text

    if not found:
        stdout().print(f"no skill {harmless(name)!r} is managed there", markup=False)
    for one in found:
        table = Table("digest", "placed", "replaced", "from", title=Text(str(one.path)), title_justify="left", box=None)
        now = one.receipt
        table.add_row(now.digest[:12], now.placed_at, "in place", Text(_source(now.url, now.revision)))
        for kept in one.kept:
            if kept.digest != now.digest:
                source = Text(_source(kept.url, kept.revision))
                table.add_row(kept.digest[:12], kept.placed_at, kept.retired_at, source)
        stdout().print(table)


def _source(url: str, revision: str) -> str:
    from skillbus.core.text import harmless

    return harmless(url + shown_revision(revision))


def _fields(one: Managed) -> dict[str, Any]:
    now = {word: getattr(one.receipt, word) for word in ("digest", "url", "revision", "placed_at", "instead_of")}
    kept_words = ("digest", "url", "revision", "placed_at", "retired_at")
    kept = [{word: getattr(kept, word) for word in kept_words} for kept in one.kept]
    return {"path": str(one.path), "now": now, "kept": kept}

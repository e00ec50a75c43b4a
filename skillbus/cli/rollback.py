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
    if not found:
        stdout().print(f"no skill {harmless(name)!r} is managed there", markup=False)
    for one in found:
        now = one.receipt
        rows = [("digest", "placed", "replaced", "from")]
        rows.append((now.digest[:12], now.placed_at, "in place", _source(now.url, now.revision, now.digest)))
        for kept in one.kept:
            if kept.digest != now.digest:
                source = _source(kept.url, kept.revision, kept.digest)
                rows.append((kept.digest[:12], kept.placed_at, kept.retired_at, source))
        stdout().print(harmless(str(one.path)), markup=False)
        for digest, placed, replaced, source in rows:
            stdout().print(harmless(f"  {digest:<12}  {placed:<20}  {replaced:<20}  {source}"), markup=False)


def _source(url: str, revision: str, digest: str) -> str:
    """Of a folder the revision is the digest, which is told already."""
    return url if revision == digest else url + shown_revision(revision)


def _fields(one: Managed) -> dict[str, Any]:
    now = {word: getattr(one.receipt, word) for word in ("digest", "url", "revision", "placed_at", "instead_of")}
    kept_words = ("digest", "url", "revision", "placed_at", "retired_at")
    kept = [{word: getattr(kept, word) for word in kept_words} for kept in one.kept]
    return {"path": str(one.path), "now": now, "kept": kept}

"""``skillbus validate``: skills against the specification, before anybody places them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.console import stdout
from skillbus.cli.options import OutputOption, skills_options_for
from skillbus.output import DRIFT, OK, Output, print_json, run_async, spoken

if TYPE_CHECKING:
    from skillbus.skills.check import Finding, Judgement


def validate(
    path: Annotated[list[str], typer.Argument(help="A skill's folder or its SKILL.md, or a folder of skills.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit 6 on warnings, too.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Hold skills against the specification, with line numbers. Exits 6 on errors."""
    with spoken("validate", output):
        judgements = run_async(_judge(path))
        counts = {
            severity: sum(one.severity == severity for judged in judgements for one in judged.findings)
            for severity in ("error", "warning")
        }
        code = DRIFT if counts["error"] or (strict and counts["warning"]) else OK
        if output is Output.JSON:
            skills = [_fields(one) for one in judgements]
            counted = {f"{severity}s_count": count for severity, count in counts.items()}
            print_json("validate", {"exit_code": code, **counted, "skills": skills})
        else:
            _print(judgements, counts)
        raise SystemExit(code)


async def _judge(paths: list[str]) -> list[Judgement]:
    from skillbus.clock import BootClock
    from skillbus.skills.check import validate as judge

    return await judge(paths, skills_options_for(), BootClock())


def _print(judgements: list[Judgement], counts: dict[str, int]) -> None:
    from skillbus.core.text import harmless

    console = stdout()
    for judged in judgements:
        for one in judged.findings:
            line = f"{_place(judged.folder, one)}: {one.text} [{one.severity}: {one.rule}]"
            console.print(harmless(line, 2000), markup=False, style="red" if one.severity == "error" else None)
    skills = "1 skill" if len(judgements) == 1 else f"{len(judgements)} skills"
    found = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts.items() if count)
    console.print(f"{skills}: {found or 'good'}", markup=False)


def _place(folder: str, one: Finding) -> str:
    """``skills/pdf/SKILL.md:3``, so that an editor finds it."""
    place = f"{folder.rstrip('/') or '/'}/{one.path}" if one.path else folder
    return f"{place}:{one.line}" if one.line else place


def _fields(judged: Judgement) -> dict[str, Any]:
    words = ("path", "line", "rule", "text", "severity")
    findings = [{word: getattr(one, word) for word in words} for one in judged.findings]
    return {"folder": judged.folder, "findings": findings}

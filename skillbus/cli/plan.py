"""``skillbus plan``: what a pass of skills would do here, like a diff. No Redis, and no skill is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.changes import print_files, shown_revision
from skillbus.cli.console import stdout
from skillbus.cli.options import ManifestOption, OutputOption, TargetOption, skills_options_for
from skillbus.output import DRIFT, ERROR, OK, Output, print_json, run_async, spoken

if TYPE_CHECKING:
    from skillbus.skills.preview import Preview, StepPreview

_MARKS = {"added": "+", "updated": "~", "repaired": "~", "removed": "-"}
_STYLES = {"+": "green", "-": "red", "~": "yellow"}
_KEPT = "unchanged"


def plan(
    manifest: ManifestOption = None,
    target: TargetOption = None,
    every_file: Annotated[bool, typer.Option("--all", help="Name every file, however many they are.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 6 if there is something to do.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a pass of skills would do here. Changes nothing, and needs no Redis."""
    with spoken("plan", output):
        from skillbus.clock import BootClock
        from skillbus.errors import BadSettings
        from skillbus.skills.preview import preview

        options = skills_options_for(manifest, target)
        if not options.manifests:
            raise BadSettings("nothing to plan: give --manifest SRC, or set SKILLBUS_SKILLS_MANIFEST")
        found = run_async(preview(options, BootClock()))
        counts = _counts(found)
        code = OK
        if found.errors:
            code = ERROR
        elif exit_code and any(count for kind, count in counts.items() if kind != _KEPT):
            code = DRIFT
        if output is Output.JSON:
            print_json("plan", {"exit_code": code, "counts": counts, **_fields(found)})
        else:
            _print(found, counts, every_file=every_file)
        raise SystemExit(code)


def _counts(found: Preview) -> dict[str, int]:
    counts = dict.fromkeys([*_MARKS, _KEPT], 0)
    for place in found.places:
        for step in place.steps:
            counts[str(step.kind)] += 1
    return counts


def _print(found: Preview, counts: dict[str, int], *, every_file: bool) -> None:
    from skillbus.core.text import harmless

    console = stdout()
    for place in found.places:
        console.print(harmless(str(place.path)), markup=False, style="bold")
        for step in place.steps:
            if step.kind != _KEPT:
                _print_step(step, every_file=every_file)
        kept_count = sum(step.kind == _KEPT for step in place.steps)
        if kept_count:
            console.print(f"  = {kept_count} unchanged", markup=False)
    for text in found.errors:
        console.print(f"error: {harmless(text, 2000)}", markup=False, style="bold red")
    for text in found.warnings:
        console.print(f"warning: {harmless(text, 2000)}", markup=False)
    words = {"added": "to add", "updated": "to update", "repaired": "to repair", "removed": "to remove"}
    told = ", ".join(f"{counts[kind]} {word}" for kind, word in words.items() if counts[kind]) or "nothing to do"
    errors = f"; {len(found.errors)} error{'s' if len(found.errors) > 1 else ''}" if found.errors else ""
    console.print(f"plan: {told}{errors}", markup=False)


def _print_step(step: StepPreview, *, every_file: bool) -> None:
    from skillbus.core.text import harmless

    mark = _MARKS[str(step.kind)]
    line = f"  {mark} {step.name}"
    if step.kind == "repaired":
        line += "  repair: it is not as it was placed"
    elif step.kind != "removed":
        line += f"  from {step.url}{shown_revision(step.revision)}"
    stdout().print(harmless(line, 2000), markup=False, style=_STYLES[mark])
    if step.kind != "removed":
        print_files(step.files, 6, every=every_file)


def _fields(found: Preview) -> dict[str, Any]:
    return {
        "roots": [
            {"path": str(place.path), "steps": [_step_fields(step) for step in place.steps]} for place in found.places
        ],
        "errors": list(found.errors),
        "warnings": list(found.warnings),
    }


def _step_fields(step: StepPreview) -> dict[str, Any]:
    words = {word: getattr(step, word) for word in ("kind", "name", "url", "revision", "digest")}
    return {**words, "files": [{"path": file.path, "change": file.change} for file in step.files]}

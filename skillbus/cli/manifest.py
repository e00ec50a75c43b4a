"""``skillbus manifest``: what a manifest may hold, and whether these ones hold it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from skillbus.cli.console import stdout
from skillbus.cli.options import OutputOption, skills_options_for
from skillbus.output import DRIFT, OK, Output, print_json, run_async, spoken

if TYPE_CHECKING:
    from skillbus.skills.check import Checked

manifest = typer.Typer(
    name="manifest",
    help="Check manifests; print their JSON Schema.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@manifest.command()
def schema() -> None:
    """Print the JSON Schema (2020-12) of a manifest, for editors and other tools."""
    with spoken("manifest schema", Output.TABLE):
        from importlib.resources import files

        sys.stdout.write(files("skillbus.skills").joinpath("manifest.schema.json").read_text("utf-8"))
        sys.stdout.flush()


@manifest.command()
def check(
    source: Annotated[list[str], typer.Argument(metavar="FILE…", help="Manifests, files or URLs, in their order.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Load manifests as a pass would, and say what is wrong with them. Fetches no skill. Exits 6 on errors."""
    with spoken("manifest check", output):
        from skillbus.core.text import harmless

        found = run_async(_check(source))
        code = DRIFT if found.errors else OK
        if output is Output.JSON:
            counts = {"exit_code": code, "entries_count": found.entries_count}
            print_json("manifest check", {**counts, "errors": found.errors, "warnings": found.warnings})
            raise SystemExit(code)
        console = stdout()
        for text in found.errors:
            console.print(f"error: {harmless(text, 2000)}", markup=False, style="red")
        for text in found.warnings:
            console.print(f"warning: {harmless(text, 2000)}", markup=False)
        entries = "1 entry" if found.entries_count == 1 else f"{found.entries_count} entries"
        counted = [(len(found.errors), "error"), (len(found.warnings), "warning")]
        told = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted if count)
        console.print(f"{entries}: {told or 'good'}", markup=False)
        raise SystemExit(code)


async def _check(sources: list[str]) -> Checked:
    from skillbus.clock import BootClock
    from skillbus.skills.check import check_manifests

    return await check_manifests(sources, skills_options_for(), BootClock())

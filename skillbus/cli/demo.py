"""``skillbus demo``: a whole fleet on this machine, and the story of a stop."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skillbus.cli.console import stdout
from skillbus.cli.options import OutputOption
from skillbus.output import ERROR, Output, print_json, spoken

if TYPE_CHECKING:
    from rich.console import Console

    from skillbus.demo.stage import Stage
    from skillbus.demo.story import Step


def demo(
    auto: Annotated[bool, typer.Option("--auto", help="Play the story by itself. Default without a terminal.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Redis' port; 0: a free one.")] = 0,
    console_port: Annotated[
        int, typer.Option("--console-port", min=0, max=65535, help="The console's port; 0: a free one.")
    ] = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a whole fleet on this machine: an embedded Redis, a source of skills, five pods; and stop it."""
    with spoken("demo", output):
        from skillbus.demo.stage import stage

        interactive = not auto and output is Output.TABLE and sys.stdin.isatty() and sys.stdout.isatty()
        with stage(port, console_port) as set_up:
            if interactive:
                _interactive(set_up, stdout())
            elif not _auto(set_up, output):
                raise SystemExit(ERROR)


def _auto(stage: Stage, output: Output) -> bool:
    from skillbus.demo.stage import play

    console = stdout()
    if output is Output.TABLE:
        console.print(f"fleet 'demo' on {stage.redis.url}: {len(stage.pods)} pods, each a process with its own folder")
        for line in _console_lines(stage):
            console.print(line, markup=False)

    def tell(step: Step) -> None:
        if output is Output.TABLE:
            mark = "[green]seen[/]    " if step.observed else "[bold red]NOT SEEN[/]"
            console.print(f"{mark} {step.name} ({step.took_s:.1f} s)")
            console.print(f"         {step.detail}", markup=False)

    ok, steps = play(stage, tell)
    if output is Output.JSON:
        print_json("demo", {"ok": ok, "console": stage.console.url, "steps": [asdict(step) for step in steps]})
    return ok


def _console_lines(stage: Stage) -> list[str]:
    """Where the page is, and how to get in."""
    if not stage.console.can_be:
        return ["no console: pip install 'skillbus[console]' adds the page"]
    if not stage.console.url:
        return [f"the console did not start: {stage.console.last_words()}"]
    return [f"console: {stage.console.url}  log in with the token {stage.console.token}"]


def _interactive(stage: Stage, console: Console) -> None:
    from skillbus.demo.stage import watch

    url, command = stage.redis.url, shutil.which("skillbus") or str(Path(sys.argv[0]).resolve())
    lines = [
        f"fleet 'demo' on {url}: {len(stage.pods)} pods; their skills are under {stage.folder}",
        "",
        *_console_lines(stage),
        "",
        "Stop them all, there or from another terminal, with any of:",
        f'    redis-cli -p {stage.redis.port} PUBLISH skillbus:demo:kill "the manifest is compromised"',
        f'    {command} kill "the manifest is compromised" --fleet demo --redis {url}',
        "Look, and permit a restart:",
        f"    {command} status --fleet demo --redis {url}",
        f'    {command} reset --fleet demo --redis {url} --confirm demo --reason "it was a rehearsal"',
        "Here: e + Enter: the source publishes a new edition, slowly · r + Enter: restart pod-1 · q + Enter: end",
        "",
    ]
    for line in lines:
        console.print(line, markup=False)
    watch(stage, lambda text: console.print(text, markup=False))

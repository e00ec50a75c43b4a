"""The command line: one file per family of verbs. Parse, call, print; no logic. Heavy imports inside the commands."""

from __future__ import annotations

import typer

from skillbus.cli import config, demo, kill, reset, run, status, sync

app = typer.Typer(
    name="skillbus",
    help="Stop a fleet of reconcilers with one message, know that it stopped, and permit a restart deliberately.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("kill")(kill.kill)
app.command("reset")(reset.reset)
app.command("arm")(reset.arm)
app.command("status")(status.status)
app.command("run")(run.run)
app.command("sync")(sync.sync)
app.command("config")(config.config)
app.command("demo")(demo.demo)


def _version(value: bool) -> None:
    if value:
        from skillbus import __version__

        typer.echo(f"skillbus {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass

"""The command line: one file per family of verbs. Parse, call, print; no logic. Heavy imports inside the commands.

A verb's file is imported when that verb is called, so that a help text, and every other verb, do not pay for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

VERBS = {
    "kill": ("kill", "Stop a fleet, a group or a pod now, and wait for the proof."),
    "reset": ("reset", "Permit a restart (admin). Starts nothing."),
    "arm": ("reset", "Arm a new fleet (admin): until then its pods hold."),
    "status": ("status", "Show the fleet, its kills and its pods."),
    "drill": ("drill", "Rehearse the stop: who would hear it, and how fast. Stops nothing."),
    "history": ("history", "Show the audit: who ordered what, and what was proved of a kill."),
    "run": ("run", "Run a pod: a reconciler that stops on one message and stays stopped."),
    "sync": ("sync", "Ask every pod for a pass now."),
    "plan": ("plan", "Show what a pass of skills would do here. Changes nothing."),
    "verify": ("verify", "Hold the skills on this disk against skillbus.lock."),
    "rollback": ("rollback", "Restore an earlier version of a skill."),
    "validate": ("validate", "Hold skills against the specification, with line numbers."),
    "manifest": ("manifest", "Check manifests; print their JSON Schema."),
    "doctor": ("doctor", "Look for what would keep the switch from working, before an incident shows it."),
    "acl": ("acl", "Print ready ACL lines for Redis 7 and newer."),
    "serve": ("serve", "Serve the console: page, API, webhooks, keeper."),
    "token": ("token", "Make a token for the console."),
    "config": ("config", "Show the settings in force and where each came from."),
    "demo": ("demo", "Run a whole fleet on this machine, and stop it."),
}
"""Each verb: the file it lives in, and its line in the help."""


class Verbs(TyperGroup):
    """The verbs, each imported when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every verb, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb's command; None if there is no such verb."""
        if cmd_name not in VERBS:
            return None
        module = import_module(f"skillbus.cli.{VERBS[cmd_name][0]}")
        found = getattr(module, cmd_name)
        if isinstance(found, typer.Typer):  # a verb with verbs of its own
            return get_command(found)
        one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        one.command(cmd_name)(found)
        return get_command(one)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The table, without importing what it names."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


app = typer.Typer(
    name="skillbus",
    cls=Verbs,
    help="Stop a fleet of reconcilers with one message, know that it stopped, and permit a restart deliberately.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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

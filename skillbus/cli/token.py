"""``skillbus token``: make a token for the console. It is shown once, and only its hash is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skillbus.output import Output, print_json, say, spoken


def token(
    name: Annotated[str, typer.Argument(help="Who it is for. Shown in the audit.")],
    role: Annotated[str, typer.Option("--role", help="viewer, bot, operator or admin.")],
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Only this one: fleet, group:NAME or pod:ID. May be repeated.")
    ] = None,
    add: Annotated[Path | None, typer.Option("--add", metavar="FILE", help="Add its line to this file.")] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="How to print: table or json.")] = Output.TABLE,
) -> None:
    """Make a token: it is printed alone on stdout, the line for the file of tokens on stderr."""
    with spoken("token", output):
        from skillbus.console.tokens import entry_of, line_of, new_token

        made = new_token()
        line = line_of(name, role, made, tuple(scope or ()))
        entry_of(line)  # which says what cannot be used
        if add is not None:
            _add(add, line)
        if output is Output.JSON:
            print_json("token", {"token": made, "line": line, "file": str(add) if add else None})
            return
        typer.echo(made)
        say(f"skillbus: added to {add}: {line}" if add else f"skillbus: the line for SKILLBUS_CONSOLE_TOKENS: {line}")


def _add(path: Path, line: str) -> None:
    """A new line at the end; a new file is its owner's alone."""
    import os

    from skillbus.errors import DiskRefused

    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:
            file.seek(0)
            before = file.read()
            file.write((b"" if not before or before.endswith(b"\n") else b"\n") + line.encode() + b"\n")
    except OSError as error:
        raise DiskRefused(f"{path} cannot be written: {error.strerror or error}") from error

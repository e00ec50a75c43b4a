"""``skillbus run``: a pod in the foreground, around the skills reconciler or any program."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skillbus.cli.options import FleetOption, OutputOption, RedisOption, refuse_password
from skillbus.output import Output, spoken


def run(
    program: Annotated[list[str] | None, typer.Argument(help="-- PROGRAM ARG…: reconcile with this program.")] = None,
    manifest: Annotated[list[str] | None, typer.Option("--manifest", help="A manifest of skills: URL or file.")] = None,
    target: Annotated[list[str] | None, typer.Option("--target", help="claude, agents, codex, or a path.")] = None,
    every: Annotated[str | None, typer.Option("--every", help="From pass to pass: 5m, 24h.")] = None,
    once: Annotated[bool, typer.Option("--once", help="One pass, then exit.")] = False,
    stop_grace: Annotated[str | None, typer.Option("--stop-grace", help="From SIGTERM to SIGKILL; 0: at once.")] = None,
    pod_id: Annotated[str | None, typer.Option("--pod-id", help="This pod's id. [env: SKILLBUS_POD_ID]")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="A group of this pod.")] = None,
    http: Annotated[
        str | None, typer.Option("--http", metavar="HOST:PORT", help="Probes and metrics. [env: SKILLBUS_HTTP]")
    ] = None,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Run a pod: a reconciler that stops on one message and stays stopped."""
    with spoken("run", output):
        from skillbus.errors import BadSettings

        if program and manifest:
            raise BadSettings("--manifest and a program exclude each other: a pod has one reconciler")
        given: dict[str, Any] = {
            "fleet": fleet,
            "redis_url": redis,
            "every_s": every,
            "stop_grace_s": stop_grace,
            "pod_id": pod_id,
            "groups": group or None,
            "http": http,
            "skills_manifest": manifest or None,
            "skills_targets": target or None,
        }
        refuse_password(redis)

        from skillbus.foreground import become

        become(given, program or [], once=once, output=output)

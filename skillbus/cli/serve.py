"""``skillbus serve``: the console, for everybody's browser, bots and Prometheus; and a keeper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skillbus.cli.options import FleetOption, RedisOption, settings_for
from skillbus.output import INTERRUPTED, Output, run_async, say, spoken

if TYPE_CHECKING:
    from skillbus.settings import Settings


def serve(
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where. [env: SKILLBUS_CONSOLE_LISTEN]")
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option("--tokens", help="File or directory of tokens; skillbus token. [env: SKILLBUS_CONSOLE_TOKENS]"),
    ] = None,
    root_path: Annotated[
        str | None, typer.Option("--root-path", help="Path under which a proxy shows it. [env: …_ROOT_PATH]")
    ] = None,
    certfile: Annotated[
        Path | None, typer.Option("--certfile", help="Certificate chain, PEM: serve TLS. [env: …_CERTFILE]")
    ] = None,
    keyfile: Annotated[Path | None, typer.Option("--keyfile", help="Its key, PEM. [env: …_KEYFILE]")] = None,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Serve the console of one fleet: page, API, webhooks and keeper."""
    with spoken("serve", Output.TABLE):
        _demand_extra()
        settings = settings_for(
            fleet,
            redis,
            console_listen=listen,
            console_tokens=tokens,
            console_root_path=root_path,
            console_certfile=certfile,
            console_keyfile=keyfile,
        )
        _demand_tokens(settings)
        raise SystemExit(run_async(_serve(settings)))


def _demand_extra() -> None:
    from importlib.util import find_spec

    from skillbus.errors import BadSettings

    if any(find_spec(name) is None for name in ("fastapi", "uvicorn", "jinja2")):
        raise BadSettings("the console's parts are not installed: pip install 'skillbus[console]'")


def _demand_tokens(settings: Settings) -> None:
    from skillbus.errors import BadSettings
    from skillbus.settings import http_address, is_hub_service

    host, _ = http_address(settings.console.console_listen)
    if settings.console.console_tokens is None and not is_hub_service() and not _is_loopback(host):
        raise BadSettings(
            f"{settings.console.console_listen} can be reached from other machines, and no file of tokens is given: "
            "make one with skillbus token NAME --role admin --add FILE, and give --tokens FILE; or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def _serve(settings: Settings) -> int:
    import logging
    import signal

    from skillbus.console.server import serve as do
    from skillbus.wiring import console_of

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    console = console_of(settings)
    if console.is_open:
        say("skillbus: no tokens: everybody on this machine may look, nobody may order (see: skillbus token)")
    caught = await do(console, lambda address: typer.echo(f"console: {address}"))
    return INTERRUPTED if caught == signal.SIGINT else 0

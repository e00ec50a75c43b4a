"""The app: middleware, routers, lifespan. Nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from skillbus import __version__
from skillbus.console import api, api_orders, hub_login, probes, problems, webhooks
from skillbus.console.console import Console
from skillbus.console.doorway import BehindProxy, SecurityHeaders
from skillbus.console.limits import BodyLimit
from skillbus.console.openapi import describe

_ABOUT = "Stop a fleet, know that it stopped, and permit a restart deliberately (docs/api.md)."


def create_app(console: Console) -> FastAPI:
    """The console's web face. While it runs, the console is alive."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with console.alive():
            yield

    app = FastAPI(
        title="skillbus",
        summary=_ABOUT,
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,  # served by describe, to those who may look
        docs_url=None,  # theirs come from a CDN, which the CSP and an incident do not allow
        redoc_url=None,
    )
    app.state.console = console
    problems.install(app)
    describe(app)
    for router in (api.router, api_orders.router, probes.router, webhooks.router(console)):
        app.include_router(router)
    if console.access.hub is not None:
        app.include_router(hub_login.router)
    _page(app, console)
    settings = console.settings
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(BehindProxy, settings.console_root_path, settings.console_trusted_proxies)
    return app


def _page(app: FastAPI, console: Console) -> None:
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("skillbus.console.page") is not None:
        import_module("skillbus.console.page").install(app, console)

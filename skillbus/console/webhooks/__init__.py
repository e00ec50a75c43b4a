"""The doors for bots that cannot shape a request of their own: ``POST /hooks/<name>``.

Every module here that holds a ``WEBHOOK`` is one. A new kind is a new file, and nothing else. The route is thin: it
reads the raw bytes, and answers what the door says. Who can shape a request uses the API.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from skillbus.console.webhooks.door import Door, Orders
from skillbus.console.webhooks.settings import webhooks_given

if TYPE_CHECKING:
    from skillbus.console.webhooks.webhook import Webhook

BODY_LIMIT = 1024 * 1024
"""Bytes of a delivery that are read. An Alertmanager group of a thousand alerts is less."""

_NOT_KINDS = frozenset({"door", "settings", "webhook"})


def kinds() -> frozenset[str]:
    """The name of each webhook that there is: of each file here that is not one of the shared ones."""
    return frozenset(info.name for info in iter_modules(__path__)) - _NOT_KINDS


def webhook_named(kind: str) -> Webhook:
    """The webhook in that file. No other is imported."""
    webhook: Webhook = import_module(f"{__name__}.{kind}").WEBHOOK
    return webhook


def router(console: Orders, environ: Mapping[str, str] = os.environ) -> APIRouter:
    """The routes of all webhooks that are on. Each proves by itself who sent it.

    Raises:
        BadSettings: a setting of a webhook cannot be used.
    """
    routes = APIRouter(prefix="/hooks", include_in_schema=False)
    for settings in webhooks_given(environ, console.fleet, kinds(), webhook_named):
        _add(routes, Door(console, settings))
    return routes


def _add(routes: APIRouter, door: Door) -> None:
    async def receive(request: Request) -> JSONResponse:
        body = await _body(request)
        if body is None:
            return JSONResponse({"outcome": "refused", "why": f"more than {BODY_LIMIT} bytes"}, 413)
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = await door.receive(body, headers)
        return JSONResponse(answer.body, answer.status)

    routes.add_api_route(f"/{door.settings.name}", receive, methods=["POST"], name=f"webhook {door.settings.name}")


async def _body(request: Request) -> bytes | None:
    """The raw bytes; None if they are too many. No more than that is held."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_LIMIT:
            return None
        parts.append(part)
    return b"".join(parts)

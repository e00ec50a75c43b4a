"""``/livez``, ``/readyz``, ``/metrics``: for machines that watch the console.

``/livez`` asks nobody: a console whose Redis is down must not be restarted for it. ``/readyz`` says in its status
whether it sees the fleet and its keeper hears; why not, it says to those alone who may look.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse

from skillbus.console.console import Console
from skillbus.console.guard import console_of, needs, principal_of
from skillbus.console.metrics import Figures, exposition
from skillbus.console.problems import Refused
from skillbus.console.tokens import Power, Principal
from skillbus.core.metrics import CONTENT_TYPE

router = APIRouter(include_in_schema=False)


@router.get("/livez")
async def livez() -> PlainTextResponse:
    """Whether this process answers."""
    return PlainTextResponse("alive\n")


@router.get("/readyz")
async def readyz(request: Request) -> PlainTextResponse:
    """Whether it sees the fleet, and hears kills."""
    console = console_of(request)
    why = _why_not(console)
    if not why:
        return PlainTextResponse("ready\n")
    may_see = "authorization" in request.headers or console.is_open
    if may_see:
        try:
            may_see = (await principal_of(request)).may(Power.SEE)
        except Refused:
            may_see = False
    return PlainTextResponse(f"not ready: {why}\n" if may_see else "not ready\n", 503)


def _why_not(console: Console) -> str:
    if console.eye.blind is not None:
        return console.eye.blind.why
    standing = console.keeper.standing
    return "" if standing.hears else f"the keeper does not hear: {standing.why}"


@router.get("/metrics")
async def metrics(request: Request, who: Annotated[Principal, Depends(needs(Power.SEE))]) -> PlainTextResponse:
    """For Prometheus."""
    console = console_of(request)
    figures = Figures(
        console.status(),
        len(console.feed.listeners),
        console.kills.given_count,
        console.kills.failed_count,
        console.access.refusals.count,
    )
    return PlainTextResponse(exposition(figures), media_type=CONTENT_TYPE)

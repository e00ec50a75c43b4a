"""How a browser logs in through the hub: there, back to ``oauth_callback`` with a code, and on with a session of ours.

The login must come back to the browser that began it: ``state`` is in a cookie of it, too. That cookie is SameSite=Lax,
for the way back may begin at another site (where the hub itself lets people log in); the session's is Strict, so the
last step is a page of ours that goes on by itself, and no redirect.
"""

from __future__ import annotations

import hmac
import secrets

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from skillbus.console.guard import VIA, console_of
from skillbus.console.hub import HubLogins
from skillbus.console.page_door import PageRoute, home_of, next_of, shown
from skillbus.console.problems import Refused
from skillbus.core.text import harmless

STATE_COOKIE = "skillbus_hub_state"

_WITHIN_S = 600
"""Seconds that a login at the hub may take."""

router = APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/hub_login")
async def begin(request: Request) -> Response:
    """To the hub."""
    state = secrets.token_urlsafe(32)
    response = RedirectResponse(_hub_of(request).address(state), 303)
    response.set_cookie(
        STATE_COOKIE,
        f"{state}:{next_of(request.query_params.get('next', ''))}",
        max_age=_WITHIN_S,
        path=_path(request),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return response


@router.get("/oauth_callback")
async def finish(request: Request) -> Response:
    """Back from the hub: a session, if it was begun here and the hub lets them in."""
    given = request.query_params
    state, _, wanted = request.cookies.get(STATE_COOKIE, "").partition(":")
    if not state or not hmac.compare_digest(state.encode(), given.get("state", "").encode("utf-8", "replace")):
        raise await _refused(request, "this login did not begin in this browser, or took too long: begin anew at login")
    if "code" not in given:
        why = harmless(given.get("error_description") or given.get("error") or "it does not say why", 200)
        raise await _refused(request, f"the hub did not let you in: {why}")
    try:
        principal = await _hub_of(request).admit(given["code"])
    except Refused as refused:
        raise await _refused(request, refused.problem.detail) from None
    response = shown(request, "continue.html", None, to=home_of(request) + next_of(wanted))
    console_of(request).access.sessions.begin(principal, request, response)
    response.delete_cookie(STATE_COOKIE, path=_path(request), httponly=True, samesite="lax")
    return response


async def _refused(request: Request, why: str) -> Refused:
    address = request.client.host if request.client else "?"
    await console_of(request).refuse(what="login through the hub", why=why, via=VIA, by=address)
    return Refused(403, why)


def _hub_of(request: Request) -> HubLogins:
    hub = console_of(request).access.hub
    if hub is None:
        raise Refused(404, "this console is no service of a JupyterHub")
    return hub


def _path(request: Request) -> str:
    return request.scope.get("root_path", "") or "/"

"""Who asks, and whether they may: a bearer token, a browser's session, or, on loopback without tokens, who just looks.

A token is looked up before any limit, so that a valid one is never turned away. What is refused is audited. A request
that came through a proxy, or for another name than this machine's, is not taken for one from loopback: a proxy speaks
for strangers, and a page elsewhere can make a browser ask here under a name of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from math import ceil
from urllib.parse import urlsplit

from fastapi import Request, Response

from skillbus.console.console import Console
from skillbus.console.problems import Refused
from skillbus.console.sessions import CSRF_HEADER, Session, bears_csrf
from skillbus.console.tokens import ANYBODY, Power, Principal
from skillbus.core.scope import Scope

_SAFE = frozenset({"GET", "HEAD"})
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
VIA = "http"


def console_of(request: Request) -> Console:
    """The console that this request came to."""
    console: Console = request.app.state.console
    return console


def address_of(request: Request) -> str:
    """The client's address: its own, or what a trusted proxy said of it."""
    return request.client.host if request.client else "?"


async def principal_of(request: Request) -> Principal:
    """Who asks.

    Raises:
        Refused: 401, nobody who is known; 429, and that too often; 403, a session without its CSRF token.
    """
    console = console_of(request)
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if token and kind.lower() == "bearer":
        found = console.access.tokens.find(token.strip())
        if found is None:
            raise await failed(request, "the token is not known")
        return found
    session = console.access.sessions.of(request)
    if session is not None:
        if request.method not in _SAFE and not bears_csrf(session, request.headers.get(CSRF_HEADER, "")):
            await console.refuse(what=_what(request), why="CSRF token", via=VIA, by=session.principal.name)
            raise Refused(403, f"a browser's session must send {CSRF_HEADER}: reload the page and try again")
        return session.principal
    if request.method in _SAFE and is_open_to(request):
        return ANYBODY
    if kind:
        raise await failed(request, "the Authorization header is no bearer token")
    raise await failed(request, "no token was given")


def is_open_to(request: Request) -> bool:
    """Whether this request may look without a token."""
    is_forwarded = any(name in request.headers for name in _FORWARDED)
    return console_of(request).is_open and not is_forwarded and _is_loopback(request.headers.get("host", ""))


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


async def failed(request: Request, why: str) -> Refused:
    """What to raise where somebody is not known: 401, or 429 once it happens too often from there."""
    console, address = console_of(request), address_of(request)
    await console.refuse(what=_what(request), why=why, via=VIA, by=address)
    wait_s = console.access.failures.note(address)
    if wait_s:
        text = f"too many failures from {address}: wait {ceil(wait_s)} s. A valid token is taken at any time"
        return Refused(429, text, headers={"Retry-After": str(ceil(wait_s))})
    how = "send Authorization: Bearer TOKEN, or log in at login; skillbus token makes one"
    if console.is_open:
        how = "start the console with SKILLBUS_CONSOLE_TOKENS, and make one with skillbus token"
    return Refused(401, f"{why}: {how}", headers={"WWW-Authenticate": "Bearer"})


def needs(power: Power) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency of a route: who asks, if they have that power."""
    return needs_any(power)


def needs_any(*powers: Power) -> Callable[[Request], Awaitable[Principal]]:
    """The same, for one of several."""

    async def found(request: Request) -> Principal:
        principal = await principal_of(request)
        await demand(request, principal, *powers)
        return principal

    return found


async def demand(request: Request, principal: Principal, *powers: Power) -> None:
    """Refuse who has none of these powers.

    Raises:
        Refused: 403.
    """
    if not any(principal.may(power) for power in powers):
        wanted = " or ".join(powers)
        why = f"the role {principal.role} may not {wanted}"
        await console_of(request).refuse(what=wanted, why=why, via=VIA, by=principal.name)
        raise Refused(403, f"{principal.name}: {why}")


async def demand_reach(request: Request, principal: Principal, scope: Scope, what: Power) -> None:
    """Refuse who is bound to other scopes.

    Raises:
        Refused: 403.
    """
    if not principal.reaches(scope):
        why = f"this token is bound to {', '.join(principal.scopes)}"
        await console_of(request).refuse(what=what, why=why, via=VIA, by=principal.name, scope=scope.label)
        raise Refused(403, f"{principal.name} may not {what} {scope}: {why}")


def _what(request: Request) -> str:
    return f"{request.method} {request.url.path}"[:80]


async def log_in(request: Request, token: str, response: Response) -> Session:
    """Open a browser's session for who bears ``token``, and set its cookie on ``response``.

    Raises:
        Refused: 401 or 429, the token is not known.
    """
    access = console_of(request).access
    found = access.tokens.find(token.strip())
    if found is None:
        raise await failed(request, "the token is not known")
    return access.sessions.begin(found, request, response)

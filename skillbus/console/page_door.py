"""Who looks at the page, and how what cannot be shown is said in HTML instead of JSON.

A browser that is not logged in is sent to ``login`` and comes back where it wanted to go. The cookie is
SameSite=Strict, so a link in a chat arrives without it: such a request is answered with a page that follows the same
link once more, by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from skillbus import __version__
from skillbus.clock import wall_ms
from skillbus.console import banner, pictures
from skillbus.console.forms import form_of
from skillbus.console.guard import VIA, console_of, demand, is_open_to, principal_of
from skillbus.console.problems import Refused, of_error
from skillbus.console.sessions import CSRF_FIELD, Session, bears_csrf
from skillbus.console.tokens import ANYBODY, Power, Principal
from skillbus.errors import SkillbusError

_ROOM = Path(__file__).parent

_NEXT = re.compile(r"(kill|reset|timeline|skills|kills/[A-Za-z0-9._-]{1,200})?")
"""Where a login may lead: pages of ours, and no other address."""

_templates = Environment(
    loader=FileSystemLoader(_ROOM / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
_templates.filters.update(instant=banner.instant, age=banner.age, took=pictures.took)
_templates.globals.update(version=__version__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page.

    Attributes:
        session: None: somebody who only looks.
    """

    principal: Principal
    session: Session | None

    def may(self, power: str) -> bool:
        """Whether the page offers that: forms need a session."""
        return self.session is not None and self.principal.may(Power(power))

    @property
    def csrf(self) -> str:
        """For forms; empty: none may be sent."""
        return self.session.csrf if self.session else ""


class _Elsewhere(Exception):
    """Answer with this instead."""

    def __init__(self, response: Response) -> None:
        self.response = response


class PageRoute(APIRoute):
    """A route whose errors are pages, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The same, and errors as HTML."""
        do = super().get_route_handler()

        async def safe(request: Request) -> Response:
            try:
                return await do(request)
            except _Elsewhere as elsewhere:
                return elsewhere.response
            except Refused as refused:
                return said_refused(request, refused)
            except SkillbusError as error:
                return said_refused(request, of_error(error))

        return safe


def home_of(request: Request) -> str:
    """The way from this page to the first one. Links are relative, whatever the prefix."""
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return "../" * (path.count("/") - 1) or "./"


def shown(request: Request, template: str, visitor: Visitor | None, code: int = 200, **given: Any) -> HTMLResponse:
    """A page."""
    console = console_of(request)
    text = _templates.get_template(template).render(
        home=home_of(request),
        fleet=console.fleet.name,
        visitor=visitor,
        csrf=visitor.csrf if visitor else "",
        is_open=console.is_open,
        is_of_hub=console.access.hub is not None,
        now_ms=wall_ms(),
        **given,
    )
    return HTMLResponse(text, code)


def said(request: Request, visitor: Visitor | None, title: str, *lines: str, code: int = 200) -> HTMLResponse:
    """A page that says one thing."""
    return shown(request, "said.html", visitor, code, title=title, lines=lines)


def said_refused(request: Request, refused: Refused) -> HTMLResponse:
    """What was refused, on a page."""
    problem = refused.problem
    lists = (("Done", problem.done), ("Not done", problem.not_done), ("Not known", problem.unknown))
    lines = [problem.detail, *(f"{name}: {', '.join(found)}." for name, found in lists if found)]
    response = said(request, None, problem.title, *lines, code=problem.status)
    response.headers.update(refused.headers or {})
    return response


async def visitor_of(request: Request, *powers: Power) -> Visitor:
    """Who looks, if they have one of these powers.

    Raises:
        Refused: 403.
        _Elsewhere: to the login.
    """
    session = console_of(request).access.sessions.of(request)
    if session is not None:
        visitor = Visitor(session.principal, session)
    elif request.headers.get("authorization"):
        visitor = Visitor(await principal_of(request), None)
    elif is_open_to(request):
        visitor = Visitor(ANYBODY, None)
    else:
        raise _Elsewhere(_to_login(request))
    await demand(request, visitor.principal, *powers)
    return visitor


def _to_login(request: Request) -> Response:
    is_link = request.headers.get("sec-fetch-site") == "cross-site" and request.method == "GET"
    if is_link:  # Its session, if there is one, was held back: the same address once more, from a page of ours.
        return shown(request, "continue.html", None, to="")
    path = request.scope["path"].removeprefix(request.scope.get("root_path", "")).strip("/")
    wanted = path if _NEXT.fullmatch(path) else ""
    return RedirectResponse(f"{home_of(request)}login" + (f"?next={quote(wanted)}" if wanted else ""), 303)


def next_of(text: str) -> str:
    """Where a login leads; what is no page of ours is the first page."""
    return text if _NEXT.fullmatch(text) else ""


async def form_and_visitor(request: Request, *powers: Power) -> tuple[dict[str, str], Visitor]:
    """The fields of a form, and who sent it from a page of ours.

    Raises:
        Refused: 403: it bears no CSRF token, or they may not do that.
        _Elsewhere: to the login.
    """
    console = console_of(request)
    session = console.access.sessions.of(request)
    if session is None:
        raise _Elsewhere(_to_login(request))
    fields = await form_of(request)
    if not bears_csrf(session, fields.get(CSRF_FIELD, "")):
        await console.refuse(what=f"form {request.url.path}"[:80], why="CSRF token", via=VIA, by=session.principal.name)
        raise Refused(403, "this form is not from a page of this session: nothing was done. Reload the page, try again")
    await demand(request, session.principal, *powers)
    return fields, Visitor(session.principal, session)

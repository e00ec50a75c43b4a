"""A browser's session: a login once at /login, and then a cookie; and the CSRF token beside it.

Sessions live in this process alone and in bounded number: after a restart one logs in again. One ends with what its
login rests on: the entry of its token, or the right at the hub. The cookie is HttpOnly and SameSite=Strict, and bears
the path under which the console is shown.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request, Response

from skillbus.clock import Clock
from skillbus.console.tokens import Principal

COOKIE = "skillbus_session"
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"

_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that logged in.

    Attributes:
        csrf: what each form and each fetch that changes something must bear.
    """

    principal: Principal
    csrf: str
    until_s: float


class Sessions:
    """Those that hold.

    Attributes:
        holds: whether somebody who was recognised still may come in.
    """

    def __init__(self, holds: Callable[[Principal], bool], clock: Clock, lasts_s: float) -> None:
        self.holds = holds
        self._clock = clock
        self._lasts_s = lasts_s
        self._open: OrderedDict[str, Session] = OrderedDict()

    def begin(self, principal: Principal, request: Request, response: Response) -> Session:
        """Open one, and set its cookie on ``response``."""
        key = secrets.token_urlsafe(32)
        session = Session(principal, secrets.token_urlsafe(32), self._clock.now_s() + self._lasts_s)
        self._open[key] = session
        while len(self._open) > _LIMIT:
            self._open.popitem(last=False)
        response.set_cookie(
            COOKIE,
            key,
            max_age=int(self._lasts_s),
            path=_path(request),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return session

    def of(self, request: Request) -> Session | None:
        """The session that a request bears; None: none that holds."""
        key = request.cookies.get(COOKIE, "")
        session = self._open.get(key)
        if session is None:
            return None
        if self._clock.now_s() >= session.until_s or not self.holds(session.principal):
            del self._open[key]
            return None
        return session

    def end(self, request: Request, response: Response) -> None:
        """Close it, and take its cookie back."""
        self._open.pop(request.cookies.get(COOKIE, ""), None)
        response.delete_cookie(COOKIE, path=_path(request), httponly=True, samesite="strict")


def bears_csrf(session: Session, given: str) -> bool:
    """Whether a form or a fetch bears the session's own token."""
    return hmac.compare_digest(session.csrf.encode(), given.encode("utf-8", "replace"))


def _path(request: Request) -> str:
    return request.scope.get("root_path", "") or "/"

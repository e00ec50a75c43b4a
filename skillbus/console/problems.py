"""Errors as RFC 9457 problems: what happened, what was done all the same, and what to do next. Never a traceback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as AnyHTTPException

from skillbus.console.doorway import HEADERS
from skillbus.console.shapes import Problem
from skillbus.control.history import NoSuchKill
from skillbus.control.kill import OrderUnconfirmed
from skillbus.control.reset import ResetRefused
from skillbus.control.sync import FleetIsKilled
from skillbus.core.text import harmless
from skillbus.errors import BadSettings, BusDenied, RetryLater, SkillbusError

CONTENT_TYPE = "application/problem+json"

_DETAIL_LIMIT = 1000
_PARTS = ("recorded", "published", "audited")


class Refused(HTTPException):
    """A request that is answered with a problem. Of FastAPI's kind, which lets it through while it reads a body."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        done: Sequence[str] = (),
        not_done: Sequence[str] = (),
        unknown: Sequence[str] = (),
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.problem = Problem(
            title=HTTPStatus(status).phrase,
            status=status,
            detail=harmless(detail, _DETAIL_LIMIT),
            done=tuple(done),
            not_done=tuple(not_done),
            unknown=tuple(unknown),
        )


def of_error(error: SkillbusError) -> Refused:
    """What one of our errors means to who asked."""
    if isinstance(error, OrderUnconfirmed):
        text = f"{error} — the order is NOT confirmed as stored, though it was sent: give it again, or look at status"
        return Refused(503, text, unknown=_PARTS)
    if isinstance(error, RetryLater | BusDenied):
        return Refused(503, str(error))
    if isinstance(error, ResetRefused | FleetIsKilled):
        return Refused(409, str(error))
    if isinstance(error, NoSuchKill):
        return Refused(404, str(error))
    if isinstance(error, BadSettings):
        return Refused(422, str(error))
    return Refused(500, str(error))


def of_lost_order(error: SkillbusError) -> Refused:
    """The same, for an order that could not be given."""
    if isinstance(error, RetryLater | BusDenied) and not isinstance(error, OrderUnconfirmed):
        text = f"{error} — the order is NOT stored; pods that do not hear Redis hold once their lease runs out"
        return Refused(503, text, not_done=_PARTS)
    return of_error(error)


def answer_of(refused: Refused) -> Response:
    """The response."""
    return Response(
        refused.problem.model_dump_json(), refused.problem.status, headers=refused.headers, media_type=CONTENT_TYPE
    )


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(SkillbusError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(AnyHTTPException, _on_http)
    app.add_exception_handler(Exception, _on_defect)


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 (for mypy)
    return answer_of(error)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SkillbusError)  # noqa: S101
    return answer_of(of_error(error))


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    where = [str(part) for part in first.get("loc", ())]
    if first["type"] == "json_invalid" or where == ["body"]:
        how = 'send a JSON object as application/json: curl --json \'{"reason": "…"}\''
        return answer_of(Refused(400, f"the body is no JSON object that can be used: {how}"))
    return answer_of(Refused(422, f"{'.'.join(where[1:]) or where[0]}: {first['msg']}"))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)  # noqa: S101
    phrase = HTTPStatus(error.status_code).phrase
    text = str(error.detail)
    if text == phrase:
        text = f"{request.method} {harmless(request.url.path, 200)}: {phrase.lower()}: see openapi.json"
    return answer_of(Refused(error.status_code, text, headers=error.headers))


async def _on_defect(request: Request, error: Exception) -> Response:
    """Told outside of everything that adds headers."""
    text = f"{type(error).__name__}: a defect: please report it, with the console's log"
    return answer_of(Refused(500, text, headers=HEADERS))

"""The page for people: what is seen. Rendered whole by the server; ``static/console.js`` then keeps it up to date.

Figures are the eye's, as in the API. What must be read from Redis (timeline, last kill) is left out when it does not
answer, and said to be: the sentence at the top never waits for it. Forms: page_orders.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from skillbus.clock import wall_ms
from skillbus.console import page_orders, shapes
from skillbus.console.api import inventory_of, story_of
from skillbus.console.banner import WORDS, banner_of
from skillbus.console.console import Console
from skillbus.console.guard import console_of
from skillbus.console.page_door import PageRoute, shown, visitor_of
from skillbus.console.pictures import bars_of, curve_of
from skillbus.console.static_files import StaticFiles, imported_by
from skillbus.console.tokens import Power
from skillbus.console.views import certificate_now, certificate_of, entry_of
from skillbus.control.history import Wanted, newest
from skillbus.core.audit import unpacked
from skillbus.errors import SkillbusError

ROWS_COUNT = 25
"""Pods on a page of the table."""

_ENTRIES_COUNT = 12
_TIMELINE_COUNT = 100
_DRILLS_COUNT = 24
_KINDS = frozenset(
    (
        "kill",
        "certificate",
        "reset-asked",
        "reset",
        "arm",
        "sync",
        "drill",
        "drill-result",
        "restored",
        "refused",
        "tidied",
    )
)
"""What the first page tells of. Not what only pods know (``heard``): for that every pod's evidence must be read."""

_READ_S = 1.5
"""Seconds that the first paint waits for what must be read from Redis."""

_MODULES = imported_by("console.js")

router = APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


def install(app: FastAPI, console: Console) -> None:
    """Add the page to the app."""
    app.add_route("/static/{name}", StaticFiles().answer, include_in_schema=False)
    app.include_router(router)
    app.include_router(page_orders.router)


@dataclass(frozen=True, slots=True)
class LastKill:
    """The last kill of which a certificate is known, or that is under way."""

    id: str
    certificate: shapes.CertificateView
    is_under_way: bool


@dataclass(frozen=True, slots=True)
class Past:
    """What the audit tells. ``why``: it could not be read."""

    entries: Sequence[shapes.AuditEntry] = ()
    drills: Sequence[shapes.AuditEntry] = ()
    kill: LastKill | None = None
    why: str = ""


@router.get("/")
async def fleet(
    request: Request,
    q: Annotated[str, Query(max_length=64)] = "",
    word: Annotated[str, Query(max_length=20)] = "",
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """The fleet."""
    visitor = await visitor_of(request, Power.SEE, Power.KILL)
    if not visitor.principal.may(Power.SEE):
        return RedirectResponse("kill", 303)
    console = console_of(request)
    past = await _past(console)
    status, rows = console.status(), console.eye.rows
    found = [row for row in rows if q in row.id and word in ("", row.word)]
    bars, bars_top = bars_of(past.drills)
    return shown(
        request,
        "fleet.html",
        visitor,
        status=status,
        banner=banner_of(status, wall_ms()),
        words=[name for name in WORDS if status.counts.get(name)],
        stragglers=[row for row in rows[:ROWS_COUNT] if row.straggles],
        rows=found[offset : offset + ROWS_COUNT],
        found_count=len(found),
        offset=offset,
        rows_count=ROWS_COUNT,
        q=q,
        word=word,
        past=past,
        curve=curve_of(past.kill.certificate if past.kill else None),
        bars=bars,
        bars_top=bars_top,
        modules=_MODULES,
        **page_orders.kill_form(console, visitor),
    )


async def _past(console: Console) -> Past:
    if console.eye.blind is not None:
        return Past(kill=_under_way(console), why="Redis cannot be read now.")
    try:
        async with asyncio.timeout(_READ_S):
            return await _read_past(console)
    except (SkillbusError, TimeoutError) as error:
        why = str(error) or f"the audit did not answer within {_READ_S:g} s"
        return Past(kill=_under_way(console), why=why)


async def _read_past(console: Console) -> Past:
    async with console.reading() as bus:
        entries = await newest(bus, Wanted(kinds=_KINDS), _ENTRIES_COUNT)
        drills = await newest(bus, Wanted(kinds=frozenset({"drill-result"})), _DRILLS_COUNT)
        proofs = await newest(bus, Wanted(kinds=frozenset({"certificate"})), 1)
    kill = _under_way(console)
    told = unpacked(proofs[-1].fields.get("certificate", "")) if proofs else None
    if kill is None and told is not None:
        kill = LastKill(told.record.id, certificate_of(told, lines_limit=50), is_under_way=False)
    return Past([entry_of(entry) for entry in reversed(entries)], [entry_of(entry) for entry in drills], kill)


def _under_way(console: Console) -> LastKill | None:
    for kill_id in reversed(console.kills.ids):
        live = console.kills.under_way(kill_id)
        if live is not None and live.certificate is not None:
            certificate = certificate_now(live.certificate, live.report.held, lines_limit=50)
            return LastKill(kill_id, certificate, is_under_way=True)
    return None


@router.get("/kills/{kill_id}")
async def certificate(request: Request, kill_id: str) -> Response:
    """The certificate of a kill."""
    visitor = await visitor_of(request, Power.SEE, Power.KILL)
    story = await story_of(console_of(request), kill_id)
    return shown(request, "certificate.html", visitor, story=story, curve=curve_of(story.certificate))


@router.get("/timeline")
async def timeline(
    request: Request,
    kind: Annotated[str, Query(max_length=40)] = "",
    before_ms: Annotated[int, Query(ge=0, le=250_000_000_000_000)] = 0,
) -> Response:
    """What happened, page by page."""
    visitor = await visitor_of(request, Power.SEE)
    wanted = Wanted(before_ms=before_ms, kinds=frozenset({kind} if kind else ()))
    async with console_of(request).reading() as bus:
        found = await newest(bus, wanted, _TIMELINE_COUNT + 1)
    entries = [entry_of(entry) for entry in found[::-1]]
    more_ms = entries[_TIMELINE_COUNT - 1].at_ms if len(entries) > _TIMELINE_COUNT else 0
    return shown(
        request,
        "timeline.html",
        visitor,
        entries=entries[:_TIMELINE_COUNT],
        kind=kind,
        more_ms=more_ms,
        paged=before_ms,
    )


@router.get("/skills")
async def skills(request: Request, skill: Annotated[str, Query(max_length=64)] = "") -> Response:
    """Which pods hold which skill at which digest."""
    visitor = await visitor_of(request, Power.SEE)
    return shown(request, "skills.html", visitor, inventory=await inventory_of(console_of(request), skill), skill=skill)

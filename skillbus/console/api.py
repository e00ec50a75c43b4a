"""``/api/v1``, what may be seen: status, pods, audit, kills, inventory, the stream of events. Orders: api_orders.py.

Figures of the fleet are the eye's, so that a thousand who look cost Redis no more than one. The audit and a kill's
story are read when they are asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from skillbus.console import shapes
from skillbus.console.console import Console
from skillbus.console.feed import audit_frame
from skillbus.console.guard import console_of, needs, needs_any
from skillbus.console.problems import CONTENT_TYPE, Refused
from skillbus.console.tokens import ANYBODY, POWERS, Power, Principal
from skillbus.console.views import certificate_now, certificate_of, entry_of, record_of
from skillbus.control.audit import Entry
from skillbus.control.history import Wanted, newest, story
from skillbus.control.holders import take_inventory
from skillbus.core.scope import Fleet, Scope
from skillbus.core.text import harmless
from skillbus.errors import BadSettings, SkillbusError

STREAMS_LIMIT = 500
"""Streams that are open at once."""

_MISSED_LIMIT = 1000
_PAGE_LIMIT = 1000
_OVERLAP_MS = 2000
"""How much of the audit before the last entry is told again: a page knows what it has, and a gap nobody knows."""


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides, for the OpenAPI."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {code: {"model": shapes.Problem, "content": {CONTENT_TYPE: {"schema": schema}}} for code in codes}


def only_this_fleet(request: Request, fleet: Annotated[str, Query(description="Must be this console's.")] = "") -> None:
    """A console is of one fleet. Who names another is at the wrong address.

    Raises:
        Refused: 404.
    """
    mine = console_of(request).fleet.name
    if fleet and fleet != mine:
        raise Refused(404, f"this console is of fleet {mine!r}, and knows no fleet {harmless(fleet, 64)!r}")


router = APIRouter(
    prefix="/api/v1", dependencies=[Depends(only_this_fleet)], responses=problems(401, 403, 404, 422, 429, 503)
)

Seer = Annotated[Principal, Depends(needs(Power.SEE))]
Follower = Annotated[Principal, Depends(needs_any(Power.SEE, Power.KILL))]
Anyone = Annotated[Principal, Depends(needs_any(*Power))]


def scope_named(fleet: Fleet, group: str | None, pod: str | None) -> Scope:
    """The scope that an order names.

    Raises:
        BadSettings: it is none, or there are two.
    """
    if group is not None and pod is not None:
        raise BadSettings("group and pod exclude each other: give one order for each")
    if group is not None:
        return fleet.group(group)
    return fleet.scope if pod is None else fleet.pod(pod)


@router.get("/me")
async def me(request: Request, who: Anyone) -> shapes.Me:
    """Who you are here, and what you may do."""
    session = console_of(request).access.sessions.of(request)
    role = "" if who is ANYBODY else who.role.value
    powers = tuple(sorted(POWERS[who.role]))
    return shapes.Me(name=who.name, role=role, powers=powers, scopes=who.scopes, csrf=session.csrf if session else "")


@router.get("/status")
async def status(request: Request, who: Seer) -> shapes.Status:
    """The fleet in one look, as of the last look; ``blind`` says if it is not fresh."""
    return console_of(request).status()


@router.get("/pods", response_model=shapes.Pods)
async def pods(
    request: Request,
    who: Seer,
    word: Annotated[list[str] | None, Query(description="Only pods of these words.")] = None,
    group: Annotated[str, Query(max_length=64)] = "",
    q: Annotated[str, Query(max_length=64, description="Only ids that contain this.")] = "",
    stragglers: Annotated[bool, Query(description="Only pods that are not as they should be.")] = False,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Response:
    """A page of pods, stragglers first."""
    console = console_of(request)
    seen = console.eye.look.seen
    found = [
        row
        for row in console.eye.rows
        if (not word or row.word in word)
        and (not group or group in row.groups)
        and q in row.id
        and (row.straggles or not stragglers)
    ]
    page = shapes.Pods(
        now_ms=seen.server_ms if seen else 0,
        blind=console.eye.blind,
        total_count=len(found),
        offset=offset,
        limit=limit,
        pods=tuple(found[offset : offset + limit]),
    )
    return Response(page.model_dump_json(), media_type="application/json")  # once, and not by way of Python's own


@router.get("/audit")
async def audit(
    request: Request,
    who: Seer,
    kind: Annotated[list[str] | None, Query(description="Only entries of these kinds.")] = None,
    scope: Annotated[str, Query(max_length=80, description="Only this: fleet, group:NAME or pod:ID.")] = "",
    by: Annotated[str, Query(max_length=200, description="Only whose name contains this.")] = "",
    since_ms: Annotated[int, Query(ge=0, le=250_000_000_000_000)] = 0,
    before_ms: Annotated[int, Query(ge=0, le=250_000_000_000_000, description="Only older ones; 0: all.")] = 0,
    limit: Annotated[int, Query(ge=1, le=_PAGE_LIMIT)] = 100,
) -> shapes.Audit:
    """A page of the audit, the newest first."""
    wanted = Wanted(since_ms=since_ms, before_ms=before_ms, kinds=frozenset(kind or ()), scope=scope, by=by)
    async with console_of(request).reading() as bus:
        found = (await newest(bus, wanted, limit + 1))[::-1]
    page = _whole_instants(found, limit)
    more_ms = page[-1].at_ms if len(found) > limit else 0
    return shapes.Audit(entries=tuple(entry_of(entry) for entry in page), before_ms=more_ms)


def _whole_instants(found: list[Entry], limit: int) -> list[Entry]:
    """The first so many, without those of an instant of which the rest would be on the next page."""
    if len(found) <= limit:
        return found
    return [entry for entry in found[:limit] if entry.at_ms > found[limit].at_ms] or found[:limit]


@router.get("/kills/{kill_id}")
async def kill_story(request: Request, kill_id: str, who: Follower) -> shapes.KillStory:
    """All about one kill, whoever gave it; its certificate, live until complete. The id, or 6 characters of it."""
    return await story_of(console_of(request), kill_id)


async def story_of(console: Console, kill_id: str) -> shapes.KillStory:
    """The same, for the page.

    Raises:
        NoSuchKill: nobody knows of one, or there are several.
        RetryLater: Redis does not answer, and it is not followed here.
    """
    live = console.kills.under_way(kill_id) if len(kill_id) >= 6 else None
    entries: tuple[Entry, ...] = ()
    certificate, record, record_id = None, None, kill_id
    try:
        async with console.reading() as bus:
            found = await story(bus, kill_id)
        entries, record_id = found.entries, found.record_id
        if found.certificates:
            told = found.certificates[-1][1]
            certificate, record = certificate_of(told), record_of(told.record)
    except SkillbusError:
        if live is None:
            raise
    if live is not None:
        record_id, record = live.report.record.id, record_of(live.report.record)
        if live.certificate is not None:
            certificate = certificate_now(live.certificate, live.report.held)
    return shapes.KillStory(
        id=harmless(record_id, 200),
        is_under_way=live is not None,
        record=record,
        certificate=certificate,
        entries=tuple(entry_of(entry) for entry in entries),
    )


@router.get("/inventory")
async def inventory(
    request: Request, who: Seer, skill: Annotated[str, Query(max_length=64, description="Only this skill.")] = ""
) -> shapes.Inventory:
    """Which live pods hold which skill at which digest."""
    return await inventory_of(console_of(request), skill)


async def inventory_of(console: Console, skill: str = "") -> shapes.Inventory:
    """The same, for the page. Pods are the eye's; what their sets stand for is read.

    Raises:
        RetryLater: Redis does not answer.
    """
    seen = console.eye.look.seen
    if seen is None:
        raise Refused(503, console.status().headline)
    async with console.reading() as bus:
        found = await take_inventory(bus, seen.pods)
    return shapes.Inventory(
        now_ms=seen.server_ms,
        held=tuple(
            shapes.SkillHolders(
                skill=harmless(row.skill, 80), digest=row.digest, pods_count=len(row.pods), pods=row.pods[:_PAGE_LIMIT]
            )
            for row in found.held
            if skill in ("", row.skill)
        ),
        untold_count=len(found.untold),
        unreadable_count=len(found.unreadable),
    )


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(
    request: Request, who: Seer, last_event_id: Annotated[str, Header(alias="Last-Event-ID", max_length=64)] = ""
) -> StreamingResponse:
    """Server-sent events: a snapshot, then what changes. ``Last-Event-ID`` has the missed audit told first."""
    console = console_of(request)
    if len(console.feed.listeners) >= STREAMS_LIMIT:
        raise Refused(503, f"{STREAMS_LIMIT} streams are open: close one", headers={"Retry-After": "5"})
    holds = console.access.sessions.holds
    stream = console.feed.stream(lambda: _missed(console, last_event_id), lambda: who is ANYBODY or holds(who))
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _missed(console: Console, last_event_id: str) -> AsyncIterator[bytes]:
    """What the audit holds from that entry on, the oldest first; the thousand youngest of it."""
    head = last_event_id.partition("-")[0]
    if not (head.isascii() and head.isdigit() and len(head) <= 15):
        return
    found: list[Entry] = []
    with suppress(SkillbusError):  # The snapshot says that nothing can be seen.
        async with console.reading() as bus:
            found = await newest(bus, Wanted(since_ms=max(0, int(head) - _OVERLAP_MS)), _MISSED_LIMIT)
    for entry in found:
        if entry.id and entry.id != last_event_id:
            yield audit_frame(entry)

"""The page's forms: log in, stop, rehearse, sync, reset. They work without JavaScript; with it, dialogs use the API.

Each does what its twin in api_orders.py does, by the same functions, and differs in how the answer is shown.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from skillbus.bus.operator_bus import OperatorBus
from skillbus.console import shapes
from skillbus.console.api import scope_named
from skillbus.console.api_orders import demand_confirmed, killed
from skillbus.console.banner import GONE
from skillbus.console.console import Console
from skillbus.console.forms import form_of
from skillbus.console.guard import VIA, console_of, demand_reach, log_in
from skillbus.console.page_door import (
    PageRoute,
    Visitor,
    form_and_visitor,
    home_of,
    next_of,
    said,
    shown,
    visitor_of,
)
from skillbus.console.problems import Refused
from skillbus.console.tokens import Power
from skillbus.console.views import drill_answer_of, reset_answer_of, sync_answer_of
from skillbus.control.reset import LiftedOrder, Reset
from skillbus.core.orders import KillOrder
from skillbus.core.scope import Scope
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError

_DRILL_S = 10.0
_SYNC_S = 30.0

router = APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


# -- coming and going --------------------------------------------------------------------------------------------------


@router.get("/login")
async def login_page(request: Request) -> Response:
    """Where a token is given."""
    return shown(request, "login.html", None, next=next_of(request.query_params.get("next", "")), why="")


@router.post("/login")
async def login(request: Request) -> Response:
    """Take a token, and give a session for it."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "this form is not from this console: open its login page yourself")
    fields = await form_of(request)
    wanted = next_of(fields.get("next", ""))
    response = RedirectResponse(wanted or home_of(request), 303)
    try:
        await log_in(request, fields.get("token", ""), response)
    except Refused as refused:
        why = "This token is not known." if refused.status_code == 401 else refused.problem.detail
        failed = shown(request, "login.html", None, refused.status_code, next=wanted, why=why)
        failed.headers.update(refused.headers or {})
        return failed
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session."""
    _, visitor = await form_and_visitor(request, *Power)
    response = RedirectResponse("login", 303)
    access = console_of(request).access
    access.sessions.end(request, response)
    if access.hub is not None:
        access.hub.forget(visitor.principal)
    return response


# -- stopping ----------------------------------------------------------------------------------------------------------


def kill_form(console: Console, visitor: Visitor) -> dict[str, Any]:
    """What the form to stop is made of."""
    rows = console.eye.rows
    scopes = visitor.principal.scopes
    return {
        "may_act_count": sum(row.word not in GONE for row in rows),
        "groups": sorted({group for row in rows for group in row.groups}),
        "bound_to": scopes[0] if scopes and "fleet" not in scopes else "",
    }


@router.get("/kill")
async def kill_page(request: Request) -> Response:
    """The form to stop, as a page."""
    visitor = await visitor_of(request, Power.KILL)
    return shown(request, "kill.html", visitor, **kill_form(console_of(request), visitor))


def _scope(console: Console, fields: dict[str, str]) -> Scope:
    kind = fields.get("scope", "fleet")
    group, pod = (fields.get(name, "").strip() if kind == name else None for name in ("group", "pod"))
    return scope_named(console.fleet, group, pod)


@router.post("/kill")
async def kill(request: Request) -> Response:
    """Stop, and go to the certificate."""
    fields, visitor = await form_and_visitor(request, Power.KILL)
    console, who = console_of(request), visitor.principal
    scope = _scope(console, fields)
    await demand_reach(request, who, scope, Power.KILL)
    order = KillOrder(by=who.name, via=VIA, reason=fields.get("reason", ""), incident=fields.get("incident", ""))
    answer = await killed(console, order, scope, wait_s=1.0)
    if answer.is_recorded:
        return RedirectResponse(answer.url, 303)
    return said(request, visitor, "Published, NOT recorded", answer.sentence, *answer.errors, code=503)


# -- permitting a restart ----------------------------------------------------------------------------------------------


@router.get("/reset")
async def reset_page(request: Request) -> Response:
    """The form to reset, as a page, with every order that it would lift."""
    visitor = await visitor_of(request, Power.RESET)
    console = console_of(request)
    status = console.status()
    wanted = request.query_params.get("scope", "")
    label = wanted or next((kill.scope for kill in status.kills), "fleet")
    orders, why = await _lifted(console, label, visitor)
    return shown(request, "reset.html", visitor, status=status, label=label, orders=orders, why=why, error="")


@router.get("/reset/orders")
async def reset_orders(request: Request) -> Response:
    """The same orders, for the dialog."""
    visitor = await visitor_of(request, Power.RESET)
    orders, why = await _lifted(console_of(request), request.query_params.get("scope", ""), visitor)
    return JSONResponse({"orders": [order.model_dump() for order in orders], "why": why})


async def _lifted(console: Console, label: str, visitor: Visitor) -> tuple[list[shapes.Lifted], str]:
    """What a reset would lift; or why that is not known."""
    try:
        kind, _, name = label.partition(":")
        scope = scope_named(console.fleet, name if kind == "group" else None, name if kind == "pod" else None)
        async with OperatorBus(console.fleet, console.admin_endpoint) as bus:
            found = await Reset(bus, scope, "", visitor.principal.name, even_recent=True, via=VIA).orders()
    except SkillbusError as error:
        return [], harmless(str(error), 500)
    return [_order(order) for order in found], ""


def _order(order: LiftedOrder) -> shapes.Lifted:
    by, via, reason = (harmless(text, 1024) for text in (order.by, order.via, order.reason))
    return shapes.Lifted(at_ms=order.at_ms, by=by, via=via, reason=reason, id=harmless(order.record_id, 200))


@router.post("/reset")
async def reset(request: Request) -> Response:
    """Permit a restart, and say what was lifted."""
    fields, visitor = await form_and_visitor(request, Power.RESET)
    console, who = console_of(request), visitor.principal
    kind, _, name = fields.get("scope", "fleet").partition(":")
    scope = scope_named(console.fleet, name if kind == "group" else None, name if kind == "pod" else None)
    await demand_reach(request, who, scope, Power.RESET)
    reason, confirm = fields.get("reason", "").strip(), fields.get("confirm", "")
    even_recent = fields.get("even_recent") == "on"
    await demand_confirmed(console, who, shapes.ResetRequest.model_construct(confirm=confirm, reason=reason))
    report = await console.reset(scope, by=who.name, reason=reason[:4096], even_recent=even_recent)
    answer = reset_answer_of(report)
    lifted = [f'Lifted: {order.by} via {order.via}: "{order.reason}" [{order.id[:12]}]' for order in answer.lifted]
    return said(request, visitor, answer.sentence, *lifted, "What restarts now, runs.")


# -- rehearsing, reconciling -------------------------------------------------------------------------------------------


@router.post("/drill")
async def drill(request: Request) -> Response:
    """Rehearse the stop, and say who answered."""
    _, visitor = await form_and_visitor(request, Power.DRILL)
    console = console_of(request)
    await demand_reach(request, visitor.principal, console.fleet.scope, Power.DRILL)
    answer = drill_answer_of(await console.drill(console.fleet.scope, by=visitor.principal.name, timeout_s=_DRILL_S))
    missing = [f"{reply.pod}: {reply.heard} {reply.note}" for reply in answer.pods if reply.heard != "answered"]
    return said(request, visitor, f"Drill: {answer.sentence}", *answer.errors, *missing[:50])


@router.post("/sync")
async def sync(request: Request) -> Response:
    """Ask every pod for a pass now, and say what became of it."""
    _, visitor = await form_and_visitor(request, Power.SYNC)
    console = console_of(request)
    await demand_reach(request, visitor.principal, console.fleet.scope, Power.SYNC)
    answer = sync_answer_of(await console.sync(by=visitor.principal.name, timeout_s=_SYNC_S, within_s=None))
    failed = [f"{one.pod}: {one.outcome} {'; '.join(one.errors)}" for one in answer.passes if one.outcome != "ok"]
    return said(request, visitor, f"Sync: {answer.sentence}", *failed[:50])

"""``/api/v1``, what changes something: kill, drill, sync, reset. Each at most once for an ``Idempotency-Key``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response
from pydantic import BaseModel

from skillbus.console import shapes
from skillbus.console.api import only_this_fleet, problems, scope_named
from skillbus.console.console import Console
from skillbus.console.guard import VIA, console_of, demand_reach, needs
from skillbus.console.idempotency import HEADER
from skillbus.console.problems import Refused, of_lost_order
from skillbus.console.tokens import Power, Principal
from skillbus.console.views import drill_answer_of, kill_answer_of, reset_answer_of, sync_answer_of
from skillbus.core.orders import KillOrder
from skillbus.core.scope import Scope
from skillbus.errors import SkillbusError

router = APIRouter(
    prefix="/api/v1",
    dependencies=[Depends(only_this_fleet)],
    responses=problems(400, 401, 403, 404, 408, 413, 422, 429, 503),
)

Killer = Annotated[Principal, Depends(needs(Power.KILL))]
Driller = Annotated[Principal, Depends(needs(Power.DRILL))]
Syncer = Annotated[Principal, Depends(needs(Power.SYNC))]
Resetter = Annotated[Principal, Depends(needs(Power.RESET))]
Key = Annotated[str, Header(alias=HEADER, description="The same key and request: the same answer, done once.")]


async def _once(
    request: Request, who: Principal, key: str, do: Callable[[], Awaitable[BaseModel | Response]]
) -> Response:
    async def respond() -> Response:
        done = await do()
        return done if isinstance(done, Response) else _json(done)

    wanted = b"\0".join([request.url.path.encode(), await request.body()])
    return await console_of(request).access.idempotency.once(who.name, key, wanted, respond)


def _json(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")


@router.post("/kill", response_model=shapes.KillAnswer)
async def kill(request: Request, wanted: shapes.KillRequest, who: Killer, key: Key = "") -> Response:
    """Stop the fleet, a group or a pod, now. 200 also if it was stopped already; 503 only if it is not recorded.

    The answer says what was recorded, published, audited and held; the proof goes on here, see ``kills/ID``.
    """
    scope = scope_named(console_of(request).fleet, wanted.group, wanted.pod)
    await demand_reach(request, who, scope, Power.KILL)
    order = KillOrder(by=who.name, via=VIA, reason=wanted.reason, incident=wanted.incident)

    async def do() -> Response:
        answer = await killed(console_of(request), order, scope, wait_s=wanted.wait_s)
        return _json(answer, 200 if answer.is_recorded else 503)

    return await _once(request, who, key, do)


async def killed(console: Console, order: KillOrder, scope: Scope, *, wait_s: float) -> shapes.KillAnswer:
    """Give a kill; what became of it. For the page, too.

    Raises:
        Refused: 503, it could not be given: what was done, what was not, and what may have been.
    """
    try:
        report = await console.kill(order, scope, wait_s=wait_s)
    except SkillbusError as error:
        raise of_lost_order(error) from error
    return kill_answer_of(report)


@router.post("/drill")
async def drill(request: Request, wanted: shapes.DrillRequest, who: Driller, key: Key = "") -> shapes.DrillAnswer:
    """Rehearse the stop: who would hear it, and how fast. Stops nothing; answers when everybody has, or time is up."""
    scope = scope_named(console_of(request).fleet, wanted.group, wanted.pod)
    await demand_reach(request, who, scope, Power.DRILL)

    async def do() -> shapes.DrillAnswer:
        return drill_answer_of(await console_of(request).drill(scope, by=who.name, timeout_s=wanted.timeout_s))

    return await _once(request, who, key, do)  # type: ignore[return-value]


@router.post("/sync", responses=problems(409))
async def sync(request: Request, wanted: shapes.SyncRequest, who: Syncer, key: Key = "") -> shapes.SyncAnswer:
    """Ask every pod for a pass now, and wait for the passes. 409 while the fleet is killed."""
    console = console_of(request)
    await demand_reach(request, who, console.fleet.scope, Power.SYNC)

    async def do() -> shapes.SyncAnswer:
        report = await console.sync(by=who.name, timeout_s=wanted.timeout_s, within_s=wanted.within_s)
        return sync_answer_of(report)

    return await _once(request, who, key, do)  # type: ignore[return-value]


@router.post("/reset", responses=problems(409))
async def reset(request: Request, wanted: shapes.ResetRequest, who: Resetter, key: Key = "") -> shapes.ResetAnswer:
    """Permit a restart. Starts nothing. 409: nothing was lifted, for a reason to be weighed."""
    console = console_of(request)
    scope = scope_named(console.fleet, wanted.group, wanted.pod)
    await demand_reach(request, who, scope, Power.RESET)
    await demand_confirmed(console, who, wanted)

    async def do() -> shapes.ResetAnswer:
        return reset_answer_of(
            await console.reset(
                scope, by=who.name, reason=wanted.reason, force=wanted.force, even_recent=wanted.even_recent
            )
        )

    return await _once(request, who, key, do)  # type: ignore[return-value]


async def demand_confirmed(console: Console, who: Principal, wanted: shapes.ResetRequest) -> None:
    """A reset is typed out. For the page, too.

    Raises:
        Refused: 422, the name is not the fleet's, or there is no reason.
    """
    if wanted.confirm != console.fleet.name:
        await console.refuse(what="reset", why="the fleet's name was not typed out", via=VIA, by=who.name)
        raise Refused(422, f"confirm: type out {console.fleet.name}: this permits pods of that fleet to start again")
    if not wanted.reason.strip():
        raise Refused(422, "reason: why is it safe to start again? It goes into the audit")

"""What the server answers: the stop, which nothing gates, and everything else, which a policy of ``force-off`` shuts.

No route starts anything that was stopped. Handlers never block the server's loop.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.iostream import StreamClosedError

from skillbus import __version__
from skillbus.core.orders import KillOrder
from skillbus.core.text import harmless
from skillbus.errors import DiskRefused
from skillbus.jupyter.hosted import BEGINNING, Account, HostedPod
from skillbus.skills.lock import read_lock
from skillbus.skills.verify import looked_at

STOP_WITHIN_S = 5.0
"""Seconds for a pass to be observed over. Beyond them the answer is that it is not."""

_PING_S = 15.0
"""Seconds of silence in a stream of events, at most: proxies close what is silent for longer."""


class SkillbusRoute(APIHandler):
    """A route that speaks of this server's pod."""

    auth_resource = "skillbus"

    @property
    def hosted(self) -> HostedPod:
        """The server's pod."""
        return cast(HostedPod, self.settings["skillbus_hosted"])

    def show(self, account: Account) -> None:
        """What the body has no room for, as headers."""
        self.set_header("X-Skillbus-State", account.state)
        self.set_header("X-Skillbus-Why", _ascii(account.why))
        if self.hosted.pod is not None:
            self.set_header("X-Skillbus-Pod", self.hosted.pod.identity.pod_id)
            self.set_header("X-Skillbus-Fleet", self.hosted.pod.identity.fleet.name)


class PolicyGated(SkillbusRoute):
    """A route that a policy shuts."""

    async def prepare(self, **more: Any) -> None:
        """403 under ``force-off``, for whoever is logged in."""
        await super().prepare(**more)
        if self.current_user and (policy := self.hosted.forced_off_by):
            raise web.HTTPError(403, log_message=f"shut by policy: {harmless(policy)}")


class StopRoute(SkillbusRoute):
    """Stop this server's pod. **Never policy-gated**: it works in the very state in which it is needed."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """``{"stopped": …, "was_running": …}``, once the pass is observed quiet; 503 if that takes too long.

        ``?persist=true``: an order for this pod's own scope too, with tombstone and record; 202 while the record is not
        known to stand.
        """
        hosted, persist = self.hosted, self.get_query_argument("persist", "false").lower() in ("true", "1", "yes")
        by = _who(self.current_user)
        was_running = hosted.stop(f"stopped by {by} via http")
        if persist:
            await hosted.until(lambda: hosted.account().state != BEGINNING, STOP_WITHIN_S)
            record = hosted.order(KillOrder(id=uuid.uuid4().hex, by=by, via="jupyter", reason="stopped in its server"))
            self.set_header("X-Skillbus-Record", record.id if record else "")
        await hosted.until(lambda: hosted.account().stopped and (not persist or hosted.recorded()), STOP_WITHIN_S)
        account, is_recorded = hosted.account(), hosted.recorded()
        self.show(account)
        if persist:
            self.set_header("X-Skillbus-Recorded", "true" if is_recorded else "false")
        self.set_status(_stop_status(account, unrecorded=persist and not is_recorded))
        self.finish(json.dumps({"stopped": account.stopped, "was_running": was_running}))


def _stop_status(account: Account, *, unrecorded: bool) -> int:
    if not account.stopped:
        return 503
    return 202 if unrecorded else 200


class ReconcileRoute(PolicyGated):
    """Ask for a pass, through the same gate as any other."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """202: asked. 409: this pod is stopped, and no route starts it again."""
        account = self.hosted.account()
        self.show(account)
        refused = account.state not in ("running", "starting", "holding")
        if not refused:
            self.hosted.reconcile_now()
        self.set_status(409 if refused else 202)
        self.finish(json.dumps({"asked": not refused, "state": account.state, "why": harmless(account.why, 1000)}))


class StatusRoute(PolicyGated):
    """Where the pod stands, and what it manages."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """The account, and the managed skills with their source and revision."""
        skills = await asyncio.to_thread(managed, self.hosted)
        self.finish(json.dumps({**_fields(self.hosted), **skills}))


class EventsRoute(PolicyGated):
    """The account, at each change, as server-sent events."""

    _track_activity = False
    """Whoever watches is not at work: a hub may still cull the server."""

    gone = False

    def on_connection_close(self) -> None:
        """Nobody listens any more."""
        super().on_connection_close()
        self.gone = True
        self.hosted.bell.ring()

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """``event: status`` with the account, first at once."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Accel-Buffering", "no")
        shown = ""
        try:
            while not (self.hosted.ended or self.gone):
                rung = self.hosted.bell.next()
                text = json.dumps(_fields(self.hosted))
                self.write(f"event: status\ndata: {text}\n\n" if text != shown else ": still here\n\n")
                await self.flush()
                shown = text
                await _any_of(rung, _PING_S)
        except StreamClosedError:
            return


async def _any_of(rung: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await rung.wait()
    except TimeoutError:
        return


def _fields(hosted: HostedPod) -> dict[str, Any]:
    """The account as JSON fields."""
    account, pod = hosted.account(), hosted.pod
    identity = pod.identity if pod is not None else None
    return {
        "schema_version": 1,
        "state": account.state,
        "why": harmless(account.why, 1000),
        "quiet": account.quiet,
        "since_ms": account.since_ms,
        "causes": [cause.model_dump(mode="json") for cause in account.causes],
        "last_pass": account.last_pass.model_dump(mode="json") if account.last_pass else None,
        "pod": identity.pod_id if identity else "",
        "fleet": identity.fleet.name if identity else "",
        "groups": list(identity.groups) if identity else [],
        "version": __version__,
    }


def managed(hosted: HostedPod) -> dict[str, Any]:
    """Blocking: the receipts of every skills root, and what could not be read."""
    skills: list[dict[str, str]] = []
    errors: list[str] = []
    for path in hosted.roots:
        try:
            skills += _receipts(path)
        except DiskRefused as error:
            errors.append(harmless(str(error), 1000))
    return {"skills": skills, "errors": errors}


def _receipts(path: Path) -> list[dict[str, str]]:
    with looked_at(path) as root:
        receipts = read_lock(root).receipts if root is not None else {}
    words = ("url", "revision", "digest", "placed_at", "instead_of")
    return [
        {"name": name, "root": str(path), **{word: harmless(asdict(receipt)[word], 300) for word in words}}
        for name, receipt in sorted(receipts.items())
    ]


def _who(user: Any) -> str:
    return harmless(str(getattr(user, "username", user) or "somebody"), 80)


def _ascii(text: str) -> str:
    """Fit for a header: one line of printable ASCII."""
    return harmless(text, 300).encode("ascii", "replace").decode()


ROUTES = [
    (r"/notebook-intelligence/skills/reconciler/stop", StopRoute),
    (r"/skillbus/reconciler/stop", StopRoute),
    (r"/skillbus/reconcile", ReconcileRoute),
    (r"/skillbus/status", StatusRoute),
    (r"/skillbus/events", EventsRoute),
]

"""From a delivery to the order: scopes, repetitions, failures, floods, and that nothing here can reset."""

from __future__ import annotations

import ast
import asyncio
import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from fastapi.routing import APIRoute

import skillbus.console.webhooks as package
from skillbus.bus.operator_bus import OrderAnswers
from skillbus.console.webhooks import door as door_module
from skillbus.console.webhooks import kinds, router, webhook_named
from skillbus.console.webhooks.door import Door
from skillbus.console.webhooks.settings import webhooks_given
from skillbus.console.webhooks.webhook import Answer, Webhook
from skillbus.control.kill import KillReport, OrderUnconfirmed
from skillbus.core.certificate import Held
from skillbus.core.orders import KillOrder
from skillbus.core.scope import Fleet, Scope
from skillbus.errors import BusDenied, BusNotReady, BusUnreachable, SkillbusError
from tests.unit.console.webhooks.deliveries import NOW_S, SECRET, pagerduty_signed, raw, slack
from tests.unit.console.webhooks.test_pagerduty import event, note

T = TypeVar("T")
PROD = Fleet("prod")


@dataclass
class Console:
    """Whoever gives the orders: keeps them, and fails as it is told to."""

    fleet: Fleet = PROD
    failure: SkillbusError | None = None
    not_recorded: bool = False
    hangs: asyncio.Event | None = None
    orders: list[tuple[str, KillOrder]] = field(default_factory=list)
    refusals: list[dict[str, str]] = field(default_factory=list)

    async def kill(self, order: KillOrder, scope: Scope, *, wait_s: float) -> KillReport:
        if self.hangs is not None:
            await self.hangs.wait()
        if self.failure is not None:
            raise self.failure
        self.orders.append((scope.label, order))
        record = order.record(fallback_id="r1", now_ms=0)
        recorded = BusNotReady("out of memory") if self.not_recorded else True
        answers = OrderAnswers(server_ms=1, recorded=recorded, receivers=3, audited="1-0")
        return KillReport(scope, record, not self.not_recorded, True, answers, Held(), None)

    async def refuse(self, *, what: str, why: str, via: str, by: str = "", scope: str = "") -> None:
        self.refusals.append({"what": what, "why": why, "via": via, "by": by, "scope": scope})


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "wall_ms", lambda: int(NOW_S * 1000))


def _door(console: Console, kind: str, **given: str) -> Door:
    environ = {f"SKILLBUS_WEBHOOK_{kind.upper()}_{name}": value for name, value in {"SECRET": SECRET, **given}.items()}
    (settings,) = webhooks_given(environ, console.fleet, kinds(), webhook_named)
    return Door(console, settings)


def _run(test: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await test()

    return asyncio.run(main())


def _receive(console: Console, kind: str, request: tuple[bytes, Mapping[str, str]], **given: str) -> Answer:
    async def main() -> Answer:
        return await _door(console, kind, **given).receive(*request)

    return asyncio.run(main())


# -- scopes ------------------------------------------------------------------------------------------------------------


def test_no_scope_means_all_that_it_is_bound_to() -> None:
    """The fleet by default; with a list, each of the list."""
    console = Console()
    _receive(console, "slack", slack("x"))
    _receive(console, "slack", slack("x"), SCOPE="group:a group:b")
    assert [label for label, _ in console.orders] == ["fleet", "group:a", "group:b"]


def test_bound_to_the_fleet_it_may_stop_any_part() -> None:
    """A part is less than the whole."""
    console = Console()
    given = _receive(console, "slack", slack("group:a pod:p1 x"))
    assert [label for label, _ in console.orders] == ["group:a", "pod:p1"]
    assert "NOT" not in given.body["text"]


@pytest.mark.parametrize("asked", ["[skillbus:kill fleet]", "[skillbus:kill group:b]", "[skillbus:kill pod:p1]"])
def test_bound_to_a_group_it_stops_nothing_else(asked: str) -> None:
    """Not the fleet, no other group, no pod (nobody knows here whose it is). Audited, with who asked."""
    console = Console()
    given = _receive(console, "pagerduty", pagerduty_signed(raw(note(asked))), SCOPE="group:a")
    assert console.orders == []
    assert given.body["outcome"] == "refused"
    (refusal,) = console.refusals
    assert refusal["via"] == "pagerduty"
    assert refusal["by"] == "Tenex Engineer"
    assert "may stop group:a" in refusal["why"]


def test_what_names_no_scope_stops_nothing() -> None:
    """A name that cannot be one is never rounded up to the fleet; what else was asked for is done."""
    console = Console()
    given = _receive(console, "slack", slack("group:a/b group:ok x"))
    assert [label for label, _ in console.orders] == ["group:ok"]
    assert "'group:a/b' is no scope" in given.body["text"]
    assert len(console.refusals) == 1


# -- repetitions -------------------------------------------------------------------------------------------------------


def test_a_repetition_is_not_carried_out() -> None:
    """Once recorded it would kill again behind a reset: it is answered with 200, does nothing, and is audited."""
    console = Console()
    request = pagerduty_signed(raw(event()))

    async def main() -> list[Answer]:
        door = _door(console, "pagerduty")
        return [await door.receive(*request) for _ in range(3)]

    answers = _run(main)
    assert [one.status for one in answers] == [200, 200, 200]
    assert [one.body["outcome"] for one in answers] == ["killed", "ignored", "ignored"]
    assert len(console.orders) == 1
    assert {refusal["why"] for refusal in console.refusals} == {"this delivery was carried out before"}


def test_a_delivery_that_failed_may_come_again() -> None:
    """A retry behind a failure is what the sender is for."""
    console = Console(failure=BusUnreachable("no answer"))
    request = pagerduty_signed(raw(event()))

    async def main() -> list[int]:
        door = _door(console, "pagerduty")
        first = await door.receive(*request)
        console.failure = None
        return [first.status, (await door.receive(*request)).status]

    assert _run(main) == [503, 200]
    assert len(console.orders) == 1


def test_memory_is_bounded_by_what_was_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers fill nothing; of those who have the secret, the oldest is forgotten first."""
    monkeypatch.setattr(door_module, "MEMORY_COUNT", 3)
    console = Console()
    requests = [slack(f"reason {i}") for i in range(5)]

    async def main() -> None:
        door = _door(console, "slack")
        for request in [*requests, slack("x", secret="somebody else's secret"), requests[4], requests[2], requests[0]]:
            await door.receive(*request)

    _run(main)
    assert [order.reason[-1] for _, order in console.orders] == ["0", "1", "2", "3", "4", "0"]


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (BusUnreachable("no answer from redis"), "NOT stored"),
        (BusDenied("NOPERM"), "NOT stored"),
        (OrderUnconfirmed("no answer"), "NOT confirmed as stored"),
    ],
)
def test_an_order_that_could_not_be_given_is_503(failure: SkillbusError, said: str) -> None:
    """Worth a retry; the sentence says what is known."""
    given = _receive(Console(failure=failure), "pagerduty", pagerduty_signed(raw(event())))
    assert given.status == 503
    assert said in given.body["orders"][0]["told"]


def test_published_but_not_recorded_is_503() -> None:
    """Pods have stopped, and restarted ones would run: the sender is to try again."""
    given = _receive(Console(not_recorded=True), "pagerduty", pagerduty_signed(raw(event())))
    assert given.status == 503
    assert given.body["orders"][0]["told"] == "published, NOT recorded: out of memory"


def test_answer_in_time_while_the_order_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slack waits for three seconds. What Redis takes longer for is told as not confirmed, and still carried out."""
    monkeypatch.setattr(door_module, "ANSWER_S", 0.01)
    console = Console()

    async def main() -> Answer:
        console.hangs = asyncio.Event()
        given = await _door(console, "slack").receive(*slack("x"))
        assert console.orders == []
        console.hangs.set()
        while not console.orders:
            await asyncio.sleep(0)
        return given

    given = _run(main)
    assert "NOT recorded (fleet)" in given.body["text"]
    assert "still being tried" in given.body["text"]


# -- floods ------------------------------------------------------------------------------------------------------------


def test_bad_signatures_are_audited_and_nothing_else_happens() -> None:
    """Each is told to the console, which makes few entries of many; none is an order."""
    console = Console()
    for kind in sorted(kinds() - {"standard"}):
        _receive(console, kind, (b'{"x":1}', {}))
    assert console.orders == []
    assert [refusal["via"] for refusal in console.refusals] == ["alertmanager", "pagerduty", "slack"]


def test_many_scopes_are_all_stopped_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand alerts in a thousand scopes, and a hundred in none: one entry in the audit, not a hundred."""
    monkeypatch.setattr(door_module, "ANSWER_S", 60.0)
    console, running = Console(), {"now": 0, "most": 0}
    kill = console.kill

    async def counted(order: KillOrder, scope: Scope, *, wait_s: float) -> KillReport:
        running["now"] += 1
        running["most"] = max(running["most"], running["now"])
        await asyncio.sleep(0)
        running["now"] -= 1
        return await kill(order, scope, wait_s=wait_s)

    console.kill = counted  # type: ignore[method-assign]
    labels = {"skillbus_action": "kill"}
    alerts = [{"status": "firing", "labels": labels | {"skillbus_pod": f"p{i}"}} for i in range(1000)]
    alerts += [{"status": "firing", "labels": labels | {"skillbus_pod": f"/{i}"}} for i in range(100)]
    body = raw({"version": "4", "alerts": alerts})
    given = _receive(console, "alertmanager", (body, {"authorization": f"Bearer {SECRET}"}))
    assert given.status == 200
    assert len(console.orders) == 1000
    assert running["most"] == 8
    assert len(console.refusals) == 1
    assert "and 99 more" in console.refusals[0]["why"]


# -- structure ---------------------------------------------------------------------------------------------------------

FILES = sorted(Path(package.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_webhook_can_reset(path: Path) -> None:
    """Structure, not promise: no file here imports what resets, drills or arms, nor speaks of it to the console."""
    tree = ast.parse(path.read_text())
    imported = {f"{node.module}.{name.name}" for node in _nodes(tree, ast.ImportFrom) for name in node.names}
    imported |= {name.name for node in _nodes(tree, ast.Import) for name in node.names}
    control = {name for name in imported if name.startswith("skillbus.control")}
    words = {"skillbus.control.telling_orders.is_recorded", "skillbus.control.telling_orders.kill_sentence"}
    assert control <= words | {"skillbus.control.kill.KillReport", "skillbus.control.kill.OrderUnconfirmed"}
    assert not {name for name in imported if name.startswith(("skillbus.bus", "skillbus.wiring", "skillbus.cli"))}
    assert not {name for name in imported if name.split(".")[0] in {"redis", "importlib"} and path.stem != "__init__"}
    touched = {node.attr for node in _nodes(tree, ast.Attribute)}
    assert not touched & {"reset", "arm", "buses", "endpoint", "epoch_key"}


def _nodes(tree: ast.AST, kind: type[T]) -> list[T]:
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


def test_a_webhook_sees_two_verbs_of_the_console() -> None:
    """What a door may have done ends at a kill and an audited refusal."""
    verbs = {name for name in vars(door_module.Orders) if not name.startswith("_")}
    assert verbs == {"fleet", "kill", "refuse"}


def test_routes_are_the_doors_that_are_on_and_no_other() -> None:
    """Each a POST of its own name, and what answers lies in this package."""
    given = {f"SKILLBUS_WEBHOOK_{kind}_SECRET": SECRET for kind in ("SLACK", "PAGERDUTY")}
    routes = [route for route in router(Console(), given).routes if isinstance(route, APIRoute)]
    assert {route.path for route in routes} == {"/hooks/slack", "/hooks/pagerduty"}
    assert all(route.methods == {"POST"} for route in routes)
    assert {route.endpoint.__module__ for route in routes} == {"skillbus.console.webhooks"}
    assert router(Console(), {}).routes == []


FIFTH = '''
"""A fifth."""
from skillbus.console.webhooks.webhook import Accepted, Asked, Refused, Webhook, is_one_of, order_of

def read(delivery):
    if not is_one_of([delivery.headers.get("x-key", "")], delivery.secrets):
        return Refused("no")
    return Accepted((Asked(order_of("carrier_pigeon", by="pigeon", reason=delivery.body.decode())),))

WEBHOOK = Webhook(read, options=frozenset({"loft"}))
'''


def test_a_fifth_webhook_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beside the others is found, has its settings and its door, and touches no other file."""
    (tmp_path / "carrier_pigeon.py").write_text(FIFTH)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    console = Console()
    given = _receive(console, "carrier_pigeon", (b"coo", {"x-key": SECRET}), LOFT="east", SCOPE="group:a")
    assert given.status == 200
    assert [(label, order.reason) for label, order in console.orders] == [("group:a", "coo")]


def test_only_webhooks_that_are_on_are_imported() -> None:
    """Slack's SDK is loaded where Slack is used."""
    loaded: list[str] = []

    def load(kind: str) -> Webhook:
        loaded.append(kind)
        return webhook_named(kind)

    webhooks_given({"SKILLBUS_WEBHOOK_PAGERDUTY_SECRET": SECRET}, PROD, kinds(), load)
    assert loaded == ["pagerduty"]


def test_each_kind_is_what_its_file_says() -> None:
    """Every file that is not shared holds a webhook, under the four names that docs/bots.md has."""
    assert kinds() == {"alertmanager", "pagerduty", "slack", "standard"}
    assert all(isinstance(webhook_named(kind), Webhook) for kind in kinds())

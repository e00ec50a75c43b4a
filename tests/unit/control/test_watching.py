"""Who is a straggler, and what of a fleet has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import skillbus.control.watching as control_watching
from skillbus.cli.wall import changes
from skillbus.control.status import Pods, Status
from skillbus.control.watching import Watching, stragglers_first
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import ScopeReading, State
from skillbus.core.orders import KillRecord
from skillbus.core.ports import Reading
from skillbus.core.roster import PodView, view
from skillbus.core.scope import Fleet, Scope
from tests.fakes.clock import FakeClock
from tests.unit.core.beats import T0, beat

PROD = Fleet("prod")


def fleet(**beats: Heartbeat | None) -> list[PodView]:
    """As seen at ``T0``."""
    return view(T0, {name: [] if one is None else [one] for name, one in beats.items()})


def ranked(pods: list[PodView], *kills: Scope) -> tuple[list[str], int]:
    """Names, stragglers first, and how many these are."""
    found, count = stragglers_first(pods, kills)
    return [pod.pod_id for pod in found], count


def test_without_a_kill_whoever_does_not_run_is_a_straggler() -> None:
    """The deaf first, for it looks as if all were well; who ended or is lost comes last."""
    pods = fleet(
        runs=beat(),
        holds=beat(state=State.HOLDING),
        waits=beat(state=State.STOPPED),
        deaf=beat(deaf_since_ms=T0 - 1),
        silent=beat(beat_at_ms=T0 - 60_000),
        ended=beat(ended_at_ms=T0),
        lost=None,
    )
    assert ranked(pods) == (["deaf", "holds", "silent", "waits", "runs", "ended", "lost"], 4)


def test_a_kill_makes_those_stragglers_that_it_reaches() -> None:
    """Of a group, a pod, or all: who still runs comes first; who stopped is as it should be."""
    pods = fleet(a=beat(groups=("eu",)), b=beat(groups=("us",)), c=beat(state=State.STOPPED, groups=("eu",)))
    assert ranked(pods) == (["c", "a", "b"], 1)
    assert ranked(pods, PROD.group("eu")) == (["a", "b", "c"], 1)
    assert ranked(pods, PROD.pod("b")) == (["b", "c", "a"], 2)
    assert ranked(pods, PROD.scope) == (["a", "b", "c"], 2)
    assert ranked(pods, PROD.group("b")) == (["c", "a", "b"], 1)


def seen(*kills: Scope, server_ms: int = T0, **beats: Heartbeat) -> Status:
    """A fleet at one moment."""
    records = tuple((scope, KillRecord(id="r")) for scope in kills)
    return Status("prod", server_ms, True, records, Pods(fleet(**beats)))


def kinds(last: Status | None, now: Status) -> list[str]:
    """The changes, in short."""
    return [f"{change['change']} {change.get('pod', '')}".strip() for change in changes(last, now)]


def test_changes_are_told_and_beats_are_not() -> None:
    """Everything first; then what is another in more than its instants; a pod that left; a kill."""
    first = seen(a=beat(), b=beat())
    assert kinds(None, first) == ["all"]
    assert kinds(first, seen(a=beat(beat_at_ms=T0 + 2000), b=beat(heard_at_ms=T0), server_ms=T0 + 2000)) == []
    assert kinds(first, seen(a=beat(state=State.HOLDING), b=beat())) == ["fleet", "pod a"]
    assert kinds(first, seen(a=beat(armed=True), b=beat())) == ["pod a"]
    assert kinds(first, seen(a=beat(), b=beat(), c=beat())) == ["fleet", "pod c"]
    assert kinds(first, seen(a=beat())) == ["fleet", "gone b"]
    assert kinds(first, seen(PROD.group("eu"), a=beat(), b=beat())) == ["fleet"]
    (told,) = changes(first, seen(PROD.group("eu"), a=beat(), b=beat()))
    assert "pods" not in told
    assert told["counts"] == {"running": 2}


class Fleet500:
    """An operator's bus, as far as a look needs it: five hundred pods, and a whole look costs 10 s of a processor."""

    def __init__(self) -> None:
        self.fleet = PROD
        self.streams = self
        self.asked: list[int] = []
        self.used_s = 0.0

    async def pod_ids(self) -> list[str]:
        return [f"pod-{number}" for number in range(500)]

    async def heartbeats(self, ids: list[str]) -> tuple[int, dict[str, list[Heartbeat]]]:
        self.asked.append(len(ids))
        self.used_s += len(ids) / 50
        return T0, {name: [beat()] for name in ids}

    async def killed_scopes(self) -> list[Scope]:
        return []

    async def read(self, scopes: list[Scope]) -> Reading:
        return Reading({scope: ScopeReading(0, None) for scope in scopes}, T0, armed=True)

    async def older(self, key: str, before: str = "+") -> list[Any]:
        return []


def test_a_few_hinted_pods_do_not_wait_for_the_rest_that_a_whole_look_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a look at all must not be repeated for minutes, three that say that they changed are read at once."""

    async def run() -> None:
        bus, clock = Fleet500(), FakeClock()
        monkeypatch.setattr(control_watching, "cpu_s", lambda: bus.used_s)
        watching = Watching(bus, clock)  # type: ignore[arg-type]
        looks = watching.looks()
        assert isinstance(looks, AsyncGenerator)
        await anext(looks)
        for name in (b"pod-1", b"pod-2", b"pod-3"):
            watching._note(name)
        following = asyncio.ensure_future(anext(looks))
        await clock.advance(6.0)
        await following
        assert bus.asked == [500, 3]
        await looks.aclose()

    asyncio.run(run())

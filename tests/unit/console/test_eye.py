"""What differs between two looks, and what a look becomes on the way out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from skillbus.console.eye import _Before
from skillbus.console.views import row_of
from skillbus.control.status import Pods, Status
from skillbus.core.latch import State
from skillbus.core.orders import KillRecord
from skillbus.core.roster import view
from skillbus.core.scope import Fleet
from tests.unit.core.beats import T0, beat

PROD = Fleet("prod")


def look(states: dict[str, State], at_ms: int = T0) -> Status:
    """The fleet with these pods, at that time."""
    beats = {pod_id: [beat(state=state, beat_at_ms=at_ms, incarnation=pod_id)] for pod_id, state in states.items()}
    return Status("prod", at_ms, True, (), Pods(view(at_ms, beats)))


def test_only_what_has_changed_is_passed_on() -> None:
    """A first look is all news; the same again none; a state, a new pod and a gone one are; a heartbeat is its own."""

    async def run() -> None:
        before = _Before()
        first = look({"a": State.RUNNING, "b": State.RUNNING})
        assert {row.id for row in (await before.compare(first)).changed} == {"a", "b"}
        again = await before.compare(first)
        assert (again.changed, again.gone, again.beats) == ((), (), {})
        later = await before.compare(look({"a": State.RUNNING, "c": State.RUNNING}, T0 + 2000))
        assert ([row.id for row in later.changed], later.gone, later.beats) == (["c"], ("b",), {"a": T0 + 2000})
        assert later.rows["a"].beat_at_ms == T0 + 2000

    asyncio.run(run())


def test_a_kill_makes_stragglers_of_those_who_run() -> None:
    """Also if no hash has changed yet: what a pod should be depends on the kills."""

    async def run() -> None:
        before = _Before()
        first = look({"a": State.RUNNING})
        assert (await before.compare(first)).stragglers_count == 0
        killed = await before.compare(replace(first, kills=((PROD.scope, KillRecord(id="r")),)))
        assert ([row.straggles for row in killed.changed], killed.stragglers_count) == ([True], 1)

    asyncio.run(run())


def test_what_a_pod_says_of_itself_is_harmless_and_short() -> None:
    """Names, versions and words of a hostile pod bear no control character, and no row grows with them."""
    hostile = "\x1b[2J\u202e" * 1000
    beats = {"a": [beat(groups=(hostile,) * 100, version=hostile, skills=hostile, why=hostile)]}
    row = row_of(view(T0, beats)[0], frozenset())
    text = repr(row)
    assert not [c for c in ("\\x1b", "\\u202e") if c in text]
    assert len(text) < 4000

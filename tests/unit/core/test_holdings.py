"""Who holds a skill: live pods, by what they named and what could be read of it."""

from __future__ import annotations

from skillbus.core.holdings import Held, Wanted, holders, named_sets
from skillbus.core.latch import State
from skillbus.core.roster import PodView, view
from tests.unit.core.beats import T0, beat

OLD, NEW = "a" * 64, "b" * 64
S1, S2, S3 = ("1" * 64, "2" * 64, "3" * 64)


def pods(**sets: str) -> list[PodView]:
    """A live pod for each name, with the set that it names."""
    return view(T0, {name: [beat(skills=digest)] for name, digest in sets.items()})


def test_pods_are_grouped_by_digest() -> None:
    """The one that most hold first; who holds a set without it, is named too."""
    seen = pods(p1=S1, p2=S2, p3=S2, p4=S3)
    found = holders(Wanted("pdf"), seen, {S1: OLD, S2: NEW, S3: None})
    assert found.held == (Held(NEW, ("p2", "p3")), Held(OLD, ("p1",)))
    assert (found.without, found.untold, found.unreadable) == (("p4",), (), ())
    assert named_sets(seen) == [S1, S2, S3]


def test_a_prefix_narrows_it() -> None:
    """Another digest is as good as none."""
    found = holders(Wanted("pdf", "aaa"), pods(p1=S1, p2=S2), {S1: OLD, S2: NEW})
    assert (found.held, found.without) == ((Held(OLD, ("p1",)),), ("p2",))


def test_what_is_not_known_is_not_told_as_known() -> None:
    """Who told nothing, and who named what cannot be read, neither holds nor does without."""
    seen = pods(p1="", p2=S2, p3="no digest at all")
    found = holders(Wanted("pdf"), seen, {})
    assert (found.held, found.without) == ((), ())
    assert (found.untold, found.unreadable) == (("p1",), ("p2", "p3"))
    assert named_sets(seen) == [S2], "nobody is asked for a key that cannot be one"


def test_a_silent_pod_is_nowhere_and_a_stopped_one_is() -> None:
    """What a stopped pod holds is what an incident is about; of a silent one nothing is known."""
    beats = {
        "stopped": [beat(state=State.STOPPED, skills=S1)],
        "fenced": [beat(beat_at_ms=T0 - 60_000, skills=S1)],
        "ended": [beat(ended_at_ms=T0, skills=S1)],
        "lost": [],
    }
    found = holders(Wanted("pdf"), view(T0, beats), {S1: OLD})
    assert found.held == (Held(OLD, ("stopped",)),)
    assert (found.without, found.untold, found.unreadable) == ((), (), ())


def test_a_twin_holds_what_either_life_holds() -> None:
    """Two live processes under one id may differ: the pod is in both rows."""
    seen = view(T0, {"p": [beat("i1", skills=S1), beat("i2", skills=S2)]})
    found = holders(Wanted("pdf"), seen, {S1: OLD, S2: NEW})
    assert found.held == (Held(OLD, ("p",)), Held(NEW, ("p",)))

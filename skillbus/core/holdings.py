"""Who holds a skill, and at which digest: heartbeats and the sets that they name -> an answer. Pure.

It says nothing of pods that are silent: their disk may have changed hands since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skillbus.core.roster import PodView
from skillbus.core.skillset import is_digest


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody looks for: a skill, at any digest or at those that begin so."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """One digest of the skill, and the pods that hold it."""

    digest: str
    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holders:
    """Which live pods hold a skill.

    Attributes:
        held: by digest, the one that most pods hold first.
        without: live pods whose set does not hold it.
        untold: live pods that have said nothing of their set since they started.
        unreadable: live pods that name a set which is not to be found, or is not what they named.
    """

    held: tuple[Held, ...]
    without: tuple[str, ...]
    untold: tuple[str, ...]
    unreadable: tuple[str, ...]


def named_sets(pods: Sequence[PodView]) -> list[str]:
    """Every distinct set that a live pod names, sorted."""
    return sorted({digest for pod in pods for digest in _sets_of(pod) if is_digest(digest)})


def holders(wanted: Wanted, pods: Sequence[PodView], held_in: Mapping[str, str | None]) -> Holders:
    """Who holds ``wanted``.

    Args:
        held_in: for each set that could be read, the digest at which the skill is in it; None: it is not.
    """
    found: dict[str, set[str]] = {}
    without, untold, unreadable = [], [], []
    for pod in pods:
        sets = _sets_of(pod)
        digests = {held_in.get(name) for name in sets} - {None}
        matching = {digest for digest in digests if digest is not None and digest.startswith(wanted.prefix)}
        for digest in matching:
            found.setdefault(digest, set()).add(pod.pod_id)
        if "" in sets:
            untold.append(pod.pod_id)
        elif not sets <= held_in.keys():
            unreadable.append(pod.pod_id)
        elif sets and not matching:
            without.append(pod.pod_id)
    rows = [Held(digest, tuple(sorted(names))) for digest, names in found.items()]
    rows.sort(key=lambda row: (-len(row.pods), row.digest))
    return Holders(tuple(rows), tuple(sorted(without)), tuple(sorted(untold)), tuple(sorted(unreadable)))


@dataclass(frozen=True, slots=True)
class SkillHeld:
    """One digest of one skill, and the live pods that hold it."""

    skill: str
    digest: str
    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every skill that a live pod holds.

    Attributes:
        held: by name, then the digest that most pods hold first.
        untold: live pods that have said nothing of their set since they started.
        unreadable: live pods that name a set which is not to be found, or is not what they named.
    """

    held: tuple[SkillHeld, ...]
    untold: tuple[str, ...]
    unreadable: tuple[str, ...]


def inventory(pods: Sequence[PodView], sets: Mapping[str, Mapping[str, str]]) -> Inventory:
    """Who holds what.

    Args:
        sets: each set that could be read: digests by skill.
    """
    holding: dict[str, set[str]] = {}
    untold, unreadable = [], []
    for pod in pods:
        names = _sets_of(pod)
        for name in names & sets.keys():
            holding.setdefault(name, set()).add(pod.pod_id)
        if "" in names:
            untold.append(pod.pod_id)
        elif not names <= sets.keys():
            unreadable.append(pod.pod_id)
    found: dict[tuple[str, str], set[str]] = {}
    for name, pod_ids in holding.items():
        for skill, digest in sets[name].items():
            found.setdefault((skill, digest), set()).update(pod_ids)
    rows = [SkillHeld(skill, digest, tuple(sorted(ids))) for (skill, digest), ids in found.items()]
    rows.sort(key=lambda row: (row.skill, -len(row.pods), row.digest))
    return Inventory(tuple(rows), tuple(sorted(untold)), tuple(sorted(unreadable)))


def _sets_of(pod: PodView) -> set[str]:
    """What its live incarnations name. Empty for a pod that is not alive."""
    return {life.beat.skills for life in pod.current}

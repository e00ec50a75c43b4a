"""Which live pods hold a skill, and at which digest: one look at the pods' hashes, and one at each distinct set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skillbus.bus.operator_bus import OperatorBus
from skillbus.core.holdings import Holders, Inventory, Wanted, holders, inventory, named_sets
from skillbus.core.roster import PodView, view
from skillbus.core.scope import NAME
from skillbus.core.skillset import decoded
from skillbus.errors import BadSettings

_CHUNK = 100
"""Sets read at once: 30 MB at the very most, should somebody have made up that many."""


def wanted(text: str) -> Wanted:
    """``NAME`` or ``NAME@DIGEST-PREFIX``, as a person writes it.

    Raises:
        BadSettings: it is neither.
    """
    name, at, prefix = text.partition("@")
    prefix = prefix.strip().lower().removeprefix("sha256:")
    if not NAME.fullmatch(name) or (at and not prefix) or len(prefix) > 64 or set(prefix) - set("0123456789abcdef"):
        raise BadSettings(
            f"{text[:100]!r} names no skill: write NAME, or NAME@ and the first hexadecimal digits of its digest"
        )
    return Wanted(name, prefix)


async def find_holders(bus: OperatorBus, looked_for: Wanted) -> Holders:
    """Look who holds it. The work grows with the distinct sets, not with the pods, for most of them hold the same."""
    server_ms, beats = await bus.heartbeats(await bus.pod_ids())
    pods = view(server_ms, beats)
    sets = await _sets(bus, pods)
    return holders(looked_for, pods, {digest: skills.get(looked_for.name) for digest, skills in sets.items()})


async def take_inventory(bus: OperatorBus, pods: Sequence[PodView]) -> Inventory:
    """Which of these pods hold which skill at which digest."""
    return inventory(pods, await _sets(bus, pods))


async def _sets(bus: OperatorBus, pods: Sequence[PodView]) -> dict[str, Mapping[str, str]]:
    """Each set that a live pod names and that can be read: digests by skill."""
    names = named_sets(pods)
    found: dict[str, Mapping[str, str]] = {}
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        for digest, value in zip(chunk, await bus.skill_sets(chunk), strict=True):
            skills = decoded(digest, value)
            if skills is not None:
                found[digest] = skills
    return found

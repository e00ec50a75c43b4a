"""How many replicas, and whose disks, hold an order (WAIT, WAITAOF). Asked, never assumed, and never an error."""

from __future__ import annotations

from contextlib import suppress

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import boottime_s
from skillbus.core.certificate import Held
from skillbus.errors import SkillbusError


async def held_by(bus: OperatorBus, wanted_count: int | None, patience_s: float, connected: int | None = None) -> Held:
    """What holds the order that ``bus`` gave.

    Args:
        wanted_count: wait for so many replicas; None: for as many as there are.
        patience_s: seconds to wait for them, and then for the disks.
        connected: how many replicas there are; None: it is asked.
    """
    deadline_s = boottime_s() + patience_s
    with suppress(SkillbusError):
        connected = await bus.connected_replicas() if connected is None else connected
    count = max(wanted_count or 0, connected or 0)
    replicas = await _replicas(bus, count, deadline_s)
    if replicas is None:
        return Held(connected=connected)
    here, there = await _disks(bus, replicas, deadline_s) or (None, None)
    return Held(replicas, connected, here, there)


async def _replicas(bus: OperatorBus, wanted_count: int, deadline_s: float) -> int | None:
    count: int | None = None
    with suppress(SkillbusError):
        count = await bus.replicas(wanted_count, _left_s(deadline_s))
        while count < wanted_count and deadline_s > boottime_s():
            count = max(count, await bus.replicas(wanted_count, _left_s(deadline_s)))
    return count


async def _disks(bus: OperatorBus, replicas_count: int, deadline_s: float) -> tuple[bool | None, int] | None:
    """Whether the master's disk holds it, and how many replicas' disks; None: cannot be asked."""
    found: tuple[bool | None, int] | None = None
    with suppress(SkillbusError):
        found = await bus.fsynced(replicas_count, _left_s(deadline_s))
        while found is not None and _may_rise(found, replicas_count) and deadline_s > boottime_s():
            found = await bus.fsynced(replicas_count, _left_s(deadline_s)) or found
    return found


def _may_rise(found: tuple[bool | None, int], replicas_count: int) -> bool:
    here, there = found
    return here is False or there < replicas_count


def _left_s(deadline_s: float) -> float:
    return max(0.001, deadline_s - boottime_s())

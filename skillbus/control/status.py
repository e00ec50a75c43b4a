"""What stands where, as Redis tells it: the fleet, its kills, and every pod, stragglers first. It only looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from skillbus.bus.operator_bus import OperatorBus
from skillbus.control.drill import LastDrill, last_good_drill
from skillbus.core.orders import KillRecord
from skillbus.core.ports import Reading
from skillbus.core.roster import PodView, view
from skillbus.core.scope import Scope
from skillbus.errors import SkillbusError


class Pods(tuple[PodView, ...]):
    """The pods of one look, stragglers first. What must be counted of thousands is counted once, whoever asks."""

    @cached_property
    def counts(self) -> Counter[str]:
        """How many there are of each word."""
        return Counter(pod.word for pod in self)

    @cached_property
    def all_lifted(self) -> bool:
        """Whether every stopped one was stopped by kills that were reset since, and by nothing else."""
        lives = (life for pod in self if pod.word == "stopped" for life in pod.current)
        return all(cause.lifted for life in lives for cause in life.beat.causes)


@dataclass(frozen=True, slots=True)
class Status:
    """A fleet at one moment.

    Attributes:
        armed: whether its epoch exists.
        kills: every scope that is killed, the fleet first, with its record.
        pods: every pod of the roster.
        drill: the last good drill; None: none is known; or why the audit could not be read.
    """

    fleet: str
    server_ms: int
    armed: bool
    kills: tuple[tuple[Scope, KillRecord], ...]
    pods: Pods
    drill: LastDrill | SkillbusError | None = None

    @property
    def fleet_record(self) -> KillRecord | None:
        """The record of the fleet's own kill, if there is one."""
        return next((record for scope, record in self.kills if not scope.name), None)

    def counts(self) -> Counter[str]:
        """How many pods there are of each word."""
        return self.pods.counts


async def status(bus: OperatorBus) -> Status:
    """Look at the whole fleet."""
    _, beats = await bus.heartbeats(await bus.pod_ids())
    reading, kills = await kills_of(bus)
    return Status(
        fleet=bus.fleet.name,
        server_ms=reading.server_ms,
        armed=reading.armed,
        kills=kills,
        pods=Pods(view(reading.server_ms, beats)),
        drill=await _drill(bus),
    )


async def kills_of(bus: OperatorBus) -> tuple[Reading, tuple[tuple[Scope, KillRecord], ...]]:
    """The reading of the fleet's own scope and of all that are killed, and these with their records."""
    killed = await bus.killed_scopes()
    reading = await bus.read([bus.fleet.scope, *(scope for scope in killed if scope != bus.fleet.scope)])
    found = [(scope, stored.record) for scope, stored in reading.scopes.items() if stored.record is not None]
    return reading, tuple((scope, KillRecord.parse(raw)) for scope, raw in found)


async def _drill(bus: OperatorBus) -> LastDrill | SkillbusError | None:
    """Who may not read the audit sees the fleet all the same."""
    try:
        return await last_good_drill(bus)
    except SkillbusError as error:
        return error

"""Who a pod is."""

from __future__ import annotations

from dataclasses import dataclass, field

from skillbus.core.scope import Fleet, Scope


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a pod is. One incarnation is one start of it."""

    fleet: Fleet
    pod_id: str
    groups: tuple[str, ...]
    incarnation: str
    host: str = ""
    pid: int = 0
    scopes: tuple[Scope, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", self.fleet.scopes_of(self.pod_id, self.groups))

"""A kill switch for fleets of reconcilers: one published message stops every pod, and restarted pods stay stopped.

    import skillbus

    def work(checkpoint):
        for item in items():
            checkpoint()            # raises PassAborted when this pod must stop
            bring_in_line(item)

    with skillbus.embed(work, every="5m", fleet="prod"):
        serve_forever()

    skillbus.kill("token leaked", fleet="prod")    # from a bot; to be awaited: skillbus.bots.kill_async

Importing this module costs next to nothing: each name below is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from skillbus.bots import kill, status
    from skillbus.core.latch import State
    from skillbus.core.outcome import PassResult
    from skillbus.core.ports import Checkpoint, Permit, Reconciler
    from skillbus.errors import NeedsHuman, PassAborted, RetryLater, SkillbusError
    from skillbus.pod.pod import Pod
    from skillbus.settings import Settings
    from skillbus.wiring import embed

__all__ = [
    "Checkpoint",
    "NeedsHuman",
    "PassAborted",
    "PassResult",
    "Permit",
    "Pod",
    "Reconciler",
    "RetryLater",
    "Settings",
    "SkillbusError",
    "State",
    "__version__",
    "embed",
    "kill",
    "status",
]

_HOMES = {
    "Checkpoint": "skillbus.core.ports",
    "NeedsHuman": "skillbus.errors",
    "PassAborted": "skillbus.errors",
    "PassResult": "skillbus.core.outcome",
    "Permit": "skillbus.core.ports",
    "Pod": "skillbus.pod.pod",
    "Reconciler": "skillbus.core.ports",
    "RetryLater": "skillbus.errors",
    "Settings": "skillbus.settings",
    "SkillbusError": "skillbus.errors",
    "State": "skillbus.core.latch",
    "embed": "skillbus.wiring",
    "kill": "skillbus.bots",
    "status": "skillbus.bots",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'skillbus' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""Environment and policy file -> latch (docs/protocol.md §2). Both latch this process alone and write nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from skillbus.core.latch import CauseKind
from skillbus.pod.switch import Switch

NAMES = ("SKILLBUS_POLICY", "NBI_SKILLS_MANAGEMENT_POLICY")
_FORCE_OFF = "force-off"
_LIMIT = 4096


def forces_off(value: str) -> bool:
    """Whether ``value`` is the word that stops: trimmed, any case. ``force_off`` is not it."""
    return value.strip().lower() == _FORCE_OFF


def check_environment(switch: Switch, environ: Mapping[str, str] = os.environ) -> None:
    """Before each cycle: trip the latch if a policy variable forces it."""
    for name in NAMES:
        if forces_off(environ.get(name, "")):
            switch.trip(CauseKind.POLICY, f"{name} is {_FORCE_OFF}")


def check_file(switch: Switch, path: Path) -> None:
    """At each heartbeat: trip the latch if the file forces it; hold while it is named but cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(_LIMIT).decode("utf-8", "replace")
    except OSError as error:
        switch.hold("policy_file", f"the policy file {path} cannot be read ({error.strerror}): mend it, or name none")
        return
    switch.release("policy_file")
    if forces_off(text):
        switch.trip(CauseKind.POLICY_FILE, f"{path} says {_FORCE_OFF}")

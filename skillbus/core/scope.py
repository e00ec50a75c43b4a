"""Names: every channel and key of the protocol, on one screen (docs/protocol.md §1).

Keys bear the fleet in braces, so that all keys of a fleet share a slot on Redis Cluster. Channels and what people see
do not. Nothing else in skillbus builds a name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from skillbus.errors import BadSettings

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def checked_name(kind: str, name: str) -> str:
    """``name`` itself, if it can be a fleet, group, pod or bot name.

    Raises:
        BadSettings: it does not match ``[A-Za-z0-9._-]{1,64}``.
    """
    if not NAME.fullmatch(name):
        raise BadSettings(f"{name[:80]!r} cannot be the name of a {kind}: use 1 to 64 of A-Z a-z 0-9 . _ -")
    return name


class ScopeKind(StrEnum):
    """How much of a fleet an order reaches."""

    FLEET = "fleet"
    GROUP = "group"
    POD = "pod"


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """What one kill reaches: a whole fleet, one group of it, or one pod."""

    fleet: str
    kind: ScopeKind = ScopeKind.FLEET
    name: str = ""

    @property
    def suffix(self) -> str:
        """Empty for the fleet, else ``:group:<name>`` or ``:pod:<id>``."""
        return "" if self.kind is ScopeKind.FLEET else f":{self.kind}:{self.name}"

    @property
    def label(self) -> str:
        """As evidence, audit and tombstones name it: ``fleet``, ``group:<name>``, ``pod:<id>``."""
        return self.suffix.lstrip(":") or "fleet"

    @property
    def kill_channel(self) -> str:
        """Any message on it is a kill order."""
        return f"skillbus:{self.fleet}:kill{self.suffix}"

    @property
    def killed_key(self) -> str:
        """The record. If the key exists, of whatever type and value, the scope is killed."""
        return f"skillbus:{{{self.fleet}}}:killed{self.suffix}"

    @property
    def epoch_key(self) -> str:
        """Which resets have been. Moved by reset alone."""
        return f"skillbus:{{{self.fleet}}}:epoch{self.suffix}"

    def __str__(self) -> str:
        """As an operator reads it: ``fleet 'prod'``, ``group 'batch' of fleet 'prod'``."""
        whole = f"fleet '{self.fleet}'"
        return whole if self.kind is ScopeKind.FLEET else f"{self.kind} '{self.name}' of {whole}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """A namespace on one Redis, and every name in it that is not a scope's."""

    name: str

    def __post_init__(self) -> None:
        checked_name("fleet", self.name)

    @property
    def scope(self) -> Scope:
        """The whole fleet."""
        return Scope(self.name)

    def group(self, name: str) -> Scope:
        """One group of the fleet."""
        return Scope(self.name, ScopeKind.GROUP, checked_name("group", name))

    def pod(self, pod_id: str) -> Scope:
        """One pod of the fleet."""
        return Scope(self.name, ScopeKind.POD, checked_name("pod", pod_id))

    def scopes_of(self, pod_id: str, groups: tuple[str, ...]) -> tuple[Scope, ...]:
        """Every scope a pod belongs to, the fleet first."""
        return (self.scope, *(self.group(group) for group in groups), self.pod(pod_id))

    def of_suffix(self, suffix: str) -> Scope | None:
        """The scope whose ``suffix`` this is, or None."""
        if not suffix:
            return self.scope
        match = re.fullmatch(r":(group|pod):([A-Za-z0-9._-]{1,64})", suffix)
        return Scope(self.name, ScopeKind(match[1]), match[2]) if match else None

    def pod_key(self, pod_id: str) -> str:
        """The hash in which a pod leaves its evidence; one field per incarnation."""
        return f"skillbus:{{{self.name}}}:pod:{pod_id}"

    @property
    def roster_key(self) -> str:
        """The sorted set by which pod hashes are found."""
        return f"skillbus:{{{self.name}}}:roster"

    @property
    def audit_key(self) -> str:
        """The stream of control and keeper."""
        return f"skillbus:{{{self.name}}}:audit"

    def bot_audit_key(self, bot: str) -> str:
        """The stream of one bot."""
        return f"{self.audit_key}:bot:{checked_name('bot', bot)}"

    def skills_key(self, digest: str) -> str:
        """What a digest of installed skills stands for (core/holdings.py)."""
        return f"skillbus:{{{self.name}}}:skills:{digest}"

    @property
    def events_channel(self) -> str:
        """A hint that a hash has changed. Never evidence."""
        return f"skillbus:{self.name}:events"

    @property
    def drill_channel(self) -> str:
        """Rehearse the stop."""
        return f"skillbus:{self.name}:drill"

    @property
    def sync_channel(self) -> str:
        """Reconcile now."""
        return f"skillbus:{self.name}:sync"

    def echo_channel(self, pod_id: str) -> str:
        """A pod's own voice, by which it proves that it still hears."""
        return f"skillbus:{self.name}:echo:{pod_id}"

    def keeper_echo_channel(self, keeper: str) -> str:
        """A keeper's own voice. No pod's name holds a colon, so it is nobody else's."""
        return f"skillbus:{self.name}:echo:keeper:{keeper}"

    @property
    def kill_pattern(self) -> str:
        """A glob of the kill channels of every group and pod. No name of a fleet holds a glob's own characters."""
        return f"{self.scope.kill_channel}:*"

    def of_kill_channel(self, channel: str) -> Scope | None:
        """The scope whose kill channel this is, or None."""
        kill = self.scope.kill_channel
        return self.of_suffix(channel.removeprefix(kill)) if channel.startswith(kill) else None

    @staticmethod
    def of_epoch_key(key: str) -> str | None:
        """The fleet whose fleet-wide epoch ``key`` is, or None. For listing the fleets of a Redis."""
        match = re.fullmatch(r"skillbus:\{([A-Za-z0-9._-]{1,64})\}:epoch", key)
        return match[1] if match else None

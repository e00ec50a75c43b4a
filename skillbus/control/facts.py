"""What doctor saw: plain facts, without an opinion. Read by control/doctor.py, judged by control/findings.py.

Whatever may be refused is either the fact or an ``Unseen`` that says why, so that no check can take silence for health.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from skillbus.bus.probe import Unseen
from skillbus.core.roster import PodView


class Entry(StrEnum):
    """Whether somebody without a password gets in."""

    SHUT = "shut"
    STRAIGHT = "open without a password"
    BY_ANY_WORD = "open with any password"
    AFTER_RESET = "open after RESET"
    UNSURE = "not known"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One server: the one of the URL, a replica of it, or one that a Sentinel knows.

    Attributes:
        name: ``host:port``, or the URL without its secrets.
        failure: why nothing could be asked there with our credentials; empty if something could.
        info: the fields of INFO.
        config: the answers to CONFIG GET of the few settings that INFO does not tell.
        role: ``master`` or ``slave``, by ROLE or INFO.
        entry: whether the stock user lets anybody in.
        files_limit: how many descriptors its process may open, if it is on this machine and can be seen.
    """

    name: str
    failure: str = ""
    info: Mapping[str, str] | Unseen = field(default_factory=dict)
    config: Mapping[str, str] | Unseen = field(default_factory=dict)
    role: str | Unseen = "master"
    entry: Entry = Entry.SHUT
    files_limit: int | None = None


@dataclass(frozen=True, slots=True)
class SentinelFacts:
    """One Sentinel.

    Attributes:
        failure: why it could not be asked.
        masters: ``(name, run id)`` of each master that it watches.
        nodes: the addresses of those masters and of their replicas.
    """

    name: str
    failure: str = ""
    masters: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ()


class Means(StrEnum):
    """How it was found out what these credentials may do."""

    ASKED = "ACL DRYRUN"
    TRIED = "tried on a key that does not exist"


@dataclass(frozen=True, slots=True)
class Powers:
    """What these credentials may do.

    Attributes:
        undo: for each command that could remove or age a record or change the epoch, whether it is allowed; what was
            neither asked nor tried is not in it.
        publish_kill: whether they may publish a kill.
    """

    means: Means
    undo: Mapping[str, bool]
    publish_kill: bool | Unseen


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A record or an epoch as it lies there. ``ttl_s`` is -1 for a key that never expires."""

    name: str
    is_epoch: bool
    kind: str = "string"
    ttl_s: int = -1
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Clock:
    """Two clocks at one moment, in ms since 1970, and how long the question took."""

    server_ms: int
    local_ms: int
    took_ms: float


@dataclass(frozen=True, slots=True)
class Drills:
    """What the youngest entries of the audit say of drills; server time in ms, 0 for none."""

    good_ms: int = 0
    bad_ms: int = 0
    entries_count: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that doctor saw, at one moment.

    Attributes:
        url: as it may be shown.
        user: who we are there, by ACL WHOAMI.
        is_pod: whether the settings here are a pod's (it bears an id), so that it must hear kills.
        pings_ms: how long each PING took.
        nodes: the server of the URL first.
        deaf_to: ``(channel, why)`` of the kill channels that could not be subscribed.
        numsub_count: connections that hear the fleet's kill channel.
        killed: whether the fleet's record stands.
    """

    fleet: str
    kill_channel: str
    url: str
    is_local: bool
    is_tls: bool
    database: int
    is_pod: bool
    user: str | Unseen
    pings_ms: tuple[float, ...]
    clock: Clock | Unseen
    nodes: tuple[NodeFacts, ...]
    sentinels: tuple[SentinelFacts, ...]
    powers: Powers | Unseen
    deaf_to: tuple[tuple[str, str], ...]
    keys: tuple[KeyFacts, ...] | Unseen
    armed: bool | Unseen
    pods: tuple[PodView, ...] | Unseen
    strange_count: int
    numsub_count: int | Unseen
    drills: Drills | Unseen

    @property
    def here(self) -> NodeFacts:
        """The server that the URL names."""
        return self.nodes[0]

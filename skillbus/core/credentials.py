"""Whose credentials wrote the evidence: one ACL user for each pod, or one that many share (docs/protocol.md §5). Pure.

A pod says in its heartbeat by which ACL user the server knows it. That is the pod's own word: it can show that a user
is shared, and cannot prove that it is not. So nothing here says ``own`` without saying whose word that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from skillbus.core.heartbeat import Heartbeat

_NAMES_COUNT = 3


class Identity(StrEnum):
    """Who could have written the evidence of a fleet."""

    OWN = "own"
    SHARED = "shared"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Credentials:
    """By which ACL users the pods of a fleet write, as they say.

    Attributes:
        identity: ``shared``: two pods or more write as one user, or some as ``default``, which is everybody's;
            ``unknown``: some do not say; ``own``: each says that it has a user of its own.
        shared: ``(user, how many pods write as it)`` of those.
        silent_count: pods that do not say.
        pods_count: pods whose evidence there is.
    """

    identity: Identity = Identity.UNKNOWN
    shared: tuple[tuple[str, int], ...] = ()
    silent_count: int = 0
    pods_count: int = 0

    def sentence(self) -> str:
        """For people, with what follows from it: ``shared: 5 pods write as the ACL user 'pods': …``."""
        if self.identity is Identity.SHARED:
            users = [f"{_pods(count)} as the ACL user '{name}'" for name, count in self.shared[:_NAMES_COUNT]]
            more = f" and {len(self.shared) - _NAMES_COUNT} more such" if len(self.shared) > _NAMES_COUNT else ""
            said = f"shared: written by {', '.join(users)}{more}"
            return f"{said}: whoever holds that credential could have written this evidence"
        if self.identity is Identity.OWN:
            return "own: each pod says that it writes as an ACL user of its own"
        if not self.pods_count:
            return "unknown: there is no evidence"
        return f"unknown: {self.silent_count} of {_pods(self.pods_count)} do not say as which ACL user they write"


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def credentials_of(heartbeats: Mapping[str, Sequence[Heartbeat]]) -> Credentials:
    """Of the pods whose evidence this is."""
    return of_users((pod_id, beat.user) for pod_id, found in heartbeats.items() for beat in found)


def of_users(said: Iterable[tuple[str, str]]) -> Credentials:
    """Of pairs of a pod's id and the user that it names; empty: it names none."""
    pods: dict[str, set[str]] = {}
    for pod_id, user in said:
        pods.setdefault(user, set()).add(pod_id)
    silent = pods.pop("", set())
    shared = sorted((name, len(ids)) for name, ids in pods.items() if len(ids) > 1 or name == "default")
    count = len(silent.union(*pods.values()))
    alone = Identity.UNKNOWN if silent or not count else Identity.OWN
    identity = Identity.SHARED if shared else alone
    return Credentials(identity, tuple(shared), len(silent), count)

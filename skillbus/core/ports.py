"""The Protocols by which the rooms meet. A Protocol needs two implementations or it goes.

``Reconciler``    the built-in skills reconciler, a program, a user's function
``Checkpoint``    a pod's, and the tests' scripted one
``Bus``           Redis, and the tests' in-memory one, held to the same contract suite; ``KeeperBus`` likewise
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import ScopeReading
from skillbus.core.orders import KillRecord
from skillbus.core.outcome import PassResult
from skillbus.core.scope import Scope


@dataclass(frozen=True, slots=True)
class Permit:
    """A checkpoint's leave to make one change, good for that change alone.

    Attributes:
        at_s: boot-time clock, seconds, when it was given.
    """

    at_s: float


class Checkpoint(Protocol):
    """Where a pass asks whether it may go on (docs/protocol.md §3.6). Local and cheap; callable from any thread."""

    def __call__(self) -> Permit:
        """Leave to make one fetch, or one change.

        Raises:
            PassAborted: the pod is latched, its lease is over, or this is a forked child. Let it through.
        """
        ...

    async def settle(self, permit: Permit) -> None:
        """Ask, right after a change on disk, whether it may stay.

        If the change ended more than 250 ms after its permit, the record is read afresh first: the process may have
        been frozen in between.

        Raises:
            PassAborted: undo the change, report it as reverted, and let this through.
        """
        ...

    def tell(self, text: str) -> None:
        """Say what the pass is at, for people: a few words, shown by ``skillbus sync`` and ``status`` until the next.

        Cheap, from any thread, as often as you like. It is no evidence, and no promise that anybody sees it.
        """
        ...

    @property
    def lease_ends_at_s(self) -> float:
        """Boot-time clock, seconds: until when this pod may act, as things stand now."""
        ...


class Reconciler(Protocol):
    """Anything that brings something in line with something, again and again."""

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One pass. It is cancelled when the pod must stop, and must not return while anything of it still works.

        Raises:
            PassAborted: as a checkpoint raised it.
            Exception: anything else makes the pass ``failed``, and the loop goes on.
        """
        ...

    @property
    def vouched(self) -> bool:
        """Whether the end of ``reconcile`` proves that all its work ended. Who cannot vouch is never ``stopped``."""
        ...


class Write(StrEnum):
    """What became of an attempt to write a record."""

    WRITTEN = "written"
    ADOPTED = "adopted"
    SUPERSEDED = "superseded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class WriteAnswer:
    """The answer to an attempt to write a record, under the epoch rule.

    Attributes:
        epoch: the stored epoch as read in the same transaction; 0 if the key is absent.
        record: the record that stands: ours, or the one that was first.
        refusal: for ``REFUSED``, the server's words. The epoch is good all the same.
    """

    write: Write
    epoch: int
    record: KillRecord
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a subscription: the channel's name and the payload as it came."""

    channel: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """A good read of every scope of a pod.

    Attributes:
        scopes: what each said.
        server_ms: the server's clock.
        armed: whether the fleet's epoch exists.
        refusal: the server's words if it read but would not take the writes (out of memory, disk full).
        incarnations_count: how many incarnations the pod's hash holds; 0 if nobody asked.
        user: the ACL user that the server takes us for; empty: it did not tell, or nobody asked.
        server: the address that answered, where Sentinels name it; empty: the URL's own, whoever is behind it.
    """

    scopes: Mapping[Scope, ScopeReading]
    server_ms: int
    armed: bool
    refusal: str = ""
    incarnations_count: int = 0
    user: str = ""
    server: str = ""


class Subscription(Protocol):
    """One subscriber connection. It never reconnects by itself: when it breaks it is closed and another is made."""

    @property
    def confirmed(self) -> frozenset[str]:
        """The channels and patterns whose confirmation was counted on this very connection."""
        ...

    @property
    def server(self) -> str:
        """The address that it leads to, where Sentinels name it; empty: the URL's own, whoever is behind it."""
        ...

    async def get(self, timeout_s: float) -> Message | None:
        """The next message, or None if none came in time. Confirmations are counted and not returned.

        Raises:
            BusUnreachable: the connection is gone.
            BusDenied: the server refused a channel.
        """
        ...

    async def close(self) -> None:
        """Drop the connection. Never raises."""
        ...


class Records(Protocol):
    """Where a record is written: the bus of a pod, or a keeper's."""

    async def write_record(self, scope: Scope, record: KillRecord, latch_epoch: int | None) -> WriteAnswer:
        """Write ``record`` if the scope has none and no epoch newer than ``latch_epoch`` is stored.

        Raises:
            RetryLater, NeedsHuman: nothing is known of the epoch either.
        """
        ...


class Bus(Records, Protocol):
    """The verbs of the protocol that a pod needs. Every one ends within the command timeout (1 s)."""

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str] = ()) -> Subscription:
        """Open a subscriber connection to a master and ask for ``channels``; confirmations are yet to come.

        Args:
            patterns: channels by their glob, each confirmed under its own text.

        Raises:
            RetryLater, NeedsHuman: as for ``read``.
        """
        ...

    async def read(self, scopes: Sequence[Scope]) -> Reading:
        """Read every scope's epoch, then its record, afresh.

        Raises:
            BusUnreachable: no answer in time.
            BusNotReady: no master, or it cannot read now.
            BusDenied: an ACL or password refuses it.
        """
        ...

    async def beat(
        self,
        scopes: Sequence[Scope],
        pod_id: str,
        heartbeat: Heartbeat,
        echo: bytes,
        *,
        hint: bool,
        lasting: bool = False,
    ) -> Reading:
        """``read``, and in the same round trip take the place in the roster, beat in the pod's hash, send an echo.

        Args:
            echo: what to say on the pod's own channel; empty: nothing.
            hint: whether to tell watchers that the hash has changed.
            lasting: whether the hash must be there for days after its last beat, not for a minute: somebody in it
                could not vouch for the end of its work.
        """
        ...

    async def tell_skills(self, digest: str, value: bytes) -> None:
        """Put what ``digest`` stands for (core/skillset.py) where readers find it, if nothing is there yet.

        Raises:
            RetryLater, NeedsHuman: it may not be there.
        """
        ...

    async def incarnations(self, pod_id: str) -> dict[str, bytes]:
        """What the pod's own hash holds, by incarnation."""
        ...

    async def forget(self, pod_id: str, incarnations: Sequence[str]) -> None:
        """Remove the evidence of incarnations of this pod that have certainly ended."""
        ...

    async def close(self) -> None:
        """Drop every connection. Never raises."""
        ...


class KeeperBus(Records, Protocol):
    """The verbs of the protocol that a keeper needs (docs/protocol.md §5)."""

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str] = ()) -> Subscription:
        """As a pod's bus."""
        ...

    async def read(self, scopes: Sequence[Scope]) -> Reading:
        """As a pod's bus. Of many scopes in several round trips, so that a record need not wait for all of them."""
        ...

    async def speak(self, scopes: Sequence[Scope], channel: str, echo: bytes) -> Reading:
        """``read``, and in the same round trip send an echo.

        Raises:
            RetryLater, NeedsHuman: as ``read``, or the echo was refused.
        """
        ...

    async def killed_scopes(self) -> Sequence[Scope]:
        """Every scope of the fleet that has a record, also a group or pod that nobody knows."""
        ...

    async def tell(self, entry: Mapping[str, str], covers: Callable[[Mapping[str, str]], bool], since_ms: int) -> bool:
        """Add an entry to the audit unless one there says the same: whether it was added. Atomic, so that of several
        keepers one tells.

        Args:
            covers: whether an entry that is there makes this one superfluous.
            since_ms: entries before this instant (server time) do not count.

        Raises:
            RetryLater, NeedsHuman: it is not known to be there.
        """
        ...

    async def tidy_roster(self, silent_s: float) -> int:
        """Remove from the roster whoever has been silent for so long and left no hash; how many."""
        ...

    async def close(self) -> None:
        """Drop every connection. Never raises."""
        ...

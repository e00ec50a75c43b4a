"""A heartbeat: the evidence that one incarnation of a pod leaves in its own hash (docs/protocol.md §1, §3).

Everything here was observed by the pod that wrote it. Instants are server time in milliseconds: the last answer's TIME
carried on by the boot-time clock. A reader tolerates unknown fields and unreadable values.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skillbus.core.latch import State
from skillbus.core.orders import PROTOCOL_VERSION

Millis = Annotated[int, Field(ge=0, le=250_000_000_000_000)]
"""An instant that can be reckoned with and shown: up to the year 9892. One pod's nonsense must not break a roster."""

DOING_LIMIT = 120
"""Characters of what a pass says that it is at: a line of a terminal."""

LeaseS = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class CauseLine(BaseModel):
    """One cause of a pod's latch, as shown to others. ``kind`` is a word, for a newer pod may know more of them."""

    model_config = ConfigDict(frozen=True)

    kind: str
    scope: str = ""
    record_id: str = ""
    reason: str = ""
    by: str = ""
    at: str = ""
    lifted: bool = False
    recorded: bool = True


class PassLine(BaseModel):
    """The last pass of a pod. ``outcome`` is ``ok``, ``failed`` or ``aborted``."""

    model_config = ConfigDict(frozen=True)

    id: str
    outcome: str
    trigger: str = "cycle"
    began_at_ms: int
    took_s: float
    counts: dict[str, int] = {}
    errors: tuple[str, ...] = ()
    reverted: tuple[str, ...] = ()


class DrillLine(BaseModel):
    """What one incarnation has to say of one drill (docs/protocol.md §3.13). An instant of 0 has not come yet.

    Attributes:
        heard_at_ms: the message was there.
        gate_at_ms: the switch had said what a kill would do.
        loop_at_ms: the pod's loop had its turn.
        answered_at_ms: the heartbeat left that says so.
        trips: whether a kill of each scope of the pod would stop it (or it is stopped).
        lease: whether it had a lease.
        channels: kill channels whose confirmation was counted on the connection that heard the drill.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    heard_at_ms: Millis = 0
    gate_at_ms: Millis = 0
    loop_at_ms: Millis = 0
    answered_at_ms: Millis = 0
    trips: bool = False
    lease: bool = False
    channels: tuple[str, ...] = ()


RAW = "raw-"
"""Before the digest of a raw message's payload, in place of the id that it does not have."""


class FurtherLine(BaseModel):
    """A further order for a scope that was killed already, as one incarnation heard it (docs/protocol.md §8).

    Attributes:
        id: the order's own; of a raw message ``raw-`` and the digest of its payload, the same in every pod.
        at_ms: server time at which it was heard, the last time.
        times: how often it was heard.
    """

    model_config = ConfigDict(frozen=True)

    scope: str
    id: str
    by: str = ""
    via: str = ""
    reason: str = ""
    at_ms: Millis = 0
    times: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1


class Heartbeat(BaseModel):
    """One incarnation's evidence. One field of the pod's hash, named by the incarnation.

    ``doing`` is what a pass in flight said that it is at: for people, and proof of nothing.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = PROTOCOL_VERSION
    incarnation: str
    state: State
    why: str = ""
    causes: tuple[CauseLine, ...] = ()
    beat_at_ms: Millis
    started_at_ms: Millis = 0
    lease_s: LeaseS = 6.0
    armed: bool = False
    heard_at_ms: Millis = 0
    hears_since_ms: Millis = 0
    deaf_since_ms: Millis = 0
    hears: tuple[str, ...] = ()
    quiet: bool = False
    quiet_at_ms: Millis = 0
    tripped_at_ms: Millis = 0
    vouched: bool = True
    latch_durable: bool = True
    ignored_count: int = 0
    passes_count: int = 0
    last_pass: PassLine | None = None
    skills: str = ""
    rests_until_ms: Millis = 0
    doing: str = ""
    groups: tuple[str, ...] = ()
    host: str = ""
    pid: int = 0
    version: str = ""
    ended_at_ms: Millis = 0
    drill: DrillLine | None = None
    drills_before: tuple[DrillLine, ...] = ()
    further: tuple[FurtherLine, ...] = ()
    further_left_out_count: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    user: str = ""

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """The heartbeat in ``raw``, or None if it is none: evidence that cannot be read is no evidence."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError:
            return None

    def to_bytes(self) -> bytes:
        """The value for the pod's hash."""
        return self.model_dump_json(exclude_defaults=False).encode()

    def obeys(self, record_id: str) -> bool:
        """Whether the kill with that record is among the causes of this incarnation's latch."""
        return record_id in [cause.record_id for cause in self.causes]

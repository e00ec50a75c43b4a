"""Every answer of the API and every event of the stream, with an example of each: the contract with the page and bots.

Whatever others wrote (reasons, names, versions) was made harmless before it came in here: no control, bidi or format
character, and short. Instants end in ``_at_ms`` (server time, milliseconds since 1970; 0: never) or are ISO 8601 texts.
A field is only ever added; ``schema_version`` moves when one changes its meaning.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(frozen=True, json_schema_extra={"examples": [value]})


class Shape(BaseModel):
    """Frozen, and nothing else."""

    model_config = ConfigDict(frozen=True)


# -- the fleet ---------------------------------------------------------------------------------------------------------


class PodRow(NamedTuple):
    """One pod, as an array in this order (``Snapshot.columns`` names it): ten thousand of them must travel.

    Attributes:
        id: the pod's id.
        word: running, deaf, stopping, stopped, holding, starting, fenced, unconfirmed, ended, lost.
        straggles: whether it is not as it should be: shown first.
        beat_at_ms: its last heartbeat. Newer ones come as ``beats`` events; the rest of a row then stays as it is.
        hears: whether every kill channel is confirmed and echoes.
        is_late: a heartbeat is overdue.
        groups: the groups it is in.
        outcome: of its last pass: ok, failed, aborted; empty: none yet.
        pass_at_ms: when that pass ended.
        skills: the first 12 digits of the digest of its set of skills; empty: not told.
        version: of skillbus.
        why: in short why it does not run; empty if it does.
        is_twin: two live processes share this id.
    """

    id: str
    word: str
    straggles: bool
    beat_at_ms: int
    hears: bool
    is_late: bool
    groups: tuple[str, ...]
    outcome: str
    pass_at_ms: int
    skills: str
    version: str
    why: str
    is_twin: bool


class Record(Shape):
    """The record of a kill: what stands in Redis."""

    model_config = _example(
        {
            "id": "6f1c0c5f0e0d4a1f9b1a8f5a3c2b1d0e",
            "at": "2026-01-31T14:02:11.123Z",
            "by": "oncall",
            "via": "http",
            "reason": "token leaked",
            "incident": "https://incidents.example/42",
            "heard_by": "",
        }
    )

    id: str
    at: str = ""
    by: str = ""
    via: str = ""
    reason: str = ""
    incident: str = ""
    heard_by: str = ""


class KilledScope(Shape):
    """A scope that is killed, and its record. ``scope`` is ``fleet``, ``group:NAME`` or ``pod:ID``."""

    scope: str
    record: Record
    sentence: str


class LastDrill(Shape):
    """The last drill that every live pod of the fleet answered."""

    at_ms: int
    by: str
    sentence: str


class KeeperView(Shape):
    """How the keeper stands: it hears every kill channel and makes a raw PUBLISH durable."""

    hears: bool = False
    hears_since_ms: int = 0
    deaf_since_ms: int = 0
    why: str = ""
    persisted_count: int = 0
    restored_count: int = 0
    last_persisted_at_ms: int = 0


class Blind(Shape):
    """The console gets no answer: every figure is as of ``seen_at_ms``.

    Attributes:
        since_ms: since when, by the console's own clock.
        seen_at_ms: server time of the last good look; 0: there was none since the console started.
    """

    since_ms: int
    seen_at_ms: int
    why: str


class Status(Shape):
    """The fleet in one look, without its pods.

    Attributes:
        word: RUNNING, STOPPING, STOPPED, NOT ARMED, UNKNOWN.
        headline: one sentence that can be read out.
        counts: how many pods there are of each word.
        stragglers_count: pods that are not as they should be.
        drill_error: why the last drill is not known.
        now_ms: server time of this look.
        kills_under_way: ids of kills whose certificate this console is still following.
    """

    model_config = _example(
        {
            "schema_version": 1,
            "fleet": "prod",
            "word": "STOPPED",
            "headline": "fleet 'prod': STOPPED 44: \"token leaked\" by oncall via http at 2026-01-31T14:02:11.123Z",
            "now_ms": 1769868200000,
            "is_armed": True,
            "pods_count": 44,
            "stragglers_count": 0,
            "counts": {"stopped": 44},
            "kills": [
                {
                    "scope": "fleet",
                    "record": {"id": "6f1c0c5f0e0d4a1f9b1a8f5a3c2b1d0e", "by": "oncall", "reason": "token leaked"},
                    "sentence": '"token leaked" by oncall via http at 2026-01-31T14:02:11.123Z',
                }
            ],
            "last_good_drill": {"at_ms": 1769860000000, "by": "oncall", "sentence": "44 of 44 answered"},
            "drill_error": "",
            "keeper": {"hears": True, "hears_since_ms": 1769850000000},
            "blind": None,
            "kills_under_way": [],
            "version": "0.1.0",
        }
    )

    schema_version: int = SCHEMA_VERSION
    fleet: str
    word: str
    headline: str
    now_ms: int = 0
    is_armed: bool = False
    pods_count: int = 0
    stragglers_count: int = 0
    counts: dict[str, int] = {}
    kills: tuple[KilledScope, ...] = ()
    last_good_drill: LastDrill | None = None
    drill_error: str = ""
    keeper: KeeperView = KeeperView()
    blind: Blind | None = None
    kills_under_way: tuple[str, ...] = ()
    version: str = ""


class Pods(Shape):
    """A page of pods, stragglers first.

    Attributes:
        total_count: pods that the filter takes, on all pages.
        columns: what each place of a row means.
    """

    schema_version: int = SCHEMA_VERSION
    now_ms: int
    blind: Blind | None = None
    total_count: int
    offset: int
    limit: int
    columns: tuple[str, ...] = PodRow._fields
    pods: tuple[PodRow, ...]


# -- kills -------------------------------------------------------------------------------------------------------------


class KillRequest(BaseModel):
    """What to stop, and why. An empty object stops the whole fleet."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"reason": "token leaked", "incident": "https://incidents.example/42"}]},
    )

    reason: str = Field("", max_length=1024 * 1024, description="Why. What exceeds 4 KiB is cut.")
    group: str | None = Field(None, description="Only this group of the fleet.")
    pod: str | None = Field(None, description="Only this pod.")
    incident: str = Field("", max_length=4096, description="URL of the incident.")
    wait_s: float = Field(
        0.0, ge=0.0, le=30.0, description="Seconds to wait for the proof before the answer. 0: answer at once."
    )


class HeldView(Shape):
    """What holds the record, as the server said. Null: it was not asked, or did not answer."""

    sentence: str
    replicas: int | None = None
    connected: int | None = None
    fsynced_here: bool | None = None
    fsynced_replicas: int | None = None


class ProofLine(Shape):
    """One incarnation's line of a certificate. ``seconds``: from order to quiet, if it stopped."""

    pod: str
    incarnation: str
    proof: str
    seconds: float
    at_ms: int
    last_beat_ms: int
    note: str


class CertificateView(Shape):
    """What is proved about a kill.

    Attributes:
        counts: stopped, fenced, unconfirmed, unknown.
        left_out_count: lines that the audit did not keep; ``histogram`` then tells how the times were spread, as
            ``[up to so many ms (0: more), how many]``.
        ack_ms: times from order to quiet, ascending, at most 500 of them spread evenly: enough for a picture.
    """

    sentence: str
    is_complete: bool
    is_interrupted: bool
    counts: dict[str, int]
    p50_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None
    order_ms: int = 0
    held: HeldView | None = None
    ack_ms: tuple[int, ...] = ()
    pods: tuple[ProofLine, ...] = ()
    left_out_count: int = 0
    histogram: tuple[tuple[int, int], ...] = ()


class KillAnswer(Shape):
    """What became of a kill: recorded, published, audited, held are four answers, never one.

    Attributes:
        id: of the record that stands: yours, or that of the kill before it.
        is_recorded: a record stands. Only if not, the status is 503.
        is_read_back: it was read back.
        is_first: it is yours; if not, the scope was killed already.
        is_published: Redis took the message. Never an acknowledgement of a pod.
        sentence: what was done, and what was not.
        errors: what failed, in words.
        order: the id of your own order, whichever record stands.
        certificate: what is proved so far; null: nobody waited. ``url`` has the latest.
    """

    model_config = _example(
        {
            "schema_version": 1,
            "id": "6f1c0c5f0e0d4a1f9b1a8f5a3c2b1d0e",
            "order": "6f1c0c5f0e0d4a1f9b1a8f5a3c2b1d0e",
            "url": "kills/6f1c0c5f0e0d4a1f9b1a8f5a3c2b1d0e",
            "scope": "fleet",
            "is_recorded": True,
            "is_read_back": True,
            "is_first": True,
            "is_published": True,
            "is_audited": True,
            "sentence": "recorded and published",
            "errors": [],
            "record": {"id": "6f1c0c5f0e0d4a1f9b1a8f5a3c2b1d0e", "by": "oncall", "reason": "token leaked"},
            "held": {"sentence": "on the master and 1 replica; fsynced on 2", "replicas": 1, "connected": 1},
            "certificate": None,
        }
    )

    schema_version: int = SCHEMA_VERSION
    id: str
    order: str
    url: str
    scope: str
    is_recorded: bool
    is_read_back: bool
    is_first: bool
    is_published: bool
    is_audited: bool
    sentence: str
    errors: tuple[str, ...] = ()
    record: Record
    held: HeldView
    certificate: CertificateView | None = None


class AuditEntry(Shape):
    """One entry of the audit.

    Attributes:
        id: its id in its stream; empty: no stream tells of it.
        source: control, bot:NAME, pods or record.
        kind: kill, heard, certificate, reset-asked, reset, arm, sync, drill, drill-result, restored, persisted,
            refused, …
        what: in a sentence, for a person.
        fields: as written, made harmless; without the certificate itself (see kills/ID).
    """

    model_config = _example(
        {
            "id": "1769868131123-0",
            "source": "control",
            "at_ms": 1769868131123,
            "at": "2026-01-31T14:02:11.123Z",
            "kind": "kill",
            "scope": "fleet",
            "by": "oncall",
            "via": "http",
            "record": "6f1c0c5f0e0d4a1f9b1a8f5a3c2b1d0e",
            "what": '"token leaked" [6f1c0c5f0e0d]',
            "fields": {"from": "skillbus@console-1"},
        }
    )

    id: str
    source: str
    at_ms: int
    at: str
    kind: str
    scope: str = ""
    by: str = ""
    via: str = ""
    record: str = ""
    what: str = ""
    fields: dict[str, str] = {}


class Audit(Shape):
    """A page of the audit, the newest first. ``before_ms`` asks for the next page; 0: there is none."""

    schema_version: int = SCHEMA_VERSION
    entries: tuple[AuditEntry, ...]
    before_ms: int = 0


class KillStory(Shape):
    """All that is known of one kill, whoever gave it.

    Attributes:
        is_under_way: this console is still following it; the certificate is as of now.
        certificate: null: none is kept.
        entries: the audit's entries about it, the newest last.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    is_under_way: bool
    record: Record | None = None
    certificate: CertificateView | None = None
    entries: tuple[AuditEntry, ...] = ()


# -- drill, sync, reset, inventory -------------------------------------------------------------------------------------


class DrillRequest(BaseModel):
    """Rehearse the stop: it stops nothing."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"timeout_s": 10}]})

    group: str | None = None
    pod: str | None = None
    timeout_s: float = Field(10.0, ge=0.1, le=60.0)


class DrillReply(Shape):
    """One incarnation's line: ``heard`` is answered, lacks a channel, stuck, silent or ended."""

    pod: str
    heard: str
    heard_s: float | None = None
    answered_s: float | None = None
    note: str = ""


class DrillAnswer(Shape):
    """Who answered a drill, and how fast. ``answered_s`` has p50, p99 and max."""

    schema_version: int = SCHEMA_VERSION
    id: str
    is_good: bool
    sentence: str
    asked_count: int = 0
    answered_count: int = 0
    answered_s: dict[str, float | None] = {}
    is_audited: bool = True
    errors: tuple[str, ...] = ()
    pods: tuple[DrillReply, ...] = ()


class SyncRequest(BaseModel):
    """Ask every pod for a pass now."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"timeout_s": 30}]})

    timeout_s: float = Field(30.0, ge=0.1, le=300.0)
    within_s: float | None = Field(None, ge=0.0, le=300.0, description="Spread the passes over so long.")


class PassView(Shape):
    """The pass that one pod made for a sync."""

    pod: str
    outcome: str
    took_s: float
    counts: dict[str, int] = {}
    errors: tuple[str, ...] = ()


class SyncAnswer(Shape):
    """What became of a sync."""

    schema_version: int = SCHEMA_VERSION
    id: str
    sentence: str
    took_s: float
    passes: tuple[PassView, ...] = ()
    missing: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    resting: tuple[tuple[str, int], ...] = ()


class ResetRequest(BaseModel):
    """Permit a restart. It starts nothing."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"confirm": "prod", "reason": "token rotated"}]}
    )

    confirm: str = Field(description="The fleet's name, typed out.")
    reason: str = Field(min_length=1, max_length=4096, description="Why it is safe to start again. Audited.")
    group: str | None = None
    pod: str | None = None
    force: bool = Field(False, description="Also a scope that has no record and no running pod.")
    even_recent: bool = Field(False, description="Also if it was ordered to stop again just now.")


class Lifted(Shape):
    """An order that a reset lifted."""

    at_ms: int
    by: str
    via: str
    reason: str
    id: str


class ResetAnswer(Shape):
    """What a reset did. ``killed_again``: a record came back while it watched."""

    schema_version: int = SCHEMA_VERSION
    scope: str
    epoch: int
    sentence: str
    lifted: tuple[Lifted, ...] = ()
    left_out_count: int = 0
    waiting: tuple[str, ...] = ()
    killed_again: Record | None = None


class SkillHolders(Shape):
    """One digest of a skill, and which live pods hold it (``pods``: at most 1000 names)."""

    skill: str
    digest: str
    pods_count: int
    pods: tuple[str, ...] = ()


class Inventory(Shape):
    """Which live pods hold which skill at which digest.

    Attributes:
        untold_count: live pods that have said nothing of their set since they started.
        unreadable_count: live pods that name a set which is not to be found.
    """

    schema_version: int = SCHEMA_VERSION
    now_ms: int
    held: tuple[SkillHolders, ...]
    untold_count: int = 0
    unreadable_count: int = 0


class Me(Shape):
    """Who asks, and what they may do: see, kill, drill, sync, reset.

    Attributes:
        scopes: the only scopes that the token may order about; empty: all.
        csrf: for ``X-CSRF-Token``, if a session cookie was sent.
    """

    name: str
    role: str
    powers: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    csrf: str = ""


# -- the stream --------------------------------------------------------------------------------------------------------


class Snapshot(Shape):
    """``event: snapshot``: the first event, and again after a gap. Everything before it is void."""

    status: Status
    columns: tuple[str, ...] = PodRow._fields
    pods: tuple[PodRow, ...]


class PodChanges(Shape):
    """``event: pods``: rows that are new or have changed, and ids that are gone. At most four a second."""

    now_ms: int
    changed: tuple[PodRow, ...] = ()
    gone: tuple[str, ...] = ()


class Beats(Shape):
    """``event: beats``: heartbeats of pods of which nothing else has changed: ``beat_at_ms - base_ms`` by id."""

    now_ms: int
    base_ms: int
    beats: dict[str, int]


class KillProgress(Shape):
    """``event: kill``: a kill that this console follows; the last one has ``is_under_way`` false.

    Also for a kill that somebody else gave, once its certificate is in the audit (then there is one such event).
    """

    id: str
    scope: str
    is_under_way: bool
    certificate: CertificateView


EVENTS: dict[str, type[BaseModel]] = {
    "snapshot": Snapshot,
    "status": Status,
    "pods": PodChanges,
    "beats": Beats,
    "audit": AuditEntry,
    "kill": KillProgress,
}
"""What ``data:`` holds for each ``event:``. ``audit`` events bear ``id:``, to be sent back as ``Last-Event-ID``."""


class Problem(Shape):
    """An error, as RFC 9457 has it (``application/problem+json``).

    Attributes:
        title: what the status means.
        detail: what happened and what to do next.
        done: for 503: what was done all the same.
        not_done: for 503: what was not.
        unknown: for 503: what may have been done, for no answer came.
    """

    model_config = _example(
        {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "no answer from redis://127.0.0.1:6379/0 within 1 s: is it up?",
            "done": [],
            "not_done": ["recorded", "published", "audited"],
            "unknown": [],
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    done: tuple[str, ...] = ()
    not_done: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

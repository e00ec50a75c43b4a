"""What stands in Redis for a fleet, and which of its pods would not hear. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from skillbus.bus.probe import Unseen
from skillbus.control.facts import Facts, KeyFacts
from skillbus.control.findings import Finding, broken, counted, named, note, ok, unseen, warning
from skillbus.core.credentials import Identity, of_users
from skillbus.core.latch import State
from skillbus.core.orders import PROTOCOL_VERSION
from skillbus.core.roster import Life, PodView

_DAY_MS = 86_400_000
_STALE_DAYS = 30
_YOUNG_MS = 10_000
"""Until then a pod may still be on its way to hearing."""


def fleet_findings(facts: Facts) -> Iterator[Finding]:
    """Every check of the fleet's keys, pods and drills."""
    yield _armed(facts)
    yield from _keys(facts)
    yield from _roster(facts)
    yield _listeners(facts)
    yield _drills(facts)


def _armed(facts: Facts) -> Finding:
    if isinstance(facts.armed, Unseen):
        return unseen("armed", "whether the fleet is armed", facts.armed)
    if not facts.armed:
        cure = "a new fleet? skillbus arm. An old one? its Redis lost its data: find out why first"
        return warning("armed", f"fleet '{facts.fleet}' is not armed: its pods hold", cure)
    return ok("armed", "the fleet is armed")


def _keys(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.keys, Unseen):
        yield unseen("records", "the records and epochs that stand", facts.keys)
        return
    faults = [fault for key in facts.keys if (fault := _fault(key)) is not None]
    yield from faults
    if not faults:
        records = sum(not key.is_epoch for key in facts.keys)
        yield ok(
            "records", f"{counted(records, 'record')} and {counted(len(facts.keys) - records, 'epoch')} as they must be"
        )


def _fault(key: KeyFacts) -> Finding | None:
    if key.ttl_s >= 0:
        cure = f"PERSIST {key.name} now, and find out who may EXPIRE it (skillbus acl grants that to nobody)"
        return broken("records", f"{key.name} will expire in {key.ttl_s} s: the stop undoes itself", cure)
    if key.is_epoch and (key.kind != "string" or not key.is_number):
        what = f"a {key.kind}" if key.kind != "string" else "no number"
        cure = f"an admin deletes {key.name}, then skillbus arm (fleet) or nothing (group, pod)"
        return broken("records", f"{key.name} is {what}: pods hold, and no reset can be", cure)
    if not key.is_epoch and key.kind != "string":
        seen = f"{key.name} is a {key.kind}: it stops all the same, but nobody can read why"
        return warning("records", seen, "find out who wrote it; a reset removes it")
    return None


def _roster(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.pods, Unseen):
        yield unseen("pods", "the pods and what they hear", facts.pods)
        return
    current = [life for pod in facts.pods for life in pod.current]
    found = [*_classes(facts, current), *_doubts(facts.pods)]
    if facts.strange_count:
        cure = "see who writes pod hashes; with a user for each pod (skillbus acl --pod-id) only that pod can"
        found.append(
            note("pods", f"{counted(facts.strange_count, 'hash field')} of pods cannot be read as evidence", cure)
        )
    if not current:
        cure = "start pods; until then use skillbus kill, which stores the order: a bare PUBLISH would be lost"
        found.append(warning("pods", f"no live pod is known in fleet '{facts.fleet}'", cure))
    yield from found
    yield from _identity(facts.pods)
    if not found:
        yield ok("pods", f"{counted(len(current), 'live pod')}, each hears itself and every kill channel")


Test = Callable[[Life], bool]


def _classes(facts: Facts, lives: Sequence[Life]) -> Iterator[Finding]:
    """Live pods that would not hear; each is in the first class that it fits."""

    def is_elsewhere(life: Life) -> bool:
        return bool(life.beat.hears) and facts.kill_channel not in life.beat.hears

    def is_young(life: Life) -> bool:
        return not life.beat.armed and life.beat.beat_at_ms - life.beat.started_at_ms < _YOUNG_MS

    rest = list(lives)
    for check, fits, severity, what, cure in (
        ("wrong-prefix", is_elsewhere, broken, f"listening, but not to {facts.kill_channel}", _SAME_FLEET),
        ("not-yet", is_young, note, "just started, not hearing yet", "look again in some seconds"),
        ("deaf", _is_deaf, broken, "deaf: only the stored record would stop them", _UNDEAF),
        ("old-protocol", _is_old, warning, f"speaking a protocol older than {PROTOCOL_VERSION}", "upgrade them"),
        ("holding", _is_holding, note, "holding: they hear, and do no work", "skillbus status says why"),
    ):
        caught = [life for life in rest if fits(life)]
        rest = [life for life in rest if not fits(life)]
        if caught:
            names = named(life.pod_id for life in caught)
            yield severity(check, f"{len(caught)} of {counted(len(lives), 'live pod')} {what}: {names}", cure)


_SAME_FLEET = "give them the same SKILLBUS_FLEET and version as the others, and restart them"
_UNDEAF = "see whether they reach Redis, and their user's channels (skillbus acl); then restart them"


def _is_deaf(life: Life) -> bool:
    return not life.beat.armed


def _is_old(life: Life) -> bool:
    return life.beat.v < PROTOCOL_VERSION


def _is_holding(life: Life) -> bool:
    return life.beat.state is State.HOLDING


def _doubts(pods: Sequence[PodView]) -> Iterator[Finding]:
    twins = [pod.pod_id for pod in pods if pod.twin]
    if twins:
        cure = "give each process an id of its own (SKILLBUS_POD_ID); a certificate waits for both"
        yield warning("twins", f"two live processes share an id: {named(twins)}", cure)
    doubtful = [pod.pod_id for pod in pods if any(not life.beat.vouched for life in pod.lives)]
    if doubtful:
        cure = "run programs with skillbus run -- PROGRAM on Linux, where a guard can vouch; end what is left by hand"
        yield warning("unvouched", f"the end of their work cannot be vouched for: {named(doubtful)}", cure)


def _identity(pods: Sequence[PodView]) -> Iterator[Finding]:
    """Only what live pods say: who wrote what is silent now writes no more."""
    found = of_users((life.pod_id, life.beat.user) for pod in pods for life in pod.current)
    if found.identity is Identity.SHARED:
        users = named(f"{name} ({counted(count, 'pod')})" for name, count in found.shared)
        cure = "a user for each pod (skillbus acl --pod ID …); until then certificates say identity: shared"
        yield warning("identity", f"pods share an ACL user, and each could write another's evidence: {users}", cure)
    elif found.silent_count:
        cure = "let them run this version, with the ACL lines of skillbus acl (ACL WHOAMI)"
        yield note("identity", f"{counted(found.silent_count, 'live pod')} do not say as which ACL user", cure)
    elif found.pods_count:
        yield ok("identity", "each live pod says that it writes as an ACL user of its own")


def _listeners(facts: Facts) -> Finding:
    if isinstance(facts.numsub_count, Unseen):
        return unseen("listeners", "how many connections hear the kill channel", facts.numsub_count)
    if isinstance(facts.pods, Unseen):
        return unseen("listeners", "how many pods there should be", facts.pods)
    live_count, count = sum(len(pod.current) for pod in facts.pods), facts.numsub_count
    seen = f"{counted(count, 'connection')} for {counted(live_count, 'live pod')} on {facts.kill_channel}"
    cure = "look again (some may just have ended); then see skillbus status for who is deaf"
    if live_count and not count:
        return broken("listeners", f"no connection hears {facts.kill_channel}, and {live_count} pods live", cure)
    return warning("listeners", seen, cure) if count < live_count else ok("listeners", seen)


def _drills(facts: Facts) -> Finding:
    if isinstance(facts.drills, Unseen):
        return unseen("drill", "when the last good drill was", facts.drills)
    drills, now_ms = facts.drills, 0 if isinstance(facts.clock, Unseen) else facts.clock.server_ms
    if not drills.good_ms and not drills.bad_ms:
        return warning("drill", "no drill is on record", "run skillbus drill: it stops nothing")
    if drills.bad_ms > drills.good_ms:
        cure = "run skillbus drill: it names who did not answer"
        return warning("drill", f"the last drill, {_ago(now_ms - drills.bad_ms)}, was not answered by every pod", cure)
    seen = f"the last good drill was {_ago(now_ms - drills.good_ms)}"
    if now_ms - drills.good_ms > _STALE_DAYS * _DAY_MS:
        return warning("drill", seen, "run skillbus drill: it stops nothing")
    return ok("drill", seen)


def _ago(age_ms: int) -> str:
    for unit_ms, name in ((_DAY_MS, "day"), (3_600_000, "hour"), (60_000, "minute")):
        if age_ms >= unit_ms:
            return f"{counted(age_ms // unit_ms, name)} ago"
    return "just now"

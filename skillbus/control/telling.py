"""What is told of a fleet and its pods, in the same words on every face: command line, page, stream.

Pure: it looks at nothing. What it says of a kill, a drill and the audit lies in ``telling_orders``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skillbus.control.status import Status
    from skillbus.core.roster import Life, PodView

RUNNING, STOPPING, STOPPED, NOT_ARMED, UNKNOWN = "RUNNING", "STOPPING", "STOPPED", "NOT ARMED", "UNKNOWN"
"""The first word of a headline."""

_ENDED = frozenset({"stopped", "fenced", "ended", "lost"})


def word_of(seen: Status) -> str:
    """The word that the headline begins with."""
    if seen.fleet_record is not None:
        return STOPPING if _open_count(seen) else STOPPED
    return RUNNING if seen.armed else NOT_ARMED


def _open_count(seen: Status) -> int:
    return sum(count for word, count in seen.counts().items() if word not in _ENDED)


def headline(seen: Status) -> str:
    """One sentence: ``fleet 'prod': RUNNING 44``, ``STOPPING 41/44``, ``STOPPED 44``, with what else there is."""
    counts, word, record = seen.counts(), word_of(seen), seen.fleet_record
    others = ", ".join(_counted(seen, word, count) for word, count in sorted(counts.items()) if word != "running")
    name, aside = f"fleet '{seen.fleet}': ", f" ({others})" if others else ""
    if record is not None:
        of = f"/{counts['stopped'] + _open_count(seen)}" if word == STOPPING else ""
        return f"{name}{word} {counts['stopped']}{of}: {record.sentence()}"
    if word == NOT_ARMED:
        return f"{name}NOT ARMED: its pods hold. A new fleet? run skillbus arm. An old one? its Redis lost its data"
    return f"{name}RUNNING {counts['running']}{aside}"


def _counted(seen: Status, word: str, count: int) -> str:
    lifted = word == "stopped" and seen.pods.all_lifted
    return f"{count} {word}" + (": reset, they wait for a restart" if lifted else "")


def life_of(pod: PodView) -> Life | None:
    """The life that is shown of a pod: the latest that may still act, else the latest of all."""
    lives = pod.current or pod.lives
    return max(lives, key=lambda life: life.beat.beat_at_ms) if lives else None


def why_of(life: Life) -> str:
    """Briefly: a kill by its scope, for its record stands above; anything else in the pod's own words."""
    if not life.beat.causes and life.beat.vouched:
        return life.beat.why
    words = []
    for cause in life.beat.causes:
        if not cause.scope:
            words.append(f"{cause.kind}: {cause.reason}")
            continue
        state = (
            "reset, waits for restart" if cause.lifted else ("killed" if cause.recorded else "killed, not recorded yet")
        )
        words.append(f"{cause.scope.replace(':', ' ')} {state}")
    if not life.beat.vouched:
        words.append("its work may go on: end this pod's processes by hand")
    return "; ".join(words)

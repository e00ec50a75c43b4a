"""What one pod shows to Prometheus: figures -> text. Pure; the names are a contract (docs/metrics.md).

The text format 0.0.4 is a dozen lines here, where the usual client library would cost every pod 1.3 MiB
(docs/decisions/metrics.md). No label holds a pod, a fleet or a reason: who scrapes knows whom, and a reason is foreign
text. So the number of series of a pod is fixed, and all of them are there from the first scrape on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from skillbus.core.latch import State
from skillbus.core.outcome import Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SERVER_CLOCK = "by the clock of the Redis server, seconds since 1970"


@dataclass(frozen=True, slots=True)
class Figures:
    """What a pod knows of itself at one moment. Instants are server time, ms; 0: there was none.

    Attributes:
        contact_at_ms: the last good answer of Redis.
        heard_at_ms: the last echo, on whatever connection.
        kill_to_quiet_s: from the trip of the latch to the observed quiet, or until now if a pass still winds down.
        pass_took_s: the last pass that ended.
        passes: how many passes ended, by outcome.
        drill_at_ms: the last drill that this pod answered.
    """

    state: State
    contact_at_ms: int = 0
    heard_at_ms: int = 0
    kill_to_quiet_s: float = 0.0
    pass_took_s: float = 0.0
    passes: Mapping[str, int] | None = None
    drill_at_ms: int = 0


def exposition(figures: Figures) -> str:
    """The whole answer to a scrape."""
    return "".join(_families(figures))


def _families(figures: Figures) -> Iterator[str]:
    yield family(
        "skillbus_stopped",
        "gauge",
        "1 if this pod is latched and was observed quiet: no pass is in flight, and none will start in this process.",
        {"": int(figures.state is State.STOPPED)},
    )
    yield family(
        "skillbus_state",
        "gauge",
        "1 for the state in which this pod is, 0 for the others.",
        {f'{{state="{state}"}}': int(state is figures.state) for state in State},
    )
    yield family(
        "skillbus_last_contact_timestamp_seconds",
        "gauge",
        f"When this pod last had a good answer from Redis, {_SERVER_CLOCK}; 0: never.",
        {"": seconds_text(figures.contact_at_ms)},
    )
    yield family(
        "skillbus_heard_timestamp_seconds",
        "gauge",
        f"When this pod last heard its own voice on its subscriber connection, {_SERVER_CLOCK}; 0: never.",
        {"": seconds_text(figures.heard_at_ms)},
    )
    yield family(
        "skillbus_kill_to_quiet_seconds",
        "gauge",
        "From the instant this pod was stopped (by its own clock) to its observed quiet, or so far; 0: not stopped.",
        {"": f"{figures.kill_to_quiet_s:.6f}"},
    )
    yield family(
        "skillbus_pass_duration_seconds",
        "gauge",
        "How long the last pass took that ended, however it ended; 0: none has.",
        {"": f"{figures.pass_took_s:.3f}"},
    )
    passes = figures.passes or {}
    yield family(
        "skillbus_passes_total",
        "counter",
        "Passes of this process that ended, by outcome.",
        {f'{{outcome="{outcome}"}}': passes.get(outcome, 0) for outcome in Outcome},
    )
    yield family(
        "skillbus_last_drill_timestamp_seconds",
        "gauge",
        f"When this process last answered a drill, {_SERVER_CLOCK}; 0: never.",
        {"": seconds_text(figures.drill_at_ms)},
    )


def family(name: str, kind: str, told: str, samples: Mapping[str, int | str]) -> str:
    """One metric in the text format; ``samples`` by their labels, written out."""
    lines = [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{labels} {value}" for labels, value in samples.items()]
    return "\n".join(lines) + "\n"


def seconds_text(at_ms: int) -> str:
    """An instant as Prometheus has it: seconds since 1970; 0: never."""
    return f"{at_ms // 1000}.{at_ms % 1000:03d}" if at_ms else "0"

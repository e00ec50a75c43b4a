"""What the console shows to Prometheus: of itself, and of the fleet as it sees it. Pure; the names are a contract.

While it is blind the figures of the fleet are left out: an old figure looks like a good one. No label holds a pod or a
reason (docs/decisions/metrics.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from skillbus.console.shapes import Status
from skillbus.core.metrics import family, seconds_text

_WORDS = (
    "running", "deaf", "stopping", "stopped", "holding", "starting", "fenced", "unconfirmed", "ended", "lost",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """What a console knows at one moment. Counts are since its start."""

    status: Status
    streams_count: int
    kills_given_count: int
    kills_failed_count: int
    refused_count: int


def exposition(figures: Figures) -> str:
    """The whole answer to a scrape."""
    return "".join([*_own(figures), *(_fleet(figures.status) if figures.status.blind is None else ())])


def _own(figures: Figures) -> Iterator[str]:
    status, keeper = figures.status, figures.status.keeper
    blind_ms = status.blind.since_ms if status.blind else 0
    yield family(
        "skillbus_console_blind_since_timestamp_seconds",
        "gauge",
        "Since when the console sees nothing, by its own clock; 0: it sees.",
        {"": seconds_text(blind_ms)},
    )
    yield family("skillbus_console_streams", "gauge", "Open streams of events.", {"": figures.streams_count})
    yield family(
        "skillbus_console_kills_total",
        "counter",
        "Kills ordered through this console, by what became of the order.",
        {'{outcome="given"}': figures.kills_given_count, '{outcome="failed"}': figures.kills_failed_count},
    )
    yield family("skillbus_console_refused_total", "counter", "Requests refused.", {"": figures.refused_count})
    yield family(
        "skillbus_console_keeper_hears", "gauge", "1 if the keeper hears every kill channel.", {"": int(keeper.hears)}
    )
    yield family(
        "skillbus_console_keeper_persisted_total",
        "counter",
        "Records that the keeper wrote for a raw PUBLISH.",
        {"": keeper.persisted_count},
    )
    yield family(
        "skillbus_console_keeper_restored_total",
        "counter",
        "Lost records that the keeper wrote back.",
        {"": keeper.restored_count},
    )


def _fleet(status: Status) -> Iterator[str]:
    counts = {word: status.counts.get(word, 0) for word in _WORDS}
    yield family(
        "skillbus_fleet_pods",
        "gauge",
        "Pods of the fleet, by word.",
        {f'{{word="{word}"}}': count for word, count in counts.items()},
    )
    yield family(
        "skillbus_fleet_stragglers",
        "gauge",
        "Pods that are not as they should be.",
        {"": status.stragglers_count},
    )
    yield family("skillbus_fleet_killed", "gauge", "1 if the fleet's record stands.", {"": int(_is_killed(status))})
    yield family("skillbus_fleet_killed_scopes", "gauge", "Scopes that are killed.", {"": len(status.kills)})
    yield family("skillbus_fleet_armed", "gauge", "1 if the fleet is armed.", {"": int(status.is_armed)})
    drill = status.last_good_drill
    yield family(
        "skillbus_fleet_last_good_drill_timestamp_seconds",
        "gauge",
        "The last drill that every live pod answered, by the clock of the Redis server; 0: none is known.",
        {"": seconds_text(drill.at_ms if drill else 0)},
    )


def _is_killed(status: Status) -> bool:
    return any(kill.scope == "fleet" for kill in status.kills)

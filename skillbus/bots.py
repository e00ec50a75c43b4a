"""Stopping a fleet from Python: for bots, scanners, pipelines. ``skillbus.kill("token leaked", fleet="prod")``.

It speaks to Redis itself, with whatever credentials it is given (``skillbus acl --role bot``), and needs no console.
Like every bot it can stop, look, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from skillbus.control.kill import Kill, KillReport
from skillbus.control.status import Status
from skillbus.control.status import status as look
from skillbus.control.telling import headline, word_of
from skillbus.control.telling_orders import is_recorded, kill_sentence, recorded_sentence
from skillbus.core.orders import KillOrder
from skillbus.core.scope import Fleet, Scope
from skillbus.errors import BadSettings, RetryLater
from skillbus.settings import Settings, duration_s, user_at_host
from skillbus.wiring import operator_bus

_T = TypeVar("_T")


class NotRecorded(RetryLater):
    """The order was published and not recorded: running pods have stopped, and restarted ones may run. Give it again.

    Attributes:
        report: what became of each part of it.
    """

    def __init__(self, report: KillReport) -> None:
        super().__init__(f"{recorded_sentence(report)}: restarted pods may run: give it again")
        self.report = report


@dataclass(frozen=True, slots=True)
class Killed:
    """A kill that stands.

    Attributes:
        id: of the record: yours, or that of the kill before it. ``skillbus history ID`` tells all about it.
        is_first: whether it is yours.
        is_proved: whether every expected pod has stopped, or is fenced. Not if nobody waited, or none is known.
        sentence: what was done, and what is proved, to be read out.
        report: all of it, with the certificate.
    """

    id: str
    is_first: bool
    is_proved: bool
    sentence: str
    report: KillReport


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """A fleet in one look.

    Attributes:
        word: ``RUNNING``, ``STOPPING``, ``STOPPED``, ``NOT ARMED``.
        headline: one sentence, to be read out.
        counts: how many pods there are of each word.
        seen: all of it: kills, pods, the last good drill.
    """

    word: str
    headline: str
    counts: dict[str, int]
    seen: Status


def kill(
    reason: str = "",
    *,
    group: str | None = None,
    pod: str | None = None,
    by: str = "",
    incident: str = "",
    timeout: str | float = 30.0,
    wait: bool = True,
    settings: Settings | None = None,
    **given: Any,
) -> Killed:
    """Stop a fleet, a group or a pod now. If this returns, the kill stands: restarted pods stay stopped.

    Works inside a running event loop, too, which it then blocks; there, ``await skillbus.bots.kill_async(…)`` does not.

    Args:
        group: only this group of the fleet.
        pod: only this pod.
        by: who orders it. Default: the user and the host.
        incident: URL of the incident.
        timeout: seconds, or ``"10s"``, to try to give the order, and then again to wait for the proof.
        wait: whether to wait for the proof at all.
        settings: loaded settings; default: ``Settings.load(**given)``, from the environment.
        given: single settings by name, for example ``fleet="prod"``, ``redis_url="redis://…"``.

    Raises:
        NotRecorded: published, and not recorded.
        OrderUnconfirmed: it was sent, and no answer came: it may be stored. A second kill does no harm.
        RetryLater: Redis could not be reached in time; nothing was done.
        NeedsHuman: a setting cannot be used, or Redis refuses these credentials; nothing was done.
    """
    return _finished(
        kill_async(
            reason,
            group=group,
            pod=pod,
            by=by,
            incident=incident,
            timeout=timeout,
            wait=wait,
            settings=settings,
            **given,
        )
    )


async def kill_async(
    reason: str = "",
    *,
    group: str | None = None,
    pod: str | None = None,
    by: str = "",
    incident: str = "",
    timeout: str | float = 30.0,
    wait: bool = True,
    settings: Settings | None = None,
    **given: Any,
) -> Killed:
    """The same as :func:`kill`, to be awaited."""
    loaded = settings or Settings.load(**given)
    scope = _scope(Fleet(loaded.bus.fleet), group, pod)
    order = KillOrder(by=by or user_at_host(), via="python", reason=reason, incident=incident)
    async with operator_bus(loaded) as bus:
        report = await Kill(bus, scope, order, _seconds(timeout), wait=wait).give()
    if not is_recorded(report):
        raise NotRecorded(report)
    is_proved = report.certificate is not None and report.certificate.complete and report.not_seen is None
    return Killed(report.record.id, report.first, is_proved, kill_sentence(report), report)


def status(*, settings: Settings | None = None, **given: Any) -> FleetStatus:
    """Look at a fleet. Works inside a running event loop, too, which it then blocks.

    Args:
        settings: loaded settings; default: ``Settings.load(**given)``, from the environment.
        given: single settings by name.

    Raises:
        RetryLater: Redis could not be reached: what stands is not known.
        NeedsHuman: a setting cannot be used, or Redis refuses these credentials.
    """
    return _finished(status_async(settings=settings, **given))


async def status_async(*, settings: Settings | None = None, **given: Any) -> FleetStatus:
    """The same as :func:`status`, to be awaited."""
    async with operator_bus(settings or Settings.load(**given)) as bus:
        seen = await look(bus)
    return FleetStatus(word_of(seen), headline(seen), dict(seen.counts()), seen)


def _scope(fleet: Fleet, group: str | None, pod: str | None) -> Scope:
    if group is not None and pod is not None:
        raise BadSettings("a kill reaches a group or a pod, not both: leave one of them out")
    if group is not None:
        return fleet.group(group)
    return fleet.scope if pod is None else fleet.pod(pod)


def _seconds(timeout: str | float) -> float:
    try:
        return duration_s(timeout)
    except ValueError as error:
        raise BadSettings(f"timeout: {error}") from None


def _finished(work: Coroutine[Any, Any, _T]) -> _T:
    """What ``work`` comes to. Where a loop runs already it gets one of its own, in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1, "skillbus-bot") as pool:
        return pool.submit(asyncio.run, work).result()

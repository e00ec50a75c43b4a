"""``skillbus status --watch``: the fleet as it is now, redrawn in place, as much of it as the terminal holds.

A small fleet is shown whole. A large one is counted, by state and group, and of its pods those are shown first that are
not as they should be. When Redis goes away the figures stay as they were last seen, grey, with since when. Into a pipe
goes one line for each change: a sentence, or JSON.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skillbus.cli.console import stdout
from skillbus.cli.status import fields_of, fleet_fields, kill_lines, pod_fields, pod_table
from skillbus.control.status import Status
from skillbus.control.telling import headline
from skillbus.control.watching import Watching, stragglers_first
from skillbus.core.orders import iso
from skillbus.core.roster import PodView, Presence
from skillbus.core.text import harmless
from skillbus.errors import SkillbusError
from skillbus.output import Output, print_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from skillbus.clock import Clock
    from skillbus.settings import Settings

_KILLS_SHOWN = 5
_GREY = "bright_black"


async def watch(settings: Settings, output: Output) -> None:
    """Until interrupted. SIGTERM and SIGHUP end it, too, and leave the terminal as it was."""
    from skillbus.clock import BootClock
    from skillbus.wiring import operator_bus

    clock = BootClock()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 (this is a coroutine)
    ended_by: list[int] = []

    def end(number: int) -> None:
        ended_by.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        async with operator_bus(settings) as bus, Watching(bus, clock) as watching:
            if output is Output.JSON:
                await _as_json(watching)
            elif stdout().is_terminal and os.environ.get("TERM") != "dumb":
                await _Wall(stdout(), clock).run(watching)
            else:
                await _as_sentences(watching)
    except asyncio.CancelledError:
        if ended_by:
            raise SystemExit(128 + ended_by[0]) from None
        raise


# -- a line for each change --------------------------------------------------------------------------------------------


async def _as_sentences(watching: Watching) -> None:
    import sys

    shown: list[str] = []
    async for seen in watching.looks():
        lines = [f"UNKNOWN: {harmless(str(seen), 2000)}"]
        if isinstance(seen, Status):
            lines = [
                headline(seen),
                *(f"{scope} is killed: {record.sentence()}" for scope, record in seen.kills if scope.name),
            ]
        if lines != shown:
            shown = lines
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()


async def _as_json(watching: Watching) -> None:
    """First everything (``change``: ``all``); then ``fleet``, ``pod``, ``gone``, and ``lost`` and ``back`` of Redis."""
    last: Status | None = None
    is_lost = False
    async for seen in watching.looks():
        if isinstance(seen, SkillbusError):
            if not is_lost:
                since_ms = last.server_ms if last else 0
                print_json("status", {"change": "lost", "error": str(seen), "last_seen_ms": since_ms})
            is_lost = True
            continue
        if is_lost:
            print_json("status", {"change": "back", "server_ms": seen.server_ms})
            is_lost = False
        for change in changes(last, seen):
            print_json("status", change)
        last = seen


def changes(last: Status | None, seen: Status) -> list[dict[str, Any]]:
    """What differs, each as JSON fields. The instants of heartbeats alone are no change."""
    if last is None:
        return [{"change": "all", **fields_of(seen)}]
    found: list[dict[str, Any]] = []
    if last.pods is not seen.pods:
        before = {pod.pod_id: pod for pod in last.pods}
        for pod in seen.pods:
            known = before.pop(pod.pod_id, None)
            if known is not pod and (known is None or _essence(known) != _essence(pod)):
                found.append({"change": "pod", "server_ms": seen.server_ms, **pod_fields(pod)})
        found += [{"change": "gone", "server_ms": seen.server_ms, "pod": name} for name in before]
    if found or (last.armed, last.kills) != (seen.armed, seen.kills):
        was, fields = fleet_fields(last), fleet_fields(seen)
        if was | {"server_ms": 0} != fields | {"server_ms": 0}:
            found.insert(0, {"change": "fleet", **fields})
    return found


def _essence(pod: PodView) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = [(pod.word, pod.twin)]
    for life in pod.lives:
        beat, presence = life.beat, Presence.LIVE if life.presence is Presence.LATE else life.presence
        last = beat.last_pass.id if beat.last_pass else ""
        state = (beat.state, beat.why, beat.causes, beat.quiet, beat.vouched)
        found.append((beat.incarnation, presence, *state, beat.armed, beat.hears, last, beat.skills, beat.groups))
    return found


# -- in place ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _View:
    """What of a status is costly to find, found once for as long as its pods stay the same."""

    seen: Status
    headline: str
    kills: list[str]
    pods: list[PodView]
    stragglers_count: int
    by_group: dict[str, Counter[str]]

    @classmethod
    def of(cls, seen: Status) -> _View:
        pods, count = stragglers_first(seen.pods, [scope for scope, _ in seen.kills])
        by_group: dict[str, Counter[str]] = {"": Counter()}
        for pod in pods:
            by_group[""][pod.word] += 1
            for group in {group for life in (pod.current or pod.lives) for group in life.beat.groups}:
                by_group.setdefault(group, Counter())[pod.word] += 1
        return cls(seen, headline(seen), kill_lines(seen), pods, count, by_group)


class _Wall:
    """The terminal, and what is on it."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._news = asyncio.Event()
        self._view: _View | None = None
        self._server_ms = 0
        self._seen_at_s = 0.0
        self._lost: SkillbusError | None = None
        self._body: RenderableType = ""
        self._made_for: tuple[object, ...] = ()

    async def run(self, watching: Watching) -> None:
        """Draw at each news, at each new size of the terminal, and each second, for ages go on."""
        from rich.live import Live

        loop = asyncio.get_running_loop()
        reading = asyncio.create_task(self._read(watching), name="reading")
        loop.add_signal_handler(signal.SIGWINCH, self._news.set)
        try:
            with Live(console=self._console, screen=True, auto_refresh=False) as live:
                while not reading.done():
                    self._news.clear()
                    live.update(self.frame(), refresh=True)
                    await self._clock.wait(self._news, 1.0)
            await reading
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)
            reading.cancel()
            await asyncio.wait({reading})
            if self._view is not None:
                with suppress(OSError):
                    self._console.print(f"last seen at {self._at()}: {self._view.headline}", markup=False)

    async def _read(self, watching: Watching) -> None:
        async for seen in watching.looks():
            if isinstance(seen, SkillbusError):
                self.lose(seen)
            else:
                self.take(seen)
            self._news.set()

    def take(self, seen: Status) -> None:
        """A new reading."""
        self._lost = None
        self._server_ms, self._seen_at_s = seen.server_ms, self._clock.now_s()
        old = self._view.seen if self._view else None
        if old is None or old.pods is not seen.pods or (old.kills, old.armed) != (seen.kills, seen.armed):
            self._view = _View.of(seen)

    def lose(self, error: SkillbusError) -> None:
        """Nothing could be read."""
        self._lost = error

    def frame(self) -> RenderableType:
        """What fits on the terminal as it is now."""
        from rich.console import Group
        from rich.segment import Segments

        head = self._head()
        if self._view is None:
            return Group(*head)
        size, is_lost = self._console.size, self._lost is not None
        made_for = (id(self._view), size, is_lost, len(head))
        if made_for != self._made_for:  # Laying out a table each second would cost more than the readings do.
            self._made_for = made_for
            self._body = Segments(list(self._console.render(self._laid_out(size.height - len(head)))))
        return Group(*head, self._body)

    def _laid_out(self, height: int) -> RenderableType:
        """Counts if not all pods can be shown, and as many pods as there is room for."""
        from rich.console import Group

        assert self._view is not None  # noqa: S101 (asked for by frame alone)
        is_lost, pods = self._lost is not None, self._view.pods
        counts = self._counts(max(3, height // 4)) if len(self._view.by_group) > 1 or len(pods) >= height else None
        room = max(0, height - (counts.row_count + 1 if counts else 0) - 1)
        shown = pods[:room] if len(pods) <= room else pods[: max(0, room - 1)]
        parts: list[RenderableType] = [counts] if counts else []
        if shown:
            parts.append(pod_table(shown, is_grey=is_lost, one_line=True))
        if len(shown) < len(pods):
            hidden_count = max(0, self._view.stragglers_count - len(shown))
            told = f"{hidden_count:,} of them not as they should be" if hidden_count else "none of them a straggler"
            parts.append(self._line(f"… and {len(pods) - len(shown):,} more, {told}"))
        return _greyed(Group(*parts)) if is_lost else Group(*parts)

    def _head(self) -> list[Text]:
        if self._view is None:
            return [self._line(f"UNKNOWN: {self._lost}" if self._lost else "looking …", "bold red" * bool(self._lost))]
        ago_s = self._clock.now_s() - self._seen_at_s
        lines = []
        if self._lost is not None:
            lines.append(self._line(f"UNKNOWN for {ago_s:.0f} s: {self._lost}", "bold red"))
            lines.append(self._line(f"What follows is NOT NOW, but as of {self._at()}:", "bold"))
        lines.append(self._line(self._view.headline, _GREY if self._lost else "bold"))
        count = len(self._view.pods)
        told = f"{count:,} pod{'' if count == 1 else 's'}, {self._view.stragglers_count:,} not as they should be"
        lines.append(self._line(f"as of {self._at()} by the server's clock: {told}", _GREY))
        kills = self._view.kills
        lines += [self._line(text, _GREY if self._lost else "") for text in kills[:_KILLS_SHOWN]]
        if len(kills) > _KILLS_SHOWN:
            lines.append(self._line(f"… and {len(kills) - _KILLS_SHOWN} more"))
        return lines

    def _counts(self, rows_limit: int) -> Table:
        """How many pods there are of each word, in all and by group; those groups first that need a look."""
        from rich.table import Table
        from rich.text import Text

        assert self._view is not None  # noqa: S101 (asked for by frame alone)
        by_group = self._view.by_group
        words = [word for word, _ in by_group[""].most_common()]
        table = Table("group", *words, box=None, pad_edge=False, header_style=_GREY)
        usual = words[0] if words else ""
        named = sorted(by_group.items(), key=lambda row: (row[0] != "", row[1][usual] - row[1].total(), row[0]))
        for name, counts in named[:rows_limit]:
            label = Text(harmless(name, 40)) if name else "all"
            table.add_row(label, *(f"{counts[word]:,}" if counts[word] else "-" for word in words))
        if len(named) > rows_limit:
            table.add_row(f"… and {len(named) - rows_limit} more")
        return table

    def _at(self) -> str:
        return f"{iso(self._server_ms)[11:19]}Z"

    @staticmethod
    def _line(text: str, style: str = "") -> Text:
        from rich.text import Text

        return Text(harmless(text, 500), style=style, no_wrap=True, overflow="ellipsis")


def _greyed(shown: RenderableType) -> RenderableType:
    from rich.styled import Styled

    return Styled(shown, _GREY)

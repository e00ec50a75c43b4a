"""A bar of pods that have answered, on stderr, naming who is missing; nothing where there is no terminal.

Below it, where they tell: what the others are at, one line each, or for more of them than fit one line for each thing
that many are at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from skillbus.cli.console import stderr

_LINES = 8


class Bar:
    """Shown from the first ``show`` on, gone with ``close``."""

    def __init__(self, word: str) -> None:
        """``word``: what goes on, as in ``stopping``."""
        self._word = word
        self._live: Any = None
        self._bar: Any = None
        self._task: Any = None

    def show(self, total_count: int, missing: Sequence[str], doing: Sequence[tuple[str, str]] = ()) -> None:
        """So many pods are asked, and these have not answered; of some it is known what they are at."""
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.text import Text

        console = stderr()
        if not console.is_terminal:
            return
        if self._live is None:
            columns = (TextColumn(self._word), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("", total=total_count)
            self._live = Live(console=console, transient=True, auto_refresh=False)
            self._live.start()
        names = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        shown = f"waiting for {names}" if missing else ""
        self._bar.update(self._task, total=total_count, completed=total_count - len(missing), description=shown)
        lines = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines_of(doing)]
        self._live.update(Group(self._bar, *lines), refresh=True)

    def close(self) -> None:
        """Take it away."""
        if self._live is not None:
            self._live.stop()


def lines_of(doing: Sequence[tuple[str, str]]) -> list[str]:
    """What pods are at, for a person: a pod a line, or how many are at what, the most common first."""
    from skillbus.core.text import harmless

    if len(doing) <= _LINES:
        width = max((len(pod_id) for pod_id, _ in doing), default=0)
        return [harmless(f"  {pod_id:<{width}}  {text}") for pod_id, text in doing]
    alike = Counter(text.partition(": ")[0] for _, text in doing).most_common()
    lines = [harmless(f"  {count:>5} {'pod' if count == 1 else 'pods'}: {text}") for text, count in alike[:_LINES]]
    others_count = sum(count for _, count in alike[_LINES:])
    return [*lines, f"  {others_count:>5} at something else"] if others_count else lines

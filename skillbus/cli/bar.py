"""A bar of pods that have answered, on stderr, naming who is missing; nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skillbus.cli.console import stderr


class Bar:
    """Shown from the first ``show`` on, gone with ``close``."""

    def __init__(self, word: str) -> None:
        """``word``: what goes on, as in ``stopping``."""
        self._word = word
        self._bar: Any = None
        self._task: Any = None

    def show(self, total_count: int, missing: Sequence[str]) -> None:
        """So many pods are asked, and these have not answered."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = stderr()
        if not console.is_terminal:
            return
        if self._bar is None:
            columns = (TextColumn(self._word), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=total_count)
            self._bar.start()
        names = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        shown = f"waiting for {names}" if missing else ""
        self._bar.update(self._task, total=total_count, completed=total_count - len(missing), description=shown)

    def close(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.stop()

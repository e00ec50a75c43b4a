"""Tables and progress on a terminal, by Rich."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def stdout() -> Console:
    """Tables and sentences; honours NO_COLOR and the terminal's width, and survives an encoding without our letters."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def stderr() -> Console:
    """Progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)

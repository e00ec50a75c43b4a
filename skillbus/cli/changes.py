"""How changes of skills and of their files are shown: the same marks in every verb."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Protocol

from skillbus.cli.console import stdout

_MARKS = {"added": "+", "changed": "~", "missing": "-", "removed": "-", "mode": "x", "no file": "!"}
_ASIDES = {"mode": " (executable bit)", "no file": " (a link, a folder or a device)"}
_LIMIT = 40


class FileChange(Protocol):
    """One file, and what became or becomes of it."""

    @property
    def path(self) -> str:
        """In the skill's folder."""
        ...

    @property
    def change(self) -> str:
        """One of the words in the table above."""
        ...


def print_files(files: Sequence[FileChange], indent: int, *, every: bool) -> None:
    """A line for each file, and one for those that are too many."""
    from skillbus.core.text import harmless

    console, margin = stdout(), " " * indent
    shown = files if every else files[:_LIMIT]
    for file in shown:
        line = f"{margin}{_MARKS[file.change]} {harmless(file.path)}{_ASIDES.get(file.change, '')}"
        console.print(line, markup=False)
    if len(files) > len(shown):
        console.print(f"{margin}… and {len(files) - len(shown)} more: see --all", markup=False)


def shown_revision(revision: str) -> str:
    """`` @abc1234abc12``: twelve digits of a commit or digest. What else a server calls it helps nobody."""
    is_hex = len(revision) >= 40 and all(char in string.hexdigits for char in revision)
    return f" @{revision[:12]}" if is_hex else ""

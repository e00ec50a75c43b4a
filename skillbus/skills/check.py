"""Skills and manifests judged before they go anywhere: what ``skillbus validate`` and ``skillbus manifest check`` do.

The same parsers as in a pass, in the same child process, under the same limits: what is judged here may be hostile, for
people validate what they were sent. Nothing is placed, and no skill is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skillbus.clock import Clock
from skillbus.core.text import harmless
from skillbus.errors import BadSettings, SkillbusError
from skillbus.skills.child import Child
from skillbus.skills.memory import Memory
from skillbus.skills.options import SkillsOptions
from skillbus.skills.passing import access_of
from skillbus.skills.quiet import Threads
from skillbus.skills.rules import MAX_DEPTH, SKILL_FILE
from skillbus.skills.tally import Tally
from skillbus.skills.ungated import Ungated
from skillbus.skills.wishes import Wishes

ERROR, WARNING = "error", "warning"
_MAX_FINDINGS = 200
_MAX_SKILLS = 2_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a skill.

    Attributes:
        path: the file, in the skill's folder; empty for the folder itself.
        line: counted from 1; 0 if it is about the file as a whole.
        rule: a short name for what was broken, the same in every version.
        severity: ``error`` or ``warning``.
    """

    path: str
    line: int
    rule: str
    text: str
    severity: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found in one skill's folder, as it was named."""

    folder: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in manifests: how many entries they have together, and what is wrong with them."""

    entries_count: int
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


async def validate(paths: Sequence[str], options: SkillsOptions, clock: Clock) -> list[Judgement]:
    """Hold skills against the specification.

    Args:
        paths: skill folders, their SKILL.md files, or folders with skills somewhere in them.

    Raises:
        BadSettings: a path is not there, or there is no skill in it.
    """
    folders = [folder for path in paths for folder in skill_folders(path)]
    child = Child(options, clock)
    try:
        return [Judgement(folder, await _judged(folder, child)) for folder in dict.fromkeys(folders)]
    finally:
        await child.kill()


async def check_manifests(sources: Sequence[str], options: SkillsOptions, clock: Clock) -> Checked:
    """Load manifests as a pass would, up to the point where a skill's place would be asked.

    Args:
        sources: files or URLs.
    """
    tally, checkpoint = Tally(), Ungated()
    told = replace(options, manifests=tuple(sources))
    child, threads = Child(told, clock), Threads(checkpoint)
    wishes = Wishes(told, access_of(told), child, clock, checkpoint, tally)
    try:
        merged = await wishes.manifests(Memory(), Memory(), threads)
        wishes.groups(merged.entries, Memory(), Memory())
    finally:
        await child.kill()
        threads.close()
    return Checked(len(merged.entries), tuple(tally.errors), tuple(tally.warnings))


def skill_folders(path: str) -> list[str]:
    """The skill folders that ``path`` means, sorted. A folder without any is one itself: it lacks its SKILL.md.

    Raises:
        BadSettings: there is nothing, or it is a file that is no SKILL.md.
    """
    if _is_skill_file(path):
        return [os.path.dirname(path) or "."]  # noqa: PTH120 - as it was written: './x' stays './x'
    if not Path(path).is_dir():
        what = "is not there" if not os.path.lexists(path) else "is no folder"
        raise BadSettings(f"{path} {what}: name a skill's folder, or a folder of skills")
    found = list(_skills_below(path, 0))
    if len(found) > _MAX_SKILLS:
        raise BadSettings(f"there are more than {_MAX_SKILLS} skills in {path}: name the folders one by one")
    return found or [path]


def _is_skill_file(path: str) -> bool:
    return Path(path).name.lower() == SKILL_FILE.lower() and Path(path).is_file()


def _skills_below(folder: str, depth: int) -> Iterator[str]:
    """Folders with a SKILL.md: none within a skill, for that is its own matter, none hidden, none through a link."""
    with os.scandir(folder) as entries:
        inner = sorted(entries, key=lambda entry: entry.name)
    if any(entry.name.lower() == SKILL_FILE.lower() for entry in inner):
        yield folder
        return
    for entry in inner if depth < MAX_DEPTH else ():
        if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _skills_below(entry.path, depth + 1)


def _job(folder: str) -> dict[str, Any]:
    return {"job": "validate", "path": str(Path(folder).absolute())}


async def _judged(folder: str, child: Child) -> tuple[Finding, ...]:
    try:
        answer = await child.ask(_job(folder))
    except SkillbusError as error:
        return (Finding("", 0, "unreadable", str(error), ERROR),)
    listed = answer.get("findings")
    found = [_finding(one) for one in listed[:_MAX_FINDINGS]] if isinstance(listed, list) else [None]
    return tuple(one or Finding("", 0, "unreadable", "it was answered in no sound way", ERROR) for one in found)


def _finding(told: Any) -> Finding | None:
    """What the child told of one finding. None if it makes no sense."""
    if not isinstance(told, dict) or told.get("severity") not in (ERROR, WARNING):
        return None
    words = [told.get(word) or "" for word in ("path", "rule", "text")]
    line = told.get("line") or 0
    if not all(isinstance(word, str) for word in words) or not isinstance(line, int):
        return None
    path, rule, text = (harmless(word, 600) for word in words)
    return Finding(path, line, rule, text, told["severity"])

"""Whether what landed is a skill: a SKILL.md with a frontmatter that can be read. And what it is called.

Only the child imports this (it parses frontmatter). Bytes are judged and never edited. What breaks a rule of style
(agentskills.io's lengths and names, which real skills break) is a warning, or with ``strict`` a refusal. Paths, kinds
and sizes were judged as they came in (landing.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from skillbus.errors import BadBundle, BadManifest
from skillbus.skills.landing import Landing
from skillbus.skills.rules import SKILL_FILE, is_skill_name, slug, tree_digest

MAX_DESCRIPTION_CHARS = 1_024


class Judged(NamedTuple):
    """A skill that may be placed.

    Attributes:
        name: the frontmatter's name as a skill's name, or the fallback's.
        digest: the tree digest.
        warnings: rules of style that it breaks.
    """

    name: str
    digest: str
    warnings: tuple[str, ...]


def judge(landing: Landing, fallback: str, *, strict: bool) -> Judged:
    """Whether what landed is a skill, and what it is called.

    Args:
        fallback: the name if the frontmatter has none, from the url.
        strict: refuse what would be a warning.

    Raises:
        BadArchive: it was refused as it came in.
        BadBundle: so it was; or no SKILL.md, an unreadable frontmatter, or (strict) a rule of style.
    """
    if landing.error is not None:
        raise landing.error
    front = frontmatter(_skill_file(landing))
    warnings = (*_warnings(front), *landing.warnings)
    if strict and warnings:
        raise BadBundle(f"{SKILL_FILE} breaks a rule, and SKILLBUS_SKILLS_STRICT is on: {'; '.join(warnings)}")
    name = slug(front["name"]) if isinstance(front.get("name"), str) else ""
    name = name or slug(fallback)
    if not name:
        raise BadBundle(f"neither {SKILL_FILE} nor the url gives a name: set 'name' in the manifest's entry")
    return Judged(name, tree_digest(landing.facts), warnings)


def frontmatter(text: bytes) -> dict[str, Any]:
    """The mapping between the two ``---`` lines at the top of a SKILL.md. A byte order mark is legal.

    Raises:
        BadBundle: there is none, or it cannot be read.
    """
    from skillbus.skills.document import load_yaml  # only now: PyYAML is half of this process' start

    lines = front_lines(text)
    try:
        front = load_yaml("\n".join(lines))
    except BadManifest as error:
        raise BadBundle(f"{SKILL_FILE}'s frontmatter cannot be read: {error}") from None
    if not isinstance(front, dict):
        raise BadBundle(f"{SKILL_FILE}'s frontmatter is no mapping: it needs 'name:' and 'description:'")
    return front


def front_lines(text: bytes) -> list[str]:
    """The lines between the two ``---``.

    Raises:
        BadBundle: not UTF-8, or one of the two is missing.
    """
    try:
        lines = text.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadBundle(f"{SKILL_FILE} is not UTF-8 (byte {error.start})") from None
    if not lines or lines[0].rstrip() != "---":
        raise BadBundle(f"{SKILL_FILE} has no frontmatter: its first line must be '---'")
    end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise BadBundle(f"{SKILL_FILE}'s frontmatter has no end: a line '---' below it is missing")
    return lines[1:end]


def no_skill_file(names: Iterable[str]) -> str:
    """What to say of a folder with ``names`` in it and no SKILL.md."""
    other = next((name for name in names if name.lower() == SKILL_FILE.lower()), None)
    return f"there is no {SKILL_FILE} at the top: " + (
        f"rename {other} to {SKILL_FILE}" if other else "is this the skill's own folder?"
    )


def _skill_file(landing: Landing) -> bytes:
    if landing.skill_file is None:
        raise BadBundle(no_skill_file(landing.facts))
    return landing.skill_file


def _warnings(front: Mapping[str, Any]) -> list[str]:
    found = []
    if not is_skill_name(front.get("name")):
        found.append("its name is not 1-64 of a-z, 0-9 and single hyphens")
    description = front.get("description")
    if not isinstance(description, str) or not description.strip():
        found.append("it has no description, by which agents choose skills")
    elif len(description) > MAX_DESCRIPTION_CHARS:
        found.append(f"its description has {len(description)} characters, more than {MAX_DESCRIPTION_CHARS}")
    if not isinstance(front.get("allowed-tools", ""), str):
        found.append("its allowed-tools is no string")
    return found

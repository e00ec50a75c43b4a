"""A skill's files as fetched, and whether they are a skill: a SKILL.md with a frontmatter that can be read.

Only the child imports this (it parses frontmatter). Bytes are judged and never edited. What breaks a rule of style
(agentskills.io's lengths and names, which real skills break) is a warning, or with ``strict`` a refusal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skillbus.errors import BadBundle, BadManifest
from skillbus.skills.document import load_yaml
from skillbus.skills.rules import (
    MAX_BYTES,
    MAX_FILES,
    SKILL_FILE,
    Facts,
    FileFact,
    PathSet,
    is_skill_name,
    slug,
    tree_digest,
)

MAX_DESCRIPTION_CHARS = 1_024


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a skill."""

    data: bytes
    executable: bool


Files = Mapping[str, BundleFile]


@dataclass(frozen=True, slots=True)
class Judged:
    """A skill that may be installed.

    Attributes:
        name: the frontmatter's name as a skill's name, or the fallback's.
        digest: the tree digest.
        warnings: rules of style that it breaks.
    """

    name: str
    digest: str
    warnings: tuple[str, ...]


def facts_of(files: Files) -> Facts:
    """What is known of ``files`` without their bytes."""
    return {path: FileFact(hashlib.sha256(file.data).hexdigest(), file.executable) for path, file in files.items()}


def judge(files: Files, fallback: str, *, strict: bool) -> Judged:
    """Whether ``files`` are a skill, and what it is called.

    Args:
        fallback: the name if the frontmatter has none, from the url.
        strict: refuse what would be a warning.

    Raises:
        BadArchive: a path that cannot lie on every disk.
        BadBundle: no SKILL.md, an unreadable frontmatter, too big, or (strict) a rule of style.
    """
    _check_size(files)
    paths = PathSet()
    for path in files:
        paths.add(path, folder=False)
    front = frontmatter(_skill_file(files))
    warnings = tuple(_warnings(front))
    if strict and warnings:
        raise BadBundle(f"{SKILL_FILE} breaks a rule, and SKILLBUS_SKILLS_STRICT is on: {'; '.join(warnings)}")
    name = slug(front["name"]) if isinstance(front.get("name"), str) else ""
    name = name or slug(fallback)
    if not name:
        raise BadBundle(f"neither {SKILL_FILE} nor the url gives a name: set 'name' in the manifest's entry")
    return Judged(name, tree_digest(facts_of(files)), warnings)


def frontmatter(text: bytes) -> dict[str, Any]:
    """The mapping between the two ``---`` lines at the top of a SKILL.md. A byte order mark is legal.

    Raises:
        BadBundle: there is none, or it cannot be read.
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
    try:
        front = load_yaml("\n".join(lines[1:end]))
    except BadManifest as error:
        raise BadBundle(f"{SKILL_FILE}'s frontmatter cannot be read: {error}") from None
    if not isinstance(front, dict):
        raise BadBundle(f"{SKILL_FILE}'s frontmatter is no mapping: it needs 'name:' and 'description:'")
    return front


def _skill_file(files: Files) -> bytes:
    found = files.get(SKILL_FILE)
    if found is not None:
        return found.data
    other = next((path for path in files if path.lower() == SKILL_FILE.lower()), None)
    hint = f"rename {other} to {SKILL_FILE}" if other else "is this the skill's own folder?"
    raise BadBundle(f"there is no {SKILL_FILE} at the top: {hint}")


def _check_size(files: Files) -> None:
    if len(files) > MAX_FILES:
        raise BadBundle(f"it has more than {MAX_FILES} files")
    if sum(len(file.data) for file in files.values()) > MAX_BYTES:
        raise BadBundle(f"it is bigger than {MAX_BYTES // 1024 // 1024} MiB")


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

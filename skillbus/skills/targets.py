"""Where agents look for skills: the words ``claude``, ``agents``, ``codex`` or a path, as folders. Pure.

It touches no disk: whether the folder is there, and is a folder, is found out by who opens it (tree.py). It follows
the table of docs/skills.md, which follows the agents' own documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from skillbus.errors import BadSettings


@dataclass(frozen=True, slots=True)
class Target:
    """Where one agent looks: for skills of the user, and for those of the project in the current folder."""

    user_root: Path
    project_root: Path


def _claude(env: Mapping[str, str], home: Path, project: Path) -> Target:
    moved = env.get("CLAUDE_CONFIG_DIR")
    config = _path(moved, home, project) if moved else home / ".claude"
    return Target(config / "skills", project / ".claude" / "skills")


def _agents(_: Mapping[str, str], home: Path, project: Path) -> Target:
    return Target(home / ".agents" / "skills", project / ".agents" / "skills")


def _codex(env: Mapping[str, str], home: Path, project: Path) -> Target:
    moved = env.get("CODEX_HOME")
    config = _path(moved, home, project) if moved else home / ".codex"
    return Target(config / "skills", project / ".agents" / "skills")


WORDS: Mapping[str, Callable[[Mapping[str, str], Path, Path], Target]] = {
    "claude": _claude,
    "agents": _agents,
    "codex": _codex,
}


def resolve_target(word: str, env: Mapping[str, str], home: Path, project: Path) -> Target:
    """The folders that ``word`` means.

    Args:
        word: ``claude``, ``agents``, ``codex``, or a path, which must show a ``/`` so that a typing error is no folder.
        env: the environment; CLAUDE_CONFIG_DIR and CODEX_HOME move their agent's folder.
        home: the user's home, absolute.
        project: the project's folder (the current one), absolute.

    Raises:
        BadSettings: neither a known word nor a path.
    """
    known = WORDS.get(word)
    if known is not None:
        return known(env, home, project)
    if "/" not in word and word != "~":
        raise BadSettings(
            f"there is no target {word!r}: use {', '.join(WORDS)}, or a path with a '/' in it such as ./{word}"
        )
    folder = _path(word, home, project)
    return Target(folder, folder)


def resolve_targets(words: Iterable[str], env: Mapping[str, str], home: Path, project: Path) -> tuple[Target, ...]:
    """Each of ``words`` resolved, in order, without doubles.

    Raises:
        BadSettings: as ``resolve_target``.
    """
    return tuple(dict.fromkeys(resolve_target(word, env, home, project) for word in words))


def _path(text: str, home: Path, project: Path) -> Path:
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    return project / text

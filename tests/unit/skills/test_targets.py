"""Where agents look."""

from __future__ import annotations

from pathlib import Path

import pytest

from skillbus.errors import BadSettings
from skillbus.skills.targets import Target, resolve_target, resolve_targets

HOME, PROJECT = Path("/home/u"), Path("/work/p")


@pytest.mark.parametrize(
    ("word", "env", "user", "project"),
    [
        ("claude", {}, "/home/u/.claude/skills", "/work/p/.claude/skills"),
        ("claude", {"CLAUDE_CONFIG_DIR": "/c"}, "/c/skills", "/work/p/.claude/skills"),
        ("claude", {"CLAUDE_CONFIG_DIR": ""}, "/home/u/.claude/skills", "/work/p/.claude/skills"),
        ("agents", {"CODEX_HOME": "/x"}, "/home/u/.agents/skills", "/work/p/.agents/skills"),
        ("codex", {}, "/home/u/.codex/skills", "/work/p/.agents/skills"),
        ("codex", {"CODEX_HOME": "~/cx"}, "/home/u/cx/skills", "/work/p/.agents/skills"),
        ("/srv/skills", {}, "/srv/skills", "/srv/skills"),
        ("~/s", {}, "/home/u/s", "/home/u/s"),
        ("./s", {}, "/work/p/s", "/work/p/s"),
    ],
)
def test_each_word_has_its_folders(word: str, env: dict[str, str], user: str, project: str) -> None:
    """The table of docs/skills.md."""
    assert resolve_target(word, env, HOME, PROJECT) == Target(Path(user), Path(project))


def test_a_typing_error_is_no_folder() -> None:
    """A bare word that is no target is refused, with the words that are."""
    with pytest.raises(BadSettings, match="claude"):
        resolve_target("cluade", {}, HOME, PROJECT)


def test_doubles_are_dropped() -> None:
    """Two words for one place are one place."""
    assert len(resolve_targets(["claude", "~/.claude/skills/..", "claude"], {}, HOME, PROJECT)) == 2

"""Skills held against the specification."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skillbus.skills.rules import SKILL_FILE
from skillbus.skills.validate import findings

GOOD = """---
name: my-skill
description: Does a thing.
license: MIT
compatibility: Needs git
metadata:
  version: "1.0"
allowed-tools: Read Bash(git:*)
---
Text
"""


def found(folder: Path, text: str | bytes) -> list[tuple[str, int, str, str]]:
    """What is said of a folder ``my-skill`` with this SKILL.md."""
    skill = folder / "my-skill"
    skill.mkdir(exist_ok=True)
    (skill / SKILL_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(one.path, one.line, one.rule, one.severity) for one in findings(str(skill))]


@pytest.mark.parametrize("text", [GOOD, "\ufeff" + GOOD, GOOD.replace("\n", "\r\n"), GOOD + "x\n" * 499])
def test_a_good_skill_has_no_findings(tmp_path: Path, text: str) -> None:
    """A byte order mark and Windows line ends are legal, and 500 lines are allowed."""
    assert found(tmp_path, text) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "rule"),
    [
        ("name: my-skill\n", "", 1, "name"),
        ("my-skill", "My Skill", 2, "name"),
        ("my-skill", "-my-skill", 2, "name"),
        ("my-skill", "my--skill", 2, "name"),
        ("my-skill", "m" * 65, 2, "name"),
        ("my-skill", "42", 2, "name"),
        ("my-skill", "other", 2, "name-folder"),
        ("description: Does a thing.\n", "", 1, "description"),
        ("Does a thing.", "''", 3, "description"),
        ("Does a thing.", "d" * 1025, 3, "description"),
        ("Does a thing.", "[a]", 3, "description"),
        ("MIT", "[MIT]", 4, "license"),
        ("Needs git", "c" * 501, 5, "compatibility"),
        ("Needs git", "''", 5, "compatibility"),
        ('"1.0"', "1.0", 6, "metadata"),
        ('metadata:\n  version: "1.0"', "metadata: x", 6, "metadata"),
        ("Read Bash(git:*)", "[Read]", 8, "allowed-tools"),
        ("license: MIT", "license: MIT\nlicense: MIT", 5, "frontmatter"),
        ("license: MIT", "license: *x", 4, "frontmatter"),
        ("license: MIT", "license: [", 5, "frontmatter"),
        ("---\nname", "name", 1, "frontmatter"),
        ("---\nText", "Text", 1, "frontmatter"),
    ],
)
def test_each_broken_rule_has_its_line(tmp_path: Path, old: str, new: str, line: int, rule: str) -> None:
    """The line in SKILL.md, as an editor counts it."""
    assert old in GOOD
    assert found(tmp_path, GOOD.replace(old, new, 1)) == [(SKILL_FILE, line, rule, "error")]


def test_what_is_odd_and_allowed_is_a_warning(tmp_path: Path) -> None:
    """Unknown fields, and a long body, with the first line that is too many."""
    assert found(tmp_path, GOOD.replace("license: MIT", "licence: MIT")) == [
        (SKILL_FILE, 4, "unknown-field", "warning")
    ]
    assert found(tmp_path, GOOD + "x\n" * 500) == [(SKILL_FILE, 510, "body-length", "warning")]


def test_bytes_that_are_no_text_have_their_line(tmp_path: Path) -> None:
    """Where an editor would show a question mark."""
    assert found(tmp_path, GOOD.encode().replace(b"MIT", b"\xff")) == [(SKILL_FILE, 4, "frontmatter", "error")]


def test_the_folder_is_judged_too(tmp_path: Path) -> None:
    """Links, names, kinds and sizes that no pass would take."""
    skill = tmp_path / "my-skill"
    skill.mkdir()
    (skill / "link").symlink_to("SKILL.md")
    (skill / "con.txt").write_text("x")
    (skill / "A").write_text("x")
    (skill / "a").write_text("x")
    (skill / "run").write_text("x")
    (skill / "run").chmod(0o4755)
    (skill / "/".join("d" * 16)).mkdir(parents=True)
    rules = {(path, rule) for path, _, rule, _ in found(tmp_path, GOOD)}
    assert rules == {
        ("link", "link"),
        ("con.txt", "file-name"),
        ("a", "file-name"),
        ("run", "setuid"),
        ("/".join("d" * 16), "depth"),
    }
    with (skill / "big").open("wb") as file:
        file.truncate(21 * 1024 * 1024)
    assert ("", 0, "size", "error") in found(tmp_path, GOOD)
    (skill / "big").unlink()
    for number in range(2001):
        (skill / f"f{number}").touch()
    assert ("", 0, "files", "error") in found(tmp_path, GOOD)


def test_a_missing_skill_file_is_said_helpfully(tmp_path: Path) -> None:
    """A wrong case is named, and so is a folder that is not there."""
    (tmp_path / "skill.md").write_text(GOOD)
    (only,) = findings(str(tmp_path))
    assert (only.rule, only.severity) == ("skill-file", "error")
    assert "rename skill.md" in only.text
    assert findings(str(tmp_path / "none"))[0].rule == "folder"


@given(
    st.binary(max_size=200)
    | st.text(alphabet="ab:-[]{}&*!\n'\" ", max_size=80).map(lambda t: f"---\n{t}\n---\n".encode())
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_judged(tmp_path: Path, raw: bytes) -> None:
    """Nothing crashes it, and every line it names is there."""
    for path, line, _, _ in found(tmp_path, raw):
        assert path == SKILL_FILE
        assert 0 < line <= len(raw.decode(errors="replace").splitlines()) + 1

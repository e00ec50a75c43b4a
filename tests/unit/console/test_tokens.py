"""The file of tokens: what a line says, whom it lets in, and what a damaged one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from skillbus.console.tokens import POWERS, Power, Role, Tokens, entry_of, line_of, new_token
from skillbus.core.scope import Fleet
from skillbus.errors import BadSettings
from tests.fakes.clock import FakeClock

PROD = Fleet("prod")


def tokens(path: Path, *lines: str) -> Tokens:
    """A file of these lines, read."""
    path.write_text("\n".join(lines))
    found = Tokens(path, FakeClock())
    found.read()
    return found


def test_a_line_is_read_as_it_was_made() -> None:
    """Name, role, hash and scopes; the token itself is nowhere in it."""
    made = new_token()
    line = line_of("oncall", Role.OPERATOR, made, ("group:eu", "pod:web-1"))
    entry = entry_of(line)
    assert (entry.name, entry.role, entry.scopes) == ("oncall", Role.OPERATOR, ("group:eu", "pod:web-1"))
    assert made not in line


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a viewer",
        "a viewer 5f4dcc3b",
        f"a viewer {'0' * 64}",
        f"a viewer sha256:{'G' * 64}",
        f"a root sha256:{'0' * 64}",
        f"a/b viewer sha256:{'0' * 64}",
        f"a bot sha256:{'0' * 64} eu",
        f"a bot sha256:{'0' * 64} group:",
        f"a bot sha256:{'0' * 64} group:eu pod:a/b",
    ],
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    """In a sentence that never holds the hash."""
    with pytest.raises(BadSettings) as refused:
        entry_of(line)
    assert "0" * 64 not in str(refused.value)


def test_a_token_is_found_and_another_is_not(tmp_path: Path) -> None:
    """Among several; neither its hash nor a prefix of it lets anybody in."""
    lines = [line_of(name, Role.VIEWER, f"token {name}", ()) for name in ("a", "b", "c")]
    found = tokens(tmp_path / "t", "# people", "", *lines, lines[0] + "  # twice")
    assert [entry.name for name in "abc" if (entry := found.find(f"token {name}"))] == ["a", "b", "c"]
    for wrong in ("", "token", "token d", "token a ", entry_of(lines[0]).token_hash, "\ud800", "x" * 10_000):
        assert found.find(wrong) is None


def test_a_removed_entry_holds_no_more(tmp_path: Path) -> None:
    """Nor one whose role or scope has changed: a session of it ends."""
    line = line_of("a", Role.BOT, "t", ("group:eu",))
    found = tokens(tmp_path / "t", line)
    entry = found.find("t")
    assert entry is not None
    assert found.holds(entry)
    (tmp_path / "t").write_text(line.replace("group:eu", "group:us"))
    found.read()
    assert not found.holds(entry)


def test_no_role_but_admin_resets_and_a_bot_only_kills() -> None:
    """The table, as docs/api.md has it."""
    assert [role for role in Role if Power.RESET in POWERS[role]] == [Role.ADMIN]
    assert POWERS[Role.BOT] == {Power.KILL}
    assert POWERS[Role.VIEWER] == {Power.SEE}


def test_a_bound_entry_reaches_exactly_its_scopes() -> None:
    """One that is bound to a group does not reach the fleet, nor a pod of the group."""
    entry = entry_of(line_of("a", Role.BOT, "t", ("group:eu",)))
    assert entry.reaches(PROD.group("eu"))
    assert not [scope for scope in (PROD.scope, PROD.group("us"), PROD.pod("eu")) if entry.reaches(scope)]
    assert entry_of(line_of("a", Role.BOT, "t", ())).reaches(PROD.scope)


def test_a_file_that_is_given_must_be_there_at_the_start(tmp_path: Path) -> None:
    """Missing, not UTF-8, or with a bad line: one sentence that names it."""
    for name, content in (("missing", None), ("latin", b"\xff"), ("bad", b"nonsense")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadSettings, match=name):
            Tokens(tmp_path / name, FakeClock()).demand()

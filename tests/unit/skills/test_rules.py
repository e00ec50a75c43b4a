"""Names, paths and digests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.errors import BadArchive
from skillbus.skills.rules import (
    FileFact,
    PathSet,
    checked_path,
    is_skill_name,
    shown_url,
    slug,
    tree_digest,
)

ONE = FileFact("a" * 64, executable=False)


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/abs",
        "a//b",
        "./a",
        "",
        "a\\b",
        "x:stream",
        "CON",
        "aux.txt",
        "lpt1",
        "COM¹",
        "nul .md",
        "dot.",
        "space ",
        ".git/hooks/pre-commit",
        ".GIT/config",
        "a\nb",
        "rtl\u202etxt.exe",
        "zero\u200bwidth",
        "bell\x07",
        "line\u2028sep",
        "raw\udcff",
        "n" * 201,
        "/".join("d" * 17),
        "/".join(["n" * 120] * 9),
    ],
)
def test_a_path_that_is_not_the_same_everywhere_is_refused(path: str) -> None:
    """Whatever leaves its folder, or means something else on some system or terminal, is no skill's path."""
    with pytest.raises(BadArchive):
        checked_path(path)


@pytest.mark.parametrize(
    "path",
    ["SKILL.md", "a/b/c.txt", ".hidden", "ünïcode.md", "日本語/スキル.md", "with space.md", "console.md", "git/x"],
)
def test_an_ordinary_path_is_taken(path: str) -> None:
    """The rules do not catch what is harmless."""
    assert checked_path(path) == path


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("readme.md", "README.md"),
        ("caf\u00e9", "cafe\u0301"),
        ("strasse", "STRASSE"),
        ("dir/x", "DIR/y"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("same", "same"),
    ],
)
def test_two_paths_that_some_disk_holds_as_one_collide(first: str, second: str) -> None:
    """Case, Unicode form, a file under a file, and doubles are refused in either order."""
    for one, other in ((first, second), (second, first)):
        paths = PathSet()
        paths.add(one, folder=False)
        with pytest.raises(BadArchive):
            paths.add(other, folder=False)


def test_a_folder_may_be_named_again() -> None:
    """Archives list a folder before or after what is in it."""
    paths = PathSet()
    paths.add("a/b", folder=False)
    paths.add("a", folder=True)
    paths.add("a/c", folder=False)
    assert len(paths) == 3


@given(st.text(max_size=80))
def test_a_slug_is_a_skill_name_or_nothing(text: str) -> None:
    """Whatever a skill calls itself, what is placed has a legal name."""
    assert slug(text) == "" or is_skill_name(slug(text))


@pytest.mark.parametrize("name", ["", "-a", "a-", "a--b", "A", "a_b", "a/b", "..", "a" * 65, "é", "a\n", None, 3])
def test_what_is_no_skill_name(name: object) -> None:
    """1-64 of a-z, 0-9 and single hyphens, and nothing else."""
    assert not is_skill_name(name)


def test_the_digest_sees_path_bit_and_content_and_no_order() -> None:
    """The tree digest changes with each of the three, and with nothing else."""
    base = tree_digest({"a": ONE, "b": ONE})
    assert base == tree_digest({"b": ONE, "a": ONE})
    others = [{"a": ONE}, {"a": ONE, "c": ONE}, {"a": ONE, "b": FileFact("b" * 64, executable=False)}]
    others.append({"a": ONE, "b": FileFact("a" * 64, executable=True)})
    assert len({base, *map(tree_digest, others)}) == 5


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@h.example:8443/p/a.tar.gz?token=secret#secret", "https://h.example:8443/p/a.tar.gz"),
        ("https://[::1]:99/x?secret", "https://[::1]:99/x"),
        ("/plain/path", "/plain/path"),
        ("https://h:notaport/?secret", "a URL that cannot be read"),
    ],
)
def test_a_shown_url_has_no_secret(url: str, shown: str) -> None:
    """Scheme, host, port and path are for people; user, password, query and fragment are not."""
    assert shown_url(url) == shown

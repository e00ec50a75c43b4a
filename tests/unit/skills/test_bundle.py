"""What counts as a skill."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.errors import BadArchive, BadBundle
from skillbus.skills.bundle import BundleFile, Files, frontmatter, judge
from skillbus.skills.rules import is_skill_name


def _skill(text: bytes, **others: bytes) -> Files:
    return {"SKILL.md": BundleFile(text, executable=False)} | {
        path: BundleFile(data, executable=False) for path, data in others.items()
    }


GOOD = b"---\nname: pdf\ndescription: Reads PDFs.\nallowed-tools: Bash(git:*), Read\n---\nText\n"


@pytest.mark.parametrize("text", [GOOD, b"\xef\xbb\xbf" + GOOD, GOOD.replace(b"\n", b"\r\n")])
def test_a_good_skill_has_its_name_and_no_warnings(text: bytes) -> None:
    """A byte order mark and Windows line ends are legal."""
    judged = judge(_skill(text), "other", strict=True)
    assert (judged.name, judged.warnings) == ("pdf", ())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"# No frontmatter",
        b"---\nname: x\n",
        b"---\n- a\n---\n",
        b"---\nname: x\nname: y\n---\n",
        b"---\na: *b\n---\n",
        b"---\na: [\n---\n",
        b"---\n\xff\n---\n",
        b"---\n---\n",
    ],
)
def test_a_frontmatter_that_cannot_be_read_is_an_error(text: bytes) -> None:
    """Missing, endless, doubled, hostile or not UTF-8: BadBundle, with the file's name."""
    with pytest.raises(BadBundle, match=r"SKILL\.md"):
        judge(_skill(text), "x", strict=False)


@pytest.mark.parametrize(
    "text",
    [
        b"---\nname: My Skill\ndescription: d\n---\n",
        b"---\nname: my-skill\n---\n",
        b"---\nname: my-skill\ndescription: " + b"d" * 1025 + b"\n---\n",
        b"---\nname: my-skill\ndescription: d\nallowed-tools: [Read]\n---\n",
    ],
)
def test_a_broken_rule_of_style_warns_and_is_refused_when_strict(text: bytes) -> None:
    """Real skills break these, so the default is a warning; the name that is installed is legal all the same."""
    judged = judge(_skill(text), "x", strict=False)
    assert judged.name == "my-skill"
    assert len(judged.warnings) == 1
    with pytest.raises(BadBundle):
        judge(_skill(text), "x", strict=True)


def test_the_url_gives_a_name_when_the_skill_has_none() -> None:
    """Frontmatter first, then the fallback, then an error that says what to do."""
    nameless = b"---\ndescription: d\n---\n"
    assert judge(_skill(nameless), "pdf_tools-1.4", strict=False).name == "pdf-tools-1-4"
    with pytest.raises(BadBundle, match="'name'"):
        judge(_skill(nameless), "…", strict=False)


def test_no_skill_file_is_an_error_that_helps() -> None:
    """A wrong case is named."""
    with pytest.raises(BadBundle, match=r"rename skill\.md"):
        judge({"skill.md": BundleFile(GOOD, executable=False)}, "x", strict=False)


def test_hostile_paths_and_sizes_are_refused() -> None:
    """A bundle is checked whatever source it came from."""
    with pytest.raises(BadArchive):
        judge(_skill(GOOD, **{"../x": b""}), "x", strict=False)
    with pytest.raises(BadArchive):
        judge(_skill(GOOD, **{"skill.MD": b""}), "x", strict=False)
    with pytest.raises(BadBundle):
        judge(_skill(GOOD, big=bytes(21 * 1024 * 1024)), "x", strict=False)


@given(
    st.binary(max_size=200)
    | st.text(alphabet="ab:-[]{}&*! \n'\"", max_size=80).map(lambda t: f"---\n{t}\n---\n".encode())
)
def test_any_bytes_are_a_skill_or_a_bad_bundle(raw: bytes) -> None:
    """No frontmatter crashes the judge, and every accepted name is legal."""
    try:
        judged = judge(_skill(raw), "fallback", strict=False)
    except BadBundle:
        return
    assert is_skill_name(judged.name)
    assert isinstance(frontmatter(raw), dict)

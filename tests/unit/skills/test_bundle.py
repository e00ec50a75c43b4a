"""What counts as a skill."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.errors import BadBundle, LinkInArchive
from skillbus.skills.bundle import frontmatter, judge
from skillbus.skills.landing import Landing
from skillbus.skills.rules import FileFact, is_skill_name


class _Landed(Landing):
    """What came in, without a disk."""

    def __init__(self, skill_file: bytes | None, *others: str) -> None:
        self.error = None
        self.warnings = []
        self.skill_file = skill_file
        paths = [*others, *([] if skill_file is None else ["SKILL.md"])]
        self.facts = {path: FileFact("0" * 64, executable=False) for path in paths}


GOOD = b"---\nname: pdf\ndescription: Reads PDFs.\nallowed-tools: Bash(git:*), Read\n---\nText\n"


@pytest.mark.parametrize("text", [GOOD, b"\xef\xbb\xbf" + GOOD, GOOD.replace(b"\n", b"\r\n")])
def test_a_good_skill_has_its_name_and_no_warnings(text: bytes) -> None:
    """A byte order mark and Windows line ends are legal."""
    judged = judge(_Landed(text), "other", strict=True)
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
        judge(_Landed(text), "x", strict=False)


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
    """Real skills break these, so the default is a warning; the name that is placed is legal all the same."""
    judged = judge(_Landed(text), "x", strict=False)
    assert judged.name == "my-skill"
    assert len(judged.warnings) == 1
    with pytest.raises(BadBundle):
        judge(_Landed(text), "x", strict=True)


def test_the_url_gives_a_name_when_the_skill_has_none() -> None:
    """Frontmatter first, then the fallback, then an error that says what to do."""
    nameless = b"---\ndescription: d\n---\n"
    assert judge(_Landed(nameless), "pdf_tools-1.4", strict=False).name == "pdf-tools-1-4"
    with pytest.raises(BadBundle, match="'name'"):
        judge(_Landed(nameless), "…", strict=False)


def test_no_skill_file_is_an_error_that_helps() -> None:
    """A wrong case is named."""
    with pytest.raises(BadBundle, match=r"rename skill\.md"):
        judge(_Landed(None, "skill.md"), "x", strict=False)


def test_what_was_refused_on_its_way_in_stays_refused() -> None:
    """With the very error."""
    landed = _Landed(GOOD)
    landed.error = LinkInArchive("a link")
    with pytest.raises(LinkInArchive, match="a link"):
        judge(landed, "x", strict=False)


def test_a_sources_own_warnings_are_passed_on_and_count_when_strict() -> None:
    """Whoever fetched it may have seen something odd."""
    landed = _Landed(GOOD)
    landed.warnings.append("odd")
    assert judge(landed, "x", strict=False).warnings == ("odd",)
    with pytest.raises(BadBundle, match="odd"):
        judge(landed, "x", strict=True)


@given(
    st.binary(max_size=200)
    | st.text(alphabet="ab:-[]{}&*! \n'\"", max_size=80).map(lambda t: f"---\n{t}\n---\n".encode())
)
def test_any_bytes_are_a_skill_or_a_bad_bundle(raw: bytes) -> None:
    """No frontmatter crashes the judge, and every accepted name is legal."""
    try:
        judged = judge(_Landed(raw), "fallback", strict=False)
    except BadBundle:
        return
    assert is_skill_name(judged.name)
    assert isinstance(frontmatter(raw), dict)

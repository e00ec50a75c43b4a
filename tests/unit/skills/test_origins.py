"""Urls of GitHub's pages and of archives, taken apart; and which GitHub is the operator's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.errors import BadManifest, BadSettings, SkillbusError
from skillbus.skills.sources import source_of
from skillbus.skills.sources.archives import SOURCE as ARCHIVES
from skillbus.skills.sources.github import SOURCE as GITHUB
from skillbus.skills.sources.github import github_of
from skillbus.skills.sources.source import Access
from skillbus.skills.sources.web import Trust, Web

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ACCESS = Access(
    Web(Trust(None, frozenset(), frozenset())),
    0,
    {"github.com": "https://api.github.com", "git.corp.example": "https://git.corp.example/api/v3/"},
)


@pytest.mark.parametrize(
    ("url", "place", "ref", "subpath", "fallback"),
    [
        ("https://github.com/o/r", "github.com/o/r@HEAD", "", "", "r"),
        ("https://github.com/o/r/", "github.com/o/r@HEAD", "", "", "r"),
        ("https://github.com/o/r.git", "github.com/o/r@HEAD", "", "", "r"),
        ("https://www.github.com/o/r", "github.com/o/r@HEAD", "", "", "r"),
        ("https://GitHub.com:443/o/r?tab=readme#readme", "github.com/o/r@HEAD", "", "", "r"),
        ("https://github.com/o/r/tree/main", "github.com/o/r@main", "main", "", "r"),
        ("https://github.com/o/r/tree/main/skills/pdf/", "github.com/o/r@main", "main", "skills/pdf", "pdf"),
        ("https://github.com/o/r.git/tree/v1.4/pdf", "github.com/o/r@v1.4", "v1.4", "pdf", "pdf"),
        ("https://github.com/o/r/tree/feature%2Fx/a", "github.com/o/r@feature/x", "feature/x", "a", "a"),
        ("https://github.com/o/r/tree/feature/x/a", "github.com/o/r@feature", "feature", "x/a", "a"),
        ("https://github.com/o/r/blob/main/skills/pdf/SKILL.md", "github.com/o/r@main", "main", "skills/pdf", "pdf"),
        ("https://github.com/o/r/blob/main/SKILL.md", "github.com/o/r@main", "main", "", "r"),
        ("https://github.com/o/r/tree/main/My%20Skill", "github.com/o/r@main", "main", "My Skill", "My Skill"),
        (f"https://github.com/o/r/tree/{COMMIT.upper()}/a", f"github.com/o/r@{COMMIT}", COMMIT, "a", "a"),
        ("https://git.corp.example/o/r/tree/main/a", "git.corp.example/o/r@main", "main", "a", "a"),
    ],
)
def test_a_page_of_a_repository(url: str, place: str, ref: str, subpath: str, fallback: str) -> None:
    """Owner, repository, ref, folder; the same place for the same ref, however it is written."""
    assert source_of(url, ACCESS) is GITHUB
    origin = GITHUB.origin(url, ACCESS)
    assert (origin.place, origin.ref, origin.subpath, origin.fallback) == (place, ref, subpath, fallback)
    base = "https://git.corp.example/api/v3" if "corp" in url else "https://api.github.com"
    assert origin.url == f"{base}/repos/o/r"


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("https://github.com/o", "<owner>/<repo>"),
        ("https://github.com/o/..", "<owner>/<repo>"),
        ("https://github.com/o%2Fx/r", "<owner>/<repo>"),
        ("https://github.com/o/r/tree", "…/tree/<ref>/<folder>"),
        ("https://github.com/o/r/issues/3", "no folder of a repository"),
        ("https://github.com/o/r/blob/main/README.md", "single file"),
        ("https://github.com/o/r/blob/main", "single file"),
        ("https://github.com/o/r/tree/main/a/../b", "cannot be used"),
        ("https://github.com/o/r/tree/main/a%2F..%2Fb", "cannot be used"),
        ("https://github.com/o/r/tree/main/.git/hooks", "cannot be used"),
        ("https://github.com/o/r/tree/a..b/x", "no name of a branch"),
        ("https://github.com/o/r/tree/a%0Ab/x", "no name of a branch"),
        ("https://github.com/o/r/tree/a%20b/x", "no name of a branch"),
        ("https://github.com/o/r#subdirectory=a", "without '#'"),
        ("https://me:secret-canary@github.com/o/r", "no user or password"),
    ],
)
def test_a_page_that_is_no_skill(url: str, word: str) -> None:
    """Refused with what to write instead, and never with a password."""
    with pytest.raises(BadManifest, match=word.replace("…", ".").replace("/", "/")) as caught:
        source_of(url, ACCESS).origin(url, ACCESS)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/o/r/archive/refs/heads/main.tar.gz",
        "https://github.com/o/r/releases/download/v1/pdf.zip",
        "https://codeload.github.com/o/r/tar.gz/main",
        "https://github.com.evil.example/o/r",
        "https://evil.example/github.com/o/r",
        "https://github.com:8443/o/r",
    ],
)
def test_what_github_serves_as_a_file_is_an_archive(url: str) -> None:
    """Downloads of GitHub, and hosts that only look like it."""
    assert source_of(url, ACCESS) is ARCHIVES


@pytest.mark.parametrize(
    ("url", "place", "subpath", "fallback"),
    [
        ("https://h.example/pdf-1.4.tar.gz", "https://h.example/pdf-1.4.tar.gz", "", "pdf-1.4"),
        ("https://h.example/x/pdf.tgz", "https://h.example/x/pdf.tgz", "", "pdf"),
        ("https://h.example/my%20pdf.zip", "https://h.example/my%20pdf.zip", "", "my pdf"),
        ("https://h.example/all.tar#subdirectory=skills/sql/", "https://h.example/all.tar", "skills/sql", "sql"),
        ("https://h.example/", "https://h.example/", "", ""),
    ],
)
def test_an_archive(url: str, place: str, subpath: str, fallback: str) -> None:
    """The file's name without its end, or the folder's, for a name; the fragment is no part of what is fetched."""
    origin = ARCHIVES.origin(url, ACCESS)
    assert (origin.place, origin.subpath, origin.fallback) == (place, subpath, fallback)
    assert origin.url == url.partition("#")[0]


def test_a_query_tells_places_apart_and_is_not_shown() -> None:
    """Two queries are two archives; what is shown of them is no secret."""
    one, other = (ARCHIVES.origin(f"https://h.example/a.zip?sig=canary-{n}#subdirectory=x", ACCESS) for n in (1, 2))
    assert one.place != other.place
    assert "canary" not in one.place + other.place
    assert one.url == "https://h.example/a.zip?sig=canary-1"


@pytest.mark.parametrize(
    ("fragment", "word"),
    [
        ("sha256=abc", "'sha256' field"),
        ("subdirectory=a&sha256=abc", "'sha256' field"),
        ("sha512=", "'sha256' field"),
        ("subdirectory=", "subdirectory=path"),
        ("egg=a", "subdirectory=path"),
        ("readme", "subdirectory=path"),
        ("subdirectory=../a", "cannot be used"),
    ],
)
def test_a_fragment_that_means_nothing_here(fragment: str, word: str) -> None:
    """Refused, with the place where it belongs."""
    with pytest.raises(BadManifest, match=word):
        ARCHIVES.origin(f"https://h.example/a.zip#{fragment}", ACCESS)


@given(st.text(max_size=60), st.sampled_from(["https://github.com/", "https://github.com/o/r/tree/", "https://", ""]))
def test_any_text_is_an_origin_or_a_bad_manifest(text: str, front: str) -> None:
    """Nothing that a manifest may say raises anything else, and no origin leads out of its folder."""
    try:
        origin = source_of(front + text, ACCESS).origin(front + text, ACCESS)
    except SkillbusError:
        return
    assert ".." not in origin.subpath.split("/")
    assert not origin.subpath.startswith("/")


@pytest.mark.parametrize(
    ("api", "server", "found"),
    [
        (None, None, None),
        ("https://api.github.com", "https://github.com", ("github.com", "https://api.github.com")),
        ("https://api.github.com", None, ("github.com", "https://api.github.com")),
        ("https://HOST.example/api/v3/", None, ("host.example", "https://HOST.example/api/v3")),
        ("https://api.x.ghe.com", None, ("x.ghe.com", "https://api.x.ghe.com")),
        ("http://127.0.0.1:8080/api/v3", None, ("127.0.0.1:8080", "http://127.0.0.1:8080/api/v3")),
        ("https://api.h.example", "https://pages.h.example", ("pages.h.example", "https://api.h.example")),
        (None, "https://h.example", ("h.example", "https://h.example/api/v3")),
        (None, "https://x.ghe.com", ("x.ghe.com", "https://api.x.ghe.com")),
        (None, "https://github.com", ("github.com", "https://api.github.com")),
    ],
)
def test_the_operators_own_github(api: str | None, server: str | None, found: tuple[str, str] | None) -> None:
    """Pages follow from the API, and the API from the pages."""
    assert github_of(api, server) == found


@pytest.mark.parametrize(
    "url", ["h.example", "ftp://h.example", "https://u:p@h.example", "https://h.example?x", "https://[::1"]
)
def test_a_github_that_is_none(url: str) -> None:
    """Refused by the variable's name."""
    with pytest.raises(BadSettings, match="SKILLBUS_GITHUB_API_URL"):
        github_of(url, None)
    with pytest.raises(BadSettings, match="SKILLBUS_GITHUB_SERVER_URL"):
        github_of(None, url)

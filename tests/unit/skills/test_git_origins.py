"""Git urls taken apart: what is asked, what is shown, and what could be an option is refused."""

from __future__ import annotations

import pytest

from skillbus.errors import BadManifest
from skillbus.skills.sources.git import SOURCE
from skillbus.skills.sources.pip_url import git_url
from skillbus.skills.sources.route import Trust
from skillbus.skills.sources.source import Access
from skillbus.skills.sources.web import Web

ACCESS = Access(Web(Trust(None, frozenset(), frozenset())), 0)


@pytest.mark.parametrize(
    ("url", "place", "remote", "ref", "subpath", "fallback"),
    [
        ("git+https://h.example/t/s.git", "https://h.example/t/s.git", "https://h.example/t/s.git", "", "", "s"),
        (
            "git+https://h.example:8443/t/s.git@v3#subdirectory=a/pdf",
            "https://h.example:8443/t/s.git@v3",
            "https://h.example:8443/t/s.git",
            *("v3", "a/pdf", "pdf"),
        ),
        (
            "git+ssh://git@h.example/t/s.git@feature/x#subdirectory=pdf%20x",
            "ssh://h.example/t/s.git@feature/x",
            "ssh://git@h.example/t/s.git",
            *("feature/x", "pdf x", "pdf x"),
        ),
        ("git+ssh://h.example:2222/s", "ssh://h.example:2222/s", "ssh://h.example:2222/s", "", "", "s"),
        ("git+file:///srv/s.git@main", "file:///srv/s.git@main", "file:///srv/s.git", "main", "", "s"),
        ("git+https://[2001:db8::1]:1/s@a", "https://[2001:db8::1]:1/s@a", "https://[2001:db8::1]:1/s", "a", "", "s"),
        ("GIT+https://h.example/s#subdirectory=/a/", "https://h.example/s", "https://h.example/s", "", "a", "a"),
    ],
)
def test_a_url_taken_apart(url: str, place: str, remote: str, ref: str, subpath: str, fallback: str) -> None:
    """The @ behind the path begins the ref; the one in the user part does not, and is never shown."""
    origin = SOURCE.origin(url, ACCESS)
    assert (origin.source, origin.place, origin.ref) == ("git", place, ref)
    assert (origin.subpath, origin.fallback) == (subpath, fallback)
    assert git_url(origin.url).remote == remote


def test_entries_of_one_repository_have_one_place() -> None:
    """They are resolved and fetched as one, whatever folder they want."""
    origins = [SOURCE.origin(f"git+https://h.example/s.git@v1#subdirectory={name}", ACCESS) for name in "abc"]
    assert len({origin.place for origin in origins}) == len({origin.url for origin in origins}) == 1


@pytest.mark.parametrize(
    "url",
    [
        *(
            "git+ssh://-oProxyCommand=touch%20x/s.git",
            "git+ssh://git@-oProxyCommand=x/s.git",
            "git+ssh://-l@h.example/s",
        ),
        *("git+https://-h/s.git", "git+https:///s.git", "git+https://h.example/-s", "git+https://h.example/"),
        *("git+https://h.example/s@-x", "git+https://h.example/s@--upload-pack=x", "git+https://h.example/s@"),
        *("git+https://h.example/s@a..b", "git+https://h.example/s@a b", "git+https://h.example/s@a:b"),
        *(
            "git+https://h.example/s@$(x)",
            "git+https://h.example/s@x;y",
            "git+https://h.example/s@x'",
            "git+file://h/s",
        ),
        *("git+https://u:canary@h.example/s", "git+https://canary@h.example/s", "git+ssh://git:canary@h.example/s"),
        *("git+https://h.example/s?sig=canary", "git+https://h.example/s@v1?sig=canary", "git+ftp://h.example/s"),
        *("git+ext::sh -c x", "git+git://h.example/s", "git+https://h.example:x/s", "git+https://h_é.example/s"),
        *("git+https://h.example/s#egg=x", "git+https://h.example/s#subdirectory=", "git+file:///s#subdirectory=../x"),
        *("git+https://h.example/s#subdirectory=a&egg=canary", "git+git@h.example:s.git", "git+https://[::1/s", "git+"),
        *("git+https://h.example/s\nx", "git+https://h.example\\x/s", "git+https://h.example/@v1"),
    ],
)
def test_a_url_that_is_refused(url: str) -> None:
    """Nothing that git or ssh could take for an option, nothing that a shell would look at, no secret; and no echo."""
    assert SOURCE.accepts(url, ACCESS)
    with pytest.raises(BadManifest) as caught:
        SOURCE.origin(url, ACCESS)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://h.example/s.git", "/srv/git+x", "git@h.example:s.git"])
def test_a_url_of_another_kind(url: str) -> None:
    """Only what says so is a git remote."""
    assert not SOURCE.accepts(url, ACCESS)

"""The GitHub source against a GitHub on loopback: requests, ids, refs with slashes, errors, and no secret in any."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from skillbus.errors import BadManifest, RateLimited, SkillbusError, SourceUnavailable
from skillbus.skills.landing import Landing
from skillbus.skills.sources import github as module
from skillbus.skills.sources.github import SOURCE
from skillbus.skills.sources.source import Access, Origin, Revision
from skillbus.skills.sources.web import Trust, Web
from tests.fakes.github import Content, FakeGitHub, File, Link, Repo
from tests.integration.skills.world import skill_text

TOKEN = "canary-token-77aa"
CONTENT: Content = {
    "README.md": b"all",
    "skills/a/SKILL.md": skill_text("a"),
    "skills/a/run.sh": File(b"#!/bin/sh\n", executable=True),
    "skills/ab/SKILL.md": skill_text("ab"),
    "x/skills/a/SKILL.md": skill_text("x"),
}


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    """A GitHub."""
    with FakeGitHub(token=TOKEN) as running:
        yield running


@pytest.fixture
def repo(github: FakeGitHub) -> Repo:
    """A repository on it, with one commit on main."""
    found = github.repo("org/skills")
    found.commit(CONTENT)
    return found


def access(github: FakeGitHub, *more: str, token: str | None = None, redirect: tuple[str, ...] = ()) -> Access:
    """What the source may use: ``more`` are local hosts."""
    names = frozenset({github.host, *more})
    return Access(Web(Trust(token, frozenset({github.host}), names, frozenset(redirect))), 0, github.options["github"])


def resolve(github: FakeGitHub, rest: str, known: Revision | None = None, **how: Any) -> tuple[Origin, Revision]:
    """The page's origin, and what it holds."""
    reach = access(github, **how)
    origin = SOURCE.origin(github.page("org/skills", rest), reach)
    return origin, asyncio.run(SOURCE.resolve(origin, known, reach))


def fetched(
    folder: Path, origin: Origin, revision: Revision, subpaths: Sequence[str], reach: Access
) -> dict[str, Landing]:
    """The landings after a fetch."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        landings = {subpath: Landing(descriptor, str(n)) for n, subpath in enumerate(subpaths)}
        SOURCE.fetch(origin, revision, landings, reach)
    finally:
        os.close(descriptor)
    return landings


# ---- resolving -------------------------------------------------------------------------------------------------------


def test_one_conditional_request_for_a_ref(github: FakeGitHub, repo: Repo) -> None:
    """The commit, then 304 while nothing changed, then the new one."""
    origin, first = resolve(github, "tree/main/skills/a")
    assert first.id == repo.refs["main"]
    assert resolve(github, "tree/main/skills/a", first)[1] is first
    assert [one.headers.get("If-None-Match") for one in github.requests] == [None, f'"{first.id}"']
    assert github.requests[0].headers["Accept"] == "application/vnd.github.sha"
    assert github.requests[0].headers["X-GitHub-Api-Version"]
    second = repo.commit({**CONTENT, "new": b""})
    assert resolve(github, "tree/main/skills/a", first)[1].id == second
    assert github.count("commits") == len(github.requests) == 3
    assert origin.place == f"{github.host}/org/skills@main"


def test_a_full_commit_needs_no_request(github: FakeGitHub, repo: Repo) -> None:
    """It says all by itself."""
    assert resolve(github, f"tree/{repo.refs['main']}/skills/a")[1] == Revision(repo.refs["main"])
    assert github.requests == []


@pytest.mark.parametrize(
    ("rest", "ref"), [("", "HEAD"), ("tree/v1.4/a", "v1.4"), ("tree/feature%2Fx/a", "feature%2Fx")]
)
def test_the_default_branch_a_tag_and_a_slash_written_out(github: FakeGitHub, repo: Repo, rest: str, ref: str) -> None:
    """Each by one request."""
    repo.tag("v1.4", repo.refs["main"])
    repo.tag("feature/x", repo.refs["main"])
    assert resolve(github, rest)[1].id == repo.refs["main"]
    assert [one.path for one in github.requests] == [f"/api/v3/repos/org/skills/commits/{ref}"]


def test_a_ref_with_a_slash_is_found_and_remembered(github: FakeGitHub, repo: Repo, tmp_path: Path) -> None:
    """Two requests the first time, one from then on; and the child takes the rest of the url for the folder."""
    commit = repo.commit(CONTENT, "feature/x")
    origin, found = resolve(github, "tree/feature/x/skills/a")
    assert found.id == commit
    assert github.count("commits") == 2
    assert resolve(github, "tree/feature/x/skills/a", found)[1] is found
    assert github.count("commits") == 3
    moved = repo.commit({**CONTENT, "new": b""}, "feature/x")
    again = resolve(github, "tree/feature/x/skills/a", found)[1]
    assert again.id == moved
    reach = access(github)
    assert SOURCE.trees(origin, again, [origin.subpath, "x", "x/none"], reach) == {
        "x/skills/a": repo.tree_id(moved, "skills/a"),
        "x": repo.tree_id(moved),
    }
    landings = fetched(tmp_path, origin, again, [origin.subpath, "y/skills/a"], reach)
    assert set(landings["x/skills/a"].facts) == {"SKILL.md", "run.sh"}
    assert "%2F" in str(landings["y/skills/a"].error)


def test_a_folder_that_is_called_like_the_refs_end(github: FakeGitHub, repo: Repo) -> None:
    """``tree/main/x/skills/a`` is main's folder x, for there is a branch main."""
    origin, found = resolve(github, "tree/main/x/skills/a")
    assert SOURCE.trees(origin, found, [origin.subpath], access(github)) == {
        "x/skills/a": repo.tree_id(found.id, "x/skills/a")
    }
    assert github.count("commits") == 1


@pytest.mark.parametrize(
    ("rest", "requests", "words"),
    [
        ("tree/none/a/b/c", 3, ["'none'", "%2F"]),
        ("tree/none", 1, ["'none'"]),
        ("tree/no%2Fne/a", 1, ["'no/ne'"]),
    ],
)
def test_a_ref_that_is_not_there(github: FakeGitHub, repo: Repo, rest: str, requests: int, words: list[str]) -> None:
    """A few requests, then one error that says how to write a slash."""
    with pytest.raises(BadManifest) as caught:
        resolve(github, rest)
    assert all(word in str(caught.value) for word in words)
    assert github.count("commits") == requests


def test_a_repository_that_may_not_be_seen(github: FakeGitHub, repo: Repo) -> None:
    """404 without the token, by one request: wrong name, or private. With the token it is there."""
    repo.private = True
    with pytest.raises(SourceUnavailable, match="private") as caught:
        resolve(github, "tree/main/skills/a")
    assert "SKILLBUS_SKILLS_TOKEN" in str(caught.value)
    assert github.count("commits") == 1
    assert resolve(github, "tree/main", token=TOKEN)[1].id == repo.refs["main"]


def test_an_empty_repository(github: FakeGitHub) -> None:
    """Said so."""
    github.repo("org/skills")
    with pytest.raises(SourceUnavailable, match="empty"):
        resolve(github, "")


def test_a_wrong_token_falls_back_to_nothing(github: FakeGitHub, repo: Repo) -> None:
    """401 is an error, though anonymously it would have worked; the token is not shown."""
    with pytest.raises(SourceUnavailable, match="401") as caught:
        resolve(github, "tree/main", token="canary-wrong")
    assert "SKILLBUS_SKILLS_TOKEN" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert len(github.requests) == 1


@pytest.mark.parametrize("by_reset", [True, False])
@pytest.mark.parametrize("status", [403, 429])
def test_a_limit_says_how_long(github: FakeGitHub, repo: Repo, status: int, by_reset: bool) -> None:
    """By the server's clock, which here is years behind."""
    github.rate_limit("commits", 90, status=status, by_reset=by_reset)
    with pytest.raises(RateLimited) as caught:
        resolve(github, "tree/main", token=TOKEN)
    assert caught.value.wait_s == 90
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"0123", b"g" * 40, b"a" * 41, b"\xff" * 40, b""])
def test_what_is_no_commit_is_none(github: FakeGitHub, repo: Repo, body: bytes) -> None:
    """A login page is not taken for a revision."""
    github.fault("commits", status=200, body=body)
    with pytest.raises(SourceUnavailable, match="no commit"):
        resolve(github, "tree/main")


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_in_trouble(github: FakeGitHub, repo: Repo, status: int) -> None:
    """It is tried again, next time."""
    github.fault("commits", status=status)
    with pytest.raises(SourceUnavailable, match="tried again"):
        resolve(github, "tree/main")


def test_a_question_to_a_silent_github_ends_when_it_is_cancelled(github: FakeGitHub, repo: Repo) -> None:
    """At once."""
    github.fault("commits", gate=threading.Event())
    reach = access(github)
    origin = SOURCE.origin(github.page("org/skills"), reach)

    async def main() -> float:
        task = asyncio.create_task(SOURCE.resolve(origin, None, reach))
        await asyncio.to_thread(github.asked.wait)
        began_s = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began_s

    assert asyncio.run(main()) < 0.5


# ---- tree ids --------------------------------------------------------------------------------------------------------

PATHS = ["", "skills", "skills/a", "skills/ab", "x/skills/a", "none", "skills/none", "README.md", "README.md/x"]
THERE = ["", "skills", "skills/a", "skills/ab", "x/skills/a"]


@pytest.mark.parametrize(("truncated", "requests"), [(False, 1), (True, 5)])
def test_the_ids_are_gits_own(github: FakeGitHub, repo: Repo, truncated: bool, requests: int) -> None:
    """By one listing; or, where it is cut, folder by folder and no further than what is wanted."""
    repo.truncated = truncated
    origin, found = resolve(github, "tree/main")
    ids = SOURCE.trees(origin, found, PATHS, access(github))
    assert ids == {path: repo.tree_id(found.id, path) for path in THERE}
    assert github.count("trees") == requests


def test_an_id_stays_while_its_folder_does(github: FakeGitHub, repo: Repo) -> None:
    """A commit elsewhere moves the others alone."""
    origin, first = resolve(github, "tree/main")
    before = SOURCE.trees(origin, first, THERE, access(github))
    repo.commit({**CONTENT, "skills/ab/SKILL.md": b"other"})
    after = SOURCE.trees(origin, resolve(github, "tree/main")[1], THERE, access(github))
    assert before is not None
    assert after is not None
    assert {path for path in THERE if before[path] != after[path]} == {"", "skills", "skills/ab"}


def test_a_listing_that_is_too_long_is_walked(github: FakeGitHub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """And if one folder alone is too long, there are no ids: the digest decides then."""
    repo.commit({**CONTENT, **{f"big/{n}": b"" for n in range(50)}})
    origin, found = resolve(github, "tree/main")
    monkeypatch.setattr(module, "MAX_LISTING_BYTES", 3000)
    assert SOURCE.trees(origin, found, ["skills/a"], access(github)) == {"skills/a": repo.tree_id(found.id, "skills/a")}
    monkeypatch.setattr(module, "MAX_LISTING_BYTES", 300)
    assert SOURCE.trees(origin, found, ["skills/a"], access(github)) is None


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b"[" * 100_000, b'{"tree": [{"path": "skills/a", "mode": "040000", "sha": "../x"}]}'],
)
def test_a_listing_that_makes_no_sense(github: FakeGitHub, repo: Repo, body: bytes) -> None:
    """An error, or nothing; never an id that is none."""
    origin, found = resolve(github, "tree/main")
    github.fault("trees", status=200, body=body)
    try:
        assert SOURCE.trees(origin, found, ["skills/a"], access(github)) == {}
    except SourceUnavailable as error:
        assert "understood" in str(error)  # noqa: PT017 - either is right


# ---- fetching --------------------------------------------------------------------------------------------------------


def test_one_tarball_for_all_that_is_wanted(github: FakeGitHub, repo: Repo, tmp_path: Path) -> None:
    """Of exactly the resolved commit, though the branch has moved; executable bits survive."""
    origin, found = resolve(github, "tree/main/skills/a")
    repo.commit({"skills/a/SKILL.md": b"later"})
    landings = fetched(tmp_path, origin, found, ["skills/a", "skills/ab", "skills/none"], access(github))
    assert {path: fact.executable for path, fact in landings["skills/a"].facts.items()} == {
        "SKILL.md": False,
        "run.sh": True,
    }
    assert (tmp_path / "0/SKILL.md").read_bytes() == skill_text("a")
    assert set(landings["skills/ab"].facts) == {"SKILL.md"}
    assert landings["skills/none"].error is not None
    assert (github.count("tarball"), github.count("codeload")) == (1, 1)


def test_a_link_in_one_skill_is_that_skills_fault(github: FakeGitHub, repo: Repo, tmp_path: Path) -> None:
    """Or the whole archive's: but never followed, and never installed."""
    repo.commit({**CONTENT, "skills/ab/l": Link("../../../etc/passwd")})
    origin, found = resolve(github, "tree/main")
    try:
        landings = fetched(tmp_path, origin, found, ["skills/a", "skills/ab"], access(github))
    except SkillbusError:
        return
    assert landings["skills/a"].error is None
    assert landings["skills/ab"].error is not None
    assert "l" not in landings["skills/ab"].facts


def test_the_token_does_not_follow_a_redirect(github: FakeGitHub, repo: Repo, tmp_path: Path) -> None:
    """Tarballs lie on another host: it has to be named, and never sees the token."""
    with FakeGitHub(repos=github.repos) as codeload:
        github.codeload_url = codeload.url
        origin, found = resolve(github, "tree/main", token=TOKEN)
        with pytest.raises(BadManifest, match="SKILLBUS_SKILLS_REDIRECT_HOSTS") as caught:
            fetched(tmp_path, origin, found, ["skills/a"], access(github, codeload.host, token=TOKEN))
        assert "canary" not in str(caught.value)
        assert codeload.requests == []
        reach = access(github, codeload.host, token=TOKEN, redirect=(codeload.host,))
        (tmp_path / "2").mkdir()
        landings = fetched(tmp_path / "2", origin, found, ["skills/a"], reach)
        assert landings["skills/a"].error is None
        assert {auth for _, auth in github.authorizations} == {f"Bearer {TOKEN}"}
        assert codeload.authorizations == [(codeload.host, None)]


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/x", "https://127.0.0.1:1/", "file:///etc/passwd", "http://h/"]
)
def test_a_redirect_to_a_bad_place(github: FakeGitHub, repo: Repo, tmp_path: Path, target: str) -> None:
    """Is not followed, whoever says so."""
    github.fault("tarball", location=target + "?token=canary")
    origin, found = resolve(github, "tree/main")
    with pytest.raises(BadManifest) as caught:
        fetched(tmp_path, origin, found, ["skills/a"], access(github))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "how", [{"cut_after": 200}, {"status": 200, "body": b"<html>"}, {"status": 500}, {"status": 404}]
)
def test_a_tarball_that_does_not_come(github: FakeGitHub, repo: Repo, tmp_path: Path, how: dict[str, Any]) -> None:
    """Cut, another thing, an error, or gone: one error."""
    github.fault("codeload", **how)
    origin, found = resolve(github, "tree/main")
    with pytest.raises(SkillbusError):
        fetched(tmp_path, origin, found, ["skills/a"], access(github))


def test_a_limit_on_downloads(github: FakeGitHub, repo: Repo, tmp_path: Path) -> None:
    """As on questions."""
    github.rate_limit("tarball", 12)
    origin, found = resolve(github, "tree/main")
    with pytest.raises(RateLimited) as caught:
        fetched(tmp_path, origin, found, ["skills/a"], access(github))
    assert caught.value.wait_s == 12


def test_a_commit_that_is_gone(github: FakeGitHub, repo: Repo, tmp_path: Path) -> None:
    """Pushed away by force: it says which repository, and what may be."""
    origin, _ = resolve(github, "tree/main")
    with pytest.raises(SourceUnavailable, match="commit there"):
        fetched(tmp_path, origin, Revision("0" * 40), ["skills/a"], access(github))
    with pytest.raises(SourceUnavailable, match="commit there"):
        SOURCE.trees(origin, Revision("0" * 40), ["skills/a"], access(github))


# ---- the fake itself -------------------------------------------------------------------------------------------------


def test_the_fakes_ids_and_tarballs_are_gits(tmp_path: Path) -> None:
    """What a real git says of the tarball's content, executable bits and links included."""
    repo = Repo("org/skills")
    commit = repo.commit({**CONTENT, "a.txt": b"", "skills/a.txt": b"", "link": Link("README.md")})
    (tmp_path / "t.tar.gz").write_bytes(repo.tarball(repo.commits[commit]))

    def run(*argv: str) -> str:
        done = subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    run("tar", "xzf", "t.tar.gz", "--strip-components=1")
    (tmp_path / "t.tar.gz").unlink()
    run("git", "init", "--quiet")
    run("git", "-c", "core.excludesFile=", "add", "--all")
    assert run("git", "write-tree") == repo.tree_id(commit)
    assert run("git", "write-tree", "--prefix=skills/a/") == repo.tree_id(commit, "skills/a")
    assert repo.tarball(repo.commits[commit]) is repo.tarball(repo.commits[commit])

"""What a pass does not ask again, does not tell, and does not forget."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from skillbus.clock import BootClock
from skillbus.errors import BadArchive
from skillbus.skills import child as child_module
from skillbus.skills import fetching
from skillbus.skills.options import SkillsOptions
from skillbus.skills.places import Stage
from skillbus.skills.rollback import Rollback, choose, survey
from skillbus.skills.rules import FileFact, tree_digest
from skillbus.skills.sources.archives import SOURCE
from skillbus.skills.sources.source import Access
from skillbus.skills.sources.web import Trust, Web
from tests.fakes.github import FakeGitHub
from tests.integration.skills.world import (
    ScriptedCheckpoint,
    Server,
    World,
    counts,
    everything,
    one_pass,
    skill_text,
    tarball,
    write_tree,
)

Jobs = list[dict[str, Any]]


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    """A GitHub."""
    with FakeGitHub() as running:
        yield running


@pytest.fixture
def cost(github: FakeGitHub, in_process: Jobs) -> Callable[[], dict[str, int]]:
    """The requests of each kind since the last call."""
    before: dict[str, int] = {}

    def since() -> dict[str, int]:
        now = {kind: github.count(kind) for kind in ("commits", "trees", "tarball")}
        told = {kind: count - before.get(kind, 0) for kind, count in now.items() if count != before.get(kind, 0)}
        before.update(now)
        return told

    return since


# ---- skills that were refused ----------------------------------------------------------------------------------------


def test_a_refused_skill_is_not_fetched_again(
    world: World, github: FakeGitHub, cost: Callable[[], dict[str, int]]
) -> None:
    """At the same commit the same words are told for one question; another commit is another chance."""
    repo = github.repo("org/s")
    good = {"a/SKILL.md": skill_text("a")}
    repo.commit({**good, "b/README": b"none", "c/README": b"none"})
    world.list(*(github.page("org/s", f"tree/main/{name}") for name in "abc"))
    reconciler = world.reconciler(**github.options)
    first = one_pass(reconciler)
    assert len(first.errors) == 2
    assert cost() == {"commits": 1, "trees": 1, "tarball": 1}
    for _ in range(2):
        again = one_pass(reconciler)
        assert (again.errors, again.counts["unchanged"]) == (first.errors, 1)
        assert cost() == {"commits": 1}
    repo.commit({**good, "b/SKILL.md": skill_text("b"), "c/README": b"none"})
    assert counts(one_pass(reconciler)) == {"unchanged": 1, "added": 1}
    assert cost() == {"commits": 1, "trees": 1, "tarball": 1}
    assert counts(one_pass(reconciler)) == {"unchanged": 2}
    assert cost() == {"commits": 1}


def test_an_update_that_was_refused_is_not_even_listed_again(
    world: World, github: FakeGitHub, cost: Callable[[], dict[str, int]]
) -> None:
    """The version before it stays, and counts as held."""
    repo = github.repo("org/s")
    repo.commit({"a/SKILL.md": skill_text("a")})
    world.list(github.page("org/s", "tree/main/a"))
    reconciler = world.reconciler(**github.options)
    one_pass(reconciler)
    repo.commit({"a/README": b"gone"})
    first = one_pass(reconciler)
    cost()
    assert one_pass(reconciler).errors == first.errors
    assert cost() == {"commits": 1}
    assert (world.root / "a/SKILL.md").exists()


def test_a_wrong_pin_is_not_fetched_again_until_it_is_another(
    world: World, github: FakeGitHub, cost: Callable[[], dict[str, int]]
) -> None:
    """What is remembered is the refusal of this pin at this commit."""
    github.repo("org/s").commit({"a/SKILL.md": skill_text("a")})
    page = github.page("org/s", "tree/main/a")
    world.list(f"{page}\n    sha256: {'ab' * 32}")
    reconciler = world.reconciler(**github.options)
    first = one_pass(reconciler)
    cost()
    assert one_pass(reconciler).errors == first.errors
    assert cost() == {"commits": 1}
    world.list(page)
    assert counts(one_pass(reconciler)) == {"added": 1}


def test_what_may_mend_by_itself_is_tried_again(
    world: World, github: FakeGitHub, cost: Callable[[], dict[str, int]]
) -> None:
    """A server that failed, or an archive that was cut, is fetched again in the next pass."""
    github.repo("org/s").commit({"a/SKILL.md": skill_text("a")})
    world.list(github.page("org/s", "tree/main/a"))
    reconciler = world.reconciler(**github.options)
    for fault in ({"status": 500}, {"cut_after": 40}):
        github.fault("codeload", **fault)
        assert one_pass(reconciler).errors
    github.faults.clear()
    assert counts(one_pass(reconciler)) == {"added": 1}


# ---- queries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "manifest"),
    [
        ("files.example.org/x.zip?sig=SECRET", None),
        ("files.example.org/x.zip?sig=SECRET#subdirectory=a", None),
        ("./x?sig=SECRET#subdirectory=a", None),
        ("./x#?sig=SECRET", None),
        ("./a", "HTTPS://m.invalid/team.yaml?token=SECRET"),
        ("./a", "m.invalid/team.yaml?token=SECRET"),
    ],
)
def test_a_query_is_not_told_even_where_it_is_none(world: World, entry: str, manifest: str | None) -> None:
    """Whoever forgets the scheme, or writes it in capitals, has told a secret to nobody."""
    world.list(entry)
    result = world.run(manifests=(manifest or str(world.manifest),))
    assert len(result.errors) == 1
    assert "SECRET" not in result.errors[0]


def test_a_manifest_whose_scheme_is_in_capitals_is_asked(world: World, web: Server) -> None:
    """A scheme has no case."""
    web.routes["/team.yaml"] = (200, {}, b"skills: []")
    assert not world.run(manifests=(web.url.replace("http", "HTTP") + "/team.yaml",)).errors


# ---- what is placed --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_process")
def test_what_is_told_as_installed_lies_there(world: World, github: FakeGitHub) -> None:
    """A skill that is tampered with or gone, and could not be repaired: nothing is said of the set."""
    github.repo("org/s").commit({"a/SKILL.md": skill_text("a")})
    world.list(github.page("org/s", "tree/main/a"))
    reconciler = world.reconciler(**github.options)
    whole = one_pass(reconciler).installed
    assert whole
    (world.root / "a/SKILL.md").write_text("EVIL")
    github.fault("tarball", status=500)
    assert one_pass(reconciler).installed is None
    shutil.rmtree(world.root / "a")
    assert one_pass(reconciler).installed is None
    github.faults.clear()
    assert one_pass(reconciler).installed == whole


def test_roots_that_differ_are_told_by_the_users_first(world: World) -> None:
    """One digest stands for a name: that of the first target, in the order in which they were given."""
    world.skill("a", "one")
    world.list("./skills/a")
    one, two = world.folder / "one", world.folder / "two"
    old = world.run(targets=(one,)).installed
    world.skill("a", "two")
    new = world.run(targets=(two,)).installed
    assert (new != old, bool(old)) == (True, True)
    world.manifest.write_text("skills: 1")  # nothing can be brought in line
    assert world.run(targets=(one, two)).installed == old
    assert world.run(targets=(two, one)).installed == new


# ---- hosts that want to be left alone --------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_process")
def test_a_host_that_wants_peace_is_asked_no_more(world: World, github: FakeGitHub) -> None:
    """Those that were under way are all it hears, however many repositories it has."""
    pages = []
    for number in range(12):
        github.repo(f"org/r{number}").commit({"SKILL.md": skill_text(f"s{number}")})
        pages.append(github.page(f"org/r{number}", "tree/main"))
    world.list(*pages)
    github.rate_limit("commits", 1800)
    result = world.run(**github.options)
    assert github.count("commits") <= 4
    assert len(result.errors) == 12
    assert 1790 < result.retry_after_s <= 1800


# ---- a place that did not answer -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_process")
def test_one_bad_answer_forgets_no_etag(world: World, web: Server, github: FakeGitHub) -> None:
    """The question after it is conditional again, for a repository as for a manifest and what it lists."""
    github.repo("org/s").commit({"a/SKILL.md": skill_text("a")})
    text = f"skills: [{{url: '{github.page('org/s', 'tree/main/a')}'}}]".encode()

    def team(handler: Any) -> None:
        same = handler.headers.get("If-None-Match") == '"1"'
        handler.send_response(304 if same else 200)
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        if not same:
            handler.wfile.write(text)

    web.routes["/team.yaml"] = team
    options = {**github.options, "local_hosts": (web.host, github.host), "manifests": (f"{web.url}/team.yaml",)}
    reconciler = world.reconciler(**options)
    one_pass(reconciler)
    github.fault("commits", status=500, times=1)
    assert one_pass(reconciler).errors
    assert not one_pass(reconciler).errors
    assert "If-None-Match" in github.requests[-1].headers
    web.routes["/team.yaml"] = (500, {}, b"")
    assert one_pass(reconciler).errors
    web.routes["/team.yaml"] = team
    assert not one_pass(reconciler).errors
    assert web.seen[-1].headers.get("If-None-Match") == '"1"'
    assert "If-None-Match" in github.requests[-1].headers


# ---- one failure, one error ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_process")
def test_a_repair_that_fails_is_one_error(world: World, github: FakeGitHub) -> None:
    """The fetch says what was wrong, and nothing else need be said."""
    github.repo("org/s").commit({"a/SKILL.md": skill_text("a")})
    world.list(github.page("org/s", "tree/main/a"))
    reconciler = world.reconciler(**github.options)
    one_pass(reconciler)
    (world.root / "a/SKILL.md").write_text("EVIL")
    github.fault("tarball", status=500)
    assert len(one_pass(reconciler).errors) == 1


# ---- what a child may not do -----------------------------------------------------------------------------------------


def test_progress_alone_keeps_no_pass_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is over after its whole time, however much is heard of it."""
    chatter = 'import sys, time\nwhile True:\n    print(\'{"id": 1, "progress": {}}\', flush=True); time.sleep(0.02)'
    monkeypatch.setattr(child_module, "COMMAND", (sys.executable, "-c", chatter))
    monkeypatch.setattr(child_module, "JOB_TOTAL_S", 0.5)

    async def asked() -> None:
        child = child_module.Child(SkillsOptions((), ()), BootClock())
        try:
            async with asyncio.timeout(10):
                await child.ask({"job": "manifest", "data": ""})
        finally:
            await child.kill()

    with pytest.raises(child_module.ChildDied, match=r"0\.5 s"):
        asyncio.run(asked())


@pytest.mark.parametrize("files", [{f"f{number}": 1 for number in range(2001)}, {"big": 20 * 1024 * 1024 + 1}])
def test_what_a_child_says_has_landed_is_bounded(files: dict[str, int]) -> None:
    """A skill has no more files or bytes than the rules allow, whatever the child says."""
    facts = {path: FileFact("a" * 64, executable=False) for path in files}
    said = {
        "name": "a",
        "digest": tree_digest(facts),
        "files": {path: ["a" * 64, False, files[path]] for path in files},
    }
    with pytest.raises(BadArchive):
        fetching._landed(Stage(-1, ""), "1", said)


def test_a_plus_in_a_subdirectory_is_a_plus() -> None:
    """What follows the hash is a path, and no form."""
    origin = SOURCE.origin(
        "https://x.invalid/a.zip#subdirectory=skills/c++", Access(Web(Trust(None, frozenset(), frozenset())), 0)
    )
    assert origin.subpath == "skills/c++"


# ---- what a fresh process need not ask -------------------------------------------------------------------------------


def test_a_fresh_process_fetches_no_unchanged_skill_again(world: World, in_process: Jobs) -> None:
    """A git remote tells only by a fetch that a skill is unchanged at a new commit: so the receipt says it, once."""
    repo = world.folder / "repo"
    write_tree(repo, {"skills/a/SKILL.md": skill_text("a")})
    git(repo, "init", "-q", "-b", "main")
    commit_all(repo)
    world.list(f"git+file://{repo}@main#subdirectory=skills/a")
    world.run()
    (repo / "README").write_text("new")
    commit_all(repo)
    assert counts(world.run()) == {"unchanged": 1}
    before = everything(world.root)
    in_process.clear()
    assert counts(world.run()) == {"unchanged": 1}
    assert [job["job"] for job in in_process] == ["manifest"]
    assert everything(world.root) == before


def test_a_fresh_process_fetches_nothing_for_what_was_rolled_back(
    world: World, github: FakeGitHub, cost: Callable[[], dict[str, int]]
) -> None:
    """The receipt knows at which commit the manifest asks for the version that it stands in for."""
    repo = github.repo("org/s")
    world.list(github.page("org/s", "tree/main/a"))
    for text in ("one", "two"):
        repo.commit({"a/SKILL.md": skill_text("a", text)})
        world.run(**github.options)
    digest = choose(survey([world.root], "a"), "a")
    asyncio.run(Rollback(world.options(), BootClock(), "a", digest).reconcile(ScriptedCheckpoint()))
    cost()
    assert counts(world.run(**github.options)) == {"unchanged": 1}
    assert cost() == {"commits": 1}
    repo.commit({"a/SKILL.md": skill_text("a", "two"), "README": b"elsewhere"})
    assert counts(world.run(**github.options)) == {"unchanged": 1}
    assert cost() == {"commits": 1, "trees": 1}
    repo.commit({"a/SKILL.md": skill_text("a", "three")})
    assert counts(world.run(**github.options)) == {"updated": 1}


def test_two_refs_of_one_commit_cost_one_fetch(
    world: World, github: FakeGitHub, cost: Callable[[], dict[str, int]]
) -> None:
    """A branch and the commit that it means are one place: one listing and one tarball serve both."""
    commit = github.repo("org/s").commit({f"{name}/SKILL.md": skill_text(name) for name in "abc"})
    world.list(github.page("org/s", "tree/main/a"), github.page("org/s", f"tree/{commit}/b"))
    reconciler = world.reconciler(**github.options)
    assert counts(one_pass(reconciler)) == {"added": 2}
    assert cost() == {"commits": 1, "trees": 1, "tarball": 1}
    assert counts(one_pass(reconciler)) == {"unchanged": 2}
    assert cost() == {"commits": 1}


@pytest.mark.usefixtures("in_process")
def test_a_server_with_another_etag_each_time_is_believed_its_bytes(world: World, web: Server) -> None:
    """Its skill is placed, and nothing is remembered by a name that means nothing."""
    bodies = [tarball({"SKILL.md": skill_text("a")})]

    def route(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("ETag", f'"{len(web.seen)}"')
        handler.send_header("Content-Length", str(len(bodies[-1])))
        handler.end_headers()
        with suppress(OSError):  # A question about the headers alone ends the connection.
            handler.wfile.write(bodies[-1])

    web.routes["/a.tgz"] = route
    world.list(f"{web.url}/a.tgz")
    reconciler = world.reconciler(local_hosts=(web.host,))
    assert counts(one_pass(reconciler)) == {"added": 1}
    assert read_lock_of(world)["a"]["revision"] == ""
    assert counts(one_pass(reconciler)) == {"unchanged": 1}
    bodies.append(tarball({"SKILL.md": skill_text("a", "new")}))
    assert counts(one_pass(reconciler)) == {"updated": 1}


def git(repo: Path, *words: str) -> None:
    """A git command there."""
    who = ("-c", "user.name=x", "-c", "user.email=x@x.invalid")
    subprocess.run(["git", "-C", str(repo), *who, *words], check=True, capture_output=True)


def commit_all(repo: Path) -> None:
    """Commit everything there."""
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "more")


def read_lock_of(world: World) -> dict[str, Any]:
    """The receipts as they stand in the file."""
    found: dict[str, Any] = json.loads((world.root / "skillbus.lock").read_text())["skills"]
    return found

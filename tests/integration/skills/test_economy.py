"""What a pass costs: requests, downloads, child processes, files read. And what it does when a source wants peace."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from skillbus.clock import BootClock, wall_ms
from skillbus.core.outcome import PassResult
from skillbus.skills import places, tree
from skillbus.skills.child import Child
from skillbus.skills.reconciler import SkillsReconciler
from skillbus.skills.sources import folder as folder_source
from skillbus.skills.wishes import ASKED_AT_ONCE
from tests.fakes.clock import FakeClock
from tests.fakes.github import FakeGitHub, File, Repo
from tests.integration.skills.world import (
    FakeChild,
    ScriptedCheckpoint,
    Server,
    World,
    counts,
    one_pass,
    skill_text,
    tarball,
    visible,
)

Jobs = list[dict[str, Any]]
NAMES = [f"s{number:02}" for number in range(10)]


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    """A GitHub."""
    with FakeGitHub() as running:
        yield running


class Monorepo:
    """Ten skills in one repository, all of them wanted."""

    def __init__(self, world: World, github: FakeGitHub, name: str = "org/skills") -> None:
        self.github = github
        self.name = name
        self.repo: Repo = github.repo(name)
        self.files: dict[str, bytes | File] = {"README.md": b"all"}
        for skill in NAMES:
            self.files[f"skills/{skill}/SKILL.md"] = skill_text(skill)
            self.files[f"skills/{skill}/run.sh"] = File(b"#!/bin/sh\n", executable=True)
        self.commit()
        world.list(*self.pages())

    def pages(self, ref: str = "main") -> list[str]:
        return [self.github.page(self.name, f"tree/{ref}/skills/{skill}") for skill in NAMES]

    def commit(self, **changed: str) -> str:
        """A commit in which these skills have another text."""
        for skill, text in changed.items():
            self.files[f"skills/{skill}/SKILL.md"] = skill_text(skill, text)
        return self.repo.commit(self.files)

    def elsewhere(self, text: str) -> str:
        """A commit that touches no skill."""
        self.files["README.md"] = text.encode()
        return self.repo.commit(self.files)

    @contextmanager
    def costs(self, jobs: Jobs, *, commits: int = 0, trees: int = 0, tarball: int = 0, children: int) -> Iterator[None]:
        """What is done in here costs exactly so many requests, and so many jobs for a child."""
        before = {kind: self.github.count(kind) for kind in ("commits", "trees", "tarball", "codeload", "other")}
        jobs_before = len(jobs)
        yield
        after = {kind: self.github.count(kind) - count for kind, count in before.items()}
        wanted = {"commits": commits, "trees": trees, "tarball": tarball, "codeload": tarball, "other": 0}
        assert after == wanted
        assert len(jobs) - jobs_before == children, jobs[jobs_before:]


@pytest.fixture
def monorepo(world: World, github: FakeGitHub) -> Monorepo:
    """The repository, listed."""
    return Monorepo(world, github)


def _was_conditional(github: FakeGitHub) -> bool:
    return any(name.lower() == "if-none-match" for name in github.requests[-1].headers)


def test_the_requests_of_a_repositorys_life(
    world: World, github: FakeGitHub, monorepo: Monorepo, in_process: Jobs
) -> None:
    """Cold 3 requests; nothing new 1, conditional, no child; a commit elsewhere 2 and nothing placed; a tenth new 3."""
    reconciler = world.reconciler(**github.options)
    with monorepo.costs(in_process, commits=1, trees=1, tarball=1, children=2):  # the manifest, and one fetch
        assert counts(one_pass(reconciler)) == {"added": 10}
    assert f"{NAMES[0]}/run.sh*" in world.visible()
    before = world.visible()
    for _ in range(2):
        with monorepo.costs(in_process, commits=1, children=0):
            assert counts(one_pass(reconciler)) == {"unchanged": 10}
        assert _was_conditional(github)

    monorepo.elsewhere("one")
    with monorepo.costs(in_process, commits=1, trees=1, children=1):
        assert counts(one_pass(reconciler)) == {"unchanged": 10}
    assert world.visible() == before
    with monorepo.costs(in_process, commits=1, children=0):
        assert counts(one_pass(reconciler)) == {"unchanged": 10}

    monorepo.commit(s03="new")
    with monorepo.costs(in_process, commits=1, trees=1, tarball=1, children=2):
        assert counts(one_pass(reconciler)) == {"unchanged": 9, "updated": 1}
    assert world.visible()["s03/SKILL.md"] == skill_text("s03", "new")
    with monorepo.costs(in_process, commits=1, children=0):
        assert counts(one_pass(reconciler)) == {"unchanged": 10}


def test_what_was_updated_or_added_later_is_compared_too(
    world: World, github: FakeGitHub, monorepo: Monorepo, in_process: Jobs
) -> None:
    """Tree ids are known of every skill, however it came: so a later commit elsewhere downloads nothing."""
    world.list(*monorepo.pages()[:9])
    reconciler = world.reconciler(**github.options)
    one_pass(reconciler)
    monorepo.commit(s03="new")
    one_pass(reconciler)
    world.list(*monorepo.pages())
    with monorepo.costs(in_process, commits=1, trees=1, tarball=1, children=2):
        assert counts(one_pass(reconciler)) == {"unchanged": 9, "added": 1}
    for reborn in (reconciler, world.reconciler(**github.options)):
        monorepo.elsewhere(f"for {reborn}")
        with monorepo.costs(in_process, commits=1, trees=1, children=1 + (reborn is not reconciler)):
            assert counts(one_pass(reborn)) == {"unchanged": 10}


def test_all_new_at_once_costs_one_listing(
    world: World, github: FakeGitHub, monorepo: Monorepo, in_process: Jobs
) -> None:
    """If every skill changed, what was listed to compare them is not listed again."""
    reconciler = world.reconciler(**github.options)
    one_pass(reconciler)
    monorepo.commit(**dict.fromkeys(NAMES, "new"))
    with monorepo.costs(in_process, commits=1, trees=1, tarball=1, children=2):
        assert counts(one_pass(reconciler)) == {"updated": 10}
    monorepo.elsewhere("later")
    with monorepo.costs(in_process, commits=1, trees=1, children=1):
        assert counts(one_pass(reconciler)) == {"unchanged": 10}


def test_after_a_restart_a_pass_costs_one_request(
    world: World, github: FakeGitHub, monorepo: Monorepo, in_process: Jobs
) -> None:
    """The receipts say which commit lies there: only the manifest is parsed anew."""
    world.run(**github.options)
    with monorepo.costs(in_process, commits=1, children=1):
        assert counts(world.run(**github.options)) == {"unchanged": 10}
    assert in_process[-1]["job"] == "manifest"


def test_drift_costs_one_tarball_and_no_listing(
    world: World, github: FakeGitHub, monorepo: Monorepo, in_process: Jobs
) -> None:
    """What was edited is repaired, with the same bytes and the same receipt but for the time."""
    reconciler = world.reconciler(**github.options)
    one_pass(reconciler)
    before = world.visible()
    (world.root / "s00/SKILL.md").write_text("edited")
    shutil.rmtree(world.root / "s01")
    with monorepo.costs(in_process, commits=1, tarball=1, children=1):
        assert counts(one_pass(reconciler)) == {"unchanged": 8, "repaired": 2}
    after = world.visible()
    assert {path for path in before if after[path] != before[path]} <= {"skillbus.lock"}
    monorepo.elsewhere("later")
    with monorepo.costs(in_process, commits=1, trees=1, children=1):
        assert counts(one_pass(reconciler)) == {"unchanged": 10}


def test_several_targets_cost_one_fetch(world: World, github: FakeGitHub, monorepo: Monorepo, in_process: Jobs) -> None:
    """However many folders it goes to, a skill is downloaded once; a target that comes later costs one download."""
    roots = (world.root, world.folder / "two", world.folder / "three")
    with monorepo.costs(in_process, commits=1, trees=1, tarball=1, children=2):
        assert counts(world.run(targets=roots[:2], **github.options)) == {"added": 20}
    with monorepo.costs(in_process, commits=1, tarball=1, children=2):
        assert counts(world.run(targets=roots, **github.options)) == {"unchanged": 20, "added": 10}
    one, *others = ({path: data for path, data in visible(root).items() if path != "skillbus.lock"} for root in roots)
    assert one
    assert all(other == one for other in others)


def test_a_commit_in_the_url_asks_nothing(
    world: World, github: FakeGitHub, monorepo: Monorepo, in_process: Jobs
) -> None:
    """A full commit cannot move: once placed it costs no request, not even after a restart."""
    world.list(*monorepo.pages(monorepo.commit()))
    reconciler = world.reconciler(**github.options)
    with monorepo.costs(in_process, trees=1, tarball=1, children=2):
        assert counts(one_pass(reconciler)) == {"added": 10}
    with monorepo.costs(in_process, children=0):
        assert counts(one_pass(reconciler)) == {"unchanged": 10}
    with monorepo.costs(in_process, children=1):
        assert counts(world.run(**github.options)) == {"unchanged": 10}


def test_no_child_process_at_all(
    world: World, web: Server, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real child: a pass with nothing new starts none, for folders, archives and repositories together."""
    monorepo = Monorepo(world, github)
    world.skill("folder")
    etag = '"one"'
    web.routes["/a.tar.gz"] = _with_etag(etag, tarball({"SKILL.md": skill_text("archive")}))
    world.list("./skills/folder", f"{web.url}/a.tar.gz", *monorepo.pages())
    starts: list[int] = []
    real = Child._start

    async def counted(self: Child) -> None:
        starts.append(1)
        await real(self)

    monkeypatch.setattr(Child, "_start", counted)
    options: dict[str, Any] = {"local_hosts": (web.host, github.host), "github": github.options["github"]}
    reconciler = world.reconciler(**options)
    assert counts(one_pass(reconciler)) == {"added": 12}
    assert len(starts) == 1
    for _ in range(2):
        assert counts(one_pass(reconciler)) == {"unchanged": 12}
    assert len(starts) == 1


def _with_etag(etag: str, body: bytes) -> Callable[[Any], None]:
    def route(handler: Any) -> None:
        same = handler.headers.get("If-None-Match") == etag
        handler.send_response(304 if same else 200)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", "0" if same else str(len(body)))
        handler.end_headers()
        if not same:
            handler.wfile.write(body)

    return route


def test_a_pinned_archive_that_lies_there_asks_nothing(world: World, web: Server, in_process: Jobs) -> None:
    """Its content is what the manifest pins, whatever the server would say now; drift is another matter."""
    web.routes["/a.tar.gz"] = _with_etag('"1"', tarball({"SKILL.md": skill_text("a")}))
    world.list(f"{web.url}/a.tar.gz")
    installed = world.run(local_hosts=(web.host,)).installed
    assert installed
    world.list(f"{web.url}/a.tar.gz\n    sha256: {installed['a']}")
    seen = len(web.seen)
    assert counts(world.run(local_hosts=(web.host,))) == {"unchanged": 1}
    assert len(web.seen) == seen
    (world.root / "a/SKILL.md").write_text("drift")
    assert counts(world.run(local_hosts=(web.host,))) == {"repaired": 1}
    assert len(web.seen) > seen


def test_a_manifest_from_the_web_is_asked_conditionally(world: World, web: Server, in_process: Jobs) -> None:
    """Not modified, it is neither sent nor parsed again; changed, it is."""
    web.routes["/a.tar.gz"] = _with_etag('"1"', tarball({"SKILL.md": skill_text("a")}))
    web.routes["/team.yaml"] = _with_etag('"1"', f"skills: [{{url: {web.url}/a.tar.gz}}]".encode())
    options: dict[str, Any] = {"manifests": (f"{web.url}/team.yaml",), "local_hosts": (web.host,)}
    reconciler = world.reconciler(**options)
    assert counts(one_pass(reconciler)) == {"added": 1}
    jobs = len(in_process)
    assert counts(one_pass(reconciler)) == {"unchanged": 1}
    assert len(in_process) == jobs
    web.routes["/team.yaml"] = _with_etag('"2"', b"skills: []")
    assert counts(one_pass(reconciler)) == {"removed": 1}


def test_what_lies_there_unchanged_is_not_read(world: World, monkeypatch: pytest.MonkeyPatch, in_process: Jobs) -> None:
    """Two seconds after its last change a tree is read once more, and then never again until it changes."""
    scans: list[str] = []
    real = tree.scan

    def counted(parent: int, name: str, *more: Any) -> Any:
        scans.append(name)
        return real(parent, name, *more)

    monkeypatch.setattr(tree, "scan", counted)
    world.skill("a")
    world.skill("b")
    world.list("./skills/a", "./skills/b")
    reconciler = world.reconciler()
    one_pass(reconciler)

    def scanned() -> list[str]:
        scans.clear()
        one_pass(reconciler)
        return sorted(scans)

    assert [scanned(), scanned()] == [["a", "b"], ["a", "b"]], "it changed a moment ago: its times say nothing yet"
    monkeypatch.setattr(places, "wall_ms", lambda: wall_ms() + 10_000)
    assert [scanned(), scanned(), scanned()] == [["a", "b"], [], []]
    (world.root / "a/SKILL.md").write_bytes(skill_text("a"))
    assert scanned() == ["a"]


# ---- several at once -------------------------------------------------------------------------------------------------


def test_at_most_four_places_are_asked_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; and of the child no more is wanted at once than it has hands."""
    now: dict[str, int] = {"resolve": 0, "fetch": 0}
    most: dict[str, int] = {"resolve": 0, "fetch": 0}

    def counting(kind: str, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def act(*args: Any) -> Any:
            now[kind] += 1
            most[kind] = max(most[kind], now[kind])
            try:
                await asyncio.sleep(0.01)
                return await real(*args)
            finally:
                now[kind] -= 1

        return act

    real_ask = FakeChild.ask
    monkeypatch.setattr(folder_source.FolderSource, "resolve", counting("resolve", folder_source.FolderSource.resolve))
    monkeypatch.setattr(FakeChild, "ask", counting("fetch", real_ask))
    monkeypatch.setattr("skillbus.skills.passing.Child", FakeChild)
    for number in range(12):
        world.skill(f"s{number}")
    world.list(*(f"./skills/s{number}" for number in range(12)))
    assert counts(world.run()) == {"added": 12}
    assert most == {"resolve": ASKED_AT_ONCE, "fetch": ASKED_AT_ONCE}


# ---- sources that want to be left alone ------------------------------------------------------------------------------


async def _asleep(clock: FakeClock, task: asyncio.Task[PassResult]) -> float:
    """For how long the pass sleeps, once it does."""
    while not clock.sleeper_count:
        assert not task.done(), task.result()
        await asyncio.sleep(0.005)
    assert clock.next_in_s is not None
    return clock.next_in_s


@pytest.mark.parametrize("kind", ["commits", "trees", "tarball"])
@pytest.mark.usefixtures("in_process")
def test_a_short_wait_is_waited_for(world: World, github: FakeGitHub, monorepo: Monorepo, kind: str) -> None:
    """Told to come back in 2 s, the pass does, to the second, and comes to its end."""
    github.rate_limit(kind, 2, times=1)

    async def waiting() -> PassResult:
        clock = FakeClock()
        task = asyncio.create_task(world.reconciler(clock, **github.options).reconcile(ScriptedCheckpoint()))
        assert await _asleep(clock, task) == 2.0
        asked = len(github.requests)
        await clock.advance(1.9)
        assert len(github.requests) == asked
        await clock.advance(0.1)
        return await task

    result = asyncio.run(waiting())
    assert counts(result) == {"added": 10}
    assert (result.errors, result.retry_after_s) == ((), 0.0)


@pytest.mark.usefixtures("in_process")
def test_who_is_told_twice_to_wait_gives_up(world: World, github: FakeGitHub, monorepo: Monorepo) -> None:
    """Once is patience, twice would be hammering: the rest of the time is the loop's to wait."""
    github.rate_limit("commits", 2)

    async def waiting() -> PassResult:
        clock = FakeClock()
        task = asyncio.create_task(world.reconciler(clock, **github.options).reconcile(ScriptedCheckpoint()))
        await _asleep(clock, task)
        await clock.advance(2)
        return await task

    result = asyncio.run(waiting())
    assert github.count("commits") == 2
    assert result.retry_after_s == 2.0
    assert len(result.errors) == 1


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("tripped", [False, True])
def test_a_wait_ends_with_the_pass(world: World, github: FakeGitHub, monorepo: Monorepo, tripped: bool) -> None:
    """Cancelled it ends at once; and when it is over, the checkpoint is asked before the source is."""
    github.rate_limit("commits", 2)

    async def waiting() -> None:
        clock, checkpoint = FakeClock(), ScriptedCheckpoint()
        task = asyncio.create_task(world.reconciler(clock, **github.options).reconcile(checkpoint))
        await _asleep(clock, task)
        if tripped:
            checkpoint.trip()
            await clock.advance(2)
        else:
            task.cancel()
        with pytest.raises(Exception if tripped else asyncio.CancelledError):
            await task

    asyncio.run(waiting())
    assert github.count("commits") == 1


@pytest.mark.parametrize("kind", ["commits", "trees", "tarball"])
@pytest.mark.usefixtures("in_process")
def test_a_long_wait_is_left_to_the_loop(world: World, github: FakeGitHub, monorepo: Monorepo, kind: str) -> None:
    """Told 600 s, a place's entries end in one error and keep their skills; others are served; the loop is told."""
    world.skill("other")
    world.list(*monorepo.pages(), "./skills/other")
    reconciler = world.reconciler(**github.options)
    assert counts(one_pass(reconciler)) == {"added": 11}
    before = world.visible()
    monorepo.commit(s00="new")
    world.skill("other", "new")
    github.rate_limit(kind, 600)
    result = one_pass(reconciler)
    assert result.retry_after_s == 600.0
    assert result.counts["updated"] == 1
    assert len(result.errors) == 1
    first = "skills[0]" if kind == "tarball" else "skills[0] and 9 more"
    assert first in result.errors[0]
    after = world.visible()
    assert {path for path in before if after[path] != before[path]} == {"other/SKILL.md", "skillbus.lock"}
    github.faults.clear()
    assert counts(one_pass(reconciler)) == {"unchanged": 10, "updated": 1}


@pytest.mark.usefixtures("in_process")
def test_a_manifest_that_is_rate_limited_removes_nothing(world: World, web: Server) -> None:
    """Its skills stay, and the loop is told when to come back."""
    world.skill("a")
    world.list("./skills/a")
    world.run()
    web.routes["/team.yaml"] = (429, {"Retry-After": "90"}, b"")
    result = world.run(manifests=(f"{web.url}/team.yaml",))
    assert result.retry_after_s == 90.0
    assert len(result.errors) == 1
    assert (world.root / "a/SKILL.md").exists()


def test_what_hangs_does_not_hold_a_cancelled_pass(world: World, github: FakeGitHub, monorepo: Monorepo) -> None:
    """The question of the pod's own process included: cancelled, the pass is over in half a second."""
    gate = threading.Event()
    github.fault("commits", gate=gate)

    async def cancelled() -> float:
        task = asyncio.create_task(
            SkillsReconciler(world.options(**github.options), BootClock()).reconcile(ScriptedCheckpoint())
        )
        await asyncio.to_thread(github.asked.wait, 30)
        began = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(cancelled()) < 0.5
    gate.set()

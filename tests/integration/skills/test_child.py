"""The child process: what it is kept from, how it ends, and what its parent believes of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from skillbus.clock import BootClock
from skillbus.core.outcome import PassResult
from skillbus.errors import RateLimited, SourceUnavailable
from skillbus.skills import child as child_module
from skillbus.skills.child import Child, ChildDied, OnLine
from skillbus.skills.places import take_stock
from skillbus.skills.quiet import Threads
from skillbus.skills.reconciler import ReconcileAborted, SkillsReconciler
from skillbus.skills.rules import FileFact, tree_digest
from tests.integration.skills.world import (
    FakeChild,
    ScriptedCheckpoint,
    Server,
    World,
    counts,
    everything,
    fake_child,
    one_pass,
    skill_text,
    tarball,
    visible,
    write_tree,
)

SECRET = "canary-token-7f3a"


def _slow(server: Server) -> None:
    """The server sends the head of an answer, and then nothing until the test is over."""

    def route(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.flush()
        server.release.wait(30)

    server.routes["/slow.tar.gz"] = route


def _children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "skillbus.skills.fetcher" in one.cmdline()]


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_the_pods_process_imports_no_parser() -> None:
    """PyYAML, the HTTP client, tarfile and zipfile come into the child alone (zipfile: no more than pydantic's own)."""
    code = """
        import sys
        import skillbus.core.ports, skillbus.clock
        before = set(sys.modules)
        import skillbus.skills.reconciler, skillbus.skills.targets
        foreign = {"yaml", "_yaml", "httptools", "http.client", "tarfile", "zipfile", "requests", "html", "xml"}
        print(sorted(foreign & (set(sys.modules) - before)))
        print(sorted({"yaml", "httptools", "tarfile"} & before))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]\n[]"


def test_a_pass_with_the_real_child(world: World, web: Server) -> None:
    """Folder and archive through the real process, one process a pass, and none left."""
    world.skill("a")
    web.routes["/b.tar.gz"] = (200, {"ETag": '"1"'}, tarball({"SKILL.md": skill_text("b"), "x.sh": b"#!"}, "b-1/"))
    world.list("./skills/a", f"{web.url}/b.tar.gz?sig={SECRET}", "ftp://host/c.tar.gz")
    result = world.run(local_hosts=(web.host,))
    assert counts(result) == {"added": 2}
    assert len(result.errors) == 1
    assert "skills[2]" in result.errors[0]
    assert {"a/SKILL.md", "b/SKILL.md", "b/x.sh*"} <= set(world.visible())
    assert SECRET.encode() not in world.visible()["skillbus.lock"]
    # One question (its answer's body unread), one download.
    assert len([one for one in web.seen if one.path.startswith("/b.tar.gz")]) == 2


def test_cancelled_in_a_fetch_the_child_is_dead_at_once(world: World, web: Server) -> None:
    """Against a server that hangs: cancelled, the pass ends soon, cancelled, and its process is gone."""
    _slow(web)
    world.list(f"{web.url}/slow.tar.gz")

    async def cancelled() -> float:
        reconciler = SkillsReconciler(world.options(local_hosts=(web.host,), token=SECRET), BootClock())
        task = asyncio.create_task(reconciler.reconcile(ScriptedCheckpoint()))
        await _until(lambda: len(web.seen) == 2)  # the pod's question, and the child's download
        (process,) = _children()
        told = " ".join(process.cmdline()) + repr(process.environ())
        assert SECRET not in told
        assert "LEFTOVER_MARK" not in process.environ()
        began = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not process.is_running()
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(cancelled()) < 0.5
    assert not (world.root / "slow").exists()


def test_a_child_without_a_job_is_killed_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started ahead, it ends with the pass; and that it cannot be started is the first job's to tell."""

    async def started() -> None:
        child = Child(world.options(), BootClock())
        await child.start()
        await child.start()
        (process,) = _children()
        await child.kill()
        assert not process.is_running()
        monkeypatch.setattr("skillbus.skills.child.COMMAND", ("/nowhere/python",))
        await child.start()
        with pytest.raises(ChildDied):
            await child.parse_manifest(b"skills: []")

    asyncio.run(started())


def test_a_child_that_is_needed_starts_while_stock_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any tree is looked at, if something is new; and never, if nothing is."""
    seen: list[int] = []

    def counted(*args: Any) -> None:
        seen.append(len(_children()))
        take_stock(*args)

    monkeypatch.setattr("skillbus.skills.passing.take_stock", counted)
    world.skill("a")
    world.list("./skills/a")
    reconciler = SkillsReconciler(world.options(), BootClock())

    def passed() -> dict[str, int]:
        return counts(asyncio.run(reconciler.reconcile(ScriptedCheckpoint())))

    assert passed() == {"added": 1}
    assert passed() == {"unchanged": 1}
    write_tree(world.folder / "skills/a", {"new.txt": b"new"})
    assert passed() == {"updated": 1}
    assert seen == [1, 0, 1]


def test_cancelled_while_its_child_has_no_job_a_pass_leaves_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that waits for stock to be taken is dead when the cancelled pass has ended."""
    taking = threading.Event()

    def held(place: Any, memory: Any, kept: Any, threads: Threads) -> None:
        taking.set()
        while True:
            threads.go_on()

    monkeypatch.setattr("skillbus.skills.passing.take_stock", held)
    world.skill("a")
    world.list("./skills/a")

    async def cancelled() -> None:
        reconciler = SkillsReconciler(world.options(), BootClock())
        task = asyncio.create_task(reconciler.reconcile(ScriptedCheckpoint()))
        await _until(taking.is_set)
        (process,) = _children()
        task.cancel()
        with pytest.raises((asyncio.CancelledError, ReconcileAborted)):
            await task
        assert not process.is_running()

    asyncio.run(cancelled())


def test_a_pass_in_a_loop_of_another_thread(world: World) -> None:
    """A pod that is embedded in a host runs its loop in a thread of its own; the child does not mind."""
    world.skill("a")
    world.list("./skills/a")
    results: list[PassResult] = []
    thread = threading.Thread(target=lambda: results.append(world.run()))
    thread.start()
    thread.join()
    assert counts(results[0]) == {"added": 1}


def test_the_child_dies_with_the_pod(world: World, web: Server) -> None:
    """SIGKILL of the process that started it: the kernel ends the child, in the middle of a fetch."""
    _slow(web)
    world.list(f"{web.url}/slow.tar.gz")
    code = f"""
        from pathlib import Path
        from tests.integration.skills.world import World
        World(Path({str(world.folder)!r})).run(local_hosts=({web.host!r},))
    """
    pod = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[3])
    try:
        assert web.asked.wait(30)
        asyncio.run(_until(lambda: len(web.seen) == 2))
        (process,) = psutil.Process(pod.pid).children()
    finally:
        pod.kill()
        pod.wait()
    psutil.wait_procs([process], timeout=5)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


BAD_ANSWERS = {
    "ends": "sys.exit(3)",
    "crashes": "os.kill(os.getpid(), signal.SIGSEGV)",
    "rubbish": "print('rubbish')",
    "no-object": "print('[]')",
    "another-id": "print(json.dumps({'id': 99, 'ok': {}}))",
    "both-missing": "print(json.dumps({'id': job['id']}))",
    "unknown-error": "print(json.dumps({'id': job['id'], 'error': ['SystemExit', 'x']}))",
    "deep": "print('[' * 100000)",
    "long": "print('x' * 5000000)",
    "huge-number": "print(json.dumps({'id': job['id'], 'progress': {'bytes': 10 ** 4000}}))",
    "huge-wait": "print(json.dumps({'id': job['id'], 'error': ['RateLimited', 'x', 10 ** 4000]}))",
    "not-utf8": "sys.stdout.buffer.write(bytes([255, 10]))",
    "binary": "sys.stdout.buffer.write(bytes(100) + bytes([10]))",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_child_that_does_not_answer_soundly_costs_one_job(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is killed, the job fails with a word, and the next job has a new child."""
    script = f"""
        import json, os, signal, sys
        sys.stdin.readline()
        for line in sys.stdin:
            job = json.loads(line)
            if job["id"] == 1:
                {BAD_ANSWERS[name]}
                sys.stdout.flush()
            else:
                print(json.dumps({{"id": job["id"], "ok": {{"fine": True}}}}), flush=True)
    """
    monkeypatch.setattr(child_module, "COMMAND", (sys.executable, "-S", "-c", textwrap.dedent(script)))

    async def two_jobs() -> None:
        child = Child(world.options(), BootClock())
        try:
            with pytest.raises(SourceUnavailable):
                await asyncio.wait_for(child.ask({"job": "look"}, lambda kind, said: print(said["bytes"] / 2**20)), 30)
            assert await child.ask({"job": "look"}) == {"fine": True}
        finally:
            await child.kill()

    asyncio.run(two_jobs())


def test_an_error_of_the_child_bears_no_token(world: World) -> None:
    """Even if a parser put it there, the token is taken out of what is shown, and control characters too."""
    child = Child(world.options(token=SECRET), BootClock())
    assert str(child.error(["BadArchive", f"x {SECRET} \x1b[31m y"])) == "x ********  [31m y"
    assert SECRET not in repr(world.options(token=SECRET))


@pytest.mark.parametrize(
    ("said", "wait_s"), [(2, 2.0), (0, 1.0), (-5, 1.0), (1e9, 3600.0), ("x", 60.0), (float("nan"), 1.0)]
)
def test_how_long_a_child_can_have_its_parent_wait(world: World, said: Any, wait_s: float) -> None:
    """A second to an hour, whatever it says."""
    error = Child(world.options(), BootClock()).error(["RateLimited", "x", said])
    assert isinstance(error, RateLimited)
    assert error.wait_s == wait_s


def _landed(**others: Any) -> dict[str, Any]:
    """What the child says of a skill of one file, but for ``others``."""
    text = skill_text("a")
    facts = {"SKILL.md": FileFact(hashlib.sha256(text).hexdigest(), executable=False)}
    files = {"SKILL.md": [facts["SKILL.md"].sha256, False, len(text)]}
    said = {"subpath": "", "name": "a", "digest": tree_digest(facts), "files": files, "warnings": []}
    return {**said, **others}


SHA = "0" * 64


@pytest.mark.parametrize(
    "said",
    [
        {},
        _landed(name="../evil"),
        _landed(name="a/b"),
        _landed(name=""),
        _landed(name=["a"]),
        _landed(digest=SHA),
        _landed(digest=5),
        _landed(files={}),
        _landed(files=[]),
        _landed(files={"SKILL.md": SHA}),
        _landed(files={"SKILL.md": [SHA, "yes", 3]}),
        _landed(files={"SKILL.md": [SHA, True, "3"]}),
        _landed(files={"../../evil": [SHA, True, 3]}),
        _landed(files={"/etc/passwd": [SHA, True, 3]}),
        _landed(files={"a": [SHA, True, 3], "A": [SHA, True, 3]}),
        _landed(warnings=3),
        _landed(subpath="another"),
        _landed(subpath=None),
        {"subpath": "", "error": "x"},
        {"subpath": "", "error": ["SystemExit", "x"]},
    ],
)
def test_what_a_hostile_child_says_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]
) -> None:
    """Names, paths and digests are checked again by the parent, and nothing is placed."""

    async def hostile(
        self: FakeChild, job: dict[str, Any], on_line: OnLine = lambda kind, said: None
    ) -> dict[str, Any]:
        if job["job"] != "fetch":
            return await real(self, job, on_line)
        write_tree(Path(job["folder"]) / job["slots"][""], {"SKILL.md": skill_text("a")})
        on_line("landed", said)
        return {"trees": None}

    real = FakeChild.ask
    monkeypatch.setattr(FakeChild, "ask", hostile)
    world.skill("a")
    world.list("./skills/a")
    with fake_child():
        result = world.run()
    assert counts(result) == {}
    assert len(result.errors) == 1
    assert not (world.root / "a").exists()


def _stage_link(slot: Path) -> None:
    write_tree(slot, {"SKILL.md": skill_text("a")})
    (slot / "passwd").symlink_to("/etc/passwd")


def _stage_as_link(slot: Path) -> None:
    slot.symlink_to("/etc")


def _stage_hard_link(slot: Path) -> None:
    slot.mkdir()
    os.link(slot.parents[3] / "skills/a/SKILL.md", slot / "SKILL.md")


def _stage_fifo(slot: Path) -> None:
    write_tree(slot, {"SKILL.md": skill_text("a")})
    os.mkfifo(slot / "fifo")


def _stage_longer(slot: Path) -> None:
    write_tree(slot, {"SKILL.md": skill_text("a", "poison")})


def _stage_executable(slot: Path) -> None:
    write_tree(slot, {"SKILL.md": skill_text("a")})
    (slot / "SKILL.md").chmod(0o755)


def _stage_more(slot: Path) -> None:
    write_tree(slot, {"SKILL.md": skill_text("a"), "more": b""})


def _stage_bad_name(slot: Path) -> None:
    write_tree(slot, {"SKILL.md": skill_text("a"), "a\nb": b""})


def _stage_many(slot: Path) -> None:
    write_tree(slot, {"SKILL.md": skill_text("a"), **{f"f{n}": b"" for n in range(2100)}})


def _stage_nothing(slot: Path) -> None:
    pass


STAGED = [_stage_link, _stage_as_link, _stage_hard_link, _stage_fifo, _stage_longer, _stage_bad_name, _stage_many]
STAGED += [_stage_executable, _stage_more]


@pytest.mark.parametrize("stage", [*STAGED, _stage_nothing])
def test_a_hostile_stage_is_not_placed(
    world: World, monkeypatch: pytest.MonkeyPatch, stage: Callable[[Path], None]
) -> None:
    """Links, devices, other content, bad names, too much, nothing: the parent looks for itself and places none."""
    real = FakeChild.ask

    async def hostile(
        self: FakeChild, job: dict[str, Any], on_line: OnLine = lambda kind, said: None
    ) -> dict[str, Any]:
        if job["job"] != "fetch":
            return await real(self, job, on_line)
        stage(Path(job["folder"]) / job["slots"][""])
        on_line("landed", _landed())
        return {"trees": None}

    monkeypatch.setattr(FakeChild, "ask", hostile)
    world.skill("a")
    world.list("./skills/a")
    before = everything(Path("/etc/passwd"))
    with fake_child():
        result = world.run()
    assert counts(result) == {}
    assert result.errors
    assert visible(world.root) == {}
    assert everything(Path("/etc/passwd")) == before


def test_a_pinned_skill_is_read_again_by_the_parent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the manifest pins a digest, not even a lie of the right length gets by."""
    pinned = _landed()["digest"]

    async def lying(self: FakeChild, job: dict[str, Any], on_line: OnLine = lambda kind, said: None) -> dict[str, Any]:
        if job["job"] != "fetch":
            return await real(self, job, on_line)
        write_tree(Path(job["folder"]) / job["slots"][""], {"SKILL.md": skill_text("a").replace(b"text", b"evil")})
        on_line("landed", _landed())
        return {"trees": None}

    real = FakeChild.ask
    monkeypatch.setattr(FakeChild, "ask", lying)
    world.skill("a")
    world.list(f"./skills/a\n    sha256: {pinned}")
    with fake_child():
        result = world.run()
    assert counts(result) == {}
    assert len(result.errors) == 1
    assert not (world.root / "a").exists()


DEATHS = {
    "abort-when-judged": ("bundle", "judge", "os.abort()"),
    "killed-when-judged": ("bundle", "judge", "os.kill(os.getpid(), 9)"),
    "abort-when-written": ("landing.Landing", "_keep", "os.abort()"),
    "killed-when-written": ("landing.Landing", "_keep", "os.kill(os.getpid(), 9)"),
    "exit-when-written": ("landing.Landing", "_keep", "os._exit(3)"),
}


@pytest.fixture(params=DEATHS)
def poisoned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child dies of whatever holds the word POISON."""
    owner, name, death = DEATHS[request.param]
    script = f"""
        import os
        from skillbus.skills import bundle, landing, fetcher
        real = {owner}.{name}
        def deadly(landing, *args, **named):
            data = landing.skill_file or (args[-1] if args and isinstance(args[-1], bytes) else b"")
            if b"POISON" in data:
                {death}
            return real(landing, *args, **named)
        {owner}.{name} = deadly
        fetcher.main()
    """
    command = (sys.executable, "-S", "-P", "-X", "utf8", "-c", textwrap.dedent(script))
    monkeypatch.setattr(child_module, "COMMAND", command)


NUMBERS = [str(number) for number in range(8)]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("poison", ["0", "5", "7"])
def test_a_skill_that_kills_the_child_costs_itself_alone(world: World, poison: str) -> None:
    """Of eight skills of one archive seven are placed by the same pass, and the eighth has its error."""
    files = {f"s{n}/SKILL.md": skill_text(f"s{n}", "POISON" if n == poison else "text") for n in NUMBERS}
    (world.folder / "all.tar.gz").write_bytes(tarball(files))
    world.list(*(f"./all.tar.gz#subdirectory=s{n}" for n in NUMBERS))
    result = world.run()
    assert counts(result) == {"added": 7}
    assert len(result.errors) == 1
    assert f"skills[{poison}]" in result.errors[0]
    assert not (world.root / f"s{poison}").exists()


@pytest.mark.usefixtures("poisoned")
def test_a_place_that_kills_the_child_costs_itself_alone(world: World) -> None:
    """Places that were fetched at the same time are fetched again, by another child, and placed by the same pass."""
    for n in NUMBERS:
        world.skill(f"s{n}", "POISON" if n == "3" else "text")
    world.list(*(f"./skills/s{n}" for n in NUMBERS))
    result = world.run()
    assert counts(result) == {"added": 7}
    assert len(result.errors) == 1
    assert "skills[3]" in result.errors[0]


def test_what_real_skills_hold_survives(world: World, web: Server) -> None:
    """Bits, binary files, six levels, BOM, CRLF, too long a description: byte for byte, by folder and archive."""
    long = "d" * 1068
    skills = {
        "fonts": {"SKILL.md": skill_text("fonts"), **{f"fonts/f{n}.ttf": os.urandom(3000) for n in range(80)}},
        "deep": {"SKILL.md": skill_text("deep"), "1/2/3/4/5/6/leaf.md": b"leaf", "1/2/tool.sh": b"#!/bin/sh\n"},
        "bom": {"SKILL.md": b"\xef\xbb\xbf" + skill_text("bom")},
        "crlf": {"SKILL.md": skill_text("crlf").replace(b"\n", b"\r\n"), "dos.txt": b"a\r\nb\r\n"},
        "long": {"SKILL.md": f"---\nname: long\ndescription: {long}\n---\ntext\n".encode()},
    }
    for name, files in skills.items():
        write_tree(world.folder / "skills" / name, files)
    packed = {f"skills/{name}/{path}": data for name, files in skills.items() for path, data in files.items()}
    web.routes["/all.tar.gz"] = (200, {"ETag": '"1"'}, tarball(packed, "repo-1/"))
    expected = {
        f"{name}/{path}" + ("*" if path.endswith(".sh") else ""): data
        for name, files in skills.items()
        for path, data in files.items()
    }
    other = World(world.folder / "other")
    other.folder.mkdir()
    world.list(*(f"./skills/{name}" for name in skills))
    other.list(*(f"{web.url}/all.tar.gz#subdirectory=skills/{name}" for name in skills))
    for one in (world, other):
        reconciler = one.reconciler(local_hosts=(web.host,))
        result = one_pass(reconciler)
        assert (counts(result), result.errors) == ({"added": 5}, ())
        assert len(result.warnings) == 1
        assert "long" in result.warnings[0]
        there = one.visible()
        del there["skillbus.lock"]
        assert there == expected
        assert counts(one_pass(reconciler)) == {"unchanged": 5}


def test_a_bomb_costs_its_own_entry_alone(world: World) -> None:
    """A frontmatter that crashes C loaders fails its entry; the one behind it is placed, by the same pass."""
    world.skill("good")
    bomb = world.folder / "skills/bomb"
    write_tree(bomb, {"SKILL.md": b"---\na: " + b"[" * 50_000 + b"\n---\n"})
    world.list("./skills/bomb", "./skills/good")
    result = world.run()
    assert counts(result) == {"added": 1}
    assert len(result.errors) == 1
    assert "nested" in result.errors[0] or "nesting" in result.errors[0]  # ours, or a libyaml that counts, too


def test_the_child_has_limits() -> None:
    """Memory, file size and core are bounded; no rights can be gained; with another parent it ends."""
    code = """
        import os, resource as r, sys
        from skillbus.skills.confined import Cpu, harden, limit
        from skillbus.skills.fetcher import FILE_BYTES
        harden(os.getppid())
        limit("FSIZE", FILE_BYTES)
        with Cpu().of_one_job():
            limits = [r.getrlimit(x)[0] for x in (r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_CORE, r.RLIMIT_CPU)]
        print(all(0 <= x <= 2**30 for x in limits), "NoNewPrivs:\\t1" in open("/proc/self/status").read(), flush=True)
        harden(1 if os.getppid() != 1 else 2)
        print("unreachable")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (1, "True True")


def test_a_frozen_child_is_killed_when_its_time_is_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer in time: killed, and the job fails. The time is the clock's."""
    script = "import sys, time; sys.stdin.readline(); time.sleep(60)"
    monkeypatch.setattr(child_module, "COMMAND", (sys.executable, "-S", "-c", script))
    monkeypatch.setattr(child_module, "JOB_S", 0.2)

    async def one_job() -> None:
        child = Child(world.options(), BootClock())
        with pytest.raises(SourceUnavailable, match="no answer"):
            await child.ask({"job": "look"})

    asyncio.run(one_job())

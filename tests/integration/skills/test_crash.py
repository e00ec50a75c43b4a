"""SIGKILL at any moment: each skill is wholly old or wholly new (P8), and the next pass comes to the end."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from skillbus.skills import history, tree
from skillbus.skills.lock import read_lock
from skillbus.skills.root import open_root
from skillbus.skills.rules import tree_digest
from tests.integration.skills.world import ScriptedCheckpoint, World, counts, fake_child, skill_text, write_tree

KILLS = 30
"""In each mode."""

NAMES = ("one", "two")
FILES = 30

# A zygote, because importing takes longer than dying. For each line that it reads it forks a worker, lets it finish
# some passes, and SIGKILLs it a part of a pass later: told in passes, not seconds, so that a slow machine is hit alike.
ZYGOTE = """
    import os, signal, sys, time
    from pathlib import Path
    from skillbus.skills import history, tree
    from tests.integration.skills.world import World, fake_child
    if sys.argv[2] == "no-exchange":
        tree.exchange = lambda *_: False
    world = World(Path(sys.argv[1]))
    def work(told):
        with fake_child():
            while True:
                for version in ("v1", "v2", "none"):
                    world.list(*(f"./{version}/{name}" for name in ("one", "two") if version != "none"))
                    world.run()
                    os.write(told, b".")
    print("ready", flush=True)
    for line in sys.stdin:
        passes, part = line.split()
        done, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            work(told)
        os.close(told)
        for _ in range(int(passes)):
            began = time.monotonic()
            os.read(done, 1)
        time.sleep((time.monotonic() - began) * float(part))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(done)
        print("killed", flush=True)
"""


def _version(version: str, name: str, files: int = FILES) -> dict[str, bytes]:
    return {"SKILL.md": skill_text(name, version)} | {f"d{n % 3}/f{n}": version.encode() * 50 for n in range(files)}


@contextmanager
def _zygote(world: World, mode: str) -> Iterator[tuple[IO[str], IO[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ZYGOTE), str(world.folder), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdin
    assert process.stdout
    with process:
        assert process.stdout.readline() == "ready\n"
        yield process.stdin, process.stdout
        process.stdin.close()


def _state(world: World, name: str, files: int = FILES) -> str:
    """Which version lies there, wholly; or ``none``; or ``torn``."""
    folder = world.root / name
    if not folder.exists():
        return "none"
    there = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return next((version for version in ("v1", "v2") if there == _version(version, name, files)), "torn")


@pytest.mark.parametrize("mode", ["exchange", "no-exchange"])
def test_killed_at_any_moment_no_skill_is_torn(in_memory: Path, mode: str) -> None:
    """After each of 30 kills (seeded moments) no skill is torn, and the next pass undoes what was not settled.

    Both skills change in one batch, so once recovered both are of one version, and the lock tells the truth. In the end
    a pass comes to what is wanted.
    """
    world = World(in_memory)
    for version, name in itertools.product(("v1", "v2"), NAMES):
        write_tree(world.folder / version / name, _version(version, name))
    seed = random.Random(f"{mode}-1")
    seen = set()
    with _zygote(world, mode) as (orders, answers):
        for _ in range(KILLS):
            orders.write(f"{seed.randint(1, 3)} {seed.uniform(0, 1.2)}\n")
            orders.flush()
            assert answers.readline() == "killed\n"
            seen |= {_state(world, name) for name in NAMES}
            assert "torn" not in seen
            world.manifest.write_text("not: a manifest")
            with fake_child():
                world.run()
            assert len({_state(world, name) for name in NAMES}) == 1
            _assert_lock_matches(world)
    assert len(seen) > 1, "every kill hit the same state: the moments are badly chosen"
    world.list(*(f"./v1/{name}" for name in NAMES))
    with fake_child():
        assert world.run().errors == ()
        assert counts(world.run()) == {"unchanged": 2}
    assert [_state(world, name) for name in NAMES] == ["v1", "v1"]


class _Dead(BaseException):
    """The process is no more."""


class _Mortal:
    """Every call that changes something on the disk, which all end for ever after ``left``, as when a process dies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
        self.left = 10**6
        for module, step in (
            (tree, "_renameat2"),
            (tree, "_write"),
            (tree, "flush"),
            *((os, name) for name in ("rename", "unlink", "mkdir", "rmdir")),
        ):
            monkeypatch.setattr(module, step, self._dying(getattr(module, step)))
        if mode == "no-exchange":
            monkeypatch.setattr(tree, "exchange", lambda *_: False)

    def _dying(self, real: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object, **named: object) -> object:
            if self.left == 0:
                raise _Dead
            self.left -= 1
            return real(*args, **named)

        return act


@pytest.mark.parametrize("mode", ["exchange", "no-exchange"])
def test_dying_between_any_two_steps_of_a_pass_is_undone(
    in_memory: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """For each change on the disk in turn, dying right before it: recovery undoes what was not settled.

    That is between the renames of a batch too, in the writing of journal, lock and history, in the undoing, the sweep.
    And what went out is kept in the end, whenever that was, and can be restored.
    """
    mortal = _Mortal(monkeypatch, mode)
    deaths = 0
    while _dies_at_step(in_memory / str(deaths), mortal, deaths):
        deaths += 1
    assert deaths > 25, "the pass hardly died: the steps are not those of the code any more"


@pytest.mark.parametrize("mode", ["exchange", "no-exchange"])
def test_dying_while_versions_are_kept_that_were_kept_before(
    in_memory: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The same, where each version that goes out takes the place of an older copy of it in the history."""
    mortal = _Mortal(monkeypatch, mode)
    deaths = 0
    while _dies_at_step(in_memory / str(deaths), mortal, deaths, ("v1", "v2", "v1")):
        deaths += 1
    assert deaths > 25, "the pass hardly died: the steps are not those of the code any more"


def _dies_at_step(folder: Path, mortal: _Mortal, step: int, before: tuple[str, ...] = ("v1",)) -> bool:
    world = World(folder)
    for version, name in itertools.product(("v1", "v2"), NAMES):
        write_tree(world.folder / version / name, _version(version, name, 3))
    write_tree(world.folder / "v2/three", {"SKILL.md": skill_text("three")})
    with fake_child():
        for version in before:
            world.list(*(f"./{version}/{name}" for name in NAMES))
            assert world.run().errors == ()
        settled = [world.visible()]
        checkpoint = ScriptedCheckpoint()
        checkpoint.settled = lambda: settled.append(world.visible())
        world.list("./v2/one", "./v2/three")
        mortal.left = step
        try:
            world.run(checkpoint)
        except _Dead:
            mortal.left = 10**6
            _assert_recovers(world, settled)
            return True
    return False


def _assert_recovers(world: World, settled: list[dict[str, bytes]]) -> None:
    world.manifest.write_text("not: a manifest")
    assert world.run().errors
    # What was settled, but whose journal was not yet gone, is undone too: wholly.
    assert world.visible() in settled[-2:]
    _assert_lock_matches(world)
    world.list("./v2/one", "./v2/three")
    world.run()
    assert counts(world.run()) == {"unchanged": 2}
    assert (_state(world, "one", 3), _state(world, "two", 3)) == ("v2", "none")
    assert [list((world.root / ".skillbus" / own).iterdir()) for own in ("staging", "undo")] == [[], []]
    for name in NAMES:
        _assert_v1_can_be_restored(world, name)


def _assert_v1_can_be_restored(world: World, name: str) -> None:
    root = open_root(world.root, create=False)
    assert root is not None
    try:
        newest = history.versions(root, name)[0]
        history.restore(root, name, newest.digest, name, lambda: None)
        folder = root.staging_path / name
        there = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert there == _version("v1", name, 3)
    finally:
        root.close()


def _assert_lock_matches(world: World) -> None:
    root = open_root(world.root, create=False)
    if root is None:
        return
    try:
        receipts = read_lock(root).receipts
        assert set(receipts) == {path.name for path in world.root.iterdir() if path.is_dir()} - {".skillbus"}
        for name, receipt in receipts.items():
            facts = tree.scan(root.fd, name, lambda: None)
            assert facts is not None
            assert tree_digest(facts) == receipt.digest
    finally:
        root.close()

"""Two passes over the same roots: one works, the other waits, and never each for the other."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import IO

from skillbus.clock import BootClock
from skillbus.core.outcome import PassResult
from skillbus.skills.reconciler import SkillsReconciler
from skillbus.skills.root import Root, open_root
from tests.integration.skills.world import ScriptedCheckpoint, World, counts

# Says which root it took first, or that it waits for it, and goes on with the second when it is told to.
PASS = """
    import asyncio, sys
    from pathlib import Path
    from skillbus.clock import BootClock
    from skillbus.skills import places
    from skillbus.skills.reconciler import SkillsReconciler
    from skillbus.skills.root import Root
    from tests.integration.skills.world import ScriptedCheckpoint, World, fake_child
    places.FLOCK_WAIT_S = 5.0
    real, taken = Root.try_flock, []
    def say(word):
        print(word, flush=True)
    def taking(root):
        free = real(root)
        if free:
            taken.append(root)
            if len(taken) == 1:
                say("took")
                sys.stdin.readline()
        return free
    Root.try_flock = taking
    options = World(Path(sys.argv[1])).options(targets=tuple(Path(name) for name in sys.argv[2:]))
    tell = lambda sentence: say("waits") if "waits" in sentence else None
    with fake_child():
        result = asyncio.run(SkillsReconciler(options, BootClock(), tell).reconcile(ScriptedCheckpoint()))
    say(repr(result.errors))
"""


def _process(world: World, *roots: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PASS), str(world.folder), *map(str, roots)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def test_two_processes_that_know_the_same_roots_by_crossed_names(world: World) -> None:
    """Each sorts its paths the other way round. The second waits for the first at once, and both come to the end."""
    for name in ("one", "two"):
        (world.folder / name / "root").mkdir(parents=True)
    for link, name in (("a1", "one"), ("a2", "two"), ("b1", "two"), ("b2", "one")):
        (world.folder / link).symlink_to(world.folder / name)
    world.skill("s")
    world.list("./skills/s")
    first = world.folder / "a1/root", world.folder / "a2/root"
    world.run(targets=first)  # Now both roots are ours, and are taken at a pass' beginning.
    second = world.folder / "b1/root", world.folder / "b2/root"
    with _process(world, *first) as one, _process(world, *second) as other:
        words = {_out(process).readline(): process for process in (one, other)}
        assert set(words) == {"took\n", "waits\n"}
        for process in (words["took\n"], words["waits\n"]):
            assert process.communicate("go\n", timeout=30)[0].splitlines()[-1] == "()"


def _out(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout
    return process.stdout


def test_a_root_is_let_go_of_while_one_before_it_is_waited_for(world: World) -> None:
    """A root that appears late, with another pass in it, comes before one that is held: that one is free meanwhile.

    It is taken again then, and looked at anew: what the other pass did there is not undone, nor done twice.
    """
    folders = sorted((world.folder / name for name in ("x", "y")), key=_made)
    early, late = folders  # by inode, which is the order
    world.skill("s")
    world.list("./skills/s")
    world.run(targets=(late,))
    others: list[Root] = []

    def between() -> None:
        if not others and _is_held(late):
            other = open_root(early, create=True)
            assert other is not None
            assert other.try_flock()
            others.append(other)

    checkpoint = ScriptedCheckpoint()
    checkpoint.before = between
    told: list[str] = []

    async def scenario() -> PassResult:
        options = world.options(targets=(early, late))
        task = asyncio.create_task(SkillsReconciler(options, BootClock(), told.append).reconcile(checkpoint))
        while not any("waits" in sentence for sentence in told):
            await asyncio.sleep(0.01)
        assert not _is_held(late)
        (late / "s/SKILL.md").write_text("somebody was here meanwhile")
        others[0].close()
        return await asyncio.wait_for(task, 20)

    result = asyncio.run(scenario())
    assert (result.errors, counts(result)) == ((), {"added": 1, "repaired": 1})


def _made(folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    return folder.stat().st_ino


def _is_held(root: Path) -> bool:
    with open(root / ".skillbus/flock", "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

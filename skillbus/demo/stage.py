"""Sets the stage: a folder, a Redis, the organisation's server, five pods, a console; and clears it away again."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import skillbus
from skillbus.bus.connect import Endpoint
from skillbus.bus.embedded import EmbeddedBus
from skillbus.bus.operator_bus import OperatorBus
from skillbus.control.reset import arm
from skillbus.control.status import status
from skillbus.core.roster import Life
from skillbus.core.scope import Fleet
from skillbus.demo.console import DemoConsole
from skillbus.demo.fleet import FLEET, DemoPod
from skillbus.demo.source import SkillsServer
from skillbus.demo.story import Step, Story
from skillbus.errors import NeedsHuman, SkillbusError

PODS_COUNT = 5


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that stands while the demo runs."""

    folder: Path
    redis: EmbeddedBus
    server: SkillsServer
    pods: list[DemoPod]
    console: DemoConsole

    def operator(self) -> OperatorBus:
        """A connection with an operator's rights."""
        return OperatorBus(Fleet(FLEET), Endpoint(self.redis.url))


def example_skills() -> list[Path]:
    """The example skills: in the wheel, or beside the package in a checkout.

    Raises:
        NeedsHuman: there are none.
    """
    package = Path(skillbus.__file__).parent
    for folder in (package / "_examples" / "skills", package.parent / "examples" / "skills"):
        skills = sorted(path.parent for path in folder.glob("*/SKILL.md"))
        if skills:
            return skills
    raise NeedsHuman("the example skills are missing from this installation: install skillbus anew")


@contextmanager
def stage(port: int, console_port: int = 0) -> Iterator[Stage]:
    """Set the stage, and leave nothing of it behind: no process, no port, no file."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skillbus-demo-")))
        redis = EmbeddedBus(folder / "redis", port)
        redis.start()
        stack.callback(redis.stop)
        server = SkillsServer(example_skills())
        server.publish("one")
        server.start()
        stack.callback(server.stop)
        pods = [DemoPod(folder, f"pod-{n}", redis.url, server.manifest_url) for n in range(1, PODS_COUNT + 1)]
        console = DemoConsole(folder, redis.url, console_port)
        set_up = Stage(folder, redis, server, pods, console)
        asyncio.run(_arm(set_up))
        stack.callback(console.end)
        console.start()
        for pod in pods:
            stack.callback(pod.end)
            pod.start()
        console.await_url()
        yield set_up


async def _arm(stage: Stage) -> None:
    """The demo's own fleet is the only one that anything arms by itself (docs/protocol.md §4)."""
    async with stage.operator() as bus:
        await arm(bus, "demo")


def play(stage: Stage, tell: Callable[[Step], None]) -> tuple[bool, list[Step]]:
    """Tell the story by itself: whether all of it was observed, and its steps as far as it came."""

    async def run() -> tuple[bool, list[Step]]:
        async with stage.operator() as bus:
            story = Story(bus, stage.redis.port, stage.server, stage.pods, tell)
            return await story.play(), story.steps

    return asyncio.run(run())


def watch(stage: Stage, say: Callable[[str], None]) -> None:
    """Say what changes, and take single-letter wishes from the terminal, until interrupted or told to end."""
    with suppress(KeyboardInterrupt):
        asyncio.run(_watch(stage, say))


async def _watch(stage: Stage, say: Callable[[str], None]) -> None:
    shown: dict[str, str] = {}
    async with stage.operator() as bus:
        while True:
            with suppress(SkillbusError):
                for pod in (await status(bus)).pods:
                    line = f"{pod.pod_id}: {pod.word}, {_on_disk(stage, pod.pod_id)}" + _why(pod.current)
                    if shown.get(pod.pod_id) != line:
                        shown[pod.pod_id] = line
                        say(line)
            wish = await asyncio.to_thread(_typed, 0.2)
            if wish == "q":
                return
            if wish in ("e", "r"):
                await _grant(stage, wish, say)


async def _grant(stage: Stage, wish: str, say: Callable[[str], None]) -> None:
    if wish == "r":
        say("restarting pod-1")
        await asyncio.to_thread(stage.pods[0].end)
        stage.pods[0].start()
        return
    say("the source publishes a new edition, slowly; asking for a sync")
    stage.server.publish("two", pace_s=0.2)
    async with stage.operator() as bus:
        await bus.publish(bus.fleet.sync_channel, {"v": 1, "id": os.urandom(4).hex()})


def _on_disk(stage: Stage, pod_id: str) -> str:
    """``4 skills (3 of edition one, 1 of edition two)``."""
    editions = Counter(edition for pod in stage.pods if pod.pod_id == pod_id for edition in pod.editions().values())
    parts = ", ".join(f"{count} of {edition}" for edition, count in sorted(editions.items()))
    return f"{editions.total()} skills" + (f" ({parts})" if parts else "")


def _why(lives: tuple[Life, ...]) -> str:
    whys = [life.beat.why for life in lives if life.beat.why]
    return f" ({whys[0][:120]})" if whys else ""


def _typed(timeout_s: float) -> str:
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return sys.stdin.readline().strip().lower()[:1] if ready else ""

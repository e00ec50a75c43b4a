"""The story of a stop, step by step. A step counts only if it was observed, on disk or in the pods' own evidence.

Told with a fleet of real processes on a real server. It exits 0 only if every step was seen to happen.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from skillbus.bus.operator_bus import OperatorBus
from skillbus.clock import boottime_s
from skillbus.control.reset import Reset
from skillbus.control.status import Status, status
from skillbus.core.latch import State
from skillbus.demo.fleet import DemoPod
from skillbus.demo.source import SkillsServer

_PATIENCE_S = 20.0
_STILL_S = 2.0
"""Seconds in which nothing more may land on disk."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, as observed."""

    name: str
    observed: bool
    detail: str
    took_s: float


@dataclass(slots=True)
class Story:
    """The demo's fleet and what happens to it."""

    bus: OperatorBus
    port: int
    server: SkillsServer
    pods: list[DemoPod]
    tell: Callable[[Step], None]
    steps: list[Step] = field(default_factory=list)
    _pictures: dict[str, str] = field(default_factory=dict)
    _killed_at_ms: int = 0

    async def play(self) -> bool:
        """Every step in turn; the first that is not observed ends the story. Whether all were."""
        for name, step in self._script():
            began_s = boottime_s()
            try:
                detail, observed = await step(), True
            except NotObserved as error:
                detail, observed = str(error), False
            done = Step(name, observed, detail, round(boottime_s() - began_s, 3))
            self.steps.append(done)
            self.tell(done)
            if not observed:
                return False
        return True

    def _script(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        return [
            ("all pods converge on disk", self.converge),
            ("a kill is published in the middle of a pass", self.publish_kill),
            ("all pods are observed stopped", self.observe_stopped),
            ("nothing more lands on disk", self.observe_still),
            ("a restarted pod stays stopped", self.restart_stays_stopped),
            ("a reset lets a restarted pod run", self.reset_lets_run),
            ("the others still wait", self.others_wait),
        ]

    # -- the steps ------------------------------------------------------------------------------------------------

    async def converge(self) -> str:
        """Every pod has every skill of the first edition."""
        await self._until(lambda: self._all_at("edition one"), "the skills on every pod's disk")
        return f"{len(self.pods)} pods, {len(self.pods[0].editions())} skills each"

    async def publish_kill(self) -> str:
        """A new edition comes in slowly; when every pod is at it, one plain PUBLISH says stop."""
        while self.server.under_way.acquire(blocking=False):
            pass
        self.server.publish("two", pace_s=0.1)
        await self.bus.publish(self.bus.fleet.sync_channel, {"v": 1, "id": "demo"})
        for _ in self.pods:
            await self._until(
                lambda: self.server.under_way.acquire(blocking=False), "every pod in the middle of a pass"
            )
        await self._until(self._some_landed, "a first skill of the new edition on some disk")
        self._killed_at_ms = await self.bus.now_ms()
        channel = self.bus.fleet.scope.kill_channel
        heard = publish_plainly(self.port, channel, "the manifest is compromised")
        return f'PUBLISH {channel} "the manifest is compromised" (handed to {heard} connections)'

    async def observe_stopped(self) -> str:
        """Every pod's own evidence says: stopped, and quiet."""
        seen = await self._until_status(self._all_stopped, "the word 'stopped' from every pod")
        took = sorted(self._quiet_ms(seen))
        self._compare_instants(seen)
        landed = sum(edition == "edition two" for pod in self.pods for edition in pod.editions().values())
        total = sum(len(pod.editions()) for pod in self.pods)
        return (
            f"from PUBLISH to quiet: first {took[0]} ms, last {took[-1]} ms; "
            f"{landed} of {total} skills had arrived, the rest never will"
        )

    async def observe_still(self) -> str:
        """With the source fast again and time to work, no byte on any disk moves."""
        self.server.hurry()
        deadline_s = boottime_s() + _STILL_S
        while boottime_s() < deadline_s:
            self._compare_pictures(self.pods)
            await asyncio.sleep(0.2)
        return f"watched for {_STILL_S:g} s: {len(self.pods)} skills folders are unchanged, byte for byte"

    async def restart_stays_stopped(self) -> str:
        """A new process under the same id finds the record, and does nothing."""
        pod = self.pods[0]
        before = _incarnation(await status(self.bus), pod.pod_id)
        await self._restart(pod)
        await self._until_status(lambda seen: _stopped_anew(seen, pod.pod_id, before), f"{pod.pod_id} stopped again")
        self._compare_pictures(self.pods)
        return f"{pod.pod_id} came back, read the record, and stays stopped"

    async def reset_lets_run(self) -> str:
        """Reset, restart: that pod converges on the new edition."""
        pod = self.pods[0]
        reset = Reset(self.bus, self.bus.fleet.scope, "the demo's manifest is safe again", "demo", even_recent=True)
        report = await reset.do(watch_s=1.0)
        if report.killed_again is not None:
            raise NotObserved(f"the fleet was killed again: {report.killed_again.sentence()}")
        await self._restart(pod)
        await self._until(lambda: set(pod.editions().values()) == {"edition two"}, f"the new edition on {pod.pod_id}")
        await self._until_status(lambda seen: _state(seen, pod.pod_id) is State.RUNNING, f"{pod.pod_id} running")
        return f"{pod.pod_id} runs, and has all {len(pod.editions())} skills of the new edition"

    async def others_wait(self) -> str:
        """A reset starts nothing: the other pods are as they were."""
        others = self.pods[1:]
        seen = await status(self.bus)
        waiting = [pod for pod in others if _state(seen, pod.pod_id) is State.STOPPED]
        if len(waiting) != len(others):
            raise NotObserved(f"only {len(waiting)} of {len(others)} other pods are still stopped")
        self._compare_pictures(others)
        return f"{len(others)} pods are still stopped, unchanged on disk, and wait for a restart"

    # -- looking --------------------------------------------------------------------------------------------------

    def _all_at(self, edition: str) -> bool:
        found = [list(pod.editions().values()) for pod in self.pods]
        return all(editions == [edition] * self.server.count for editions in found)

    def _some_landed(self) -> bool:
        return any("edition two" in pod.editions().values() for pod in self.pods)

    def _all_stopped(self, seen: Status) -> bool:
        """Whether each says so. Its disk is pictured at the first moment it is seen to, not when the last one has."""
        for pod in self.pods:
            if pod.pod_id not in self._pictures and _state(seen, pod.pod_id) is State.STOPPED:
                self._pictures[pod.pod_id] = pod.picture()
        return len(self._pictures) == len(self.pods)

    def _quiet_ms(self, seen: Status) -> list[int]:
        lives = [life for pod in seen.pods for life in pod.current]
        return [max(0, life.beat.quiet_at_ms - self._killed_at_ms) for life in lives]

    def _compare_instants(self, seen: Status) -> None:
        """No disk changed after its pod was quiet: by the file system's own account, whenever we came to look."""
        quiet_at_ms = {pod.pod_id: life.beat.quiet_at_ms for pod in seen.pods for life in pod.current}
        for pod in self.pods:
            late_ms = pod.newest_change_ms() - quiet_at_ms[pod.pod_id]
            if late_ms > 0:
                raise NotObserved(f"the disk of {pod.pod_id} changed {late_ms} ms after it was quiet")

    def _compare_pictures(self, pods: list[DemoPod]) -> None:
        for pod in pods:
            if pod.picture() != self._pictures[pod.pod_id]:
                raise NotObserved(f"the disk of {pod.pod_id} changed after it had said 'stopped'")

    async def _restart(self, pod: DemoPod) -> None:
        await asyncio.to_thread(pod.end)
        pod.start()

    async def _until(self, seen: Callable[[], bool], what: str) -> None:
        deadline_s = boottime_s() + _PATIENCE_S
        while not seen():
            self._look_after_pods(what)
            if boottime_s() > deadline_s:
                raise NotObserved(f"not seen within {_PATIENCE_S:g} s: {what}")
            await asyncio.sleep(0.02)

    async def _until_status(self, right: Callable[[Status], bool], what: str) -> Status:
        deadline_s = boottime_s() + _PATIENCE_S
        while not right(seen := await status(self.bus)):
            self._look_after_pods(what)
            if boottime_s() > deadline_s:
                raise NotObserved(f"not seen within {_PATIENCE_S:g} s: {what}")
            await asyncio.sleep(0.02)
        return seen

    def _look_after_pods(self, what: str) -> None:
        for pod in self.pods:
            if not pod.alive:
                raise NotObserved(f"{pod.pod_id} ended while waiting for {what}: {pod.last_words()}")


class NotObserved(Exception):
    """A step of the story was not seen to happen."""


def _state(seen: Status, pod_id: str) -> State | None:
    """The state of a pod's one live incarnation; None while there is none, or more than one."""
    for pod in seen.pods:
        if pod.pod_id == pod_id and len(pod.current) == 1:
            return pod.current[0].beat.state
    return None


def _incarnation(seen: Status, pod_id: str) -> str:
    lives = [life for pod in seen.pods if pod.pod_id == pod_id for life in pod.current]
    return lives[0].beat.incarnation if lives else ""


def _stopped_anew(seen: Status, pod_id: str, before: str) -> bool:
    """Whether another incarnation than ``before`` says that it is stopped."""
    return _state(seen, pod_id) is State.STOPPED and _incarnation(seen, pod_id) != before


def publish_plainly(port: int, channel: str, text: str) -> int:
    """What ``redis-cli PUBLISH`` does, byte for byte, without any library; what it would print."""
    words = [b"PUBLISH", channel.encode(), text.encode()]
    request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(request)
        answer = connection.recv(64)
    return int(answer[1:].split(b"\r\n")[0])

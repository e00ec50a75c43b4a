"""A real ``jupyter server`` with a pod in it: one message on Redis stops it in the middle of a pass."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from skillbus.demo.source import SkillsServer
from tests.jupyter.notebook import NotebookServer
from tests.pods import eventually
from tests.servers import RealServer

SKILLS_COUNT = 12


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SkillsServer]:
    """An organisation's server, on which a pass can be made slow."""
    skills = []
    for n in range(SKILLS_COUNT):
        folder = tmp_path / "skills" / f"skill-{n}"
        folder.mkdir(parents=True)
        (folder / "SKILL.md").write_text(f"---\nname: skill-{n}\ndescription: number {n}\n---\n" + "x\n" * 500)
        skills.append(folder)
    server = SkillsServer(skills)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def environ(armed: RealServer, source: SkillsServer, tmp_path: Path) -> dict[str, str]:
    """What a hub sets for one user's server."""
    return {
        "SKILLBUS_REDIS_URL": armed.url,
        "SKILLBUS_FLEET": "prod",
        "SKILLBUS_POD_ID": "ada",
        "NBI_SKILLS_MANIFEST": source.manifest_url,
        "SKILLBUS_SKILLS_LOCAL_HOSTS": source.url.removeprefix("http://"),
        "SKILLBUS_SKILLS_TARGETS": str(tmp_path / "root"),
        "SKILLBUS_STATE_DIR": str(tmp_path / "state"),
        "SKILLBUS_SPREAD": "0",
    }


def placed(tmp_path: Path) -> set[str]:
    """The skills that lie in the root, whole or not."""
    root = tmp_path / "root"
    return {one.name for one in root.iterdir() if one.name.startswith("skill-")} if root.exists() else set()


def test_one_message_stops_the_pass_in_the_server(
    armed: RealServer, source: SkillsServer, environ: dict[str, str], tmp_path: Path
) -> None:
    """Published in the middle of a pass: quiet, nothing more lands, a restarted server stays stopped until a reset."""
    source.publish("one", pace_s=0.1)
    with NotebookServer(tmp_path / "jupyter", environ) as server:
        assert source.under_way.acquire(timeout=60), server.log
        armed.publish("skillbus:prod:kill", "manifest compromised")
        said = eventually(
            lambda: now if (now := server.status())["state"] == "stopped" else None, "the pod is observed stopped"
        )
        assert said["causes"][0]["reason"] == "manifest compromised"
        there = placed(tmp_path)
        assert len(there) < SKILLS_COUNT
        source.hurry()
        assert server.call("POST", "/skillbus/reconcile")[0] == 409
        assert server.call("POST", "/notebook-intelligence/skills/reconciler/stop") == (
            200,
            {"stopped": True, "was_running": False},
        )
        assert server.stop() == 0
        server.start()
        eventually(lambda: server.status()["state"] == "stopped", "the restarted server's pod stays stopped")
        assert placed(tmp_path) == there


def test_the_route_stops_this_life_alone(
    armed: RealServer, source: SkillsServer, environ: dict[str, str], tmp_path: Path
) -> None:
    """Stopped over HTTP in the middle of a pass, like the endpoint before: a restart runs again, no record stands."""
    source.publish("one", pace_s=0.1)
    with NotebookServer(tmp_path / "jupyter", environ) as server:
        assert source.under_way.acquire(timeout=60), server.log
        assert server.call("POST", "/notebook-intelligence/skills/reconciler/stop") == (
            200,
            {"stopped": True, "was_running": True},
        )
        there = placed(tmp_path)
        assert len(there) < SKILLS_COUNT
        source.hurry()
        assert armed.cli("EXISTS", "skillbus:{prod}:killed:pod:ada") == 0
        assert server.stop() == 0
        assert placed(tmp_path) == there
        server.start()
        eventually(lambda: len(placed(tmp_path)) == SKILLS_COUNT, "the restarted server's pod goes on")


def test_the_servers_latency_stays_flat(
    armed: RealServer, source: SkillsServer, environ: dict[str, str], tmp_path: Path
) -> None:
    """While a pass works and is stopped, the server answers others: no request waits for the pass or its end."""
    source.publish("one", pace_s=0.1)
    with NotebookServer(tmp_path / "jupyter", environ) as server:
        assert source.under_way.acquire(timeout=60), server.log
        stopping = threading.Thread(target=lambda: armed.publish("skillbus:prod:kill", "stop"))
        stopping.start()
        taken = [server.latency_s() for _ in range(50)]
        stopping.join()
        eventually(lambda: server.status()["state"] == "stopped", "the pod is observed stopped")
        # A request that had waited for the pass would have taken its dozen chunks of a tenth of a second.
        assert max(taken) < 0.1 * 12, sorted(taken)[-5:]
        assert statistics.median(taken) < 0.1

"""notebook-intelligence and skillbus in one server: who answers the URL of both, and a kill that reaches both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.jupyter.notebook import NotebookServer
from tests.pods import eventually
from tests.servers import RealServer

NBI = os.environ.get("SKILLBUS_TEST_NBI", "")
"""A Python in whose environment both are installed (deploy/test-jupyter.sh)."""

pytestmark = pytest.mark.skipif(not NBI, reason="NOTEBOOK-INTELLIGENCE IS NOT INSTALLED: nothing of this is tested")

SHARED, OWN = "/notebook-intelligence/skills/reconciler/stop", "/skillbus/reconciler/stop"


def both(tmp_path: Path, **more: str) -> NotebookServer:
    """A server with both extensions, each with the same manifest."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("SKILLBUS_")}
    environ |= {"NBI_SKILLS_MANIFEST": environ["SKILLBUS_SKILLS_MANIFEST"], "HOME": str(tmp_path)}
    return NotebookServer(tmp_path / "jupyter", environ | more, python=NBI)


def test_each_answers_for_its_own(armed: RealServer, environment: Path, tmp_path: Path) -> None:
    """Both load. The shared URL is answered by notebook-intelligence, which was there first, and stops only its own."""
    with both(tmp_path) as server:
        eventually(lambda: server.status()["state"] == "running", "our pod runs")
        assert server.call("POST", SHARED) == (200, {"stopped": True, "was_running": True})
        assert server.status()["state"] == "running", "our pod was not asked"
        assert server.call("POST", OWN) == (200, {"stopped": True, "was_running": True})
        assert server.status()["state"] == "stopped"


@pytest.mark.parametrize("guard", ["true", "false"])
def test_a_kill_reaches_the_neighbour_if_asked_to(
    armed: RealServer, environment: Path, tmp_path: Path, guard: str
) -> None:
    """With SKILLBUS_GUARD_NBI its reconciler is told to stop by a kill of the fleet; without, it goes on."""
    with both(tmp_path, SKILLBUS_GUARD_NBI=guard) as server:
        eventually(lambda: server.status()["state"] == "running", "our pod runs")
        armed.publish("skillbus:prod:kill", "leaked")
        eventually(lambda: server.status()["state"] == "stopped", "our pod is observed stopped")
        if guard == "true":
            eventually(lambda: "notebook-intelligence told to stop reconcilers=1" in server.log, "it was told")
        _, said = server.call("POST", SHARED)
        assert said == {"stopped": True, "was_running": guard == "false"}

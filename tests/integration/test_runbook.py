"""docs/runbook.md, command for command, as a tired person would paste it, on a real fleet of three pods."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.integration.skills.world import World
from tests.pods import environ_of, eventually, evidence_of, own_server, process_pod
from tests.servers import RealServer

PAGE = Path(__file__).parents[2] / "docs" / "runbook.md"
PODS = ("one", "two", "three")


def _commands() -> list[str]:
    """Every line of every ``sh`` block, in the page's order."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@contextmanager
def _fleet(server: RealServer, folder: Path) -> Iterator[None]:
    """Three pods that run a program every now and then, and have been heard of."""
    argv = [sys.executable, "-m", "skillbus", "run", "--every", "1h", "--", "true"]
    with ExitStack() as stack:
        for pod_id in PODS:
            stack.enter_context(process_pod(server, folder / pod_id, argv, pod_id))
        for pod_id in PODS:
            eventually(partial(_runs, server, pod_id), f"pod {pod_id} runs")
        yield


def _runs(server: RealServer, pod_id: str) -> bool:
    return any(beat.state == "running" and beat.armed and not beat.ended_at_ms for beat in evidence_of(server, pod_id))


class _Hand:
    """Whoever pastes the page's commands into a shell."""

    def __init__(self, server: RealServer, world: World) -> None:
        bin_folder = world.folder / "bin"
        bin_folder.mkdir()
        script = bin_folder / "skillbus"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m skillbus "$@"\n')
        script.chmod(0o755)
        path = f"{bin_folder}:{os.environ['PATH']}"
        self._env = environ_of(server, PATH=path, SKILLBUS_SKILLS_TARGETS=str(world.root))
        self._port = server.port
        self._manifest = world.manifest
        self._kill_id = ""

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """One command; what names a place of the reader's own names one here."""
        line = line.replace("redis-cli", f"redis-cli -p {self._port}").replace("KILL-ID", self._kill_id)
        names = " ".join(f"pod/{pod_id}" for pod_id in PODS)
        line = line.replace("kubectl get pods -l app=skills -o name", f"printf '%s\\n' {names}")
        line = line.replace("manifest.yaml", str(self._manifest))
        done = subprocess.run(["sh", "-c", line], env=self._env, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr, done
        if line.startswith("skillbus history --kind kill"):
            told = subprocess.run(
                ["sh", "-c", f"{line} -o json"], env=self._env, capture_output=True, text=True, check=True
            )
            self._kill_id = _first_id(json.loads(told.stdout))
        return done


def _first_id(history: dict[str, object]) -> str:
    entries = history["entries"]
    assert isinstance(entries, list)
    return str(entries[0]["record"])


def test_every_command_of_the_runbook(tmp_path: Path) -> None:
    """From the first stop to the last drill each does what the page says: exit 0, but where the page says otherwise."""
    world = World(tmp_path)
    world.list()
    commands = _commands()
    assert len(commands) > 12
    with own_server(tmp_path, "appendonly yes", "maxmemory-policy noeviction") as server:
        hand = _Hand(server, world)
        fleet = ExitStack()
        with fleet:
            fleet.enter_context(_fleet(server, tmp_path / "before"))
            for line in commands:
                if line.startswith("export "):
                    continue  # it names the reader's own Redis
                if line == "skillbus drill":  # the page has had the pods restarted meanwhile
                    fleet.pop_all().close()
                    fleet.enter_context(_fleet(server, tmp_path / "after"))
                done = hand.run(line)
                if line.startswith("skillbus doctor"):
                    assert done.returncode in {0, 1}, done  # this server is open to everybody, and doctor says so
                elif line.startswith("skillbus reset") and done.returncode:
                    assert "--even-recent" in done.stderr, done  # the page's own orders are a minute old at most
                    assert hand.run(f"{line} --even-recent").returncode == 0
                else:
                    assert done.returncode == 0, (line, done)

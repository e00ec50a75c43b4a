"""docs/bots.md, command for command, as somebody would paste it who sets up their bots for the first time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.consoles import serving
from tests.integration.console.test_bot_examples import ALERTMANAGER, fleet, real_alertmanager
from tests.integration.console.test_webhooks import audited
from tests.pods import environ_of
from tests.servers import RealServer
from tests.unit.console.webhooks.deliveries import SECRET

REPOSITORY = Path(__file__).parents[3]
PAGE = REPOSITORY / "docs" / "bots.md"


def _blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)


class _Hand:
    """Whoever pastes the blocks into one shell after the other: what one exports, the next one has."""

    def __init__(self, server: RealServer, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, words in (("skillbus", f'"{sys.executable}" -m skillbus'), ("python", f'"{sys.executable}"')):
            script = folder / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            script.chmod(0o755)
        (folder / "examples").symlink_to(REPOSITORY / "examples")
        for name in ("slack.secret", "pagerduty.secret"):
            (folder / name).write_text(f"{SECRET}\n")
        self.env = environ_of(server, PATH=f"{folder / 'bin'}:{os.environ['PATH']}")

    def run(self, block: str) -> str:
        """One block, which must succeed; what it said."""
        kept = self.folder / "environment"
        script = f"set -e\n{block}\nenv -0 > {kept}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (block, done)
        assert "Traceback" not in done.stderr, done
        lines = kept.read_text().split("\0")
        self.env = dict(line.split("=", 1) for line in lines if "=" in line)
        return done.stdout

    def settings(self) -> dict[str, str]:
        """What the console is told of all that was exported."""
        return {name: value for name, value in self.env.items() if re.match(r"SKILLBUS_(WEBHOOK|CONSOLE)_", name)}


def test_every_block(redis_server: RealServer, tmp_path: Path) -> None:
    """Secrets, settings, the look whether a door knows me, and a kill by each bot: exit 0, and it is in the audit.

    The block with amtool needs an Alertmanager of this machine, and is the only one that is left out without one.
    """
    blocks = _blocks()
    assert len(blocks) == 8
    (tmp_path / "shell").mkdir()
    hand = _Hand(redis_server, tmp_path / "shell")
    with ExitStack() as stack:
        stack.enter_context(fleet(redis_server, tmp_path, "staging"))
        for block in blocks[:2]:
            hand.run(block)
        console = stack.enter_context(serving(redis_server, tmp_path, **hand.settings()))
        for block in (text.replace("https://console.example.org", console.url) for text in blocks[2:]):
            if "amtool" not in block:
                said = hand.run(block)
                assert ("ignored" in said) == ("alertmanager.secret" in block)
            elif ALERTMANAGER and shutil.which("amtool"):
                secret = (hand.folder / "alertmanager.secret").read_text()
                url = stack.enter_context(real_alertmanager(tmp_path, console, secret))
                hand.run(block.replace("http://127.0.0.1:9093", url))
    vias = {entry["via"] for entry in audited(redis_server, "kill")}
    assert vias >= {"http", "python", "pagerduty", "standard"}


def test_what_the_page_names_is_there() -> None:
    """Each ready file, each webhook's settings and each link."""
    text = PAGE.read_text()
    for name in re.findall(r"`([a-z_-]+\.(?:sh|py|yml|yaml|json))`", text):
        assert (REPOSITORY / "examples" / "bots" / name).is_file(), name
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (PAGE.parent / link).exists(), link
    for path in (REPOSITORY / "examples" / "bots").iterdir():
        assert path.name in text, f"{path.name} is not on the page"

"""JupyterLab in a real browser: what a person sees of the pod, and the button that stops it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.jupyter.notebook import TOKEN, NotebookServer
from tests.servers import RealServer

QUIETLY = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""A browser that asks nobody but the server."""

STATUS, PANEL = ".skb-Status", "#skillbus-panel"


@contextmanager
def page_of(server: NotebookServer, script: str = "") -> Iterator[Page]:
    """JupyterLab, opened and settled; ``script`` runs before all of it."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=QUIETLY)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(script)
        page.goto(f"{server.url}/lab?token={TOKEN}")
        page.wait_for_selector(STATUS, timeout=60_000)
        yield page
        browser.close()


def picture(page: Page, name: str) -> None:
    """Keep a picture, if somebody wants to look."""
    if folder := os.environ.get("SKILLBUS_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def server(armed: RealServer, environment: Path, tmp_path: Path) -> Iterator[NotebookServer]:
    """JupyterLab with a pod in it."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("SKILLBUS_")}
    with NotebookServer(tmp_path / "jupyter", environ, app="lab", options=("--LabApp.news_url=None",)) as lab:
        yield lab


def test_a_kill_is_seen_with_its_reason(armed: RealServer, server: NotebookServer) -> None:
    """Running, with its skills; then one message, and who stopped it and why; markup in the reason stays text."""
    with page_of(server) as page:
        expect(page.locator(STATUS)).to_contain_text("Skills: running", timeout=30_000)
        page.locator(STATUS).click()
        expect(page.locator(f"{PANEL} .skb-Skill strong")).to_have_text(["one"], timeout=30_000)
        picture(page, "lab-running")
        armed.publish("skillbus:prod:kill", '{"reason": "<b id=evil>leaked</b>", "by": "oncall"}')
        expect(page.locator(STATUS)).to_contain_text("Skills: stopped", timeout=15_000)
        expect(page.locator(f"{PANEL} .skb-Why").first).to_contain_text("stopped by oncall: <b id=evil>leaked</b>")
        assert page.locator("#evil").count() == 0
        assert page.locator(f"{PANEL} button").count() == 0, "nothing here starts it"
        picture(page, "lab-stopped")


def test_the_button_stops_after_a_question(server: NotebookServer) -> None:
    """Cancel has the focus and stops nothing; Stop stops this server's pod, and then there is no button."""
    with page_of(server) as page:
        expect(page.locator(STATUS)).to_contain_text("Skills: running", timeout=30_000)
        page.locator(STATUS).click()
        page.locator(f"{PANEL} .skb-Stop").click()
        expect(page.locator(".jp-Dialog .jp-mod-reject")).to_be_focused()
        picture(page, "lab-question")
        page.keyboard.press("Enter")
        expect(page.locator(".jp-Dialog")).to_have_count(0)
        assert server.status()["state"] == "running"
        page.locator(f"{PANEL} .skb-Stop").click()
        page.locator(".jp-Dialog .jp-mod-accept").click()
        expect(page.locator(STATUS)).to_contain_text("Skills: stopped", timeout=15_000)
        expect(page.locator(f"{PANEL} .skb-Why").first).to_contain_text("This server alone")
        expect(page.locator(f"{PANEL} .skb-Stop")).to_have_count(0)
    assert server.status()["state"] == "stopped"


def test_silence_is_said(server: NotebookServer) -> None:
    """When the server is gone the panel says since when, and claims nothing."""
    with page_of(server) as page:
        expect(page.locator(STATUS)).to_contain_text("Skills: running", timeout=30_000)
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        expect(page.locator(STATUS)).to_contain_text("Skills: unknown", timeout=30_000)


_WATCHED = """
window.streams = [];
window.EventSource = class extends EventSource {
  constructor(...words) { super(...words); window.streams.push(this); }
};
window.see = seen => {
  Object.defineProperty(document, 'hidden', { get: () => !seen, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
};
"""


def test_a_page_that_nobody_sees_holds_no_stream(armed: RealServer, server: NotebookServer) -> None:
    """A browser has six connections for a server: a seventh tab of JupyterLab must not wait for a hidden one's stream.

    Seen again, it tells at once what has come meanwhile.
    """
    with page_of(server, _WATCHED) as page:
        expect(page.locator(STATUS)).to_contain_text("Skills: running", timeout=30_000)
        page.wait_for_function("window.streams.some(one => one.readyState === EventSource.OPEN)", timeout=30_000)
        page.evaluate("window.see(false)")
        assert page.evaluate("window.streams.every(one => one.readyState === EventSource.CLOSED)")
        armed.publish("skillbus:prod:kill", "meanwhile")
        page.evaluate("window.see(true)")
        expect(page.locator(STATUS)).to_contain_text("Skills: stopped", timeout=15_000)
        page.wait_for_function("window.streams.some(one => one.readyState === EventSource.OPEN)", timeout=30_000)


def test_it_reads_well_in_a_narrow_dark_window(server: NotebookServer) -> None:
    """In the dark theme, and as narrow as JupyterLab itself still fits, nothing of the panel is cut off."""
    settings = server.folder / "config/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text('{"theme": "JupyterLab Dark"}')
    with page_of(server) as page:
        page.wait_for_selector("body[data-jp-theme-light=false]", state="attached", timeout=30_000)
        expect(page.locator(STATUS)).to_contain_text("Skills: running", timeout=30_000)
        page.locator(STATUS).click()
        page.set_viewport_size({"width": 800, "height": 800})
        panel = page.locator(PANEL)
        box = panel.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 800
        assert panel.evaluate("node => node.scrollWidth <= node.clientWidth"), "no line is wider than the panel"
        picture(page, "lab-narrow-dark")

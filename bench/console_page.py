"""The console's page with 10,000 pods, in a real browser: its first wall, bursts of changes, and what these leave.

The fleet is written (tests/browser/written_fleet.py): what is measured is the page, with the console that feeds it.
Needs what ``make test-browser`` installs.
"""

from __future__ import annotations

import math
import shutil
import statistics
from pathlib import Path
from typing import Any

from bench.server import Server
from skillbus.core.latch import State
from tests.browser.written_fleet import WrittenFleet
from tests.consoles import serving
from tests.pods import arm
from tests.servers import RealServer, server_binary

PODS_COUNT = 10_000
OPENINGS_COUNT = 9
BURSTS_COUNT = 6
ARGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")

_NOTE = """
window.bench = {wall: 0, task: 0, frame: 0, last: 0, paints: 0};
new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
    if (entry.entryType === "longtask") bench.task = Math.max(bench.task, entry.duration);
    if (entry.name === "wall-drawn" && entry.detail >= 10000) { bench.wall ||= entry.startTime; bench.paints++; }
})).observe({entryTypes: ["longtask", "mark"]});
const frame = (at) => {
    if (bench.last) bench.frame = Math.max(bench.frame, at - bench.last);
    bench.last = at;
    requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
"""
_SHOWS = "([word, count]) => (document.querySelector(`#legend [data-word=${word}] + b`)?.textContent ?? '0') === count"


def run(server: Server, folder: Path) -> list[tuple[str, float, float]]:
    """Rows of the bench. The server of the other benches is left alone."""
    from playwright.sync_api import sync_playwright

    place = folder / "console-page"
    place.mkdir()
    with (
        RealServer(server_binary(), place / "redis") as own,
        sync_playwright() as playwright,
        WrittenFleet(own, "prod", PODS_COUNT) as fleet,
        serving(own, place) as console,
    ):
        arm(own)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGS))
        try:
            return _measured(browser, f"{console.url}/", fleet)
        finally:
            browser.close()


def _measured(browser: Any, url: str, fleet: WrittenFleet) -> list[tuple[str, float, float]]:
    _opened(browser, url)  # The console has seen them all now, and its templates are compiled.
    walls, tasks = [], []
    for _ in range(OPENINGS_COUNT):
        found = _opened(browser, url)
        walls.append(found["wall"])
        tasks.append(found["task"])
    wall_ms, task_ms = statistics.median(walls), statistics.median(tasks)
    burst_ms, frame_ms, paints, heaps = _bursts(browser, url, fleet)
    return [
        (f"a wall of {PODS_COUNT} pods, from the click to its last tile ({wall_ms:.0f} ms) / 1 s", wall_ms / 1000, 1.0),
        (f"… its longest task ({task_ms:.0f} ms)", task_ms / 1000, math.inf),
        (
            f"a burst of {PODS_COUNT} changes: the page's longest task ({burst_ms:.0f} ms) / 200 ms",
            burst_ms / 200,
            1.0,
        ),
        (f"… the longest frame ({frame_ms:.0f} ms), {paints} walls drawn / 250 ms", frame_ms / 250, 1.0),
        (
            f"heap of the page after {BURSTS_COUNT} bursts / after the first ({heaps[-1]:.1f} / {heaps[0]:.1f} MiB)",
            heaps[-1] / heaps[0],
            1.3,
        ),
    ]


def _opened(browser: Any, url: str) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.add_init_script(_NOTE)
    page.goto(url, wait_until="commit", timeout=90_000)
    page.wait_for_function("() => bench.wall > 0", timeout=60_000)
    page.wait_for_timeout(500)
    found: dict[str, float] = page.evaluate("bench")
    context.close()
    return found


def _bursts(browser: Any, url: str, fleet: WrittenFleet) -> tuple[float, float, int, list[float]]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    session = context.new_cdp_session(page)
    page.add_init_script(_NOTE)
    page.goto(url, wait_until="commit", timeout=90_000)
    page.wait_for_function("() => bench.wall > 0", timeout=60_000)
    heaps: list[float] = []
    page.evaluate("bench.task = bench.frame = bench.paints = 0")
    for number in range(BURSTS_COUNT):
        state = (State.HOLDING, State.RUNNING)[number % 2]
        fleet.change(fleet.ids, state=state)
        page.wait_for_function(_SHOWS, arg=[str(state), str(PODS_COUNT)], timeout=60_000)
        session.send("HeapProfiler.collectGarbage")
        heaps.append(page.evaluate("performance.memory.usedJSHeapSize") / 1024**2)
        page.evaluate("bench.last = 0")
    found = page.evaluate("bench")
    context.close()
    return found["task"], found["frame"], int(found["paints"]), heaps

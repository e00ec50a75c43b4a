"""What the page says when something fails: the stream, Redis, the session; and what hostile words do to it: nothing."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from skillbus.bus.embedded import free_port
from tests.browser.visits import DESKTOP, Desk, Visits, until_live, until_sentence
from tests.consoles import serving
from tests.pods import FLEET, PROD, arm
from tests.servers import RealServer

HOSTILE = '<img src=x onerror="document.title=1"><script>alert(1)</script>\x1b[31m\u202egnirts\u2066 {{7*7}} </bdi>'


def test_the_stream_is_cut_and_comes_back(visits: Visits, redis_server: RealServer, tmp_path: Path) -> None:
    """When the console dies the figures stay, grey, and say since when; when it is back they live again."""
    arm(redis_server)
    port = free_port()
    words = ("--listen", f"127.0.0.1:{port}")
    visits.expect("ERR_", "Failed to load")
    with ExitStack() as stack:
        console = stack.enter_context(serving(redis_server, tmp_path, *words))
        page = visits.open(console.url + "/")
        until_live(page)
        console.process.kill()
        page.locator("#lost").wait_for()
        assert page.locator("#lost").inner_text().startswith("No connection to the console since ")
        assert page.locator("#sentence").inner_text().startswith("As of ")
        assert page.title().startswith("? RUNNING")
        assert "grayscale" in page.locator("#figures").evaluate("one => getComputedStyle(one).filter")
        console.process.wait()
        stack.enter_context(serving(redis_server, tmp_path, *words))
        until_live(page)
        page.locator("#lost").wait_for(state="hidden")
        until_sentence(page, "RUNNING 0")


def test_a_session_that_ended(visits: Visits, desk: Desk) -> None:
    """Whose token is taken away sees frozen figures and a way to the login, not the fleet."""
    visits.expect("401")
    page = visits.enter(desk, "viewer")
    (desk.folder / "tokens").write_text("")
    page.get_by_text("Your session has ended").wait_for()


def test_redis_is_away(visits: Visits, desk: Desk) -> None:
    """Without Redis the sentence says since when nothing is known, and a kill says that it is not stored."""
    visits.expect("503")
    page = visits.enter(desk)
    desk.server.freeze()
    try:
        until_sentence(page, "UNKNOWN: no answer from Redis for ")
        assert "as of" in page.locator("#banner-asides").inner_text()
        page.keyboard.press("k")
        page.get_by_role("button", name="Stop the fleet").click()
        page.locator("#kill-dialog .problem").wait_for(timeout=30_000)
        assert "NOT" in page.locator("#kill-dialog .problem").inner_text()
        page.keyboard.press("Escape")
        page.reload()
        assert page.locator("#sentence").inner_text().startswith("UNKNOWN")
    finally:
        desk.server.thaw()
    page.wait_for_function("() => !document.getElementById('sentence').innerText.startsWith('UNKNOWN')")


def test_hostile_words(visits: Visits, desk: Desk) -> None:
    """A raw order of a mebibyte with markup, escapes and bidi marks is shown as words, live and at the first paint."""
    page = visits.enter(desk, "admin")
    desk.server.publish(FLEET.kill_channel, HOSTILE + "x" * 1024 * 1024)
    until_sentence(page, "STOPPED since")
    for _ in range(2):
        text = page.locator("#sentence").inner_text()
        assert "<script>alert(1)</script>" in text
        assert not set(text) & set("\x1b\u202e\u2066")
        assert not page.locator("#sentence img, #sentence script, #timeline img").count()
        assert page.title().startswith("STOPPED")
        page.reload()
        until_live(page)
    page.locator("#timeline a").first.click()
    page.get_by_text("<script>alert(1)</script>").first.wait_for()
    page.goto(desk.url + "reset")
    assert "<script>" in page.locator("[data-lifts]").inner_text()


def test_hostile_pods(visits: Visits, desk: Desk) -> None:
    """A pod that lies in its evidence is shown as words, too."""
    now = desk.server.cli("TIME")
    assert isinstance(now, list)
    now_ms = int(now[0]) * 1000  # type: ignore[arg-type]
    beat = {"v": 1, "incarnation": "i", "state": "holding", "why": HOSTILE, "beat_at_ms": now_ms, "lease_s": 600}
    beat |= {"version": HOSTILE, "groups": [HOSTILE], "skills": HOSTILE}
    desk.server.cli("HSET", PROD.pod_key("evil"), "i", json.dumps(beat))
    desk.server.cli("ZADD", PROD.roster_key, now_ms, "evil")
    page = visits.enter(desk, "viewer", DESKTOP)
    page.get_by_text("<img src=x").first.wait_for()
    assert not page.locator("main img, main script").count()


def test_under_a_prefix(visits: Visits, redis_server: RealServer, tmp_path: Path) -> None:
    """Behind a proxy, under a path of its own, every link, asset, event and form of the page still works."""
    arm(redis_server)
    with serving(redis_server, tmp_path, "--root-path", "/services/skillbus") as console:
        page = visits.open(f"{console.url}/services/skillbus/")
        until_live(page)
        page.get_by_role("link", name="Whole timeline").click()
        page.get_by_role("heading", name="Timeline").wait_for()
        assert page.url.startswith(f"{console.url}/services/skillbus/")
        page.get_by_role("link", name="To the fleet").click()
        until_live(page)

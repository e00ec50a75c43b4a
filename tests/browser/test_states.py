"""States that are no emergency, a kill of a part, and media other than a bright screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from skillbus.core.latch import State
from skillbus.core.scope import Fleet
from tests.browser.visits import Desk, Visits, overflow, until_live, until_sentence
from tests.browser.written_fleet import WrittenFleet
from tests.pods import PROD, eventually
from tests.servers import RealServer

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_not_armed_then_holding_then_running(visits: Visits, redis_server: RealServer, tmp_path: Path) -> None:
    """A new fleet is told how to begin; who holds has a reason; both end on the page without anybody's doing."""
    with Desk(redis_server, tmp_path) as desk:
        page = visits.enter(desk)
        until_sentence(page, "NOT ARMED")
        assert "Run skillbus arm" in page.locator("#banner-asides").inner_text()
        assert page.get_by_text("No pod has reported yet").is_visible()
        with WrittenFleet(redis_server, "prod", 6) as fleet:
            fleet.change(fleet.ids, state=State.HOLDING, why="the fleet is not armed")
            page.get_by_text("6 holding", exact=True).wait_for()
            assert page.get_by_text("No pod has reported yet").is_hidden()
            until_sentence(page, "NOT ARMED")
            redis_server.cli("SETNX", PROD.scope.epoch_key, "0")
            until_sentence(page, "HOLDING 6")
            assert page.locator("#stragglers").get_by_text("the fleet is not armed").count() == 6
            fleet.change(fleet.ids, state=State.RUNNING, why="")
            until_sentence(page, "RUNNING 6")
            page.locator("#stragglers-part").wait_for(state="hidden")


@pytest.mark.parametrize(("kind", "name", "count"), [("group", "eu", "2 pods"), ("pod", "web-02", "1 pod")])
def test_a_kill_of_a_part(visits: Visits, desk: Desk, kind: str, name: str, count: str) -> None:
    """The dialog stops one group or one pod, says how many that are, and leaves the fleet's record alone."""
    with WrittenFleet(desk.server, "prod", 4):
        page = visits.enter(desk, "operator")
        until_sentence(page, "RUNNING 4")
        page.keyboard.press("k")
        dialog = page.locator("#kill-dialog")
        dialog.get_by_label(f"One {kind}").check()
        dialog.get_by_label(kind.capitalize(), exact=True).fill(name)
        dialog.get_by_role("button", name=f"Stop {count}", exact=True).click()
        page.get_by_text(f"{kind} '{name}'").first.wait_for()
        scope = Fleet("prod").group(name) if kind == "group" else Fleet("prod").pod(name)
        assert eventually(lambda: desk.server.cli("EXISTS", scope.killed_key), "it is recorded") == 1
        assert desk.server.cli("EXISTS", PROD.scope.killed_key) == 0


def _colours(page: Page, selector: str) -> tuple[str, str]:
    colours: list[str] = page.locator(selector).evaluate(
        "one => [getComputedStyle(one).color, getComputedStyle(one).backgroundColor]"
    )
    return colours[0], colours[1]


def test_paper_is_white(visits: Visits, desk: Desk) -> None:
    """Printed from a dark screen, whichever way it became dark, the page is black on white."""
    for scheme, chosen in (("dark", ""), ("light", "dark")):
        page = visits.enter(desk, "viewer", color_scheme=scheme)
        if chosen:
            page.evaluate("theme => document.documentElement.dataset.theme = theme", chosen)
        page.emulate_media(media="print")
        assert _colours(page, "html") == ("rgb(0, 0, 0)", "rgb(255, 255, 255)")
        assert page.locator(".acts").is_hidden()
        assert not overflow(page)


def test_forced_colours(visits: Visits, desk: Desk) -> None:
    """Where the system chooses the colours, words and borders say what they said, and the buttons are buttons."""
    page = visits.enter(desk, "operator", forced_colors="active")
    until_live(page)
    until_sentence(page, "RUNNING")
    borders = page.locator(".acts button, .banner, .sheet").evaluate_all(
        "all => all.map(one => getComputedStyle(one).borderTopStyle)"
    )
    assert set(borders) == {"solid"}

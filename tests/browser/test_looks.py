"""Every state of the page, at both sizes and in both themes: nothing that axe-core calls serious, nothing sideways.

With ``--screenshots`` the same run makes the pictures of docs/images.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from skillbus.console.banner import ms_of
from skillbus.core.latch import State
from tests.browser.visits import DESKTOP, PHONE, Desk, Visits, overflow, until_live, until_sentence, violations
from tests.browser.written_fleet import WrittenFleet
from tests.pods import order, record_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.timeout(600)  # axe takes its time, and there are many states

SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
THEMES = pytest.mark.parametrize("theme", ["light", "dark"])


PICTURES = frozenset(
    {
        "certificate-desktop-light", "kill-phone-dark", "reset-desktop-light", "running-desktop-light",
        "stopping-desktop-light", "unknown-desktop-dark", "wall-desktop-dark",
    }
)  # fmt: skip
"""Those that docs/console.md shows."""


class Looking:
    """Looks at pages: with axe, at their width, and for pictures."""

    def __init__(self, page: Page, axe: str, folder: Path | None, tag: str) -> None:
        self._page = page
        self._axe = axe
        self._folder = folder
        self._tag = tag

    def at(self, name: str) -> None:
        """Hold what is shown now against the rules."""
        self._page.wait_for_timeout(400)  # A dialog has risen, fonts are there: for a picture; nothing depends on it.
        shown = f"{name}-{self._tag}"
        if self._folder is not None and shown in PICTURES:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{shown}.png").write_bytes(self._page.screenshot(animations="disabled"))
        assert not overflow(self._page)
        if not self._tag.startswith("phone"):  # the same nodes and colours
            assert not violations(self._page, self._axe)


@pytest.fixture
def looking(
    visits: Visits, axe: str, screenshots: Path | None, size: tuple[int, int], theme: str
) -> tuple[Page, Looking]:
    """A window, and somebody who looks at it."""
    tag = f"{'desktop' if size == DESKTOP else 'phone'}-{theme}"
    page = visits.open("about:blank", size, color_scheme=theme)
    return page, Looking(page, axe, screenshots, tag)


def enter(page: Page, desk: Desk) -> None:
    """Log in as an admin."""
    page.goto(desk.url)
    page.get_by_label("Token").fill(desk.tokens["admin"])
    page.get_by_role("button", name="Log in").click()
    until_live(page)


@SIZES
@THEMES
def test_from_login_to_a_certificate(looking: tuple[Page, Looking], desk: Desk) -> None:
    """Login, a running fleet, both dialogs, stopping, stopped, the certificate and the lists are fit for everybody."""
    page, look = looking
    with WrittenFleet(desk.server, "prod", 44) as fleet:
        page.goto(desk.url)
        look.at("login")
        enter(page, desk)
        until_sentence(page, "RUNNING 44")
        page.locator("#pods-table tbody tr").nth(24).wait_for()
        look.at("running")
        page.keyboard.press("k")
        page.locator("#kill-dialog [name=reason]").fill("token leaked")
        look.at("kill")
        page.locator("#kill-dialog [data-submit]").click()
        until_sentence(page, "STOPPING 0/44")
        page.wait_for_function("() => document.getElementById('kill-part').dataset.kill !== ''")
        record = str(page.locator("#kill-part").get_attribute("data-kill"))
        order_ms = ms_of(str(getattr(record_of(desk.server), "at", "")))
        fleet.stop(fleet.ids[:41], record, order_ms)
        until_sentence(page, "STOPPING 41/44")
        look.at("stopping")
        fleet.stop(fleet.ids[41:], record, order_ms)
        until_sentence(page, "STOPPED")
        page.locator("#proof b").wait_for(state="detached")
        look.at("stopped")
        page.keyboard.press("r")
        page.get_by_text("This lifts 1 order").wait_for()
        look.at("reset")
        page.keyboard.press("Escape")
        page.locator("#proof-link").click()
        page.get_by_text("complete").first.wait_for()
        look.at("certificate")
        for name in ("timeline", "skills", "kill", "reset"):
            page.goto(desk.url + name)
            look.at(f"page-{name}")


@SIZES
@THEMES
def test_what_cannot_be_seen(looking: tuple[Page, Looking], visits: Visits, desk: Desk) -> None:
    """Of a fleet in trouble, and of a console without Redis, the page is as fit to be read."""
    page, look = looking
    with WrittenFleet(desk.server, "prod", 44) as fleet:
        fleet.change(fleet.ids[:2], deaf_since_ms=1, armed=False, why="its subscription does not deliver")
        fleet.change(fleet.ids[2:5], state=State.HOLDING, why="no answer from Redis within its lease")
        enter(page, desk)
        until_sentence(page, "RUNNING 39")
        page.locator("#stragglers tbody tr").nth(4).wait_for()
        look.at("trouble")
        desk.server.freeze()
        try:
            until_sentence(page, "UNKNOWN: no answer from Redis for 3 s")
            look.at("unknown")
        finally:
            desk.server.thaw()
        until_sentence(page, "RUNNING")


@THEMES
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_ten_thousand(looking: tuple[Page, Looking], desk: Desk) -> None:
    """A wall of ten thousand is one picture, and the page says how many are in trouble."""
    page, look = looking
    fleet = WrittenFleet(desk.server, "prod", 10_000)
    fleet.change(fleet.ids[4000:4037], state=State.HOLDING, why="no answer from Redis within its lease")
    fleet.change(fleet.ids[7000:7300], deaf_since_ms=1, armed=False)
    with fleet:
        enter(page, desk)
        until_sentence(page, "RUNNING 9663")
        page.locator("#wall-title").evaluate("one => scrollTo(0, one.getBoundingClientRect().top + scrollY - 24)")
        look.at("wall")


def test_a_second_look_at_a_raw_order(visits: Visits, desk: Desk) -> None:
    """An order that somebody published raw is shown as any other."""
    page = visits.enter(desk, "viewer")
    order(desk.server, reason="manifest compromised", record_id="r-raw")
    until_sentence(page, "STOPPED")
    assert "manifest compromised" in page.locator("#sentence").inner_text()

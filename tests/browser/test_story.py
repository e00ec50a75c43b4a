"""The whole story with real pods: they appear, are stopped through the dialog, are proved stopped, and are let go."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.browser.visits import PHONE, Desk, Visits, log_in, overflow, until_sentence
from tests.pods import FLEET, process_pod, record_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

PODS = ("web-1", "web-2", "web-3")
_POD = [sys.executable, "-m", "skillbus", "run", "--every", "1h", "--", "true"]


@contextmanager
def pods(desk: Desk) -> Iterator[None]:
    """Three real pods."""
    with ExitStack() as stack:
        for pod_id in PODS:
            stack.enter_context(process_pod(desk.server, desk.folder / pod_id, _POD, pod_id, SKILLBUS_SPREAD="0"))
        yield


def reset(page: Page, name: str) -> None:
    """Fill the form of a reset in, with that name, and send it."""
    page.locator("#reset-dialog [name=reason]").fill("token rotated")
    page.locator("#reset-dialog [name=confirm]").fill(name)
    page.locator("#reset-dialog [data-submit]").click()


def test_the_whole_story(visits: Visits, desk: Desk) -> None:
    """Pods appear by themselves; a kill goes to its certificate; only the right name resets."""
    page = visits.enter(desk)
    until_sentence(page, "RUNNING 0")
    with pods(desk):
        until_sentence(page, "RUNNING 3")
        page.locator("#pods-table tbody tr").nth(2).wait_for()
        page.get_by_role("button", name="Stop…").click()
        assert page.evaluate("document.activeElement.textContent") == "Cancel"
        page.locator("#kill-dialog [name=reason]").fill("token leaked")
        page.get_by_role("button", name="Stop 3 pods").click()
        until_sentence(page, "STOPPED since")
        assert 'by lead via http: "token leaked"' in page.locator("#sentence").inner_text()
        assert page.title().startswith("STOPPED")
        assert "icon-stopped" in str(page.locator("#favicon").get_attribute("href"))
        page.locator("#proof b").wait_for(state="detached")
        assert page.locator("#proof").inner_text().startswith("3 of 3 stopped")
        assert page.locator("#acks-box svg[role=img]").count() == 1
        page.locator("#timeline [data-kind=certificate]").wait_for()
        page.locator("#proof-link").click()
        page.get_by_role("heading", name="3 of 3 stopped").wait_for()
        assert [cell.inner_text() for cell in page.locator(".proofs tbody th").all()] == list(PODS)
        page.go_back()
        until_sentence(page, "STOPPED since")
        visits.expect("422")
        page.get_by_role("button", name="Reset…").click()
        page.get_by_text("This lifts 1 order").wait_for()
        reset(page, "production")
        page.locator("#reset-dialog .problem").wait_for()
        assert "type out prod" in page.locator("#reset-dialog .problem").inner_text()
        assert record_of(desk.server) is not None
        reset(page, "prod")
        page.locator("#reset-dialog").wait_for(state="hidden")
        until_sentence(page, "RUNNING 0")
        assert "3 stopped: reset, they wait for a restart" in page.locator("#banner-asides").inner_text()
        assert record_of(desk.server) is None


def test_by_keyboard_alone(visits: Visits, desk: Desk) -> None:
    """Stop and its confirmation need no mouse; Escape does nothing but close; a key typed in a field is text."""
    page = visits.enter(desk, "operator", PHONE)
    page.keyboard.press("k")
    page.locator("#kill-dialog[open]").wait_for()
    page.keyboard.press("Escape")
    assert not desk.server.cli("EXISTS", FLEET.killed_key)
    page.keyboard.press("/")
    page.keyboard.type("k?r")
    assert page.locator("#q").input_value() == "k?r"
    assert not page.locator("dialog[open]").count()
    page.locator("#q").blur()
    page.keyboard.press("k")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("by hand")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('[data-submit]')")
    page.keyboard.press("Enter")
    until_sentence(page, "STOPPED since")
    assert '"by hand"' in page.locator("#sentence").inner_text()
    assert not overflow(page)


def test_without_scripts(visits: Visits, desk: Desk) -> None:
    """A browser without JavaScript sees the fleet, stops it, reads the certificate and resets it."""
    visits.expect("422")
    with pods(desk):
        page = visits.enter(desk, java_script_enabled=False)
        while not page.locator("#sentence").inner_text().startswith("RUNNING 3"):
            page.reload()
        assert page.locator("#pods-table tbody tr").count() == 3
        page.get_by_role("button", name="Stop…").click()
        page.get_by_label("Reason").fill("no script")
        page.get_by_role("button", name="Stop 3 pods").click()
        page.locator("article.certificate").wait_for()
        while not page.locator("#sentence").inner_text().startswith("3 of 3 stopped"):
            page.reload()
        assert page.locator("#acks svg").count()
        page.goto(desk.url + "reset")
        assert "no script" in page.locator("[data-lifts]").inner_text()
        for name, told in (("wrong", "Unprocessable"), ("prod", "reset")):
            page.goto(desk.url + "reset")
            page.get_by_label("Why it is safe").fill("found it")
            page.get_by_label("Type the fleet").fill(name)
            page.get_by_role("button", name="Permit a restart").click()
            assert told in page.locator("h1").inner_text()
        page.goto(desk.url)
        page.get_by_role("button", name="Drill").click()
        assert page.locator("h1").inner_text().startswith("Drill: 3 of 3 answered")


def test_who_may_what(visits: Visits, desk: Desk) -> None:
    """Each role is offered what it may do, and nothing else."""
    offered = {
        "viewer": [],
        "operator": ["Stop…", "Drill", "Sync"],
        "admin": ["Stop…", "Drill", "Sync", "Reset…"],
    }
    for role, names in offered.items():
        page = visits.enter(desk, role)
        assert [button.inner_text() for button in page.locator(".acts button").all()] == names, role
        page.context.close()
    page = visits.enter(desk, "bot")
    assert page.get_by_role("heading", name="Stop").count() == 1  # It may not look: it gets the form alone.


def test_a_link_from_elsewhere(visits: Visits, desk: Desk) -> None:
    """A link in a chat leads a browser that is logged in to its page, and another one there by way of the login."""
    page = visits.enter(desk, "viewer")
    elsewhere = page.context.new_page()
    elsewhere.goto(f"data:text/html,<a id=go href='{desk.url}timeline'>go</a>")
    elsewhere.click("#go")
    elsewhere.get_by_role("heading", name="Timeline").wait_for()
    stranger = visits.open(desk.url + "timeline")
    log_in(stranger, desk.tokens["viewer"])
    stranger.get_by_role("heading", name="Timeline").wait_for()


def test_a_form_from_elsewhere(visits: Visits, desk: Desk) -> None:
    """A form without this session's own token changes nothing, whoever sends it."""
    page = visits.enter(desk, "admin")
    visits.expect("403")
    page.evaluate("document.querySelectorAll('[name=csrf]').forEach(field => field.value = 'stolen')")
    page.evaluate("document.querySelector('#kill-dialog form').submit()")
    page.get_by_text("nothing was done").wait_for()
    assert not desk.server.cli("EXISTS", FLEET.killed_key)

"""The console as a service of a real hub: who logs in through it may do there what the hub's roles say, and no more."""

from __future__ import annotations

import shutil
import signal

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.jupyter.hubs import CONSOLE_TOKEN, SERVICE, Browser, Hub
from tests.jupyter.test_lab import QUIETLY
from tests.pods import eventually

pytestmark = pytest.mark.timeout(500)


def killed(answer: httpx.Response) -> bool:
    """Whether a form to stop was taken: it leads to the certificate."""
    return answer.status_code == 200 and "/kills/" in str(answer.url)


def test_the_hub_says_who_looks_who_stops_and_who_resets(hub: Hub) -> None:
    """Two users' servers; nobody in no group comes in, a viewer only looks, on-call stops both, an admin resets."""
    for user in ("ada", "bob"):
        hub.spawn(user)
    for user in ("ada", "bob"):
        hub.until(user, "running")
    with Browser(hub) as nobody:
        assert nobody.page().url.path == f"{SERVICE}login", "without a login nothing is shown"
        assert "Log in with JupyterHub" in nobody.page().text
    with Browser(hub) as ada:
        assert ada.log_in("ada").status_code == 403
        assert ada.page().url.path == f"{SERVICE}login"
    with Browser(hub) as vera:
        vera.log_in("vera")
        assert "hub:vera" in vera.page().text
        assert vera.submit("kill", reason="just looking").status_code == 403
    assert {hub.status(user)["state"] for user in ("ada", "bob")} == {"running"}
    with Browser(hub) as olga:
        olga.log_in("olga")
        assert killed(olga.submit("kill", reason="token leaked"))
        for user in ("ada", "bob"):
            hub.until(user, "stopped")
        assert "hub:olga" in hub.status("ada")["why"] + str(hub.status("ada")["causes"])
        assert olga.submit("reset", confirm="prod", reason="over").status_code == 403
    with Browser(hub) as ruth:
        ruth.log_in("ruth")
        said = ruth.submit("reset", confirm="prod", reason="over", even_recent="on")
        assert (said.status_code, "What restarts now, runs." in said.text) == (200, True), said.text
    assert hub.status("ada")["state"] == "stopped", "a reset permits a restart, and starts nothing"


def test_a_login_that_did_not_begin_here_is_refused_and_leads_nowhere_else(hub: Hub) -> None:
    """Forged or missing state: no session, and an entry in the audit. ``next`` names pages of the console alone."""
    with Browser(hub) as olga, Browser(hub) as stranger:
        assert stranger.page("oauth_callback?code=x&state=x").status_code == 403
        stranger.get(f"{SERVICE}hub_login", follow_redirects=False)
        assert stranger.page("oauth_callback?code=x&state=forged").status_code == 403
        assert stranger.page().url.path == f"{SERVICE}login"
        answer = olga.log_in("olga", wanted="//evil.invalid/")
        assert "evil" not in answer.text
        assert answer.url.path == f"{SERVICE}oauth_callback"
        cookie = next(c for c in olga.cookies.jar if c.name == "skillbus_session")
        assert (cookie.path, cookie.get_nonstandard_attr("SameSite")) == (SERVICE.rstrip("/"), "strict")
        assert not [c for c in olga.cookies.jar if c.name == "skillbus_hub_state"], "a state is good for one login"
        assert 'url=./timeline"' in olga.get(f"{SERVICE}hub_login", params={"next": "timeline"}).text
        told = olga.page("api/v1/audit").text
        assert "login through the hub" in told
        assert answer.url.params["code"] not in told + hub.log


def test_a_right_that_is_taken_away_is_gone_in_a_minute(hub: Hub) -> None:
    """Not when the session ends: on-call leaves the group, and cannot stop any more."""
    with Browser(hub) as olga:
        olga.log_in("olga")
        assert "hub:olga" in olga.page().text
        assert hub.call("DELETE", "/hub/api/groups/skillbus-oncall/users", {"users": ["olga"]})[0] == 200
        eventually(lambda: olga.page().url.path == f"{SERVICE}login", "olga must log in anew", patience_s=60)
        assert olga.page("hub_login").status_code == 403, "the hub, which still knows olga, gives no login for it"


def test_without_the_hub_a_token_still_stops(hub: Hub) -> None:
    """A hub that hangs in the middle of a login: a sentence, and no session. Who is in may stop, and so do tokens."""
    with Browser(hub) as olga, Browser(hub) as late:
        olga.log_in("olga")
        late.log_in("vera")
        back = late.get(f"{SERVICE}hub_login", follow_redirects=False)
        back = late.get(back.headers["location"], follow_redirects=False)
        assert "/oauth_callback" in back.headers["location"]
        hub.process.send_signal(signal.SIGSTOP)
        try:
            answer = late.get(back.headers["location"])
            assert (answer.status_code, "the hub does not confirm who you are" in answer.text) == (503, True)
            assert killed(olga.submit("kill", reason="the hub hangs"))
            bearer = {"Authorization": f"Bearer {CONSOLE_TOKEN}"}
            order = olga.post(f"{SERVICE}api/v1/kill", json={"reason": "by token"}, headers=bearer)
            assert (order.status_code, order.json()["is_recorded"]) == (200, True)
        finally:
            hub.process.send_signal(signal.SIGCONT)


def test_a_browser_keeps_its_strict_cookie_on_the_way_back(hub: Hub) -> None:
    """A real browser: login page, hub, and back to the console, logged in without another click."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=QUIETLY)
        page = browser.new_page()
        # The link to the console stands at another site: then a Strict cookie is held back at first.
        page.route(
            "http://elsewhere.invalid/",
            lambda route: route.fulfill(body=f"<a href='{hub.root}{SERVICE}'>go</a>", content_type="text/html"),
        )
        page.goto("http://elsewhere.invalid/")
        page.get_by_text("go").click()
        page.get_by_text("Log in with JupyterHub").click(timeout=60_000)
        page.locator("#username_input").fill("olga")
        page.locator("#password_input").fill("x")
        page.locator("#login_submit").click()
        expect(page.get_by_text("hub:olga")).to_be_visible(timeout=60_000)
        assert page.url == f"{hub.root}{SERVICE}"
        page.goto("http://elsewhere.invalid/")
        page.get_by_text("go").click()
        expect(page.get_by_text("hub:olga")).to_be_visible(timeout=60_000)
        browser.close()

"""What a person has before them: a console with its tokens, and a browser's windows onto it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from skillbus.console.tokens import line_of, new_token
from tests.consoles import Console, serving
from tests.servers import RealServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

DESKTOP, PHONE = (1280, 800), (360, 740)
_PATIENCE_MS = 60_000


@dataclass(slots=True)
class Desk:
    """A console of fleet ``prod`` with a token for each role."""

    server: RealServer
    folder: Path
    words: tuple[str, ...] = ()
    tokens: dict[str, str] = field(default_factory=dict)
    console: Console = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        path = self.folder / "tokens"
        self.tokens = {role: new_token() for role in ("viewer", "bot", "operator", "admin")}
        names = {"viewer": "visitor", "bot": "alerts", "operator": "oncall", "admin": "lead"}
        path.write_text("".join(f"{line_of(names[role], role, one, ())}\n" for role, one in self.tokens.items()))
        self.console = self._stack.enter_context(serving(self.server, self.folder, "--tokens", str(path), *self.words))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The console's first page."""
        return f"{self.console.url}/"


class Visits:
    """A browser, and what its pages complained of."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.complaints: list[str] = []
        self.expected: list[str] = []

    def expect(self, *parts: str) -> None:
        """Complaints with these words are what a test provokes."""
        self.expected += parts

    def context(self, size: tuple[int, int] = DESKTOP, **given: Any) -> BrowserContext:
        """A browser without a session."""
        viewport = {"width": size[0], "height": size[1]}
        context = self.browser.new_context(viewport=viewport, **given)
        context.set_default_timeout(_PATIENCE_MS)
        return context

    def open(self, url: str, size: tuple[int, int] = DESKTOP, **given: Any) -> Page:
        """A window on ``url``, without a session."""
        page = self.context(size, **given).new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        page.goto(url)
        return page

    def enter(self, desk: Desk, role: str = "admin", size: tuple[int, int] = DESKTOP, **given: Any) -> Page:
        """The same, logged in."""
        page = self.open(desk.url, size, **given)
        log_in(page, desk.tokens[role])
        if given.get("java_script_enabled", True) and role != "bot":
            until_live(page)
        return page

    def _note(self, message: ConsoleMessage) -> None:
        text = message.text
        if message.type in ("error", "warning") and not any(part in text for part in self.expected):
            self.complaints.append(text)


def log_in(page: Page, token: str) -> None:
    """Give the token."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def until_live(page: Page) -> None:
    """Wait for the first snapshot of the stream."""
    page.locator("#live[data-state=ok]").wait_for()


def until_sentence(page: Page, text: str) -> None:
    """Wait until the sentence at the top begins so."""
    page.wait_for_function(
        "text => document.getElementById('sentence').innerText.trim().startsWith(text)", arg=text, timeout=_PATIENCE_MS
    )


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core finds on this page, serious or critical."""
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {json.dumps([node['html'][:160] for node in one['nodes'][:3]])}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def overflow(page: Page) -> list[str]:
    """Elements that make the page scroll sideways."""
    found: list[str] = page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
            [...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1)
                .slice(0, 5).map(one => one.outerHTML.slice(0, 120))"""
    )
    return found

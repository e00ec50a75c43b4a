"""A real browser for these tests: Debian's Chromium, driven by Playwright. ``make test-browser`` brings both.

They are collected only when they are asked for by their folder: the other tests need no browser.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.visits import Desk, Visits
from tests.pods import arm
from tests.servers import RealServer

if TYPE_CHECKING:
    from playwright.sync_api import Playwright

_ARGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
_HOW = "these tests need Chromium and find none: make test-browser installs it, or: apt-get install chromium"


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Not without being asked for."""
    return None if any("tests/browser" in str(word) for word in config.invocation_params.args) else True


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--screenshots``: make docs/images anew."""
    parser.addoption("--screenshots", action="store_true", help="make the pictures of docs/images anew")


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, as it is put into a page."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def _playwright() -> Iterator[Playwright]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture
def visits(_playwright: Playwright) -> Iterator[Visits]:
    """A browser of this test's own. What its pages complain of fails the test."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail(_HOW, pytrace=False)
    browser = _playwright.chromium.launch(executable_path=path, args=list(_ARGS))
    visits = Visits(browser)
    yield visits
    complaints = list(visits.complaints)
    browser.close()
    assert not complaints, complaints


@pytest.fixture
def desk(redis_server: RealServer, tmp_path: Path) -> Iterator[Desk]:
    """An armed fleet on a real server, and a console of it with tokens. No pods yet."""
    arm(redis_server)
    with Desk(redis_server, tmp_path) as one:
        yield one


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Path | None:
    """Where pictures go; None: none are wanted."""
    wanted: Any = request.config.getoption("--screenshots", default=False)
    return Path(__file__).parents[2] / "docs" / "images" if wanted else None

"""Which hosts may see which token: settings of the web, GitHub's own variables, ``gh``, and a GitHub of one's own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from skillbus.errors import BadSettings
from skillbus.settings import Settings, origins, without_secrets
from skillbus.skills.options import SkillsOptions
from skillbus.wiring import skills_options

SECRET, FOUND, GH = "canary-set", "canary-found", "canary-gh"
GITHUBS = ("github.com", "api.github.com", "codeload.github.com", "raw.githubusercontent.com")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of whoever runs the tests; no ``gh``."""
    for name in list(os.environ):
        if name.startswith(("SKILLBUS_", "NBI_", "GITHUB_", "GH_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def _gh(tmp_path: Path, script: str) -> None:
    program = tmp_path / "bin/gh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def _options(**given: Any) -> SkillsOptions:
    return skills_options(Settings.load(**given))


def test_without_anything_there_is_no_token() -> None:
    """And GitHub is GitHub."""
    options = _options()
    assert options.token is None
    assert options.token_hosts == GITHUBS
    assert options.github == {"github.com": "https://api.github.com"}
    assert "codeload.github.com" in options.redirect_hosts
    assert options.local_hosts == ()


def test_the_first_token_of_five_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``gh``, GH_TOKEN, GITHUB_TOKEN, the name of existing deployments, our own: the later, the stronger."""
    _gh(tmp_path, f"echo {GH}")
    assert _options().token == GH
    for name, value in (
        ("GH_TOKEN", "canary-1"),
        ("GITHUB_TOKEN", "canary-2"),
        ("NBI_MANAGED_SKILLS_TOKEN", "canary-3"),
        ("SKILLBUS_SKILLS_TOKEN", "canary-4"),
    ):
        monkeypatch.setenv(name, value)
        assert _options().token == value


def test_a_token_from_a_file_of_ours_wins_over_githubs_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was set for skills is meant for skills."""
    (tmp_path / "t").write_text(f"{SECRET}\n")
    monkeypatch.setenv("SKILLBUS_SKILLS_TOKEN_FILE", str(tmp_path / "t"))
    monkeypatch.setenv("GITHUB_TOKEN", FOUND)
    assert _options().token == SECRET


def test_a_token_that_was_found_is_for_github_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever hosts were set for another one; a host that was taken out of the list stays out."""
    hosts = ("files.example", "api.github.com")
    monkeypatch.setenv("GITHUB_TOKEN", FOUND)
    assert _options(skills_token_hosts=hosts).token_hosts == ("api.github.com",)
    monkeypatch.setenv("SKILLBUS_SKILLS_TOKEN", SECRET)
    assert _options(skills_token_hosts=hosts).token_hosts == hosts


@pytest.mark.parametrize(
    "script", ["exit 1", f"echo {GH}; exit 1", "echo", "echo two words", "printf 'a\\tb'", "printf '\\377'"]
)
def test_a_gh_that_has_no_token(tmp_path: Path, script: str) -> None:
    """Not logged in, too old, or it says something else: no token, and no error."""
    _gh(tmp_path, script)
    assert _options().token is None


def test_a_gh_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A keyring that asks for a password holds no pod."""
    monkeypatch.setattr("skillbus.skills.trust.GH_S", 0.2)
    _gh(tmp_path, "exec /bin/sleep 60")
    began_s = time.monotonic()
    assert _options().token is None
    assert time.monotonic() - began_s < 10


def test_gh_is_asked_for_the_right_host_and_only_when_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Once, when a pod starts: not by loading settings, nor offline, nor when a token is set."""
    _gh(tmp_path, f'echo "$@" >> {tmp_path}/asked; echo {GH}')
    settings = Settings.load(github_api_url="https://git.corp.example/api/v3")
    skills_options(settings, online=False)
    _options(skills_token=SECRET)
    assert not (tmp_path / "asked").exists()
    assert skills_options(settings).token == GH
    assert (tmp_path / "asked").read_text() == "auth token --hostname git.corp.example\n"


def test_a_github_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hosts see the token and may redirect to its downloads; github.com stays known."""
    monkeypatch.setenv("GITHUB_API_URL", "https://git.corp.example/api/v3")
    options = _options(skills_token=SECRET)
    assert options.github == {
        "github.com": "https://api.github.com",
        "git.corp.example": "https://git.corp.example/api/v3",
    }
    assert options.token_hosts == (*GITHUBS, "git.corp.example")
    assert options.redirect_hosts[-1] == "codeload.git.corp.example"
    assert options.local_hosts == ()
    monkeypatch.setenv("GITHUB_TOKEN", FOUND)
    assert _options().token_hosts == ("git.corp.example",)  # That is whose token it is.


@pytest.mark.parametrize(
    ("api", "server", "hosts", "local"),
    [
        ("https://api.x.ghe.com", None, ("x.ghe.com", "api.x.ghe.com"), ()),
        ("http://git.lan/api/v3", None, ("git.lan:80",), ("git.lan:80",)),
        ("http://127.0.0.1:8080/api/v3", None, ("127.0.0.1:8080",), ("127.0.0.1:8080",)),
        ("https://localhost:8443/api/v3", "https://localhost:8443", ("localhost:8443",), ("localhost:8443",)),
        (None, "https://git.lan:8443", ("git.lan:8443",), ()),
    ],
)
def test_its_hosts_are_named_by_their_ports(
    monkeypatch: pytest.MonkeyPatch, api: str | None, server: str | None, hosts: tuple[str, ...], local: tuple[str, ...]
) -> None:
    """Without TLS, or on this machine, it is a local host too: the operator named it."""
    options = _options(github_api_url=api, github_server_url=server, skills_token=SECRET, skills_token_hosts=())
    assert (options.token_hosts, options.local_hosts) == (hosts, local)


def test_githubs_own_runners_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They set both variables, to github.com."""
    before = _options()
    monkeypatch.setenv("GITHUB_API_URL", "https://api.github.com")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    assert _options() == before


def test_a_url_that_is_none_is_said_by_name() -> None:
    """Before anything runs."""
    with pytest.raises(BadSettings, match="SKILLBUS_GITHUB_API_URL"):
        _options(github_api_url="git.corp.example")


def test_no_token_reaches_a_program_or_a_screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment of what a pod runs, nor what ``skillbus config`` shows, nor a repr."""
    names = ("SKILLBUS_SKILLS_TOKEN", "NBI_MANAGED_SKILLS_TOKEN", "SKILLBUS_GITHUB_TOKEN", "GITHUB_TOKEN", "GH_TOKEN")
    for name in names:
        monkeypatch.setenv(name, "canary")
    (tmp_path / "t").write_text("canary")
    monkeypatch.setenv("SKILLBUS_GITHUB_TOKEN_FILE", str(tmp_path / "t"))
    settings = Settings.load()
    passed_on = without_secrets(os.environ)
    assert "canary" not in str(passed_on)
    assert "SKILLBUS_GITHUB_TOKEN_FILE" not in passed_on
    assert "canary" not in str(origins(settings, frozenset())) + repr(settings.skills) + repr(skills_options(settings))


def test_redirect_hosts_are_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comma-separated, like the others."""
    monkeypatch.setenv("SKILLBUS_SKILLS_REDIRECT_HOSTS", "a.example, b.example:8443")
    assert _options().redirect_hosts == ("a.example", "b.example:8443")

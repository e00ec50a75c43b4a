"""Which webhooks are on, and what a wrong setting says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skillbus.console.webhooks import kinds, webhook_named
from skillbus.console.webhooks.settings import WebhookSettings, webhooks_given
from skillbus.core.scope import Fleet
from skillbus.errors import BadSettings
from tests.unit.console.webhooks.deliveries import OLD_SECRET, SECRET

PROD = Fleet("prod")


def _given(**environ: str) -> list[WebhookSettings]:
    return webhooks_given({f"SKILLBUS_WEBHOOK_{name}": x for name, x in environ.items()}, PROD, kinds(), webhook_named)


def _wrong(**environ: str) -> str:
    with pytest.raises(BadSettings) as caught:
        _given(**environ)
    return str(caught.value)


def test_off_until_a_secret_is_given() -> None:
    """Nothing set, or set to nothing: nothing is on."""
    assert _given() == []
    assert _given(SLACK_SECRET="", SLACK_SCOPE=" ", PAGERDUTY_SECRET="\n") == []


def test_on_with_a_secret() -> None:
    """That one alone, for the whole fleet."""
    (found,) = _given(SLACK_SECRET=SECRET)
    assert (found.name, found.secrets(), found.scopes, dict(found.options)) == ("slack", (SECRET,), (PROD.scope,), {})


def test_several_secrets_scopes_and_options() -> None:
    """Separated by white space or, where a secret could not hold one, by commas."""
    (found,) = _given(
        PAGERDUTY_SECRET=f"{SECRET}\n {OLD_SECRET}",
        PAGERDUTY_SCOPE="group:batch, pod:p1 group:batch",
        PAGERDUTY_SERVICES="PA,PB PC",
    )
    assert found.secrets() == (SECRET, OLD_SECRET)
    assert found.scopes == (PROD.group("batch"), PROD.pod("p1"))
    assert found.options == {"services": ("PA", "PB", "PC")}


def test_secret_from_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Rotated without a restart, also by a rename over it, as orchestrators mount secrets."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    (found,) = _given(ALERTMANAGER_SECRET_FILE=str(path))
    assert found.secrets() == (SECRET,)
    path.write_text(f"{SECRET} {OLD_SECRET}\n")
    assert found.secrets() == (SECRET, OLD_SECRET)
    other = tmp_path / "other"
    other.write_text(OLD_SECRET)
    other.replace(path)
    assert found.secrets() == (OLD_SECRET,)


def test_a_file_that_goes_bad_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Gone, empty, too short, no text, too long: the door stays open to those who had the key, and the log says why."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    (found,) = _given(ALERTMANAGER_SECRET_FILE=str(path))
    for content in (b"", b"short", b"\xff" * 40, b"x" * 70_000):
        path.write_bytes(content)
        assert found.secrets() == (SECRET,)
    path.unlink()
    assert found.secrets() == (SECRET,)
    assert len(caplog.records) == 5
    assert SECRET not in caplog.text


def test_the_variable_wins_over_the_file() -> None:
    """As with every secret of ours: the file is not even looked at."""
    (found,) = _given(SLACK_SECRET=SECRET, SLACK_SECRET_FILE="/nowhere")
    assert found.secrets() == (SECRET,)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SLAK_SECRET": SECRET}, "SKILLBUS_WEBHOOK_SLAK_SECRET is of no webhook; there are: alertmanager, pagerduty"),
        ({"SLACK_SECRET": SECRET, "SLACK_SCOP": "fleet"}, "SKILLBUS_WEBHOOK_SLACK_SCOP is no setting of this webhook"),
        ({"SLACK_SECRET": SECRET, "SLACK_SERVICES": "P"}, "there are: channels, scope, secret, secret_file, users"),
        ({"SLACK_SCOPE": "group:x"}, "SKILLBUS_WEBHOOK_SLACK_SECRET is missing"),
        ({"SLACK_SECRET": "short"}, "shorter than 16 characters"),
        ({"STANDARD_SECRET": "whsec_x"}, "openssl rand -base64 32"),
        ({"SLACK_SECRET": SECRET, "SLACK_SCOPE": "everything"}, "'everything' is no scope"),
        ({"SLACK_SECRET": SECRET, "SLACK_SCOPE": "group:a/b"}, "'group:a/b' is no scope"),
        ({"SLACK_SECRET_FILE": "/nowhere/at/all"}, "cannot be read (/nowhere/at/all)"),
    ],
)
def test_what_is_wrong_is_said(environ: dict[str, str], said: str) -> None:
    """Which variable, and what there is. No secret is shown."""
    text = _wrong(**environ)
    assert said in text
    assert "SKILLBUS_WEBHOOK_" in text
    assert SECRET not in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Said at start."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0)
    assert "cannot be read" in _wrong(SLACK_SECRET_FILE=str(path))

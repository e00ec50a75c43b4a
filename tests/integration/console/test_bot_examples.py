"""examples/bots, file by file: each stops a real fleet through a real console, as it lies there.

What names a place of the reader's own (an address, a folder) is replaced by one of this test, and nothing else is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from skillbus.bus.embedded import free_port
from skillbus.console.webhooks import alertmanager, pagerduty
from tests.consoles import Console, serving
from tests.pods import (
    GROUP,
    arm,
    environ_of,
    eventually,
    evidence_of,
    own_server,
    process_pod,
    record_of,
    skillbus,
)
from tests.servers import RealServer
from tests.unit.console.webhooks import deliveries
from tests.unit.console.webhooks.deliveries import SECRET, accepted, delivery
from tests.unit.console.webhooks.test_pagerduty import event, note
from tests.unit.console.webhooks.test_standard import SECRET as WHSEC

EXAMPLES = Path(__file__).parents[3] / "examples" / "bots"

ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
needs_alertmanager = pytest.mark.skipif(
    ALERTMANAGER is None or shutil.which("amtool") is None,
    reason="NOT TRIED: no Alertmanager on this machine: apt-get install prometheus-alertmanager",
)


@contextmanager
def fleet(server: RealServer, folder: Path, group: str = "eu") -> Iterator[None]:
    """An armed fleet with one pod that runs, in this group."""
    arm(server)
    argv = [sys.executable, "-m", "skillbus", "run", "--every", "1h", "--", "true"]
    with process_pod(server, folder / "pod", argv, SKILLBUS_GROUPS=group):
        eventually(lambda: any(beat.state == "running" for beat in evidence_of(server)), "the pod runs")
        yield


def until_stopped(server: RealServer) -> None:
    """Wait until the pod says that it is quiet."""
    eventually(lambda: any(beat.state == "stopped" for beat in evidence_of(server)), "the pod has stopped")


def token(folder: Path) -> tuple[Path, Path]:
    """``(the file of hashes, a file with a bot's token)``, made as the documentation says."""
    hashes, path = folder / "tokens", folder / "bot.token"
    made = skillbus("token", "ci", "--role", "bot", "--add", str(hashes), env=environ_of("redis://127.0.0.1:1/0"))
    assert made.code == 0, made
    path.write_text(made.out)
    return hashes, path


def ran(argv: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """A program of an example, with its output."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SKILLBUS_")}
    return subprocess.run(argv, env=own | env, capture_output=True, text=True, timeout=60, check=False)


# -- curl, GitHub Actions ----------------------------------------------------------------------------------------------


def test_kill_sh(redis_server: RealServer, tmp_path: Path) -> None:
    """curl alone: exit 0, the record by the token's name, and the pod stops; a group alone if it is named."""
    hashes, path = token(tmp_path)
    with fleet(redis_server, tmp_path), serving(redis_server, tmp_path, SKILLBUS_CONSOLE_TOKENS=str(hashes)) as console:
        script = str(EXAMPLES / "kill.sh")
        done = ran([script, 'token "leaked"'], CONSOLE=console.url, TOKEN_FILE=str(path), GROUP="eu")
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["scope"] == "group:eu"
        assert record_of(redis_server) is None
        until_stopped(redis_server)
        done = ran([script, 'token "leaked"'], CONSOLE=console.url, TOKEN_FILE=str(path))
        assert done.returncode == 0, done
    record = record_of(redis_server)
    assert record is not None
    assert (record.by, record.reason) == ("ci", 'token "leaked"')


def test_kill_sh_fails_loudly(redis_server: RealServer, tmp_path: Path) -> None:
    """A wrong token is no success, and the token is in no output."""
    arm(redis_server)
    hashes, path = token(tmp_path)
    wrong = tmp_path / "wrong"
    wrong.write_text("x" * 43)
    with serving(redis_server, tmp_path, SKILLBUS_CONSOLE_TOKENS=str(hashes)) as console:
        done = ran([str(EXAMPLES / "kill.sh"), "x"], CONSOLE=console.url, TOKEN_FILE=str(wrong))
        assert done.returncode != 0
        assert "401" in done.stderr
        assert ran([str(EXAMPLES / "kill.sh")], CONSOLE=console.url, TOKEN_FILE=str(path)).returncode != 0
    assert record_of(redis_server) is None


def _workflow() -> dict[str, Any]:
    found = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    assert isinstance(found, dict)
    return found


def _step(job: str) -> tuple[str, dict[str, str]]:
    """``(its script, its environment as written)``."""
    (step,) = _workflow()["jobs"][job]["steps"]
    return step["run"], step["env"]


def _as_runner(script: str, written: Mapping[str, str], values: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The script as a runner starts it, with each expression of its environment worked out."""
    env = {name: values.get(name, text) for name, text in written.items()}
    assert not [text for text in env.values() if "${{" in text], "a value is missing"
    assert "${{" not in script, "an expression in a script is an injection"
    return ran(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], **env)


def test_github_actions_by_the_console(redis_server: RealServer, tmp_path: Path) -> None:
    """The step's own script, with a reason that a shell would choke on."""
    hashes, path = token(tmp_path)
    reason = 'scan failed: "$(touch pwned)" \'; `id`'
    with fleet(redis_server, tmp_path), serving(redis_server, tmp_path, SKILLBUS_CONSOLE_TOKENS=str(hashes)) as console:
        script, written = _step("stop")
        values = {"CONSOLE": console.url, "TOKEN": path.read_text().strip(), "REASON": reason, "KEY": "github-7"}
        values["RUN_URL"] = "https://github.com/o/r/actions/runs/7"
        for _ in range(2):  # the second is the same order, for it bears the same key
            done = _as_runner(script, written, values)
            assert done.returncode == 0, done
        until_stopped(redis_server)
    record = record_of(redis_server)
    assert record is not None
    assert (record.reason, record.incident) == (reason, values["RUN_URL"])


def test_github_actions_without_a_console(redis_server: RealServer, tmp_path: Path) -> None:
    """redis-cli alone stops the pod, and the record stands even if none had heard it."""
    if shutil.which("redis-cli") is None:
        pytest.skip("NOT TRIED: no redis-cli on this machine: apt-get install redis-tools")
    with fleet(redis_server, tmp_path):
        script, written = _step("stop-without-a-console")
        done = _as_runner(script, written, {"REDIS_URL": redis_server.url, "REASON": "scan failed"})
        assert done.returncode == 0, done
        until_stopped(redis_server)
    record = record_of(redis_server)
    assert record is not None
    assert record.reason == "scan failed"


def test_github_actions_stops_only_when_it_should() -> None:
    """Both jobs ask whether the check failed; exactly one of them runs; and the workflow has no permissions."""
    found = _workflow()
    asked = {job: str(body["if"]) for job, body in found["jobs"].items()}
    failed = "github.event.workflow_run.conclusion == 'failure'"
    assert all(failed in text and "workflow_dispatch" in text for text in asked.values())
    assert asked["stop"].replace("!= ''", "== ''") == asked["stop-without-a-console"]
    assert found["permissions"] == {}


# -- Python ------------------------------------------------------------------------------------------------------------


def test_bot_py(redis_server: RealServer, tmp_path: Path) -> None:
    """Ten lines of Python: exit 0 once the pod is proved stopped, and a sentence that says so."""
    with fleet(redis_server, tmp_path):
        done = ran([sys.executable, str(EXAMPLES / "bot.py"), "token", "leaked"], **environ_of(redis_server))
        assert done.returncode == 0, done
        assert "1 of 1 stopped" in done.stdout
    record = record_of(redis_server)
    assert record is not None
    assert (record.by, record.via, record.reason) == ("scanner", "python", "token leaked")


def test_bot_py_is_short() -> None:
    """Ten lines are ten lines."""
    code = [line for line in (EXAMPLES / "bot.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 10


# -- Slack -------------------------------------------------------------------------------------------------------------


def _manifest() -> dict[str, Any]:
    found = yaml.safe_load((EXAMPLES / "slack-manifest.yaml").read_text())
    assert isinstance(found, dict)
    return found


def test_slack_manifest_is_one() -> None:
    """The fields, and the limits, of https://docs.slack.dev/reference/app-manifest; the least that a command needs."""
    found = _manifest()
    assert set(found) <= {"_metadata", "display_information", "features", "oauth_config", "settings"}
    assert len(found["display_information"]["name"]) <= 35
    assert len(found["display_information"]["description"]) <= 140
    (command,) = found["features"]["slash_commands"]
    assert set(command) <= {"command", "url", "description", "usage_hint", "should_escape"}
    assert re.fullmatch(r"/[a-z0-9_-]{1,31}", command["command"])
    assert len(command["description"]) <= 2000
    assert len(command["usage_hint"]) <= 1000
    assert urlsplit(command["url"])[0] == "https", "Slack speaks to nobody else"
    assert found["oauth_config"]["scopes"] == {"bot": ["commands"]}


def test_slack_command_of_the_manifest(redis_server: RealServer, tmp_path: Path) -> None:
    """The command that it declares, sent where it says, stops; alone, it explains itself."""
    (command,) = _manifest()["features"]["slash_commands"]
    path = urlsplit(command["url"]).path
    given = {"SKILLBUS_WEBHOOK_SLACK_SECRET": SECRET}
    with fleet(redis_server, tmp_path), serving(redis_server, tmp_path, **given) as console:
        usage = console.post(path, *deliveries.slack("", at_s=time.time(), command=command["command"]))
        assert command["command"] in usage.json["text"]
        assert record_of(redis_server) is None
        told = console.post(path, *deliveries.slack("token leaked", at_s=time.time(), command=command["command"]))
        assert "1 of 1 stopped" in told.json["text"]
        until_stopped(redis_server)


# -- PagerDuty ---------------------------------------------------------------------------------------------------------


def test_pagerduty_subscription() -> None:
    """It asks for the events that can stop, and for no other; and sends them where the door is."""
    found = json.loads((EXAMPLES / "pagerduty-subscription.json").read_text())["webhook_subscription"]
    assert urlsplit(found["delivery_method"]["url"]).path == "/hooks/pagerduty"
    stops = {"incident.triggered": event(), "incident.annotated": note("[skillbus:kill] x")}
    assert found["events"] == list(stops)
    for value in stops.values():
        accepted(pagerduty.read(delivery(*deliveries.pagerduty_signed(deliveries.raw(value)))))


def test_pagerduty_try_sh(redis_server: RealServer, tmp_path: Path) -> None:
    """A try of the door, signed by the file's first secret, in the scope that it names; without one it does nothing."""
    secret = tmp_path / "pagerduty.secret"
    secret.write_text(f"{SECRET}\n")
    given = {"SKILLBUS_WEBHOOK_PAGERDUTY_SECRET_FILE": str(secret)}
    with fleet(redis_server, tmp_path), serving(redis_server, tmp_path, **given) as console:
        script = str(EXAMPLES / "pagerduty-try.sh")
        assert ran([script], CONSOLE=console.url, SECRET_FILE=str(secret)).returncode != 0
        assert record_of(redis_server, GROUP) is None
        done = ran([script, "group:eu"], CONSOLE=console.url, SECRET_FILE=str(secret))
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["outcome"] == "killed"
        until_stopped(redis_server)
    record = record_of(redis_server, GROUP)
    assert record is not None
    assert (record.via, record.reason) == ("pagerduty", "a try of the door")


# -- Standard Webhooks -------------------------------------------------------------------------------------------------


def test_standard_webhook_py(redis_server: RealServer, tmp_path: Path) -> None:
    """Nothing but Python's own library; a wrong secret ends in an error."""
    secret, wrong = tmp_path / "standard.secret", tmp_path / "wrong"
    secret.write_text(f"{WHSEC}\n")
    wrong.write_text("whsec_" + "A" * 32)
    script = [sys.executable, "-I", str(EXAMPLES / "standard_webhook.py"), "token", "leaked"]
    given = {"SKILLBUS_WEBHOOK_STANDARD_SECRET_FILE": str(secret)}
    with fleet(redis_server, tmp_path), serving(redis_server, tmp_path, **given) as console:
        assert "401" in ran(script, CONSOLE=console.url, SECRET_FILE=str(wrong)).stderr
        done = ran(script, CONSOLE=console.url, SECRET_FILE=str(secret))
        assert done.returncode == 0, done
        until_stopped(redis_server)
    record = record_of(redis_server)
    assert record is not None
    assert (record.via, record.by, record.reason) == ("standard", "scanner", "token leaked")


# -- Alertmanager ------------------------------------------------------------------------------------------------------


def _alertmanager_config() -> dict[str, Any]:
    found = yaml.safe_load((EXAMPLES / "alertmanager.yml").read_text())
    assert isinstance(found, dict)
    return found


def test_alertmanager_route_and_receiver() -> None:
    """The route takes the label that the door takes, first, and lets the alert go on to people."""
    found = _alertmanager_config()
    first = found["route"]["routes"][0]
    assert first["matchers"] == ['skillbus_action = "kill"']
    assert first["continue"] is True
    (hook,) = next(one for one in found["receivers"] if one["name"] == first["receiver"])["webhook_configs"]
    assert urlsplit(hook["url"]).path == "/hooks/alertmanager"
    assert hook["send_resolved"] is False
    assert hook["http_config"]["authorization"]["type"] == "Bearer"


def test_prometheus_rules_kill() -> None:
    """An alert of each rule, as Alertmanager would send it, is an order; the second for its group alone."""
    groups = yaml.safe_load((EXAMPLES / "prometheus-rules.yaml").read_text())["groups"]
    scopes = []
    for rule in [rule for group in groups for rule in group["rules"]]:
        alert = {"status": "firing", "labels": {"alertname": rule["alert"], **rule["labels"]}}
        body = deliveries.raw({"version": "4", "alerts": [alert | {"annotations": rule["annotations"]}]})
        found = accepted(alertmanager.read(delivery(body, {"authorization": f"Bearer {SECRET}"})))
        scopes += [asked.scope for asked in found.orders]
        assert rule["annotations"]["summary"] in found.orders[0].order.reason
    assert scopes == ["", "group:batch"]


@contextmanager
def real_alertmanager(folder: Path, console: Console, secret: str = SECRET) -> Iterator[str]:
    """Debian's Alertmanager with the example's configuration; only the addresses and the folder are this test's."""
    assert ALERTMANAGER is not None
    (folder / "skillbus-secret").write_text(secret)
    text = (EXAMPLES / "alertmanager.yml").read_text()
    text = text.replace("http://console.internal:8700", console.url).replace("/etc/alertmanager", str(folder))
    (folder / "alertmanager.yml").write_text(text)
    url = f"http://127.0.0.1:{free_port()}"
    words = ["--config.file=alertmanager.yml", "--storage.path=storage", "--cluster.listen-address="]
    with (folder / "alertmanager.txt").open("wb") as log:
        argv = [ALERTMANAGER, *words, f"--web.listen-address={urlsplit(url).netloc}"]
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        ready = ["curl", "-sf", f"{url}/-/ready"]
        eventually(lambda: process.poll() is not None or ran(ready).returncode == 0, "Alertmanager is ready")
        assert process.poll() is None, "Alertmanager ended"
        yield url
    except BaseException:
        print((folder / "alertmanager.txt").read_text(errors="replace")[-3000:])
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _fire(url: str, *labels: str) -> None:
    words = ["alert", "add", "SkillTokenLeaked", *labels, "--annotation=summary=a token was seen"]
    done = ran(["amtool", f"--alertmanager.url={url}", *words])
    assert done.returncode == 0, done


@needs_alertmanager
def test_alertmanager_accepts_the_example() -> None:
    """amtool reads it without a complaint."""
    done = ran(["amtool", "check-config", str(EXAMPLES / "alertmanager.yml")])
    assert done.returncode == 0, done
    assert "SUCCESS" in done.stdout


@needs_alertmanager
def test_real_alertmanager_stops_a_fleet(redis_server: RealServer, tmp_path: Path) -> None:
    """An alert without the label stops nobody; one with it stops its group, with its words and by its receiver."""
    given = {"SKILLBUS_WEBHOOK_ALERTMANAGER_SECRET": SECRET}
    with (
        fleet(redis_server, tmp_path),
        serving(redis_server, tmp_path, **given) as console,
        real_alertmanager(tmp_path, console) as url,
    ):
        _fire(url, "severity=page")
        _fire(url, "skillbus_action=kill", "skillbus_group=eu")
        until_stopped(redis_server)
        record = record_of(redis_server, GROUP)
    assert record is not None
    assert (record.via, record.by) == ("alertmanager", "skillbus")
    assert record.reason == "SkillTokenLeaked: a token was seen"
    assert record_of(redis_server) is None


@needs_alertmanager
@pytest.mark.timeout(180)
def test_real_alertmanager_tries_again(tmp_path: Path) -> None:
    """While Redis does not answer it is told 503, and tells again by itself; once Redis is back it is recorded."""
    given = {"SKILLBUS_WEBHOOK_ALERTMANAGER_SECRET": SECRET}
    with (
        own_server(tmp_path) as server,
        serving(server, tmp_path, **given) as console,
        real_alertmanager(tmp_path, console) as url,
    ):
        server.freeze()
        try:
            _fire(url, "skillbus_action=kill")
            eventually(lambda: "503" in (tmp_path / "alertmanager.txt").read_text(), "Alertmanager was told 503", 60)
            assert not [path for path in tmp_path.glob("**/console.txt") if "Traceback" in path.read_text()]
        finally:
            server.thaw()
        eventually(lambda: record_of(server) is not None, "the kill is recorded", 60)

"""The webhooks of a real console, over real HTTP, on a real Redis: they kill for real, and nothing else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.consoles import fails_to_start, serving
from tests.pods import FLEET, GROUP, PROD, arm, eventually, evidence_of, own_server, process_pod, record_of, reset
from tests.servers import RealServer, Reply
from tests.unit.console.webhooks import deliveries
from tests.unit.console.webhooks.deliveries import HOSTILE, OLD_SECRET, SECRET
from tests.unit.console.webhooks.test_pagerduty import event
from tests.unit.console.webhooks.test_standard import SECRET as WHSEC

ALL = {
    "SKILLBUS_WEBHOOK_ALERTMANAGER_SECRET": SECRET,
    "SKILLBUS_WEBHOOK_SLACK_SECRET": SECRET,
    "SKILLBUS_WEBHOOK_PAGERDUTY_SECRET": SECRET,
    "SKILLBUS_WEBHOOK_STANDARD_SECRET": WHSEC,
}


def alertmanager(
    reason: str = "token leaked", *, status: str = "firing", **labels: str
) -> tuple[bytes, dict[str, str]]:
    """A notification of one alert that kills, if it fires."""
    alert = {
        "status": status,
        "labels": {"alertname": "Leak", "skillbus_action": "kill", **labels},
        "annotations": {"summary": reason},
    }
    body = deliveries.raw({"version": "4", "receiver": "skillbus", "alerts": [alert]})
    return body, {"authorization": f"Bearer {SECRET}"}


def slack(text: str = "token leaked", **given: Any) -> tuple[bytes, dict[str, str]]:
    """A slash command of now."""
    return deliveries.slack(text, at_s=time.time(), **given)


def pagerduty(**data: Any) -> tuple[bytes, dict[str, str]]:
    """An incident of now, with the marker."""
    return deliveries.pagerduty_signed(deliveries.raw(event(at_s=time.time(), **data)))


def standard(**data: Any) -> tuple[bytes, dict[str, str]]:
    """An event of now."""
    body = deliveries.raw({"type": "skillbus.kill", "data": {"reason": "token leaked", "by": "scanner", **data}})
    return deliveries.standard_signed(body, WHSEC, at=f"{time.time():.0f}")


SENDERS: dict[str, Callable[..., tuple[bytes, dict[str, str]]]] = {
    "alertmanager": alertmanager,
    "slack": slack,
    "pagerduty": pagerduty,
    "standard": standard,
}


def audited(server: RealServer, kind: str) -> list[dict[str, str]]:
    """The audit's entries of this kind, the oldest first."""
    rows = server.cli("XRANGE", PROD.audit_key, "-", "+")
    assert isinstance(rows, list)
    entries = [_fields(row) for row in rows]
    return [entry for entry in entries if entry.get("kind") == kind]


def _fields(row: Reply) -> dict[str, str]:
    assert isinstance(row, list)
    flat = row[1]
    assert isinstance(flat, list)
    words = [word.decode() for word in flat if isinstance(word, bytes)]
    return dict(zip(words[::2], words[1::2], strict=True))


def settled_by_keeper(folder: Path) -> list[Path]:
    """The tombstones of a console's keeper whose epoch is known: a reset from now on is a later one."""
    found = (folder / "console-state" / "keeper" / "tombstones").glob("*.json")
    return [path for path in found if json.loads(path.read_bytes())["epoch"] is not None]


@pytest.mark.parametrize("kind", SENDERS)
def test_each_kills_for_real(redis_server: RealServer, tmp_path: Path, kind: str) -> None:
    """A record by that sender via that webhook, a pod that stops, an audit entry; and 200 when it stands already."""
    arm(redis_server)
    argv = [sys.executable, "-m", "skillbus", "run", "--every", "1h", "--", "true"]
    with serving(redis_server, tmp_path, **ALL) as console, process_pod(redis_server, tmp_path / "pod", argv):
        eventually(lambda: any(beat.state == "running" for beat in evidence_of(redis_server)), "the pod runs")
        sender = SENDERS[kind]
        answer = console.post(f"/hooks/{kind}", *sender())
        assert answer.status == 200, answer
        record = record_of(redis_server)
        assert record is not None
        assert (record.via, "token leaked" in record.reason.lower()) == (kind, True)
        entry = audited(redis_server, "kill")[-1]
        assert (entry["via"], entry["record"], entry["by"]) == (kind, record.id, record.by)
        again = console.post(f"/hooks/{kind}", *sender(**{"slack": {"user_name": "bob"}}.get(kind, {})))
        assert again.status == 200
        eventually(lambda: any(beat.state == "stopped" for beat in evidence_of(redis_server)), "the pod has stopped")


def test_off_until_its_secret_is_given(redis_server: RealServer, tmp_path: Path) -> None:
    """Without a secret there is no such place, whatever is sent there."""
    arm(redis_server)
    with serving(redis_server, tmp_path, SKILLBUS_WEBHOOK_SLACK_SECRET=SECRET) as console:
        for kind in ("alertmanager", "pagerduty", "standard", "reset", "slack/reset", "__init__", "door"):
            assert console.post(f"/hooks/{kind}", *alertmanager()).status == 404
        assert console.get("/hooks/slack").status == 405
    assert record_of(redis_server) is None


def test_a_wrong_setting_keeps_the_console_from_starting(redis_server: RealServer, tmp_path: Path) -> None:
    """One sentence, exit 2, no secret shown."""
    ran = fails_to_start(redis_server, tmp_path, SKILLBUS_WEBHOOK_SLAK_SECRET=SECRET)
    assert ran.code == 2
    assert "SKILLBUS_WEBHOOK_SLAK_SECRET is of no webhook" in ran.err
    assert SECRET not in ran.err + ran.out


def test_resolved_resets_nothing(redis_server: RealServer, tmp_path: Path) -> None:
    """Neither a resolved alert nor a resolved incident moves a record or an epoch."""
    arm(redis_server)
    with serving(redis_server, tmp_path, **ALL) as console:
        assert console.post("/hooks/alertmanager", *alertmanager()).status == 200
        before, epoch = record_of(redis_server), redis_server.cli("GET", FLEET.epoch_key)
        for request in (alertmanager(status="resolved"), pagerduty()):
            kind = "alertmanager" if "authorization" in request[1] else "pagerduty"
            if kind == "pagerduty":
                body = json.loads(request[0])
                body["event"]["event_type"] = "incident.resolved"
                request = deliveries.pagerduty_signed(deliveries.raw(body))
            answer = console.post(f"/hooks/{kind}", *request)
            assert (answer.status, answer.json["outcome"]) == (200, "ignored")
    assert record_of(redis_server) == before
    assert redis_server.cli("GET", FLEET.epoch_key) == epoch


@pytest.mark.parametrize("kind", ["slack", "pagerduty", "standard"])
def test_a_replay_behind_a_reset_kills_nobody(redis_server: RealServer, tmp_path: Path, kind: str) -> None:
    """The very same delivery, rightly signed and of now, is not carried out twice; and is audited as refused."""
    arm(redis_server)
    request = SENDERS[kind]()
    with serving(redis_server, tmp_path, **ALL) as console:
        assert console.post(f"/hooks/{kind}", *request).status == 200
        eventually(lambda: settled_by_keeper(tmp_path), "the keeper knows the order's epoch: else it would kill again")
        reset(redis_server)
        assert console.post(f"/hooks/{kind}", *request).status == 200
        eventually(lambda: audited(redis_server, "refused"), "it is audited")
    assert record_of(redis_server) is None
    assert audited(redis_server, "refused")[0]["via"] == kind


def test_bad_signatures_are_refused_and_a_flood_is_told_in_few_words(redis_server: RealServer, tmp_path: Path) -> None:
    """401 for each, nothing parsed, nobody stopped; 300 of them are a handful of entries that say how many."""
    arm(redis_server)
    with serving(redis_server, tmp_path, **ALL) as console:
        for kind in SENDERS:
            assert console.post(f"/hooks/{kind}", b"\xff not even JSON", {}).status == 401
        for _ in range(300):
            assert console.post("/hooks/alertmanager", b"{}", {"authorization": "Bearer wrong"}).status == 401
        assert console.post("/hooks/alertmanager", *alertmanager(status="resolved")).status == 200
        eventually(lambda: len({e["via"] for e in audited(redis_server, "refused")}) == 4, "each is audited")
    entries = [entry for entry in audited(redis_server, "refused") if entry["via"] == "alertmanager"]
    assert 1 <= len(entries) <= 10
    assert record_of(redis_server) is None


def test_bound_to_a_group(redis_server: RealServer, tmp_path: Path) -> None:
    """It stops its group, by name or by silence, and neither the fleet nor another."""
    arm(redis_server)
    given = ALL | {"SKILLBUS_WEBHOOK_STANDARD_SCOPE": "group:eu"}
    with serving(redis_server, tmp_path, **given) as console:
        for scope in ("fleet", "group:us", "pod:one", "group:e/u", 7):
            answer = console.post(
                "/hooks/standard",
                *deliveries.standard_signed(
                    deliveries.raw({"type": "skillbus.kill", "data": {"scope": scope}}),
                    WHSEC,
                    delivery_id=f"m{scope}",
                    at=f"{time.time():.0f}",
                ),
            )
            assert (answer.status, answer.json["outcome"]) == (403, "refused")
        assert not redis_server.cli("KEYS", "skillbus:{prod}:killed*")
        assert console.post("/hooks/standard", *standard()).status == 200
    assert record_of(redis_server) is None
    assert record_of(redis_server, GROUP) is not None


def test_what_cannot_be_read(redis_server: RealServer, tmp_path: Path) -> None:
    """Proved senders of nonsense get 400, more than 1 MiB gets 413; nobody is stopped, and the console goes on."""
    arm(redis_server)
    auth = {"authorization": f"Bearer {SECRET}"}
    with serving(redis_server, tmp_path, **ALL) as console:
        for body in (b"", b"no JSON", b"[]", b"[" * 500_000, b'{"version":"4","alerts":7}', b"\xff\xfe"):
            assert console.post("/hooks/alertmanager", body, auth).status == 400
        assert console.post("/hooks/alertmanager", b" " * (1024 * 1024 + 1), auth).status == 413
        assert console.post("/hooks/alertmanager", b" " * (1024 * 1024 + 1), auth, chunked=True).status == 413
        for kind, sign in (("pagerduty", deliveries.pagerduty_signed), ("slack", _slack_signed)):
            assert console.post(f"/hooks/{kind}", *sign(b"[" * 500_000)).status in {200, 400}
        assert record_of(redis_server) is None
        assert console.post("/hooks/alertmanager", *alertmanager()).status == 200


def _slack_signed(body: bytes) -> tuple[bytes, Mapping[str, str]]:
    return deliveries.slack_signed(body, at=f"{time.time():.0f}")


def test_hostile_words_are_harmless_everywhere(redis_server: RealServer, tmp_path: Path) -> None:
    """In the record, in the audit, in what Slack is told: no control or bidi character, no call of a channel."""
    arm(redis_server)
    with serving(redis_server, tmp_path, **ALL) as console:
        text = "<!channel> " + HOSTILE.replace("\ud800", "").replace("\n", " ").replace("\r", " ")
        answer = console.post("/hooks/slack", *slack(text))
        assert "<!channel>" not in answer.json["text"]
        assert "&lt;!channel&gt;" in answer.json["text"]
    record = record_of(redis_server)
    assert record is not None
    assert record.reason.isprintable()
    assert all(value.isprintable() for value in audited(redis_server, "kill")[0].values())


def test_redis_is_frozen(tmp_path: Path) -> None:
    """503 for whoever retries, words for Slack, both in time; once it is back, the retry of the same delivery kills."""
    with own_server(tmp_path) as server, serving(server, tmp_path, **ALL) as console:
        request = pagerduty()
        server.freeze()
        try:
            began_s = time.monotonic()
            answer = console.post("/hooks/slack", *slack())
            took_s = time.monotonic() - began_s
            assert took_s < 10.0, "two seconds, on a machine that others use; Redis stays away for ever"
            assert answer.status == 200
            assert "NOT" in answer.json["text"]
            assert console.post("/hooks/pagerduty", *request).status == 503
        finally:
            server.thaw()
        assert console.post("/hooks/pagerduty", *request).status == 200
        assert record_of(server) is not None


def test_redis_takes_no_record(tmp_path: Path) -> None:
    """Out of memory: published, not recorded, is 503 with these words: the sender is to try again, and does no harm."""
    with own_server(tmp_path, "maxmemory-policy noeviction") as server, serving(server, tmp_path, **ALL) as console:
        server.cli("CONFIG", "SET", "maxmemory", "1")
        answer = console.post("/hooks/alertmanager", *alertmanager())
        assert answer.status == 503
        assert "NOT recorded" in answer.json["orders"][0]["told"]
        server.cli("CONFIG", "SET", "maxmemory", "0")
        assert console.post("/hooks/alertmanager", *alertmanager()).status == 200
        assert record_of(server) is not None


def test_rotation_without_a_restart(redis_server: RealServer, tmp_path: Path) -> None:
    """A file with another secret is in force at the next delivery, and the old one is not."""
    arm(redis_server)
    path = tmp_path / "secret"
    path.write_text(OLD_SECRET)
    with serving(redis_server, tmp_path, SKILLBUS_WEBHOOK_ALERTMANAGER_SECRET_FILE=str(path)) as console:
        assert console.post("/hooks/alertmanager", *alertmanager()).status == 401
        path.write_text(f"{OLD_SECRET} {SECRET}")
        assert console.post("/hooks/alertmanager", *alertmanager(status="resolved")).status == 200
        path.write_text(SECRET)
        assert console.post("/hooks/alertmanager", b"{}", {"authorization": f"Bearer {OLD_SECRET}"}).status == 401
        assert console.post("/hooks/alertmanager", *alertmanager()).status == 200
    assert record_of(redis_server) is not None


def test_slack_reads_what_is_proved(redis_server: RealServer, tmp_path: Path) -> None:
    """The channel reads how many pods have stopped, or that none is known in a scope with a typing error."""
    arm(redis_server)
    argv = [sys.executable, "-m", "skillbus", "run", "--every", "1h", "--", "true"]
    with serving(redis_server, tmp_path, **ALL) as console, process_pod(redis_server, tmp_path / "pod", argv):
        eventually(lambda: any(beat.state == "running" for beat in evidence_of(redis_server)), "the pod runs")
        typo = console.post("/hooks/slack", *slack("group:bacth token leaked"))
        assert "no pod is known in group 'bacth' of fleet 'prod'" in typo.json["text"]
        answer = console.post("/hooks/slack", *slack())
        assert "1 of 1 stopped" in answer.json["text"]
        assert "by alice via slack" in answer.json["text"]
        assert answer.json["response_type"] == "in_channel"

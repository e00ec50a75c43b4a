"""Orders over the API: what is done, what is said of it, and that a kill depends on nothing but Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from skillbus.clock import boottime_s
from skillbus.control.acl import AclUser, Role, acl_line
from skillbus.core.scope import Fleet
from tests.consoles import serving
from tests.integration.console.apis import TOKENS, Api, Events, api, write_tokens
from tests.pods import FAST, PROD, WatchedPod, eventually, own_server, record_of, skillbus
from tests.pods import environ_of as env_of

KILL = "/api/v1/kill"
HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x1b[2J\x00\u200b"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A console for tests that stop no more than a group of their own."""
    with api(tmp_path_factory.mktemp("shared")) as found:
        yield found


def test_a_kill_is_answered_at_once_and_proved_in_the_background(tmp_path: Path) -> None:
    """200 with what was done; the certificate is then live, and complete once the pod has stopped."""
    with api(tmp_path) as found, WatchedPod(found.server, tmp_path, **FAST) as pod:
        pod.until_works()
        found.until_sees(lambda seen: seen["counts"] == {"running": 1}, "the pod runs")
        answer = found.post(KILL, {"reason": "token leaked", "incident": "https://x.example/1"}, "operator")
        told = answer.json()
        assert answer.status_code == 200
        assert all(told[name] for name in ("is_recorded", "is_read_back", "is_first", "is_published", "is_audited"))
        record = record_of(found.server)
        assert record is not None
        assert (record.id, record.by, record.via, record.reason) == (told["id"], "operator", "http", "token leaked")
        pod.until_latched()
        story: dict[str, Any] = {}

        def is_proved() -> bool:
            story.update(found.get(f"/api/v1/{told['url']}", "viewer").json())
            return bool(story["certificate"] and story["certificate"]["is_complete"] and not story["is_under_way"])

        eventually(is_proved, "the certificate is complete")
        assert story["certificate"]["counts"]["stopped"] == 1
        assert story["certificate"]["ack_ms"]
        assert [entry["kind"] for entry in story["entries"]] == ["kill", "certificate"]


def test_a_kill_may_wait_for_its_proof(tmp_path: Path) -> None:
    """``wait_s``: the answer holds the certificate, and comes as soon as it is complete."""
    with api(tmp_path) as found, WatchedPod(found.server, tmp_path, **FAST) as pod:
        pod.until_works()
        told = found.post(KILL, {"wait_s": 20}).json()
        assert told["certificate"]["is_complete"]
        assert told["certificate"]["pods"][0]["proof"] == "stopped"


def test_a_second_kill_succeeds_and_shows_the_first(shared: Api) -> None:
    """200, not the first; both are audited."""
    first = shared.post(KILL, {"reason": "one", "group": "twice"}).json()
    again = shared.post(KILL, {"reason": "two", "group": "twice"})
    assert again.status_code == 200
    assert (again.json()["id"], again.json()["is_first"]) == (first["id"], False)
    assert again.json()["record"]["reason"] == "one"
    assert len(shared.audited("kill", scope="group:twice")) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"nonsense", 400),
        (b'{"reason": "cut', 400),
        (b"[]", 400),
        (b'"now"', 400),
        (b"\xff\xfe", 400),
        (b'{"raison": "typing error"}', 422),
        (b'{"reason": 7}', 422),
        (b'{"group": "a b"}', 422),
        (b'{"group": "eu", "pod": "one"}', 422),
        (b'{"wait_s": -1}', 422),
        (b'{"reason": "' + b"x" * 1024 * 1024 + b'"}', 413),
        (b"[" * 100_000, 400),
    ],
)
def test_what_is_no_order_stops_nobody(shared: Api, body: bytes, status: int) -> None:
    """Only the kill channel takes anything. The API says what is wrong, and there is no record."""
    kind = {"Content-Type": "application/json"}
    with shared.client(TOKENS["admin"]) as client:
        answer = client.post(KILL, content=body, headers=kind)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert client.post(KILL, content=iter([body[:7], body[7:]]), headers=kind).status_code == status
    assert record_of(shared.server) is None
    assert shared.get("/livez").status_code == 200


def test_a_hostile_reason_is_harmless_everywhere(shared: Api) -> None:
    """No control, bidi or format character leaves the console, in no answer and no event; HTML stays text."""
    with Events(shared) as events:
        events.until("snapshot")
        answer = shared.post(KILL, {"reason": HOSTILE + "x" * 9000, "incident": HOSTILE, "group": "hostile"})
        assert answer.status_code == 200
        events.until("audit", lambda entry: (entry["kind"], entry["scope"]) == ("kill", "group:hostile"))
        events.until("status", lambda told: "group:hostile" in [kill["scope"] for kill in told["kills"]])
        paths = ("status", "audit", f"kills/{answer.json()['id']}")
        texts = [answer.text, *(shared.get(f"/api/v1/{path}").text for path in paths), str(events.seen)]
    for text in texts:
        assert "script" in text
        assert not [c for c in "\u202e\x1b\x00\u200b" if c in text or repr(c)[1:-1] in text]


def test_a_request_that_is_sent_again_is_done_once(shared: Api) -> None:
    """The same key: the same answer and one order; another body: 422; another token has keys of its own."""
    key, one = {"Idempotency-Key": "k1"}, {"reason": "one", "group": "once"}
    sent = [shared.post(KILL, one, "admin", **key) for _ in range(3)]
    assert len({answer.text for answer in sent}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in sent] == [None, "true", "true"]
    assert shared.post(KILL, {**one, "reason": "two"}, "admin", **key).status_code == 422
    assert len(shared.audited("kill", scope="group:once")) == 1
    assert shared.post(KILL, one, "bot", **key).status_code == 200
    assert len(shared.audited("kill", scope="group:once")) == 2


def test_with_redis_down_it_says_in_time_what_was_not_done(tmp_path: Path) -> None:
    """503 within seconds: not recorded, not published, not audited. Once Redis is back the same order goes through."""
    with api(tmp_path) as found:
        found.server.kill()
        began_s = boottime_s()
        answer = found.post(KILL, {"reason": "now"}, **{"Idempotency-Key": "k"})
        assert boottime_s() - began_s < 10
        assert answer.status_code == 503
        assert answer.json()["not_done"] == ["recorded", "published", "audited"]
        assert "NOT stored" in answer.json()["detail"]
        assert found.get("/api/v1/audit").status_code == 503
        blind = found.until_sees(lambda seen: seen["word"] == "UNKNOWN", "the console says that it is blind")
        assert blind["blind"]["since_ms"] > 0
        found.server.start()
        assert found.post(KILL, {"reason": "now"}, **{"Idempotency-Key": "k"}).status_code == 200


def test_with_redis_frozen_it_claims_nothing(tmp_path: Path) -> None:
    """503 within seconds, and what was sent without an answer is neither called done nor not done."""
    with api(tmp_path) as found:
        found.server.freeze()
        try:
            began_s = boottime_s()
            answer = found.post(KILL, {"reason": "now"})
            assert boottime_s() - began_s < 12
            assert answer.status_code == 503
            told = answer.json()
            assert told["done"] == []
            assert told["unknown"] or told["not_done"] == ["recorded", "published", "audited"]
            assert found.get("/livez").status_code == 200
        finally:
            found.server.thaw()


def test_what_is_published_and_not_recorded_is_503_and_says_so(tmp_path: Path) -> None:
    """A server out of memory takes the message and no record: the pods stop, and the answer does not call it safe."""
    with api(tmp_path) as found, WatchedPod(found.server, tmp_path, **FAST) as pod:
        pod.until_works()
        found.server.cli("CONFIG", "SET", "maxmemory", "1")
        answer = found.post(KILL, {"reason": "now"})
        assert answer.status_code == 503
        told = answer.json()
        assert (told["is_recorded"], told["is_published"]) == (False, True)
        assert "NOT recorded" in told["sentence"]
        pod.until_latched()
        found.server.cli("CONFIG", "SET", "maxmemory", "0")


def test_a_console_that_dies_in_the_middle_has_stopped_the_fleet_nevertheless(tmp_path: Path) -> None:
    """SIGKILL while somebody waits for the proof: the record stands, and another console tells of it."""
    with api(tmp_path) as found, WatchedPod(found.server, tmp_path, lease_s=6.0, heartbeat_s=2.0) as pod:
        pod.until_works()
        found.server.cli("HSET", "skillbus:{prod}:pod:ghost", "x", _ghost(found.server.cli("TIME")))
        found.server.cli("ZADD", "skillbus:{prod}:roster", 1, "ghost")
        waiting = threading.Thread(target=_post_quietly, args=(found.console.url,))
        waiting.start()
        eventually(lambda: record_of(found.server) is not None, "it is recorded")
        found.console.process.kill()
        waiting.join()
        pod.until_latched()
        (tmp_path / "second").mkdir()
        with serving(found.server, tmp_path / "second", "--tokens", str(found.tokens)) as second:
            record = record_of(found.server)
            assert record is not None
            headers = {"Authorization": f"Bearer {TOKENS['viewer']}"}
            url = f"{second.url}/api/v1/kills/{record.id}"
            told = httpx.get(url, headers=headers, trust_env=False).json()
            assert [entry["kind"] for entry in told["entries"]] == ["kill"]
            assert not told["is_under_way"]


def _ghost(time: Any) -> str:
    """The evidence of a pod that cannot vouch: whoever waits for it waits long."""
    now_ms = int(time[0]) * 1000
    head = f'{{"incarnation":"x","state":"running","beat_at_ms":{now_ms},"started_at_ms":{now_ms - 1000}'
    return head + ',"vouched":false}'


def _post_quietly(url: str) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['admin']}"}
    with pytest.raises(httpx.HTTPError):
        httpx.post(url + KILL, json={"wait_s": 25}, headers=headers, timeout=30, trust_env=False)


def test_two_consoles_do_each_other_no_harm(tmp_path: Path) -> None:
    """A kill by one is seen by the other, its certificate too; there is one record, and one entry for the order."""
    (tmp_path / "second").mkdir()
    with (
        api(tmp_path) as found,
        serving(found.server, tmp_path / "second", "--tokens", str(found.tokens)) as second,
        WatchedPod(found.server, tmp_path, **FAST) as pod,
    ):
        pod.until_works()
        told = found.post(KILL, {"reason": "one", "wait_s": 20}).json()
        headers = {"Authorization": f"Bearer {TOKENS['viewer']}"}
        with httpx.Client(base_url=second.url, headers=headers, trust_env=False) as other:
            eventually(lambda: other.get("/api/v1/status").json()["word"] == "STOPPED", "the other one sees it")
            eventually(
                lambda: (other.get(f"/api/v1/{told['url']}").json()["certificate"] or {}).get("is_complete"),
                "the other one tells the certificate",
            )
        assert len(found.audited("kill")) == 1


def test_a_kill_given_elsewhere_is_told_too(tmp_path: Path) -> None:
    """By the command line: status, stream and story know it."""
    with api(tmp_path) as found, Events(found) as events, WatchedPod(found.server, tmp_path, **FAST) as pod:
        events.until("snapshot")
        pod.until_works()
        ran = skillbus("kill", "from a shell", "-o", "json", env=env_of(found.server))
        assert ran.code == 0
        _, ended = events.until("kill", lambda told: not told["is_under_way"])
        assert ended["id"] == ran.json["record"]["id"]
        assert found.get(f"/api/v1/kills/{ended['id'][:8]}").json()["certificate"]["is_complete"]


def test_a_kill_that_nobody_knows_is_not_found(shared: Api) -> None:
    """404, and 422 never: any text may be asked for."""
    for name in ("nobody", "x", "%00", "a" * 200):
        assert shared.get(f"/api/v1/kills/{name}").status_code == 404


# -- reset, drill, sync ------------------------------------------------------------------------------------------------


def test_a_reset_is_typed_out_by_an_admin(tmp_path: Path) -> None:
    """The wrong name is refused and lifts nothing; the right one lifts it, and says who still waits."""
    with api(tmp_path, SKILLBUS_HEARTBEAT_S="0.2") as found, WatchedPod(found.server, tmp_path, **FAST) as pod:
        pod.until_works()
        found.post(KILL, {"reason": "x", "wait_s": 20})
        for body in ({"confirm": "wrong", "reason": "r"}, {"confirm": "prod", "reason": " "}, {"confirm": "prod"}):
            assert found.post("/api/v1/reset", body).status_code == 422
        assert record_of(found.server) is not None
        answer = found.post("/api/v1/reset", {"confirm": "prod", "reason": "mended"})
        assert answer.status_code == 200
        told = answer.json()
        assert (told["waiting"], told["killed_again"], told["lifted"][0]["reason"]) == (["one"], None, "x")
        assert record_of(found.server) is None
        assert found.audited("reset", via="http", by="admin")
        assert found.post("/api/v1/reset", {"confirm": "prod", "reason": "again"}).status_code == 409


def test_the_consoles_own_credentials_can_stop_and_cannot_undo(tmp_path: Path) -> None:
    """With the ACL role ``console``: everything but a reset; that needs the admin's URL, and works with it."""
    fleet = Fleet("prod").name
    digest = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"  # of "password"
    with own_server(tmp_path) as server:
        for role in (Role.CONSOLE, Role.ADMIN):
            server.cli("ACL", "SETUSER", *acl_line(fleet, AclUser(role, role.value, digest)).split()[1:])
        tokens = write_tokens(tmp_path / "tokens")
        own = {"SKILLBUS_REDIS_USERNAME": "console", "SKILLBUS_REDIS_PASSWORD": "password"}
        own["SKILLBUS_HEARTBEAT_S"] = "0.2"
        with serving(server, tmp_path, "--tokens", str(tokens), **own) as console:
            found = Api(server, console, tokens)
            found.until_sees(lambda seen: seen["keeper"]["hears"] and seen["word"] == "RUNNING", "it sees and hears")
            assert found.post(KILL, {"reason": "x"}).json()["errors"] == []
            assert found.post("/api/v1/drill", {"timeout_s": 0.2}).status_code == 200
            refused = found.post("/api/v1/reset", {"confirm": "prod", "reason": "r"})
            assert refused.status_code == 503
            assert "refuses us" in refused.json()["detail"]
            assert record_of(server) is not None
        admin = server.url.replace("redis://", "redis://admin:password@")
        with serving(
            server, tmp_path, "--tokens", str(tokens), SKILLBUS_CONSOLE_ADMIN_REDIS_URL=admin, **own
        ) as console:
            found = Api(server, console, tokens)
            assert found.post("/api/v1/reset", {"confirm": "prod", "reason": "r"}).status_code == 200
            assert record_of(server) is None


def test_a_drill_and_a_sync_tell_who_answered(tmp_path: Path) -> None:
    """Each is audited as of this console; a killed fleet is not asked to sync."""
    with api(tmp_path) as found, WatchedPod(found.server, tmp_path, **FAST) as pod:
        pod.until_works()
        drill = found.post("/api/v1/drill", {"timeout_s": 10}, "operator").json()
        assert (drill["is_good"], drill["asked_count"], drill["pods"][0]["pod"]) == (True, 1, "one")
        assert found.audited("drill-result", via="http", by="operator")
        found.post(KILL, {})
        assert found.post("/api/v1/sync", {"timeout_s": 5}, "operator").status_code == 409


def test_the_pods_are_paged_and_filtered(tmp_path: Path) -> None:
    """Stragglers first; a page has at most its limit, and says how many there are."""
    with api(tmp_path) as found:
        for number in range(30):
            found.server.cli("ZADD", "skillbus:{prod}:roster", 1, f"pod-{number:02}")
        with WatchedPod(found.server, tmp_path, groups=(PROD.name,), **FAST) as pod:
            pod.until_works()
            found.until_sees(lambda seen: seen["counts"] == {"running": 1, "lost": 30}, "every pod")
            page = found.get("/api/v1/pods", params={"limit": 10, "offset": 25}).json()
            assert (page["total_count"], len(page["pods"])) == (31, 6)
            row = dict(zip(page["columns"], page["pods"][0], strict=True))
            assert (row["id"], row["word"]) == ("pod-24", "lost")
            only = found.get("/api/v1/pods", params={"word": "running"}).json()["pods"]
            assert [one[0] for one in only] == ["one"]
            assert found.get("/api/v1/pods", params={"q": "pod-1"}).json()["total_count"] == 10
            assert found.get("/api/v1/pods", params={"group": "prod"}).json()["total_count"] == 1


def test_the_audit_is_paged_to_its_end_without_a_gap(tmp_path: Path) -> None:
    """Page by page, every entry once."""
    with api(tmp_path) as found:
        for number in range(25):
            found.server.cli("XADD", "skillbus:{prod}:audit", "*", "kind", "sync", "by", f"n{number}")
        seen: list[str] = []
        before_ms = 0
        while True:
            page = found.get("/api/v1/audit", params={"limit": 7, "before_ms": before_ms, "kind": "sync"}).json()
            seen += [entry["by"] for entry in page["entries"]]
            before_ms = page["before_ms"]
            if not before_ms:
                break
        assert seen == [f"n{number}" for number in reversed(range(25))]

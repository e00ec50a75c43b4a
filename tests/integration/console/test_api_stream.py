"""The stream of events: what it sends, in which order, what is replayed, and that it says when it is blind."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from tests.integration.console.apis import TOKENS, Events, api
from tests.pods import FAST, WatchedPod, eventually

KILL = "/api/v1/kill"


def test_it_begins_with_a_snapshot_and_goes_on_with_what_changes(tmp_path: Path) -> None:
    """Pods that appear, a kill and its end, the audit: each as an event, with nobody asking."""
    with api(tmp_path) as found, Events(found) as events:
        _, first = events.until("snapshot")
        assert events.seen[0][0] == "snapshot"
        assert (first["status"]["word"], first["pods"]) == ("RUNNING", [])
        with WatchedPod(found.server, tmp_path, **FAST) as pod:
            pod.until_works()
            place = first["columns"].index("word")
            events.until("pods", lambda data: [row[place] for row in data["changed"]] == ["running"])
            told = found.post(KILL, {"reason": "now"}).json()
            _, ended = events.until("kill", lambda data: not data["is_under_way"])
            assert (ended["id"], ended["certificate"]["counts"]["stopped"]) == (told["id"], 1)
            events.until("pods", lambda data: [row[place] for row in data["changed"]] == ["stopped"])
            events.until("status", lambda data: data["word"] == "STOPPED")
            assert events.until("audit", lambda data: data["kind"] == "kill")[0]


def test_what_was_missed_of_the_audit_is_replayed(tmp_path: Path) -> None:
    """With ``Last-Event-ID``: what came while nobody listened comes behind the snapshot, nothing is left out."""
    with api(tmp_path) as found:
        with Events(found) as events:
            events.until("snapshot")
            found.post(KILL, {"group": "a"})
            last, _ = events.until("audit", lambda data: data["kind"] == "kill")
        for group in ("b", "c"):
            found.post(KILL, {"group": group})
        with Events(found, last_event_id=last) as events:
            events.until("audit", lambda data: data["scope"] == "group:b" and data["kind"] == "kill")
            events.until("audit", lambda data: data["scope"] == "group:c" and data["kind"] == "kill")
            assert events.seen[0][0] == "snapshot"
        for nonsense in ("x", "-", "9" * 60, "\u00b2-0"):
            token = f"Bearer {TOKENS['viewer']}".encode()
            headers = [(b"Authorization", token), (b"Last-Event-ID", nonsense.encode())]
            with httpx.stream("GET", found.console.url + "/api/v1/events", headers=headers, trust_env=False) as answer:
                assert answer.status_code == 200


def test_when_it_is_blind_it_says_so_and_the_figures_stay(tmp_path: Path) -> None:
    """Redis gone: UNKNOWN, since when, the last figures; back: it sees again by itself."""
    with api(tmp_path) as found, Events(found) as events, WatchedPod(found.server, tmp_path, **FAST) as pod:
        pod.until_works()
        events.until("status", lambda data: data["counts"] == {"running": 1})
        found.server.kill()
        _, blind = events.until("status", lambda data: data["word"] == "UNKNOWN")
        assert blind["counts"] == {"running": 1}
        assert blind["blind"]["since_ms"] > 0
        assert blind["blind"]["seen_at_ms"] > 0
        events.seen.clear()
        found.server.start()
        events.until("status", lambda data: data["word"] == "RUNNING" and data["blind"] is None)


def test_a_frozen_redis_is_noticed_within_seconds(tmp_path: Path) -> None:
    """SIGSTOP breaks no connection: the look's own deadline does."""
    with api(tmp_path) as found, Events(found) as events:
        events.until("snapshot")
        found.server.freeze()
        try:
            events.until("status", lambda data: data["word"] == "UNKNOWN")
        finally:
            found.server.thaw()


def test_an_orderly_end_ends_the_streams(tmp_path: Path) -> None:
    """SIGTERM: every stream is closed, and the process ends with 0 long before anybody loses patience."""
    with api(tmp_path) as found, Events(found) as one, Events(found, "admin") as two:
        for events in (one, two):
            events.until("snapshot")
        found.console.process.send_signal(signal.SIGTERM)
        assert found.console.process.wait(10) == 0
        assert one.has_ended.wait(5)
        assert two.has_ended.wait(5)


def test_who_does_not_read_does_no_harm(tmp_path: Path) -> None:
    """Fifty streams that nobody reads: kills and reads go on at once."""
    with api(tmp_path) as found, httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=100)) as client:
        headers = {"Authorization": f"Bearer {TOKENS['viewer']}"}
        request = client.build_request("GET", found.console.url + "/api/v1/events", headers=headers)
        deaf = [client.send(request, stream=True) for _ in range(50)]
        try:
            eventually(lambda: "streams 50" in found.get("/metrics").text, "all are open")
            assert found.post(KILL, {"reason": "now"}).status_code == 200
        finally:
            for answer in deaf:
                answer.close()
        eventually(lambda: "streams 0" in found.get("/metrics").text, "a stream that is left is forgotten")

"""``skillbus reset`` and ``skillbus arm`` as real processes: the dangerous direction is deliberate, and well told."""

from __future__ import annotations

import threading
from pathlib import Path

from skillbus.core.latch import State
from tests.integration.hostile import HOSTILE, is_harmless
from tests.pods import (
    FLEET,
    GROUP,
    PROD,
    WatchedPod,
    arm,
    ended,
    environ_of,
    eventually,
    evidence_of,
    launched,
    order,
    record_of,
    skillbus,
)
from tests.servers import RawClient, RealServer

WHY = ("--confirm", "prod", "--reason", "the token is revoked")


def environ(server: RealServer) -> dict[str, str]:
    """With a heartbeat so short that reset need not watch for long."""
    return environ_of(server, SKILLBUS_HEARTBEAT_S="0.1")


def audited(server: RealServer, kind: str) -> list[dict[str, str]]:
    """The entries of one kind in the audit stream."""
    rows = server.cli("XRANGE", PROD.audit_key, "-", "+")
    assert isinstance(rows, list)
    found = []
    for row in rows:
        assert isinstance(row, list)
        assert isinstance(row[1], list)
        words = [word.decode() for word in row[1] if isinstance(word, bytes)]
        found.append(dict(zip(words[::2], words[1::2], strict=True)))
    return [entry for entry in found if entry["kind"] == kind]


def test_without_the_fleets_name_and_a_reason_nothing_is_lifted(redis_server: RealServer) -> None:
    """Exit 2, one sentence that says what to add; record and epoch stay."""
    arm(redis_server)
    order(redis_server)
    wrong: list[tuple[tuple[str, ...], str]] = [
        ((), "say --confirm prod"),
        (("--confirm", "Prod", "--reason", "x"), "say --confirm prod"),
        (("--confirm", "prod"), 'say --reason "…"'),
        (("--confirm", "prod", "--reason", "  "), 'say --reason "…"'),
    ]
    running = [(launched("reset", *words, env=environ(redis_server)), said) for words, said in wrong]
    for process, said in running:
        told = ended(process)
        assert (told.code, told.out, said in told.err) == (2, "", True), told
        assert len(told.err.splitlines()) == 1
    assert record_of(redis_server) is not None
    assert redis_server.cli("GET", FLEET.epoch_key) == b"0"


def test_a_reset_lifts_one_scope_and_names_what_it_lifts(redis_server: RealServer, tmp_path: Path) -> None:
    """Exit 0; who waits for a restart is named; the group's kill stands; a second reset finds nothing (1)."""
    arm(redis_server)
    env = environ(redis_server)
    with WatchedPod(redis_server, tmp_path, groups=("eu",), heartbeat_s=0.2, lease_s=2) as one:
        one.until_works()
        assert skillbus("kill", "token leaked", "--by", "oncall", "--no-wait", env=env).code == 0
        order(redis_server, GROUP)
        one.until(lambda: len(one.pod.switch.memory.obeyed) == 2, "it obeys both")
        eventually(lambda: evidence_of(redis_server)[0].state is State.STOPPED, "it says so")
        told = skillbus("reset", *WHY, "--by", "admin", env=env)
        assert told.code == 0, told
        assert 'lifted: "token leaked" by oncall via cli\n' in told.out
        assert "fleet 'prod' is reset (epoch 17" in told.out
        assert "1 pods are still stopped and wait for a restart: one" in told.out
        assert (record_of(redis_server), record_of(redis_server, GROUP) is None) == (None, False)
        assert one.state is State.STOPPED
        again = launched("reset", *WHY, env=env)
        forced = ended(launched("reset", *WHY, "--force", "-o", "json", env=env))
        refused = ended(again)
    assert refused.code == 1, refused
    assert "fleet 'prod' is not killed: nothing to reset (--force" in refused.err
    assert [entry["kind"] for entry in audited(redis_server, "reset-asked")] == ["reset-asked"] * 2
    assert (forced.code, forced.json["lifted"], forced.json["killed_again"]) == (0, [], None)
    resets = audited(redis_server, "reset")
    assert [entry["reason"] for entry in resets] == ["the token is revoked"] * 2
    assert resets[0]["by"] == "admin"


def test_force_on_a_healthy_fleet_is_refused(redis_server: RealServer, tmp_path: Path) -> None:
    """It would stop every pod (1, and they work on), unless that is meant; an unarmed fleet is not armed by it."""
    env = environ(redis_server)
    unarmed = skillbus("reset", *WHY, "--force", env=env)
    assert (unarmed.code, "fleet 'prod' is not armed: run skillbus arm first" in unarmed.err) == (1, True), unarmed
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, heartbeat_s=0.2, lease_s=2) as one:
        one.until_works()
        eventually(lambda: evidence_of(redis_server), "it left evidence")
        refused = skillbus("reset", *WHY, "--force", env=env)
        assert (refused.code, "--even-running" in refused.err) == (1, True), refused
        one.until_works()
        assert redis_server.cli("GET", FLEET.epoch_key) == b"0"
        assert skillbus("reset", *WHY, "--force", "--even-running", env=env).code == 0
        one.until_latched()


def test_somebody_who_stopped_it_again_just_now_is_not_overruled_by_accident(redis_server: RealServer) -> None:
    """A further order within the last minute refuses the reset (1) and is named; --even-recent goes ahead."""
    arm(redis_server)
    env = environ(redis_server)
    for who in ("first", "second"):
        assert skillbus("kill", f"says {who}", "--by", who, "--no-wait", env=env).code == 0
    refused = skillbus("reset", *WHY, env=env)
    assert refused.code == 1, refused
    assert 'by second ("says second")' in refused.err
    assert "--even-recent" in refused.err
    assert record_of(redis_server) is not None
    assert audited(redis_server, "reset") == []
    lifted = skillbus("reset", *WHY, "--even-recent", "-o", "json", env=env)
    assert lifted.code == 0, lifted
    assert [one["by"] for one in lifted.json["lifted"]] == ["first", "second"]
    assert record_of(redis_server) is None


def test_killed_again_is_reported(redis_server: RealServer) -> None:
    """A record that comes back while reset watches (some pod heard an old message late) is an error that names it."""
    arm(redis_server)
    order(redis_server, record_id="r1")

    def come_back() -> None:
        eventually(lambda: record_of(redis_server) is None, "it is reset")
        order(redis_server, reason="heard late", record_id="r2")

    late = threading.Thread(target=come_back)
    late.start()
    told = skillbus("reset", *WHY, env=environ_of(redis_server))
    late.join()
    assert told.code == 1, told
    assert 'KILLED AGAIN: "heard late" by test via cli' in told.out
    assert "is reset" not in told.out


def test_hostile_words_of_lifted_orders_harm_nobody(redis_server: RealServer) -> None:
    """What reset prints of the orders that it lifts, refuses for, or finds again, is harmless."""
    arm(redis_server)
    env = environ(redis_server)
    for _ in range(2):
        assert skillbus("kill", HOSTILE, "--by", HOSTILE, "--no-wait", env=env).code == 0
    refused = skillbus("reset", *WHY, env=env)
    lifted = skillbus("reset", "--confirm", "prod", "--reason", HOSTILE, "--even-recent", env=env)
    assert (refused.code, lifted.code) == (1, 0)
    is_harmless(refused)
    is_harmless(lifted)
    assert lifted.out.count("lifted: ") == 2
    assert "[bold]markup[/bold]" in lifted.out


def test_arm_twice(redis_server: RealServer) -> None:
    """Arming writes epoch 0 once; a second time changes nothing and says so; it lifts no kill."""
    env = environ(redis_server)
    first = skillbus("arm", env=env)
    assert (first.code, first.out) == (0, "fleet 'prod' is armed\n")
    assert redis_server.cli("GET", FLEET.epoch_key) == b"0"
    redis_server.cli("SET", FLEET.epoch_key, 7)
    order(redis_server)
    second = launched("arm", env=env)
    as_json = ended(launched("arm", "-o", "json", env=env))
    assert (as_json.code, as_json.json["new"], as_json.json["armed"]) == (0, False, True)
    told = ended(second)
    assert (told.code, told.out) == (0, "fleet 'prod' was armed before\n")
    assert redis_server.cli("GET", FLEET.epoch_key) == b"7"
    assert record_of(redis_server) is not None


def test_without_redis_nothing_is_said_to_be_done() -> None:
    """reset and arm without an answer: exit 4, one sentence."""
    env = environ_of("redis://127.0.0.1:1/0")
    arming = launched("arm", env=env)
    resetting = launched("reset", *WHY, "-o", "json", env=env)
    armed, reset = ended(arming), ended(resetting)
    assert (armed.code, armed.out, len(armed.err.splitlines())) == (4, "", 1)
    assert "no connection to redis://127.0.0.1:1/0" in armed.err
    assert (reset.code, reset.json["exit_code"]) == (4, 4)


def test_a_raw_order_to_a_killed_scope_is_not_lost(redis_server: RealServer, tmp_path: Path) -> None:
    """Pods that hear it keep it; a reset refuses while it is young, and names it once, whoever heard it."""
    arm(redis_server)
    one = WatchedPod(redis_server, tmp_path, "one", heartbeat_s=0.1)
    two = WatchedPod(redis_server, tmp_path, "two", heartbeat_s=0.1)
    with one, two:
        order(redis_server)
        for pod in (one, two):
            pod.until_latched()
        for _ in range(3):
            redis_server.publish(FLEET.kill_channel, "still wrong")

        def kept(pod_id: str) -> bool:
            return any(line.times == 3 for beat in evidence_of(redis_server, pod_id) for line in beat.further)

        eventually(lambda: kept("one") and kept("two"), "both keep it")
        refused = skillbus("reset", *WHY, env=environ(redis_server))
        assert refused.code == 1
        assert 'by somebody ("still wrong")' in refused.err
        told = skillbus("history", "--kind", "heard", env=environ(redis_server)).out
        assert "still wrong" in told
        done = skillbus("reset", *WHY, "--even-recent", "-o", "json", env=environ(redis_server))
        lifted = [one for one in done.json["lifted"] if one["reason"] == "still wrong"]
        assert [(one["times"], one["source"]) for one in lifted] == [(3, "pods")]


def test_a_flood_of_raw_orders_is_no_storm(redis_server: RealServer, tmp_path: Path) -> None:
    """Ten thousand messages: eight lines and a number in the evidence, no heartbeat more than the clock asks for."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path) as pod:
        order(redis_server)
        pod.until_latched()
        with RawClient(redis_server.port) as client:
            for count in range(10_000):
                client.send("PUBLISH", FLEET.kill_channel, f"no {count}")
            for _ in range(10_000):
                client.read()

        def counted() -> int:
            return max(b.further_left_out_count + sum(x.times for x in b.further) for b in evidence_of(redis_server))

        eventually(lambda: counted() == 10_000, "all are counted")
        (beat,) = evidence_of(redis_server)
        assert [line.reason for line in beat.further] == [f"no {count}" for count in range(9992, 10_000)]
        assert pod.state is State.STOPPED

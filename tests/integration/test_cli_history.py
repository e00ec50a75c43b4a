"""``skillbus history`` as a real process: the audit for people and for programs, and a certificate read again."""

from __future__ import annotations

import json
from pathlib import Path

from skillbus.core.latch import State
from tests.integration.hostile import HOSTILE, is_harmless
from tests.pods import (
    GROUP,
    PROD,
    WatchedPod,
    arm,
    ended,
    environ_of,
    eventually,
    evidence_of,
    launched,
    record_of,
    skillbus,
)
from tests.servers import RealServer

WHY = ("--confirm", "prod", "--reason", "revoked")


def test_a_certificate_is_read_again_as_it_was_told(redis_server: RealServer, tmp_path: Path) -> None:
    """Every line of the kill's own proof, and when it was written and by whom; in JSON the same numbers."""
    arm(redis_server)
    env = environ_of(redis_server, SKILLBUS_HEARTBEAT_S="0.1")
    with WatchedPod(redis_server, tmp_path) as one, WatchedPod(redis_server, tmp_path, "two") as two:
        one.until_works()
        two.until_works()
        killed = skillbus("kill", "token leaked", "--by", "oncall", "-o", "json", env=env)
        record = record_of(redis_server)
        assert (killed.code, record is not None) == (0, True), killed
        assert record is not None
        table = skillbus("history", record.id, env=env)
        as_json = skillbus("history", record.id[:8], "-o", "json", env=env)
    proof = killed.json["certificate"]
    assert table.code == 0, table
    assert "certificate of fleet 'prod', written at 20" in table.out
    assert " by oncall from " in table.out
    for said in (proof["sentence"], "from order to quiet: p50 ", f"held {proof['held']['sentence']}", '"token leaked"'):
        assert said in table.out
    assert "NOT COMPLETE" not in table.out
    again = as_json.json["certificate"]
    same = ("sentence", "complete", "stopped", "p50_s", "p99_s", "max_s", "held", "order_ms", "interrupted")
    assert {name: again[name] for name in same} == {name: proof[name] for name in same}
    assert [(line["pod_id"], line["proof"]) for line in again["pods"]] == [("one", "stopped"), ("two", "stopped")]
    assert [entry["kind"] for entry in as_json.json["entries"]] == ["kill", "certificate"]


def test_everything_is_told_newest_last_and_can_be_filtered(redis_server: RealServer) -> None:
    """Orders, refusals, resets, arming: who, why, via what, from where; as a table, as JSON, and a line each."""
    env = environ_of(redis_server, SKILLBUS_HEARTBEAT_S="0.05")
    for words in (
        ("arm", "--by", "root"),
        ("reset", *WHY, "--by", "hasty"),
        ("kill", "leak", "--by", "oncall", "--no-wait"),
        ("kill", "leak too", "--group", "eu", "--by", "second", "--no-wait"),
        ("reset", *WHY, "--by", "root"),
    ):
        skillbus(*words, env=env)
    redis_server.cli(
        "XADD", PROD.bot_audit_key("slack"), "*", "kind", "kill", "scope", "fleet", "record", "b1", "by", "bo"
    )
    wanted = {
        "all": ("-o", "jsonl"),
        "kills": ("--kind", "kill", "--kind", "refused", "-o", "json"),
        "group": ("--scope", "group:eu", "-o", "json"),
        "root": ("--by", "ROOT", "--since", "1h", "-o", "json"),
        "two": ("--limit", "2", "-o", "jsonl"),
        "table": (),
        "none": ("--since", "0s", "--kind", "drill"),
    }
    running = {name: launched("history", *words, env=env) for name, words in wanted.items()}
    told = {name: ended(process) for name, process in running.items()}
    assert {name: ran.code for name, ran in told.items()} == dict.fromkeys(wanted, 0)
    lines = [json.loads(line) for line in told["all"].out.splitlines()]
    assert [(line["kind"], line["by"]) for line in lines] == [
        ("arm", "root"),
        ("refused", "hasty"),
        ("kill", "oncall"),
        ("kill", "second"),
        ("reset-asked", "root"),
        ("reset", "root"),
        ("kill", "bo"),
    ]
    assert {line["schema_version"] for line in lines} == {1}
    assert {line["source"] for line in lines} == {"control", "bot:slack"}
    assert all("@" in line["from"] for line in lines[:-1])
    assert (lines[1]["what"], lines[1]["reason"]) == ("reset", "revoked")
    assert "not killed" in lines[1]["why"]
    assert lines[5]["lifted"] == lines[2]["record"]
    assert [entry["by"] for entry in told["kills"].json["entries"]] == ["hasty", "oncall", "second", "bo"]
    assert [entry["by"] for entry in told["group"].json["entries"]] == ["second"]
    assert [entry["kind"] for entry in told["root"].json["entries"]] == ["arm", "reset-asked", "reset"]
    assert [json.loads(line)["by"] for line in told["two"].out.splitlines()] == ["root", "bo"]
    assert [word in told["table"].out for word in ("hasty", '"leak too"', "group:eu", "(bot:slack)")] == [True] * 4
    assert told["none"].out == "nothing of that is in the audit\n"


def test_a_raw_publish_shows_up_though_nobody_audited_it(redis_server: RealServer, tmp_path: Path) -> None:
    """From the record that the pods wrote, with who heard it, and from their evidence; found by its id too."""
    arm(redis_server)
    env = environ_of(redis_server)
    with WatchedPod(redis_server, tmp_path, groups=("eu",)) as one:
        one.until_works()
        redis_server.publish(GROUP.kill_channel, "by hand")
        one.until_latched()
        eventually(lambda: record_of(redis_server, GROUP), "it is recorded")
        eventually(lambda: evidence_of(redis_server)[0].state is State.STOPPED, "it says so")
        record = record_of(redis_server, GROUP)
        assert record is not None
        told = skillbus("history", "-o", "json", env=env)
        one_kill = skillbus("history", record.id, env=env)
    (entry,) = told.json["entries"]
    assert (entry["kind"], entry["source"], entry["scope"], entry["reason"]) == (
        "heard",
        "record",
        "group:eu",
        "by hand",
    )
    assert (entry["heard_by"], entry["pods"], entry["via"]) == ("one", "one", "pubsub")
    assert one_kill.code == 0, one_kill
    assert "nobody audited it" in one_kill.out
    assert "no certificate is kept of it" in one_kill.out


def test_hostile_entries_harm_nobody(redis_server: RealServer) -> None:
    """A bot's stream is a stranger's: its words, ids and certificates."""
    arm(redis_server)
    env = environ_of(redis_server)
    key = PROD.bot_audit_key("evil")
    words = ("kind", "certificate", "record", "abcdefgh", "by", HOSTILE, "reason", HOSTILE, "sentence", HOSTILE)
    proof = {"order_ms": 0, "times_s": [1, 1, 1], "where": HOSTILE, "sentence": HOSTILE, "complete": True}
    proof |= {"interrupted": False, "counts": {HOSTILE: 1}, "held": None, "left_out": 0, "histogram": []}
    proof |= {"record": {"reason": HOSTILE}, "pods": [[HOSTILE, "i", "u", 9**14, HOSTILE]]}
    redis_server.cli("XADD", key, "18446744073709551615-1", *words, "certificate", json.dumps(proof), HOSTILE, HOSTILE)
    for more in ((), ("-o", "json"), ("-o", "jsonl"), ("abcdefgh",), ("abcdefgh", "-o", "json")):
        told = skillbus("history", *more, env=env)
        assert told.code == 0, told
        is_harmless(told)


def test_wrong_words(redis_server: RealServer) -> None:
    """Usage errors (2) and an id that nobody knows (1): one sentence with the next step."""
    env = environ_of(redis_server)
    wrong = {
        "there is no kind 'kills'": (2, ["--kind", "kills"]),
        "'eu' is no scope: say fleet, group:NAME or pod:ID": (2, ["--scope", "eu"]),
        "--since: 'soon' is no duration": (2, ["--since", "soon"]),
        "no kill 'nobody' is known in fleet 'prod': see skillbus history": (1, ["nobody"]),
    }
    running = {said: (code, launched("history", *words, env=env)) for said, (code, words) in wrong.items()}
    for said, (code, process) in running.items():
        told = ended(process)
        assert (told.code, said in told.err) == (code, True), told
        assert len(told.err.splitlines()) == 1

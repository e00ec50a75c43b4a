"""``skillbus kill`` as a real process against a real server: what is done, what is said, and the exit code."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from skillbus.control.acl import AclUser, Role, acl_line
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import State
from tests.integration.hostile import HOSTILE, is_harmless
from tests.pods import (
    FLEET,
    GROUP,
    PROD,
    Ran,
    WatchedPod,
    arm,
    ended,
    environ_of,
    eventually,
    freeze,
    launched,
    own_server,
    record_of,
    reset,
    skillbus,
    subscriber_ids,
)
from tests.servers import RealServer


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RealServer]:
    """A server to mistreat."""
    with own_server(tmp_path) as server:
        yield server


def test_the_first_kill_is_proved_and_the_second_shows_the_first(redis_server: RealServer, tmp_path: Path) -> None:
    """Exit 0 once every pod is observed quiet; a further order succeeds, is audited, and shows the first record."""
    arm(redis_server)
    env = environ_of(redis_server)
    with WatchedPod(redis_server, tmp_path) as one, WatchedPod(redis_server, tmp_path, "two") as two:
        one.until_works()
        two.until_works()
        first = skillbus("kill", "token leaked", "--by", "oncall", "--incident", "https://example.com/7", env=env)
        assert first.code == 0, first
        assert "recorded: fleet 'prod' is killed: \"token leaked\" by oncall via cli at 20" in first.out
        assert "2 of 2 stopped in " in first.out
        assert first.err == ""
        assert {one.state, two.state} == {State.STOPPED}
        second = skillbus("kill", "me too", "--by", "second", "-o", "json", env=env)
    record = record_of(redis_server)
    assert record is not None
    assert (record.reason, record.by, record.via, record.incident) == (
        "token leaked",
        "oncall",
        "cli",
        "https://example.com/7",
    )
    assert second.code == 0, second
    told = second.json
    assert (told["recorded"], told["first"], told["record"]["id"]) == (True, False, record.id)
    assert (told["published"], told["audited"], told["errors"]) == (True, True, [])
    assert (told["certificate"]["stopped"], told["certificate"]["complete"]) == (2, True)
    assert redis_server.cli("XLEN", PROD.audit_key) == 4, "each order, and each certificate"
    assert first.out.splitlines()[-1] == f"kept: skillbus history {record.id}"
    assert "held on the master alone" in first.out


def test_a_kill_of_a_group_or_pod_stops_no_other(redis_server: RealServer, tmp_path: Path) -> None:
    """--group reaches its members, --pod one pod; everybody else works on, and is not expected to answer."""
    arm(redis_server)
    env = environ_of(redis_server)
    pods = {
        "one": WatchedPod(redis_server, tmp_path, "one", groups=("eu",)),
        "two": WatchedPod(redis_server, tmp_path, "two", groups=("us",)),
        "three": WatchedPod(redis_server, tmp_path, "three", groups=("us",)),
    }
    with pods["one"], pods["two"], pods["three"]:
        for pod in pods.values():
            pod.until_works()
        group = skillbus("kill", "--group", "eu", env=env)
        assert (group.code, pods["one"].state) == (0, State.STOPPED), group
        assert "1 of 1 stopped" in group.out
        assert "group 'eu' of fleet 'prod' is killed: no reason given" in group.out
        pods["two"].until_works()
        single = skillbus("kill", "--pod", "two", "-o", "json", env=env)
        assert (single.code, pods["two"].state) == (0, State.STOPPED), single
        assert [line["pod_id"] for line in single.json["certificate"]["pods"]] == ["two"]
        pods["three"].until_works()
    assert record_of(redis_server) is None
    assert record_of(redis_server, GROUP) is not None
    assert record_of(redis_server, PROD.pod("two")) is not None


def test_dry_run_and_no_wait(redis_server: RealServer, tmp_path: Path) -> None:
    """--dry-run names whom it would stop and stops nobody; --no-wait gives the order and proves nothing."""
    arm(redis_server)
    env = environ_of(redis_server)
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        eventually(lambda: redis_server.cli("HLEN", PROD.pod_key("one")), "it left evidence")
        dry = launched("kill", "--dry-run", env=env)
        dry_json = ended(launched("kill", "--dry-run", "-o", "json", env=env))
        told = ended(dry)
        assert (told.code, told.out) == (0, "would stop 1 pods of fleet 'prod': one\n")
        assert (dry_json.code, dry_json.json["would_stop"], dry_json.json["killed"]) == (0, ["one"], False)
        one.until_works()
        assert record_of(redis_server) is None
        assert redis_server.cli("EXISTS", PROD.audit_key) == 0
        given = skillbus("kill", "now", "--no-wait", "-o", "json", env=env)
        assert (given.code, given.json["recorded"], given.json["certificate"]) == (0, True, None)
        assert (given.json["replicas"], given.json["kept"]) == (0, False)
        one.until_latched()


def test_what_is_not_proved_is_not_called_stopped(redis_server: RealServer, tmp_path: Path) -> None:
    """Too few replicas, or no pod known (the fleets that are there are named): exit 5, and the record stands."""
    arm(redis_server)
    redis_server.cli("SETNX", "skillbus:{staging}:epoch", 0)
    redis_server.cli("ZADD", "skillbus:{staging}:roster", 1, "pod-1", 1, "pod-2")
    env = environ_of(redis_server)
    nobody = skillbus("kill", env=env)
    assert nobody.code == 5, nobody
    assert "recorded, but no pod is known in fleet 'prod'; fleets on this Redis: prod (0), staging (2)" in nobody.out
    assert nobody.out.count("recorded") == 1, "said once"
    assert record_of(redis_server) is not None
    reset(redis_server)
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        few = skillbus("kill", "--replicas", "1", "--timeout", "3s", env=env)
    assert few.code == 5, few
    assert "held by 0 replicas (1 wanted)" in few.out
    assert "1 of 1 stopped" in few.out


def test_redis_is_down_and_i_must_kill(own: RealServer) -> None:
    """Exit 4 after --timeout, with what happens to the pods what is not stored; --until-recorded keeps trying."""
    env = environ_of(own)
    own.kill()
    patient = launched("kill", "the token", "--until-recorded", "--timeout", "100ms", "--no-wait", env=env)
    plain = launched("kill", "--timeout", "300ms", env=env)
    as_json = ended(launched("kill", "--timeout", "300ms", "-o", "json", env=env))
    told = ended(plain)
    assert told.code == 4, told
    assert told.out == ""
    assert "pods hold once their lease runs out; the order is NOT stored" in told.err
    assert f"127.0.0.1:{own.port}" in told.err
    assert len(told.err.splitlines()) == 1
    assert as_json.code == 4
    assert "NOT stored" in as_json.json["error"]
    assert patient.poll() is None, "it gave up"
    own.start(empty=True)
    recorded = ended(patient)
    assert recorded.code == 0, recorded
    record = record_of(own)
    assert record is not None
    assert record.reason == "the token"


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_hostile_reason_kills_and_harms_nobody(redis_server: RealServer, tmp_path: Path, output: str) -> None:
    """Escapes, line ends, bidi marks and markup in a reason reach neither terminal nor log, and the kill works."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        told = skillbus("kill", HOSTILE, "--by", HOSTILE, "-o", output, env=environ_of(redis_server))
    assert told.code == 0, told
    is_harmless(told)
    assert "[bold]markup[/bold] [/nonsense]" in told.out
    if output == "json":
        assert told.json["record"]["reason"] == HOSTILE


def test_any_bytes_are_a_reason(redis_server: RealServer) -> None:
    """A reason that is not UTF-8 (another terminal's encoding), or very long, is no reason not to kill."""
    env = environ_of(redis_server)
    first = launched("kill", "--no-wait", b"caf\xe9 \xff\xfe".decode("utf-8", "surrogateescape"), env=env)
    assert ended(first).code == 0
    record = record_of(redis_server)
    assert record is not None
    assert record.reason.startswith("caf")
    reset(redis_server)
    ascii_only = skillbus("kill", "--no-wait", "café", env=env | {"PYTHONIOENCODING": "ascii"})
    assert (ascii_only.code, '"caf?"' in ascii_only.out) == (0, True), ascii_only
    reset(redis_server)
    long = skillbus("kill", "--no-wait", "--incident", "http://x/" + "i" * 5000, "x" * 100_000, env=env)
    assert long.code == 0, long
    assert redis_server.cli("STRLEN", FLEET.killed_key) in range(1, 1025)


def test_a_wrong_word_stops_nobody_and_is_named(redis_server: RealServer) -> None:
    """Usage errors: exit 2, one sentence, nothing ordered."""
    wrong = {
        "'soon' is no duration": ["--timeout", "soon"],
        "exclude each other": ["--group", "a", "--pod", "b"],
        "cannot be the name of a group": ["--group", "no such/name"],
        "cannot be the name of a fleet": ["--fleet", "a b"],
    }
    running = {said: launched("kill", *words, env=environ_of(redis_server)) for said, words in wrong.items()}
    for said, process in running.items():
        told = ended(process)
        assert (told.code, said in told.err) == (2, True), told
        assert len(told.err.splitlines()) == 1
    assert redis_server.cli("DBSIZE") == 0


def test_refused_credentials_are_said(own: RealServer) -> None:
    """A wrong password: exit 4 with what to check, and the password is not shown."""
    own.cli("ACL", "SETUSER", "default", "resetpass", ">right")
    env = environ_of(own, SKILLBUS_REDIS_PASSWORD="hunter2-wrong")
    told = skillbus("kill", "--timeout", "300ms", env=env)
    assert told.code == 4, told
    assert "check user, password and ACL" in told.err
    assert "hunter2" not in told.out + told.err
    assert len(told.err.splitlines()) == 1


def test_a_bot_may_stop_and_not_look(own: RealServer) -> None:
    """Recorded and published, and the roster is NOPERM: exit 5, with what is done, and why nothing is proved."""
    line = acl_line("prod", AclUser(Role.BOT, "bot", hashlib.sha256(b"secret").hexdigest()))
    words = line.replace("(", "\n(").replace(")", ")\n").split("\n")
    own.cli("ACL", "SETUSER", *[r for w in words for r in ([w] if w.startswith("(") else w.split())][1:])
    env = environ_of(own, SKILLBUS_REDIS_USERNAME="bot", SKILLBUS_REDIS_PASSWORD="secret")
    told = skillbus("kill", "the token", "--timeout", "2s", env=env)
    as_json = skillbus("kill", "the token", "--timeout", "2s", "-o", "json", env=env)
    assert told.code == 5, told
    assert "recorded: fleet 'prod' is killed: \"the token\"" in told.out
    assert "the proof could not be read (" in told.out
    assert "who has stopped is not known" in told.out
    assert "no pod is known" not in told.out
    assert (as_json.code, as_json.json["recorded"], as_json.json["certificate"]) == (5, True, None)
    assert record_of(own) is not None


def test_published_but_not_recorded_is_an_error_with_its_own_words(own: RealServer, tmp_path: Path) -> None:
    """A server that refuses the record still spreads the order: exit 1, pods have stopped, the words say both."""
    with WatchedPod(own, tmp_path) as one:
        one.until_works()
        own.cli("CONFIG", "SET", "min-replicas-to-write", 1)
        told = skillbus("kill", "no room", "--timeout", "1s", env=environ_of(own))
        one.until_latched()
        assert record_of(own) is None
        own.cli("CONFIG", "SET", "min-replicas-to-write", 0)
        record = eventually(lambda: record_of(own), "the pod recorded it")
    assert told.code == 1, told
    assert "published, NOT recorded: " in told.out
    assert "the order is NOT recorded: restarted pods may run" in told.err
    assert "recorded, but" not in told.out
    assert record.reason == "no room"


def test_not_recorded_and_no_pod_known(own: RealServer) -> None:
    """Nobody to stop and nothing recorded: the words never say that it was recorded."""
    own.cli("CONFIG", "SET", "min-replicas-to-write", 1)
    told = skillbus("kill", env=environ_of(own))
    assert told.code == 1, told
    assert "published, NOT recorded: " in told.out
    assert "no pod is known in fleet 'prod'" in told.out
    assert "recorded, but no pod" not in told.out


def test_help_costs_no_redis() -> None:
    """Help and version work on a machine where nothing is set up."""
    env = environ_of("redis://127.0.0.1:1/0")
    words = launched("kill", "--help", env=env)
    version = ended(launched("--version", env=env))
    assert "--until-recorded" in ended(words).out
    assert version.out.startswith("skillbus 0.")


# -- somebody else's list of pods -------------------------------------------------------------------------------------


def test_a_pod_that_redis_never_heard_of_is_unknown(redis_server: RealServer, tmp_path: Path) -> None:
    """--expect from a file or standard input: shown, in JSON and the sentence, and exit 5; without it, exit 0."""
    arm(redis_server)
    env = environ_of(redis_server)
    roster = tmp_path / "roster.txt"
    roster.write_text("# of the cloud\none\n\nghost # never started\n")
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        told = skillbus("kill", "x", "--expect", str(roster), env=env)
        as_json = subprocess.run(
            [sys.executable, "-m", "skillbus", "kill", "x", "--expect", "-", "-o", "json"],
            env=env,
            input=roster.read_bytes(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        alone = skillbus("kill", "x", env=env)
    assert told.code == 5, told
    assert "expected, but Redis knows nothing of it" in told.out
    assert "1 of 2 stopped in " in told.out
    assert "; 1 unknown: ghost\n" in told.out
    certificate = json.loads(as_json.stdout)["certificate"]
    assert as_json.returncode == 5
    assert (certificate["unknown"], certificate["complete"]) == (1, False)
    assert {line["pod_id"]: line["proof"] for line in certificate["pods"]} == {"one": "stopped", "ghost": "unknown"}
    assert alone.code == 0, alone


def test_a_list_that_cannot_be_used_is_found_out_before_the_order(redis_server: RealServer, tmp_path: Path) -> None:
    """Usage errors (2) with the line; nothing is ordered."""
    (tmp_path / "bad").write_text("one\nno such/name\n")
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    wrong = {
        "bad, line 2: 'no such/name' cannot be the name of a pod": ["--expect", str(tmp_path / "bad")],
        "latin cannot be read": ["--expect", str(tmp_path / "latin")],
        "cannot be read: ": ["--expect", str(tmp_path / "missing")],
        "standard input names no pod": ["--expect", "-"],
        "--no-wait asks for none": ["--expect", str(tmp_path / "bad"), "--no-wait"],
    }
    running = {said: launched("kill", *words, env=environ_of(redis_server)) for said, words in wrong.items()}
    for said, process in running.items():
        told = ended(process)
        assert (told.code, said in told.err) == (2, True), told
        assert len(told.err.splitlines()) == 1
    assert redis_server.cli("DBSIZE") == 0


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


def beat_for_ever(server: RealServer) -> None:
    """A pod that lives, as far as its hash says, and does not obey."""
    now = server.cli("TIME")
    assert isinstance(now, list)
    assert isinstance(now[0], bytes)
    beat = Heartbeat(incarnation="i1", state=State.RUNNING, beat_at_ms=int(now[0]) * 1000, lease_s=3600.0)
    server.cli("HSET", PROD.pod_key("deaf"), "i1", beat.to_bytes())
    server.cli("ZADD", PROD.roster_key, 1, "deaf")


def interrupted(server: RealServer, *words: str) -> Ran:
    """A kill that waits for that pod, and somebody presses Ctrl-C."""
    process = launched("kill", "x", "--timeout", "60s", *words, env=environ_of(server))
    eventually(lambda: record_of(server) is not None, "it is ordered")
    eventually(lambda: len(subscriber_ids(server)) == 1, "it waits for the proof")
    process.send_signal(signal.SIGINT)
    return ended(process)


@pytest.mark.parametrize("words", [(), ("-o", "json"), ("--replicas", "3")])
def test_ctrl_c_prints_and_keeps_the_certificate_so_far(redis_server: RealServer, words: tuple[str, ...]) -> None:
    """Exit 130; it is said, and kept, that it is not complete."""
    arm(redis_server)
    beat_for_ever(redis_server)
    told = interrupted(redis_server, *words)
    assert told.code == 130, told
    if "json" in words:
        certificate = told.json["certificate"]
        assert (certificate["complete"], certificate["interrupted"], certificate["unconfirmed"]) == (False, True, 1)
        assert told.json["interrupted"]
    else:
        assert "NOT COMPLETE: the waiting was interrupted" in told.out
        assert "0 of 1 stopped; 1 unconfirmed: deaf" in told.out
    record = record_of(redis_server)
    assert record is not None
    again = skillbus("history", record.id, env=environ_of(redis_server))
    assert (again.code, "NOT COMPLETE" in again.out) == (0, True), again


def test_ctrl_c_before_the_order_is_given(own: RealServer) -> None:
    """Nothing was given, so there is nothing to tell but that."""
    freeze(own)
    process = launched("kill", "x", "--until-recorded", env=environ_of(own))
    eventually(lambda: psutil.Process(process.pid).net_connections(), "it has asked the server, which is silent")
    process.send_signal(signal.SIGINT)
    told = ended(process)
    own.thaw()
    assert told.code == 130, told
    assert "the order may be stored" in told.err

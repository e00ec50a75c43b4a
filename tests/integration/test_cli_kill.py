"""``skillbus kill`` as a real process against a real server: what is done, what is said, and the exit code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from skillbus.control.acl import AclUser, Role, acl_line
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
    launched,
    own_server,
    record_of,
    reset,
    skillbus,
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
    assert redis_server.cli("XLEN", PROD.audit_key) == 2


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
        assert given.json["replicas"] is None, "nobody asked"
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

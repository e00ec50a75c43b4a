"""``skillbus doctor`` on servers that are set up badly, each in its own way, and with each role's credentials."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skillbus.bus.embedded import ServerBinary, tied_to_us
from skillbus.control.acl import AclUser, Role, acl_lines
from tests.integration.hostile import HOSTILE, is_harmless
from tests.pods import (
    FLEET,
    PROD,
    Ran,
    WatchedPod,
    arm,
    environ_of,
    eventually,
    evidence_of,
    order,
    own_server,
    skillbus,
    text_of,
)
from tests.sentinels import sentinels
from tests.servers import RawClient, RealServer, Refused, server_binary

SECRET = "hunter2hunter2"


def doctor(server: RealServer | str, *words: str, **given: str) -> Ran:
    """The verb, as JSON."""
    return skillbus("doctor", "-o", "json", *words, env=environ_of(server, **given))


def findings(ran: Ran, node: str = "") -> dict[str, dict[str, Any]]:
    """By id; the worst of each. What is not fine has its cure."""
    told: dict[str, dict[str, Any]] = {}
    for one in ran.json["findings"]:
        assert bool(one["cure"]) is (one["severity"] != "ok"), one
        if one["node"] == node:
            told.setdefault(one["id"], one)
    return told


def severities(ran: Ran, *ids: str) -> list[str]:
    """How bad each of these is."""
    told = findings(ran)
    return [told[one]["severity"] for one in ids]


def role_user(role: Role) -> AclUser:
    """A user whose name is its role."""
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    return AclUser(role, role.value, digest, pod_id="one" if role in (Role.POD, Role.TENANT_POD) else "")


@contextmanager
def guarded(binary: ServerBinary, folder: Path, *config: str) -> Iterator[RealServer]:
    """A server with the users of every role, and an armed fleet."""
    root = f"user root reset on #{hashlib.sha256(b'root').hexdigest()} ~* &* +@all\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users.acl").write_text(acl_lines("prod", [role_user(role) for role in Role]) + root)
    with RealServer(binary, folder / "server", f"aclfile {folder / 'users.acl'}", *config) as server:
        server.cli("SETNX", FLEET.epoch_key, 0, user="root", password="root")
        yield server


def as_role(role: str) -> dict[str, str]:
    """The environment of somebody with this role's credentials."""
    return {"SKILLBUS_REDIS_USERNAME": role, "SKILLBUS_REDIS_PASSWORD": SECRET}


# --- a server as it should be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "keeper", "operator", "admin"])
def test_a_guarded_server_is_not_broken(real_server_binary: ServerBinary, tmp_path: Path, role: str) -> None:
    """Who may look sees everything but what CONFIG alone tells; exit 0; nothing there is changed."""
    with guarded(real_server_binary, tmp_path) as server:
        keys = server.cli("DBSIZE", user="root", password="root")
        ran = doctor(server, **as_role(role))
        assert server.cli("DBSIZE", user="root", password="root") == keys
    assert (ran.code, ran.json["works"]) == (0, True), ran
    fine = ("reachable", "role", "version", "persistence", "eviction", "memory", "connections", "default-user")
    assert severities(ran, *fine, "user", "armed", "records", "hearing", "listeners") == ["ok"] * 13
    assert severities(ran, "pubsub-buffer", "publish", "pods", "drill") == ["note", "note", "warning", "warning"]
    assert "cannot be seen with these credentials" in findings(ran)["pubsub-buffer"]["seen"]
    undo = findings(ran)["undo"]
    assert undo["severity"] == ("note" if role == "admin" else "ok")
    assert "tried on a key that does not exist" in undo["seen"]
    assert SECRET not in ran.out + ran.err


@pytest.mark.parametrize("role", ["pod", "tenant-pod", "bot"])
def test_with_few_rights_little_is_seen_and_nothing_of_it_is_called_fine(
    real_server_binary: ServerBinary, tmp_path: Path, role: str
) -> None:
    """A pod's or bot's credentials: what they may not see is a note that says so, and what they may do is known."""
    pod = {"SKILLBUS_POD_ID": "one", "SKILLBUS_GROUPS": "eu"} if role != "bot" else {}
    with guarded(real_server_binary, tmp_path) as server:
        ran = doctor(server, **as_role(role), **pod)
    assert ran.code == 0, ran
    hidden = ("version", "persistence", "eviction", "memory", "connections", "records", "listeners", "drill")
    assert severities(ran, *hidden) == ["note"] * 8
    assert severities(ran, "user") == ["note" if role == "bot" else "ok"]  # a pod may ask who it is
    assert all("cannot be seen with these credentials" in findings(ran)[one]["seen"] for one in hidden)
    assert severities(ran, "reachable", "role", "armed", "undo", "default-user") == ["ok"] * 5
    assert severities(ran, "hearing") == ["note" if role == "bot" else "ok"]


def test_a_pod_that_may_not_hear_its_group_is_broken(tmp_path: Path) -> None:
    """One kill channel that the ACL denies to a pod: its whole SUBSCRIBE is refused, so it would never run."""
    with guarded(server_binary(), tmp_path) as server:
        ran = doctor(server, **as_role("pod"), SKILLBUS_POD_ID="another")
    assert ran.code == 1, ran
    told = findings(ran)["hearing"]
    assert (told["severity"], "skillbus:prod:kill:pod:another" in told["seen"]) == ("broken", True)


# --- servers set up badly ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "check", "severity", "said"),
    [
        ("appendonly no", "persistence", "broken", "forgets a kill"),
        ("appendfsync no", "persistence", "warning", "power cut"),
        ("maxmemory-policy allkeys-lru", "eviction", "broken", "allkeys-lru"),
        ("maxmemory-policy volatile-ttl", "eviction", "warning", "volatile-ttl"),
        ("maxmemory 100kb", "memory", "broken", "maxmemory is reached"),
        ("min-replicas-to-write 1", "replicas", "broken", "min-replicas-to-write wants 1"),
        ("client-output-buffer-limit pubsub 1kb 1kb 1", "pubsub-buffer", "warning", "1024 bytes"),
        ("port 0", "reachable", "broken", "no connection"),
    ],
)
def test_a_bad_setting_is_found(
    real_server_binary: ServerBinary, tmp_path: Path, config: str, check: str, severity: str, said: str
) -> None:
    """Each setting that would spoil the switch is told with its cure, and exits 1 if it is broken."""
    if config == "port 0":
        ran = doctor("redis://user:hunter2hunter2@127.0.0.1:1/0")
    else:
        with RealServer(real_server_binary, tmp_path / "server", config) as server:
            ran = doctor(server)
    told = findings(ran)[check]
    assert (told["severity"], said in told["seen"], ran.code) == (severity, True, 1), told
    assert SECRET not in ran.out + ran.err


@pytest.mark.parametrize(
    ("config", "severity"),
    [
        ("user default on nopass ~* &* +@all", "broken"),
        ("user default off", "ok"),
        ("user default on >topsecret ~* &* +@all", "ok"),
        ("user default on nopass ~nothing +ping", "note"),
    ],
)
def test_the_stock_user_is_tried(real_server_binary: ServerBinary, tmp_path: Path, config: str, severity: str) -> None:
    """A stranger who could delete the record makes it broken, whoever asks; off, or behind a password, is fine."""
    line = acl_lines("prod", [role_user(Role.OPERATOR)]).splitlines()[1]
    with RealServer(real_server_binary, tmp_path / "server", line, config) as server:
        ran = doctor(server, **as_role("operator"))
    assert severities(ran, "default-user") == [severity], ran
    assert ran.code == (1 if severity == "broken" else 0)


def test_we_are_default_with_a_password(tmp_path: Path) -> None:
    """requirepass alone: everybody with that password can undo, by every command there is."""
    with own_server(tmp_path, f"requirepass {SECRET}", armed=False) as server:
        ran = doctor(server, SKILLBUS_REDIS_PASSWORD=SECRET)
        wrong = doctor(server, SKILLBUS_REDIS_PASSWORD="wrong-word")
        missing = doctor(server)
    told = findings(ran)
    assert [told[one]["severity"] for one in ("user", "undo", "default-user")] == ["warning", "warning", "ok"]
    assert {"FLUSHALL", "DEL", "EXPIRE", "RENAME"} <= set(re.findall(r"[A-Z]+", told["undo"]["seen"]))
    assert "these credentials may stop" in told["publish"]["seen"]
    for refused in (wrong, missing):
        assert (refused.code, severities(refused, "reachable")) == (1, ["broken"]), refused
        assert "wrong-word" not in refused.out + refused.err


def test_too_few_connections_for_the_roster(tmp_path: Path) -> None:
    """maxclients below two for each live pod is broken, below two for each pod of the roster a warning."""
    with own_server(tmp_path, "maxclients 8") as server, WatchedPod(server, tmp_path) as one:
        one.until_works()
        server.cli("ZADD", PROD.roster_key, *(word for n in range(4) for word in (1, f"gone-{n}")))
        warned = doctor(server)
        beat = json.loads(evidence_of(server)[0].model_dump_json())
        with RawClient(server.port) as client:
            for n in range(4):
                client.call("HSET", PROD.pod_key(f"gone-{n}"), "i", json.dumps({**beat, "incarnation": "i"}))
            broken = doctor(server)
    assert (severities(warned, "connections"), severities(broken, "connections")) == (["warning"], ["broken"])


def test_records_that_undo_themselves_and_keys_of_a_wrong_type(real_server: RealServer) -> None:
    """A TTL on a record or epoch, an epoch that is no number, a record that is a hash: each named, worst first."""
    real_server.cli("SET", FLEET.epoch_key, "nonsense")
    real_server.cli("SET", FLEET.killed_key, "x", "EX", 1000)
    real_server.cli("HSET", PROD.group("eu").killed_key, "f", HOSTILE)
    real_server.cli("HSET", PROD.pod("one").epoch_key, "f", "v")
    real_server.cli("SET", f"{FLEET.killed_key}:{HOSTILE}", "not a scope", "EX", 1000)
    ran = doctor(real_server)
    told = [(one["severity"], one["seen"].split()[0]) for one in ran.json["findings"] if one["id"] == "records"]
    assert sorted(told) == [
        ("broken", FLEET.epoch_key),
        ("broken", PROD.pod("one").epoch_key),
        ("broken", FLEET.killed_key),
        ("warning", PROD.group("eu").killed_key),
    ]
    assert ran.code == 1


def test_another_database_and_a_fleet_that_is_not_armed(redis_server: RealServer) -> None:
    """Both are said; the same fleet in database 0 does not count."""
    arm(redis_server)
    url = redis_server.url.removesuffix("/0") + "/5"
    ran = doctor(url)
    assert severities(ran, "database", "armed") == ["note", "warning"]
    assert severities(doctor(redis_server), "database", "armed") == ["ok", "ok"]


# --- other nodes ------------------------------------------------------------------------------------------------------


def test_a_replica_is_looked_at_and_is_no_place_for_pods(real_server_binary: ServerBinary, tmp_path: Path) -> None:
    """The replica's open door is found from the master's URL; the replica's own URL is broken, with the master's."""
    login = ("masteruser root", "masterauth root")
    with guarded(real_server_binary, tmp_path / "a") as master:
        config = (*login, f"replicaof 127.0.0.1 {master.port}", "appendonly no", "repl-diskless-sync-delay 0")
        with RealServer(real_server_binary, tmp_path / "b" / "server", *config) as replica:

            def is_linked() -> bool:
                said = master.cli("INFO", "replication", user="root", password="root")
                return isinstance(said, bytes) and b"state=online" in said

            eventually(is_linked, "the replica is in step")
            ran = doctor(master, **as_role("operator"))
            there = doctor(replica)
    assert ran.code == 1
    node = f"redis://127.0.0.1:{replica.port}/0"
    # Users are not replicated: ours does not exist there, and whoever is nobody gets in.
    assert findings(ran, node)["reachable"]["severity"] == "warning"
    assert findings(ran, node)["default-user"]["severity"] == "broken"
    assert severities(ran, "replicas", "default-user") == ["ok", "ok"]
    told = findings(there)["role"]
    assert (told["severity"], f"127.0.0.1:{master.port}" in told["cure"]) == ("broken", True)


def test_every_node_that_a_sentinel_knows_is_looked_at(real_server_binary: ServerBinary, tmp_path: Path) -> None:
    """The Sentinel's master is this server, or broken; a Sentinel that is away is a warning."""
    with own_server(tmp_path / "a") as watched, own_server(tmp_path / "b") as other:
        sentinel = RealServer(real_server_binary, tmp_path / "s")
        with running_sentinel(sentinel, watched) as port:
            mine = doctor(watched, "--sentinel", f"127.0.0.1:{port}", "--sentinel", "127.0.0.1:1")
            theirs = doctor(other, "--sentinel", f"127.0.0.1:{port}")
    told = [(one["severity"], one["seen"]) for one in mine.json["findings"] if one["id"] == "sentinel"]
    assert [severity for severity, _ in told] == ["warning", "ok"], told
    assert "watches it as mymaster" in told[1][1]
    assert severities(theirs, "sentinel") == ["broken"]
    assert findings(theirs, f"redis://127.0.0.1:{watched.port}/0")["default-user"]["severity"] == "broken"


def test_a_sentinel_is_asked_as_whom_the_settings_name_for_sentinels(
    real_server_binary: ServerBinary, tmp_path: Path
) -> None:
    """Its password is not the server's. Without it the Sentinels tell nothing, and the master is not found at all."""
    with sentinels(tmp_path, password="at the door") as rig:
        arm(rig.first)
        env = environ_of(rig.url)
        let_in = skillbus("doctor", "-o", "json", env=env | {"SKILLBUS_SENTINEL_PASSWORD": "at the door"})
        shut_out = skillbus("doctor", "-o", "json", env=env)
    told = [one for one in let_in.json["findings"] if one["id"] == "sentinel"]
    assert [one["severity"] for one in told] == ["ok"] * 3, told
    assert {one["severity"] for one in shut_out.json["findings"] if one["id"] == "sentinel"} == {"warning"}
    assert "at the door" not in let_in.out + let_in.err


@contextmanager
def running_sentinel(sentinel: RealServer, watched: RealServer) -> Iterator[int]:
    """A Sentinel process that watches one master as ``mymaster``."""
    sentinel.folder.mkdir(parents=True)
    lines = (f"port {sentinel.port}", "bind 127.0.0.1", f"sentinel monitor mymaster 127.0.0.1 {watched.port} 1")
    (sentinel.folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
    argv = tied_to_us([str(sentinel.binary.path), "sentinel.conf", "--sentinel"])
    with (sentinel.folder / "log").open("ab") as log:
        process = subprocess.Popen(argv, cwd=sentinel.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:

        def knows() -> bool:
            try:
                told = sentinel.cli("SENTINEL", "MASTER", "mymaster")
            except (OSError, Refused):
                return False
            return isinstance(told, list) and len(text_of(told[told.index(b"runid") + 1])) == 40

        eventually(knows, "the Sentinel knows its master")
        yield sentinel.port
    finally:
        process.kill()
        process.wait()


# --- the fleet --------------------------------------------------------------------------------------------------------


def test_a_living_fleet_and_its_stragglers(redis_server: RealServer, tmp_path: Path) -> None:
    """Pods that hear are fine; deaf, elsewhere, old, doubtful and doubled ones are named; so is a lack of listeners."""
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        eventually(lambda: any(beat.armed for beat in evidence_of(redis_server)), "it hears")
        well = doctor(redis_server)
        assert severities(well, "pods", "listeners") == ["ok", "ok"], well
        beat = json.loads(evidence_of(redis_server)[0].model_dump_json())
        beat["started_at_ms"] = 1
        changed: dict[str, dict[str, Any]] = {
            "deaf-1": {"armed": False},
            "elsewhere-1": {"hears": ["skillbus:other:kill"]},
            "old-1": {"v": 0},
            "doubtful-1": {"vouched": False},
        }
        for pod_id, fields in changed.items():
            redis_server.cli("HSET", PROD.pod_key(pod_id), beat["incarnation"], json.dumps({**beat, **fields}))
            redis_server.cli("ZADD", PROD.roster_key, 1, pod_id)
        twin = json.dumps({**beat, "incarnation": "other"})
        redis_server.cli("HSET", PROD.pod_key("twin-1"), beat["incarnation"], json.dumps(beat), "other", twin)
        redis_server.cli("HSET", PROD.pod_key("twin-1"), "junk", HOSTILE)
        redis_server.cli("ZADD", PROD.roster_key, 1, "twin-1", 2, HOSTILE)
        ran = doctor(redis_server)
    told = findings(ran)
    for check, severity, name in (
        ("deaf", "broken", "deaf-1"),
        ("wrong-prefix", "broken", "elsewhere-1"),
        ("old-protocol", "warning", "old-1"),
        ("unvouched", "warning", "doubtful-1"),
        ("twins", "warning", "twin-1"),
        ("listeners", "warning", "1 connection for 7 live pods"),
        ("pods", "note", "1 hash field"),
    ):
        assert (told[check]["severity"], name in told[check]["seen"]) == (severity, True), told[check]
    assert ran.code == 1


def test_when_the_last_good_drill_was(redis_server: RealServer) -> None:
    """None, a bad one, a good one behind it, a good one behind a hundred other entries: each as it is."""
    arm(redis_server)
    assert "no drill is on record" in findings(doctor(redis_server))["drill"]["seen"]
    audit = PROD.audit_key
    redis_server.cli("XADD", audit, "*", "kind", "drill-result", "scope", "fleet", "ok", "0")
    assert "not answered by every pod" in findings(doctor(redis_server))["drill"]["seen"]
    redis_server.cli("XADD", audit, "*", "kind", "drill-result", "scope", "fleet", "ok", "1")
    assert severities(doctor(redis_server), "drill") == ["ok"]
    with RawClient(redis_server.port) as client:
        for _ in range(120):
            client.call("XADD", audit, "*", "kind", "sync", "scope", "fleet")
    assert findings(doctor(redis_server))["drill"]["seen"] == "the last good drill was just now"


def test_a_killed_fleet_is_examined_without_touching_its_record(redis_server: RealServer) -> None:
    """As root, whom nothing is refused: every key is afterwards what it was before, and nobody heard a kill."""
    arm(redis_server)
    order(redis_server, reason=HOSTILE)
    with RawClient(redis_server.port) as ears:
        ears.send("PSUBSCRIBE", "skillbus:*")
        ears.read()
        keys = [FLEET.killed_key, FLEET.epoch_key]
        before = [redis_server.cli("DUMP", key) for key in keys]
        ran = doctor(redis_server)
        after = [redis_server.cli("DUMP", key) for key in keys]
        redis_server.cli("PUBLISH", "skillbus:end", "x")
        assert ears.read() == [b"pmessage", b"skillbus:*", b"skillbus:end", b"x"]
    assert before == after
    assert redis_server.cli("DBSIZE") == 2
    assert severities(ran, "records") == ["ok"]


# --- as people read it ------------------------------------------------------------------------------------------------


def test_people_read_the_worst_first_and_what_is_fine_in_one_line(redis_server: RealServer) -> None:
    """A line and its cure for each finding, the fine ones folded unless --all, nothing hostile, no figure twice."""
    arm(redis_server)
    redis_server.cli("HSET", PROD.pod_key("two"), "junk", HOSTILE)
    env = environ_of(redis_server)
    shown, every = skillbus("doctor", env=env), skillbus("doctor", "--all", env=env)
    words = [line.split()[0] for line in shown.out.splitlines() if not line.startswith(" ")]
    assert words[0] == "broken"
    assert "ok" not in words
    assert re.search(r"^\d+ checks are fine$", shown.out, re.MULTILINE)
    assert shown.out.count("        cure: ") == len([word for word in words if word in ("broken", "warning", "note")])
    assert len([line for line in every.out.splitlines() if line.startswith("ok ")]) > 10
    assert (shown.code, every.code) == (1, 1)
    is_harmless(shown)

"""``skillbus status``, ``sync`` and ``config`` as real processes: what is seen is said, and nothing else."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path

from skillbus.core.latch import State
from tests.integration.hostile import HOSTILE, is_harmless
from tests.pods import (
    GROUP,
    PROD,
    Complaining,
    Holding,
    WatchedPod,
    Worker,
    arm,
    ended,
    environ_of,
    eventually,
    evidence_of,
    launched,
    order,
    skillbus,
    skillbus_on_terminal,
)
from tests.servers import RealServer


def test_a_fleet_in_one_sentence(redis_server: RealServer, tmp_path: Path) -> None:
    """Not armed, running, and stopped; --exit-code says 3 for a killed fleet and 0 otherwise."""
    env = environ_of(redis_server)
    unarmed = skillbus("status", "--exit-code", env=env)
    assert unarmed.code == 0
    assert unarmed.out == (
        "fleet 'prod': NOT ARMED: its pods hold. A new fleet? run skillbus arm. An old one? its Redis lost its data\n"
    )
    arm(redis_server)
    with WatchedPod(redis_server, tmp_path, groups=("eu",)) as one, WatchedPod(redis_server, tmp_path, "two") as two:
        one.until_works()
        two.until_works()
        eventually(lambda: all(beat.armed for p in ("one", "two") for beat in evidence_of(redis_server, p)), "hears")
        order(redis_server, GROUP, "only them")
        eventually(lambda: evidence_of(redis_server)[0].state is State.STOPPED, "one says so")
        table = launched("status", env=env)
        as_json = ended(launched("status", "-o", "json", "--exit-code", env=env))
        shown = ended(table)
        assert shown.out.splitlines()[0] == "fleet 'prod': RUNNING 1 (1 stopped)"
        assert "group 'eu' of fleet 'prod' is killed: \"only them\" by test via cli" in shown.out
        told = as_json.json
        assert (as_json.code, told["armed"], told["counts"]) == (0, True, {"running": 1, "stopped": 1})
        assert [pod["pod"] for pod in told["pods"]] == ["two", "one"], "stragglers first"
        life = told["pods"][1]["incarnations"][0]
        assert (life["state"], life["quiet"], life["causes"][0]["scope"]) == ("stopped", True, "group:eu")
        order(redis_server, reason="all of them")
        two.until_latched()
        eventually(lambda: evidence_of(redis_server, "two")[0].state is State.STOPPED, "two says so")
        killed = skillbus("status", "--exit-code", env=env)
    assert killed.code == 3, killed
    assert killed.out.splitlines()[0].startswith("fleet 'prod': STOPPED 2: \"all of them\" by test via cli")


def test_redis_is_down() -> None:
    """Unknown is exit 4 in words that say where it was asked, for every verb that asks; never a figure."""
    env = environ_of("redis://user:hunter2@127.0.0.1:1/0?db=0")
    looking, syncing = launched("status", env=env), launched("sync", env=env)
    as_json = ended(launched("status", "-o", "json", "--exit-code", env=env))
    assert (as_json.code, as_json.json["exit_code"]) == (4, 4)
    for told in (ended(looking), ended(syncing)):
        assert (told.code, told.out) == (4, ""), told
        assert "redis://127.0.0.1:1/0" in told.err
        assert "hunter2" not in told.err
        assert len(told.err.splitlines()) == 1


def test_what_others_write_cannot_break_status(redis_server: RealServer, tmp_path: Path) -> None:
    """Hostile records, reasons, roster entries and hashes of other pods harm neither the terminal nor the answer."""
    arm(redis_server)
    env = environ_of(redis_server)
    with WatchedPod(redis_server, tmp_path) as one:
        one.until_works()
        order(redis_server, reason=HOSTILE)
        eventually(lambda: evidence_of(redis_server)[0].state is State.STOPPED, "it says so")
        beat = evidence_of(redis_server)[0].model_dump(mode="json")
        last = {"id": "x", "outcome": "[/nonsense]", "began_at_ms": 1, "took_s": 1, "counts": {HOSTILE: 1}}
        odd = beat | {"why": HOSTILE, "groups": [HOSTILE, "a/b"], "last_pass": last, "host": HOSTILE}
        redis_server.cli("HSET", PROD.pod_key("two"), beat["incarnation"], json.dumps(odd), "junk", b"\xff")
        redis_server.cli("ZADD", PROD.roster_key, 1, "two", 2, HOSTILE, 3, b"\xff\xfe", 4, "x" * 5000)
        redis_server.cli("SET", PROD.pod_key("wrong-type"), "no hash")
        redis_server.cli("ZADD", PROD.roster_key, 5, "wrong-type")
        table = launched("status", env=env)
        as_json = ended(launched("status", "-o", "json", env=env))
        shown = ended(table)
    assert (shown.code, as_json.code) == (0, 0), (shown, as_json)
    is_harmless(shown)
    is_harmless(as_json)
    assert "\none " in shown.out
    assert {"one", "two", "wrong-type"} <= {pod["pod"] for pod in as_json.json["pods"]}


def test_sync_on_a_terminal_shows_what_is_being_done(redis_server: RealServer, tmp_path: Path) -> None:
    """Below the bar, for each pod, as its pass goes on; gone when all have answered. ``status`` says it too."""
    arm(redis_server)
    env = environ_of(redis_server)
    with (
        WatchedPod(redis_server, tmp_path, worker=Worker(changes_count=1)) as quick,
        WatchedPod(redis_server, tmp_path, "slow", worker=Worker(0.5, 8)) as slow,
    ):
        quick.until(lambda: len(quick.passes) == 1, "the first cycle")
        slow.until(lambda: len(slow.passes) == 1, "the first cycle")
        shown = skillbus_on_terminal("sync", env=env)
        assert shown.code == 0, shown
        told = re.findall(r"slow +changes (\d) of 8: thing", shown.err)
        assert len(set(told)) >= 3, shown
        assert [line.split(":")[0] for line in shown.out.splitlines()] == ["one", "slow"]
        slow.pod.reconcile_now()
        eventually(lambda: "changes" in skillbus("status", env=env).out, "status says what it is at")


def test_sync_waits_for_the_passes_that_it_asked_for(redis_server: RealServer, tmp_path: Path) -> None:
    """0 when each live pod ended a pass for it; 5 names who did not; 3 and no pass while the fleet is killed."""
    arm(redis_server)
    env = environ_of(redis_server)
    worker = Worker(changes_count=2)
    with WatchedPod(redis_server, tmp_path, worker=worker) as one:
        one.until(lambda: len(one.passes) == 1, "the first cycle")
        synced = skillbus("sync", "-o", "json", env=env)
        assert synced.code == 0, synced
        done = synced.json["passes"]
        assert [(line["pod"], line["trigger"], line["outcome"]) for line in done] == [("one", synced.json["id"], "ok")]
        assert len(one.passes) == 2
        with WatchedPod(redis_server, tmp_path, "sad", reconciler=Complaining(HOSTILE)) as sad:
            sad.until(lambda: len(sad.passes) == 1, "the first cycle")
            failed = skillbus("sync", env=env)
            assert failed.code == 1, failed
            assert "sad: failed in " in failed.out
            is_harmless(failed)
        with WatchedPod(redis_server, tmp_path, "busy") as busy:
            busy.until_works()
            missing = skillbus("sync", "--timeout", "500ms", env=env)
            assert missing.code == 5, missing
            assert "no pass yet: busy" in missing.out
            assert "one: ok in " in missing.out
            order(redis_server, reason=HOSTILE)
            busy.until_latched()
        one.until_latched()
        count = len(one.passes)
        refused = launched("sync", env=env)
        as_json = ended(launched("sync", "-o", "json", env=env))
        told = ended(refused)
        assert (told.code, told.out) == (3, "")
        assert "is killed: " in told.err
        assert "nothing reconciles until reset" in told.err
        is_harmless(told)
        assert (as_json.code, as_json.json["exit_code"]) == (3, 3)
        assert len(one.passes) == count


def test_sync_within_a_window(redis_server: RealServer, tmp_path: Path) -> None:
    """The message bears the window, each pod waits its share of it, and a pipeline's log gets one line."""
    arm(redis_server)
    env = environ_of(redis_server)
    with WatchedPod(redis_server, tmp_path, worker=Worker(changes_count=2)) as one:
        one.until(lambda: len(one.passes) == 1, "the first cycle")
        synced = skillbus("sync", "-o", "json", "--within", "500ms", env=env)
        assert synced.code == 0, synced
        assert (synced.json["within_s"], synced.json["resting"]) == (0.5, [])
        assert synced.err.startswith("skillbus: 1 of 1 pods made a pass in ")
        assert len(synced.err.splitlines()) == 1
        refused = launched("sync", "--within", "1m", "--timeout", "30s", env=env)
        nonsense = ended(launched("sync", "--within", "soon", env=env))
        told = ended(refused)
        assert (told.code, "make --timeout longer than that" in told.err) == (2, True), told
        assert (nonsense.code, "--within: 'soon' is no duration" in nonsense.err) == (2, True), nonsense
        shown = skillbus_on_terminal("sync", env=env)
        assert shown.code == 0, shown
        assert shown.out.startswith("one: ok in ")
        assert "reconciling" in shown.err, "the bar"
        assert "made a pass in" not in shown.err


def test_who_holds_a_skill(redis_server: RealServer, tmp_path: Path) -> None:
    """By digest, with counts and names; 1 and a sentence if nobody does; status itself shows a few digits."""
    arm(redis_server)
    env = environ_of(redis_server)
    old, new = "a" * 64, "b" * 64
    sets = {"one": {"pdf": old, "x": new}, "two": {"pdf": new}, "three": {"pdf": new}}
    pods = [WatchedPod(redis_server, tmp_path, name, reconciler=Holding(sets[name])) for name in sets]
    pods.append(WatchedPod(redis_server, tmp_path, "plain", reconciler=Complaining()))
    with ExitStack() as stack:
        for pod in pods:
            stack.enter_context(pod)
        eventually(lambda: all(beat.skills for name in sets for beat in evidence_of(redis_server, name)), "told")
        table, narrow = launched("status", "--skill", "pdf", env=env), launched("status", "--skill", "pdf@aa", env=env)
        as_json = launched("status", "--skill", "pdf", "-o", "json", env=env)
        nobody, gone = launched("status", "--skill", "y", env=env), launched("status", "--skill", "pdf@abc", env=env)
        whole = ended(launched("status", env=env))
        shown, first, told = ended(table), ended(narrow), ended(as_json)
    assert shown.code == 0, shown
    assert shown.out.splitlines()[0] == (
        "fleet 'prod': 3 live pods hold 'pdf' at 2 digests; 1 have not told what they hold since they started"
    )
    assert [line.split() for line in shown.out.splitlines()[2:]] == [
        ["b" * 12, "2", "three,", "two"],
        ["a" * 12, "1", "one"],
        ["not", "told:", "plain"],
    ]
    assert first.out.startswith("fleet 'prod': 1 live pod holds 'pdf' at a digest that begins with aa, 2 do not")
    assert told.json["held"] == [
        {"digest": new, "count": 2, "pods": ["three", "two"]},
        {"digest": old, "count": 1, "pods": ["one"]},
    ]
    assert (told.json["untold"], told.json["without"], told.json["unreadable"]) == (["plain"], [], [])
    for answer, said in ((ended(nobody), "no live pod holds 'y': 3 hold other sets"), (ended(gone), "begins with abc")):
        assert (answer.code, answer.out) == (1, ""), answer
        assert said in answer.err
    assert evidence_of(redis_server, "one")[0].skills[:8] in whole.out


def test_config_shows_where_everything_comes_from_and_no_secret(tmp_path: Path) -> None:
    """Secrets are masked wherever they come from: variable, file, the URL's user part and its query."""
    secret = tmp_path / "token"
    secret.write_text("s3cret-token\n")
    env = environ_of("rediss://bob:s3cret-a@h:6380/3?password=s3cret-b&ssl_cert_reqs=none")
    env |= {"SKILLBUS_REDIS_PASSWORD": "s3cret-c", "SKILLBUS_SKILLS_TOKEN_FILE": str(secret)}
    env |= {"SKILLBUS_EVERY": "5m", "SKILLBUS_GROUPS": "eu, [bold]us"}
    table = launched("config", env=env | {"SKILLBUS_GROUPS": "eu,us"})
    as_json = ended(launched("config", "-o", "json", "--fleet", "other", env=env | {"SKILLBUS_GROUPS": ""}))
    shown = ended(table)
    assert (shown.code, as_json.code) == (0, 0), (shown, as_json)
    assert "s3cret" not in shown.out + as_json.out + shown.err + as_json.err
    rows = {row["name"]: (row["value"], row["from"]) for row in as_json.json["settings"]}
    assert rows["SKILLBUS_REDIS_URL"] == ("rediss://h:6380/3", "SKILLBUS_REDIS_URL")
    assert rows["SKILLBUS_REDIS_PASSWORD"] == ("********", "SKILLBUS_REDIS_PASSWORD")
    assert rows["SKILLBUS_SKILLS_TOKEN"] == ("********", "SKILLBUS_SKILLS_TOKEN_FILE") or rows[
        "SKILLBUS_SKILLS_TOKEN"
    ] == ("********", "NBI_MANAGED_SKILLS_TOKEN")
    assert rows["SKILLBUS_FLEET"] == ("other", "given")
    assert rows["SKILLBUS_EVERY_S"][0] == "300"
    assert rows["SKILLBUS_LEASE_S"] == ("6", "default")
    assert "eu,us" in shown.out


def test_a_password_on_the_command_line_is_refused() -> None:
    """Others can read it there: exit 2, what to do instead, and it is not repeated. Bad settings are named likewise."""
    env = environ_of("redis://127.0.0.1:1/0")
    wrong = {
        "bears a password": ["config", "--redis", "redis://bob:s3cret@127.0.0.1:1/0"],
        "bears a password, ": ["status", "--redis", "redis://127.0.0.1:1/0?password=s3cret"],
        "is no Redis URL": ["status", "--redis", "http://127.0.0.1:1/?token=s3cret"],
        "is not supported": ["status", "--redis", "redis+cluster://127.0.0.1:1/0"],
    }
    running = {said: launched(*words, env=env) for said, words in wrong.items()}
    heartbeat = launched("status", env=env | {"SKILLBUS_HEARTBEAT_S": "9"})
    for said, process in running.items():
        told = ended(process)
        assert (told.code, told.out, said.strip() in told.err) == (2, "", True), told
        assert len(told.err.splitlines()) == 1
        if "password" in said:
            assert "s3cret" not in told.err
    told = ended(heartbeat)
    assert told.code == 2, told
    assert "make SKILLBUS_LEASE_S greater than SKILLBUS_HEARTBEAT_S" in told.err

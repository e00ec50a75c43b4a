"""``skillbus run --once`` as a real process: what it did, or that it did nothing, and the exit code that says so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

import skillbus as skillbus_package
from tests.pods import (
    FLEET,
    PROD,
    arm,
    ended,
    environ_of,
    evidence_of,
    launched,
    order,
    record_of,
    skillbus,
    skillbus_on_terminal,
)
from tests.servers import RealServer


def environ(server: RealServer | str, folder: Path) -> dict[str, str]:
    """With a state folder of this test's own."""
    return environ_of(server, SKILLBUS_STATE_DIR=str(folder / "state"), SKILLBUS_POD_ID="one")


def test_one_pass_of_a_program(redis_server: RealServer, tmp_path: Path) -> None:
    """0 when the program ended well; 1 when it failed or cannot be started, with its exit code in the words."""
    arm(redis_server)
    env = environ(redis_server, tmp_path)
    mark = tmp_path / "ran"
    well = skillbus("run", "--once", "-o", "json", "--", "sh", "-c", f"echo done > {mark}", env=env)
    assert (well.code, well.json["outcome"], mark.read_text()) == (0, "ok", "done\n"), well
    failed = launched("run", "--once", "-o", "json", "--pod-id", "two", "--", "sh", "-c", "exit 7", env=env)
    missing = ended(launched("run", "--once", "-o", "json", "--pod-id", "three", "--", "/no/such/program", env=env))
    told = ended(failed)
    assert (told.code, told.json["outcome"]) == (1, "failed"), told
    assert told.json["errors"] == ["the program 'sh' ended with exit code 7"]
    assert missing.code == 1, missing
    assert "cannot be started: No such file or directory" in missing.json["errors"][0]


def test_a_checkout_that_is_not_installed(redis_server: RealServer, tmp_path: Path) -> None:
    """``python -m skillbus run`` in it, by a Python that has what we need and not us: pod and guard are found."""
    arm(redis_server)
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    (own,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (own / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")  # of which no .pth is read: not where we lie
    checkout, mark = tmp_path / "checkout", tmp_path / "ran"
    shutil.copytree(Path(skillbus_package.__file__).parent, checkout / "skillbus")
    python = str(tmp_path / "env" / "bin" / "python")
    command = [python, "-m", "skillbus", "run", "--once", "-o", "json", "--", "sh", "-c", f"echo done > {mark}"]
    elsewhere = subprocess.run([python, "-c", "import skillbus.cli"], cwd=tmp_path, capture_output=True, check=False)
    if elsewhere.returncode == 0:
        pytest.skip("skillbus is installed among what it needs")
    env = environ(redis_server, tmp_path)
    ran = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, mark.exists()) == (0, True), ran


def test_one_pass_is_told_in_one_line(redis_server: RealServer, tmp_path: Path) -> None:
    """For a person, on stdout: what it came to and how long it took; errors in lines of their own."""
    arm(redis_server)
    env = environ(redis_server, tmp_path)
    well = skillbus("run", "--once", "--", "true", env=env)
    assert re.fullmatch(r"done in \d+\.\d s\n", well.out), well
    failed = skillbus("run", "--once", "--", "sh", "-c", "exit 7", env=env)
    assert failed.code == 1
    assert re.fullmatch(
        r"error: the program 'sh' ended with exit code 7\nnothing done, 1 error in \d+\.\d s\n", failed.out
    ), failed
    watched = skillbus_on_terminal("run", "--once", "--", "sh", "-c", "exit 7", env=env)
    assert (watched.code, watched.out.splitlines()[-1][:21]) == (1, "nothing done, 1 error"), watched
    assert watched.err == "", "a person is told once"


def test_a_person_sees_what_a_pass_is_at(redis_server: RealServer, tmp_path: Path) -> None:
    """Skills from a folder, at a terminal: one line that each step overwrites, gone at the end, no log beside it."""
    arm(redis_server)
    skill = tmp_path / "source" / "pdf"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: pdf\ndescription: Reads.\n---\nText.\n")
    (tmp_path / "m.yaml").write_text("skills:\n  - url: ./source/pdf\n")
    words = ("run", "--once", "--manifest", str(tmp_path / "m.yaml"), "--target", str(tmp_path / "skills"))
    watched = skillbus_on_terminal(*words, env=environ(redis_server, tmp_path))
    assert watched.code == 0, watched
    assert re.fullmatch(r"1 added in \d+\.\d s\n", watched.out), watched
    assert (tmp_path / "skills" / "pdf" / "SKILL.md").exists()
    steps = watched.err.split("\r\x1b[K")
    assert (steps[0], steps[-1]) == ("", ""), "nothing before, nothing left"
    assert all(step and "\n" not in step for step in steps[1:-1])
    piped = skillbus(*words, env=environ(redis_server, tmp_path))
    assert "\x1b" not in piped.err
    assert re.fullmatch(r"1 unchanged in \d+\.\d s\n", piped.out), piped
    digest = evidence_of(redis_server)[-1].skills
    assert redis_server.cli("EXISTS", PROD.skills_key(digest)) == 1, "what it holds can be looked up"


def test_killed_means_nothing_done(redis_server: RealServer, tmp_path: Path) -> None:
    """A killed fleet: exit 3, the reason on stderr, the program was not started, a tombstone remembers it."""
    arm(redis_server)
    order(redis_server, reason="token leaked")
    mark = tmp_path / "ran"
    told = skillbus("run", "--once", "-o", "json", "--", "touch", str(mark), env=environ(redis_server, tmp_path))
    assert told.code == 3, told
    assert "skillbus: nothing done: fleet 'prod' killed: \"token leaked\" by test" in told.err
    assert (told.json["state"], told.json["outcome"]) == ("stopped", None)
    assert not mark.exists()
    assert len(list((tmp_path / "state" / "tombstones").glob("*.json"))) == 1
    redis_server.cli("FLUSHALL")
    arm(redis_server)
    again = skillbus("run", "--once", "--", "touch", str(mark), env=environ(redis_server, tmp_path))
    assert (again.code, mark.exists()) == (3, False), again
    record = record_of(redis_server)
    assert record is not None, "the one who remembers wrote it back, however short it lived"
    assert record.reason == "token leaked"


def test_unknown_means_nothing_done(redis_server: RealServer, tmp_path: Path) -> None:
    """Redis down, or the fleet not armed: exit 4 with why, and the program was not started."""
    mark = tmp_path / "ran"
    words = ("run", "--once", "--", "touch", str(mark))
    unarmed = launched(*words, env=environ(redis_server, tmp_path / "a"))
    as_json = launched("run", "--once", "-o", "json", *words[2:], env=environ("redis://127.0.0.1:1/0", tmp_path / "b"))
    down = ended(launched(*words, env=environ("redis://127.0.0.1:1/0", tmp_path / "c")))
    assert down.code == 4, down
    assert "skillbus: nothing done: not subscribed: no connection to redis://127.0.0.1:1/0" in down.err
    told = ended(unarmed)
    assert told.code == 4, told
    assert "skillbus: nothing done: fleet 'prod' is not armed" in told.err
    answer = ended(as_json)
    assert (answer.code, answer.json["exit_code"], answer.json["state"]) == (4, 4, "holding")
    assert not mark.exists()
    assert redis_server.cli("EXISTS", FLEET.epoch_key) == 0, "nothing arms by itself"


def test_what_cannot_be_run_is_said_before_anything_starts(tmp_path: Path) -> None:
    """Bad URL, a cluster's URL, nothing to run, both reconcilers, bad durations: exit 2 and one sentence."""
    env = environ("redis://127.0.0.1:1/0", tmp_path)
    program = ("--", "true")
    wrong = {
        "is no Redis URL": ("--redis", "127.0.0.1:6379", *program),
        "not Redis Cluster": ("--redis", "redis+cluster://a:1", *program),
        "nothing to run": (),
        "exclude each other": ("--manifest", "m.yaml", *program),
        "is no duration": ("--every", "often", *program),
        "cannot be the name of a pod": ("--pod-id", "a b", *program),
        "cannot be the name of a group": ("--group", "a/b", *program),
    }
    running = {said: launched("run", "--once", *words, env=env) for said, words in wrong.items()}
    for said, process in running.items():
        told = ended(process)
        assert (told.code, told.out, said in told.err) == (2, "", True), told
        assert len(told.err.splitlines()) == 1


def test_a_pod_that_cannot_remember_does_not_start(redis_server: RealServer, tmp_path: Path) -> None:
    """A state folder that holds no tombstone: one sentence with what to do, and nothing done."""
    arm(redis_server)
    (tmp_path / "state").write_text("a file where the folder should be")
    told = skillbus("run", "--once", "--", "touch", str(tmp_path / "ran"), env=environ(redis_server, tmp_path))
    assert (told.code, told.out) == (1, ""), told
    assert "cannot hold tombstones" in told.err
    assert "SKILLBUS_STATE_DIR" in told.err
    assert len(told.err.splitlines()) == 1
    assert not (tmp_path / "ran").exists()

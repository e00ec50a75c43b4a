"""``skillbus acl`` as a real process: what it prints a server takes, and no password leaves by the wrong door."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skillbus.bus.embedded import ServerBinary
from skillbus.control.acl import Role
from tests.pods import environ_of, skillbus
from tests.servers import RawClient, RealServer, Refused

ENV = environ_of("redis://127.0.0.1:1/0")


def passwords_in(text: str) -> dict[str, str]:
    """``SKILLBUS_<USER>_PASSWORD=…`` lines."""
    return dict(re.findall(r"^SKILLBUS_(\w+)_PASSWORD=(\S+)$", text, re.MULTILINE))


def fed(words: list[str], given: str) -> subprocess.CompletedProcess[str]:
    """``skillbus acl`` with something on its standard input."""
    argv = [sys.executable, "-m", "skillbus", "acl", *words]
    return subprocess.run(argv, input=given, env=ENV, capture_output=True, text=True, timeout=60, check=False)


def test_every_role_logs_in_with_what_was_printed(real_server_binary: ServerBinary, tmp_path: Path) -> None:
    """stdout is an ACL file with default off first, a server starts from it, and each made password opens its user."""
    ran = skillbus("acl", "--pod-id", "one", env=ENV)
    assert ran.code == 0, ran
    assert ran.out.splitlines()[0] == "user default off"
    names = [line.split()[1] for line in ran.out.splitlines()]
    assert names == ["default", "pod-one", "tenant-pod-one", "bot", "keeper", "console", "viewer", "operator", "admin"]
    words = passwords_in(ran.err)
    assert len(words) == len(set(words.values())) == len(Role)
    assert not any(word in ran.out for word in words.values())
    (tmp_path / "users.acl").write_text(ran.out)
    with RealServer(real_server_binary, tmp_path / "server", f"aclfile {tmp_path / 'users.acl'}") as server:
        for name in names[1:]:
            word = words[name.upper().replace("-", "_")]
            assert server.cli("PING", user=name, password=word) == b"PONG", name
        with pytest.raises(Refused, match="NOAUTH"):
            server.cli("PING")


def test_setuser_lines_go_through_one_redis_cli(real_server_binary: ServerBinary, tmp_path: Path) -> None:
    """--format setuser is a script for redis-cli: every line OK, though the first switches off who feeds it."""
    cli = shutil.which("redis-cli")
    kept = tmp_path / "passwords"
    ran = skillbus("acl", "--format", "setuser", "--passwords-to", str(kept), "--redis", "redis://h/3", env=ENV)
    assert ran.code == 0, ran
    lines = ran.out.splitlines()
    assert lines[0] == "ACL SETUSER default off"
    assert all(line.startswith("ACL SETUSER ") and " +select" in line for line in lines[1:])
    with RealServer(real_server_binary, tmp_path / "server") as server:
        if cli is None:
            with RawClient(server.port) as client:
                assert [client.call(*line.split()) for line in lines] == [b"OK"] * len(lines)
        else:
            argv = [cli, "-p", str(server.port)]
            done = subprocess.run(argv, input=ran.out, capture_output=True, text=True, timeout=30, check=True)
            assert done.stdout.split() == ["OK"] * len(lines)
        word = passwords_in(kept.read_text())["BOT"]
        assert server.cli("SETNX", "skillbus:{prod}:killed", "x", user="bot", password=word) == 1
        with pytest.raises(Refused, match="NOAUTH"):
            server.cli("PING")


def test_passwords_go_into_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    """0600 from the beginning, not on stderr or stdout too, and never over a file that is there."""
    kept = tmp_path / "passwords"
    ran = skillbus("acl", "--role", "bot", "--user", "pager", "--passwords-to", str(kept), env=ENV)
    assert ran.code == 0, ran
    word = passwords_in(kept.read_text())["PAGER"]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert word not in ran.out + ran.err
    assert hashlib.sha256(word.encode()).hexdigest() in ran.out
    assert "%W~skillbus:{prod}:audit:bot:pager" in ran.out
    again = skillbus("acl", "--role", "bot", "--passwords-to", str(kept), env=ENV)
    assert (again.code, again.out) == (2, "")
    assert passwords_in(kept.read_text()) == {"PAGER": word}


def test_passwords_are_read_and_never_shown(tmp_path: Path) -> None:
    """From stdin or a file, a line for each user; what is printed is their sha256."""
    ran = fed(["--role", "viewer", "--role", "bot", "--hash-from-stdin"], "hunter2\nhunter3\n")
    assert ran.returncode == 0, ran
    assert "hunter" not in ran.stdout + ran.stderr
    for name, word in (("bot", "hunter2"), ("viewer", "hunter3")):
        assert f"user {name} reset on #{hashlib.sha256(word.encode()).hexdigest()} " in ran.stdout
    (tmp_path / "word").write_text("hunter4\n")
    told = skillbus("acl", "--role", "bot", "--hash-from", str(tmp_path / "word"), "-o", "json", env=ENV)
    assert hashlib.sha256(b"hunter4").hexdigest() in told.json["users"][0]["line"]
    for given in ("", "one\n", "one\n\n", "one\ntwo\nthree\n"):
        wrong = fed(["--role", "viewer", "--role", "bot", "--hash-from-stdin"], given)
        assert (wrong.returncode, wrong.stdout) == (2, ""), given
        assert "one" not in wrong.stderr.replace("none", "")


def test_json_has_the_lines_and_no_password() -> None:
    """One object on stdout: the fleet, default off, and for each user its role, what it is for, and its line."""
    ran = skillbus("acl", "--role", "admin", "--role", "pod", "--group", "eu", "--fleet", "eu-1", "-o", "json", env=ENV)
    assert (ran.json["fleet"], ran.json["default"], ran.json["format"]) == ("eu-1", "user default off", "file")
    assert [(one["role"], one["user"]) for one in ran.json["users"]] == [("pod", "pod"), ("admin", "admin")]
    assert "skillbus:{eu-1}:killed:group:eu " in ran.json["users"][0]["line"]
    assert len(passwords_in(ran.err)) == 2
    assert not any(word in ran.out for word in passwords_in(ran.err).values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--user", "x"], "give one --role"),
        (["--role", "tenant-pod"], "needs its pod id"),
        (["--role", "bot", "--user", "default"], "must be off"),
        (["--role", "pod", "--pod-id", "a b"], "cannot be the name of a pod"),
        (["--fleet", "prod ~*"], "cannot be the name of a fleet"),
        (["--generate", "--hash-from-stdin"], "choose"),
        (["--role", "king"], "king"),
        (["--hash-from", "/nonexistent/file"], "cannot be read"),
    ],
)
def test_what_cannot_be_printed_is_refused(words: list[str], said: str) -> None:
    """Exit 2, the reason on stderr, and not one line on stdout that somebody could load."""
    ran = skillbus("acl", *words, env=ENV)
    assert (ran.code, ran.out) == (2, ""), ran
    assert said in ran.err
    assert not passwords_in(ran.err)


def test_a_tenants_pod_is_printed_when_it_is_one() -> None:
    """--tenant turns the pod into a tenant's, which needs its id."""
    ran = skillbus("acl", "--role", "pod", "--tenant", "--pod-id", "t-1", "-o", "json", env=ENV)
    line = ran.json["users"][0]["line"]
    assert json.dumps(ran.json["users"][0]["role"]) == '"tenant-pod"'
    assert "+setnx %W~skillbus:{prod}:killed:pod:t-1)" in line

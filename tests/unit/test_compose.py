"""The compose file as data: what it starts, with which rights, and that its commands are ones that skillbus has."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from skillbus.cli import app
from skillbus.control.acl import AclUser, Role, acl_lines

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PODS = ["pod-1", "pod-2", "pod-3"]
REDIS_CONF = (ROOT / "deploy/redis/redis.conf").read_text(encoding="utf-8")


def parse(words: list[str]) -> None:
    """Parse a command line as the real command does, and run nothing."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("skillbus", list(words))
    command = group.get_command(context, words[0])
    assert command is not None, words
    command.make_context(words[0], list(words[1:]), parent=context)


def environment(fleet: str = "prod") -> dict[str, str]:
    """What the Redis container sees: every password is its user's name."""
    passwords = {f"SKILLBUS_{role.name}_PASSWORD": role.value for role in Role}
    return {"PATH": os.environ["PATH"], "SKILLBUS_FLEET": fleet, "SKILLBUS_TENANT_POD_ID": "tenant-1", **passwords}


def start(folder: Path, given: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the container's script on this machine, up to the point where it would become Redis."""
    template = {"SKILLBUS_ACL_TEMPLATE": str(ROOT / "deploy/redis/users.acl.in"), "SKILLBUS_ACL_FOLDER": str(folder)}
    return subprocess.run(
        ["sh", str(ROOT / "deploy/redis/start.sh"), "env"],
        env={**given, **template},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_starts_a_redis_three_pods_and_a_console() -> None:
    """``up`` starts Redis, the pods and the console; the hands of operator and admin wait for ``run``."""
    started = [name for name, service in SERVICES.items() if "profiles" not in service]
    assert started == ["redis", *PODS, "console"]
    assert [name for name in SERVICES if name not in started] == ["operator", "admin"]


def test_redis_is_healthy_only_when_it_says_so_to_a_user() -> None:
    """The check logs in and looks for PONG, and every other service waits for it."""
    check = SERVICES["redis"]["healthcheck"]["test"]
    assert check[0] == "CMD-SHELL"
    assert "--user viewer PING | grep -qx PONG" in check[1]
    waiting = {name for name in SERVICES if name != "redis"}
    assert {n for n in waiting if SERVICES[n]["depends_on"]["redis"]["condition"] == "service_healthy"} == waiting


@pytest.mark.parametrize(
    "line",
    ["appendonly yes", "maxmemory-policy noeviction", "maxclients 50000", "aclfile /run/skillbus/users.acl"],
)
def test_redis_keeps_what_it_is_told(line: str) -> None:
    """Durable, never evicting, room for many pods, users from the file."""
    assert line in REDIS_CONF.splitlines()
    assert SERVICES["redis"]["ulimits"]["nofile"] > 50000


def test_redis_listens_to_this_machine_alone() -> None:
    """The published port is bound to loopback: passwords and orders travel in the clear."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["redis"]["ports"])


def test_no_password_is_in_the_file() -> None:
    """Every password is a variable that must be set, and says so when it is not."""
    found = re.findall(r"^\s+SKILLBUS_\w*PASSWORD: (.*)$", TEXT, flags=re.MULTILINE)
    assert len(found) == len(Role) + 4
    assert all(re.fullmatch(r"\$\{SKILLBUS_\w+_PASSWORD:\?set a password for .+\}", value) for value in found)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_a_name_a_memory_and_few_rights(name: str) -> None:
    """Each pod: its own id, state and skills that outlive it, the user ``pod``, no capability, no writable root."""
    pod = SERVICES[name]
    assert pod["environment"]["SKILLBUS_POD_ID"] == name
    assert pod["environment"]["SKILLBUS_REDIS_USERNAME"] == "pod"
    assert {f"{name}-state:/var/lib/skillbus", f"{name}-skills:/srv/skills"} < set(pod["volumes"])
    assert {f"{name}-state", f"{name}-skills"} < set(COMPOSE["volumes"])
    assert (pod["read_only"], pod["cap_drop"], pod["restart"]) == (True, ["ALL"], "unless-stopped")


def test_the_console_undoes_nothing_and_is_reached_from_this_machine_alone() -> None:
    """Its user is ``console``, which cannot reset; its port is bound to loopback; its memory outlives it."""
    console = SERVICES["console"]
    assert console["environment"]["SKILLBUS_REDIS_USERNAME"] == "console"
    assert not [name for name in console["environment"] if "ADMIN" in name]
    assert all(port.startswith("127.0.0.1:") for port in console["ports"])
    assert "console-state:/var/lib/skillbus" in console["volumes"]
    assert (console["read_only"], console["cap_drop"]) == (True, ["ALL"])


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "redis"])
def test_every_command_is_one_that_skillbus_has(name: str) -> None:
    """The real parser accepts each service's command."""
    parse(SERVICES[name]["command"])


def test_the_commands_of_the_comment_are_ones_that_skillbus_has() -> None:
    """What a person copies from the top of the file parses too."""
    found = re.findall(r"^# +docker compose run --rm (operator|admin) (.+)$", TEXT, flags=re.MULTILINE)
    assert [service for service, _ in found] == ["admin", "operator", "operator", "operator", "operator", "admin"]
    for _, words in found:
        parse([word.strip('"') for word in re.findall(r'"[^"]*"|\S+', words)])


def test_a_command_that_skillbus_does_not_have_is_noticed() -> None:
    """The check above can fail."""
    with pytest.raises(Exception, match="manifesto"):
        parse(["run", "--manifesto", "x"])
    with pytest.raises(AssertionError):
        parse(["resurrect"])


def test_the_containers_users_are_those_of_acl_py(tmp_path: Path) -> None:
    """The script writes, letter by letter, what ``acl_lines`` prints for the same users; only its owner reads it."""
    ran = start(tmp_path / "run", environment("eu-1"))
    assert (ran.returncode, ran.stderr) == (0, "")
    users = [
        AclUser(
            role,
            role.value,
            hashlib.sha256(role.value.encode()).hexdigest(),
            pod_id="tenant-1" if role is Role.TENANT_POD else "",
        )
        for role in Role
    ]
    written = tmp_path / "run" / "users.acl"
    assert written.read_text() == acl_lines("eu-1", users)
    assert written.stat().st_mode & 0o077 == 0
    assert "PASSWORD" not in ran.stdout


@pytest.mark.parametrize("name", [f"SKILLBUS_{role.name}_PASSWORD" for role in Role] + ["SKILLBUS_FLEET"])
def test_the_container_does_not_start_without_a_password_or_name(tmp_path: Path, name: str) -> None:
    """An empty password or fleet ends the start with a sentence that names the variable."""
    ran = start(tmp_path / "run", {**environment(), name: ""})
    assert ran.returncode == 2
    assert name in ran.stderr
    assert not (tmp_path / "run" / "users.acl").exists()


@pytest.mark.parametrize("fleet", ["prod ~*", "a/b", "x" * 65, "*", "a\nb"])
def test_a_hostile_fleet_name_does_not_reach_the_file(tmp_path: Path, fleet: str) -> None:
    """The script refuses what skillbus refuses as a name."""
    assert start(tmp_path / "run", environment(fleet)).returncode == 2

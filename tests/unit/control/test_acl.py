"""ACL lines as text. That they hold against attacks: tests/integration/test_acl.py."""

from __future__ import annotations

import re

import pytest

from skillbus.control.acl import DEFAULT_OFF, AclUser, Role, acl_line, acl_lines
from skillbus.errors import BadSettings

HASH = "0123456789abcdef" * 4


def user(role: Role, name: str = "someone", pod_id: str = "pod-1") -> AclUser:
    """A user of this role."""
    return AclUser(role, name, HASH, pod_id=pod_id)


def test_a_set_begins_by_switching_the_default_user_off() -> None:
    """Every set of lines says ``user default off``, first."""
    lines = acl_lines("prod", [user(Role.BOT)]).splitlines()
    assert lines[0] == DEFAULT_OFF == "user default off"
    assert len(lines) == 2


@pytest.mark.parametrize("role", Role)
def test_no_line_grants_a_category_or_everything(role: Role) -> None:
    """Commands are named one by one; no key, channel or category is granted wholesale."""
    words = re.split(r"[ ()]+", acl_line("prod", user(role)))
    assert not [word for word in words if word.startswith(("+@", "allkeys", "allchannels", "allcommands", "nopass"))]
    assert not {"~*", "%R~*", "%W~*", "&*"} & set(words)
    assert words[2:6] == ["reset", "on", f"#{HASH}", "resetchannels"]


@pytest.mark.parametrize("role", Role)
def test_every_selector_forgets_the_channels_it_was_born_with(role: Role) -> None:
    """With acl-pubsub-default allchannels a selector begins with all channels, so each resets them first."""
    selectors = re.findall(r"\(([^)]*)\)", acl_line("prod", user(role)))
    assert selectors
    assert all(selector.startswith("resetchannels ") for selector in selectors)


@pytest.mark.parametrize("role", Role)
def test_no_selector_mixes_hearing_and_speaking(role: Role) -> None:
    """SUBSCRIBE and PUBLISH never share the channels of one selector."""
    for selector in re.findall(r"\(([^)]*)\)", acl_line("prod", user(role))):
        assert not ("+subscribe" in selector and "+publish" in selector)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMIN])
def test_only_the_admin_can_write_an_epoch_or_delete_a_record(role: Role) -> None:
    """No other line has DEL or SET, nor a selector that writes an epoch."""
    line = acl_line("prod", user(role))
    assert not re.search(r"\+(del|set|unlink|getdel|rename|restore|eval)\b", line)
    assert not re.search(r"(?:%W|%RW|[ (])~skillbus:\{prod\}:epoch", line)


def test_a_pod_of_given_groups_reaches_no_other() -> None:
    """A pod with an id and groups bears these scopes alone. Its one pattern is that of the sets of skills."""
    line = acl_line("prod", AclUser(Role.POD, "one", HASH, pod_id="one", groups=("batch", "eu")))
    assert line.count("*") == 1, "of a set nobody knows the digest beforehand"
    assert "~skillbus:{prod}:skills:*" in line
    assert "skillbus:{prod}:killed:group:batch %R~skillbus:{prod}:killed:group:eu" in line


@pytest.mark.parametrize("role", Role)
def test_a_set_of_skills_is_written_once_and_by_pods_alone(role: Role) -> None:
    """SETNX, and nothing else that writes, in one selector; everybody else has no word there but reading."""
    line = acl_line("prod", user(role))
    naming = [selector for selector in re.findall(r"\(([^)]*)\)", line) if ":skills:" in selector]
    expected = (
        ["resetchannels +exists +setnx %W~skillbus:{prod}:skills:*"] if role in (Role.POD, Role.TENANT_POD) else []
    )
    assert naming == expected


def test_another_database_needs_select() -> None:
    """SELECT is granted only where the keys do not live in database 0."""
    assert "+select" not in acl_line("prod", user(Role.POD))
    assert "+select" in acl_line("prod", user(Role.POD), database=3)


@pytest.mark.parametrize(
    ("role", "name", "digest", "pod_id", "said"),
    [
        (Role.BOT, "default", HASH, "", "must be off"),
        (Role.BOT, "a b", HASH, "", "cannot be the name of a user"),
        (Role.BOT, "bot", "secret", "", "sha256"),
        (Role.BOT, "bot", HASH.upper(), "", "lower-case"),
        (Role.TENANT_POD, "tenant", HASH, "", "needs its pod id"),
        (Role.POD, "pod", HASH, "*", "cannot be the name of a pod"),
    ],
)
def test_what_cannot_be_a_user_is_refused(role: Role, name: str, digest: str, pod_id: str, said: str) -> None:
    """A name that would break the line, or widen it to a pattern, never becomes one."""
    with pytest.raises(BadSettings, match=said):
        AclUser(role, name, digest, pod_id=pod_id)


def test_a_hostile_fleet_name_is_refused() -> None:
    """A fleet's name cannot smuggle a rule into the line."""
    with pytest.raises(BadSettings, match="cannot be the name of a fleet"):
        acl_line("prod ~*", user(Role.POD))

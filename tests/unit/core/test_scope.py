"""Scopes and fleets: which names are names, and which scopes a pod belongs to. (Names of keys: tests/wire.)"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.core.scope import NAME, Fleet, Scope, ScopeKind, checked_name
from skillbus.errors import BadSettings
from tests import profiles

assert profiles

NAMES = st.from_regex(NAME, fullmatch=True)


@pytest.mark.parametrize("name", ["a", "prod", "A-Z.a_z-0", ".", "..", "-", "x" * 64])
def test_a_name_can_be_a_name(name: str) -> None:
    """1 to 64 of the letters, digits, dot, underscore and hyphen."""
    assert checked_name("fleet", name) == name
    assert Fleet(name).name == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", "a:b", "{a}", "a*", "a\n", "\n", "ä", "a/b", "a~b", "\x00", "?", "[a]", "a\udc80"]
)
def test_anything_else_cannot(name: str) -> None:
    """What could change a key's shape, a pattern or a path is refused, with the rule in the text."""
    for make in (Fleet, Fleet("prod").group, Fleet("prod").pod, Fleet("prod").bot_audit_key):
        with pytest.raises(BadSettings, match="use 1 to 64"):
            make(name)


def test_a_refused_name_is_not_shown_whole() -> None:
    """A megabyte as a name makes no megabyte of an error."""
    with pytest.raises(BadSettings) as raised:
        Fleet("x" * 1_000_000)
    assert len(str(raised.value)) < 200


def test_a_pod_belongs_to_its_fleet_its_groups_and_itself() -> None:
    """The fleet first, in the order given."""
    fleet = Fleet("prod")
    assert fleet.scopes_of("web-1", ("b", "a")) == (
        Scope("prod"),
        Scope("prod", ScopeKind.GROUP, "b"),
        Scope("prod", ScopeKind.GROUP, "a"),
        Scope("prod", ScopeKind.POD, "web-1"),
    )
    assert fleet.scopes_of("web-1", ()) == (fleet.scope, fleet.pod("web-1"))


def test_a_scope_reads_as_an_operator_says_it() -> None:
    """No key and no brace is shown to people."""
    fleet = Fleet("prod")
    assert str(fleet.scope) == "fleet 'prod'"
    assert str(fleet.group("batch")) == "group 'batch' of fleet 'prod'"
    assert str(fleet.pod("web-1")) == "pod 'web-1' of fleet 'prod'"


@given(st.tuples(NAMES, NAMES, NAMES), st.tuples(NAMES, NAMES, NAMES))
def test_no_two_scopes_share_a_name(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Different scopes have different channels and keys, whatever their fleets, groups and pods are called."""
    scopes = {
        scope
        for fleet, group, pod in (one, other)
        for scope in (Fleet(fleet).scope, Fleet(fleet).group(group), Fleet(fleet).pod(pod))
    }
    names = {name for scope in scopes for name in (scope.kill_channel, scope.killed_key, scope.epoch_key)}
    assert len(names) == 3 * len(scopes)


@given(NAMES)
def test_a_fleet_is_found_by_its_epoch_alone(name: str) -> None:
    """The fleet's own epoch key names it; a group's, a pod's or a record's names none."""
    fleet = Fleet(name)
    assert Fleet.of_epoch_key(fleet.scope.epoch_key) == name
    others = (fleet.group("g").epoch_key, fleet.pod("p").epoch_key, fleet.scope.killed_key, fleet.roster_key)
    assert {Fleet.of_epoch_key(key) for key in others} == {None}


@given(NAMES, NAMES)
def test_a_scope_is_found_by_its_suffix(fleet_name: str, name: str) -> None:
    """Each scope's own suffix leads back to it; what is no suffix leads nowhere."""
    fleet = Fleet(fleet_name)
    for scope in (fleet.scope, fleet.group(name), fleet.pod(name)):
        assert fleet.of_suffix(scope.suffix) == scope
    assert fleet.of_suffix(f":{name}") is None
    assert fleet.of_suffix(":pod:") is None

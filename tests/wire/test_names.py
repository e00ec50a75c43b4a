"""Every key and channel of docs/protocol.md §1, letter by letter. Who changes one breaks every fleet out there."""

from __future__ import annotations

from skillbus.core.scope import Fleet

F = Fleet("prod")
FLEET, GROUP, POD = F.scope, F.group("batch"), F.pod("web-1")


def test_kill_channels() -> None:
    """No braces on a channel: it is shown to people and typed by them."""
    assert FLEET.kill_channel == "skillbus:prod:kill"
    assert GROUP.kill_channel == "skillbus:prod:kill:group:batch"
    assert POD.kill_channel == "skillbus:prod:kill:pod:web-1"


def test_records() -> None:
    """The fleet in braces: all keys of a fleet share a slot."""
    assert FLEET.killed_key == "skillbus:{prod}:killed"
    assert GROUP.killed_key == "skillbus:{prod}:killed:group:batch"
    assert POD.killed_key == "skillbus:{prod}:killed:pod:web-1"


def test_epochs() -> None:
    """Beside each record."""
    assert FLEET.epoch_key == "skillbus:{prod}:epoch"
    assert GROUP.epoch_key == "skillbus:{prod}:epoch:group:batch"
    assert POD.epoch_key == "skillbus:{prod}:epoch:pod:web-1"


def test_evidence() -> None:
    """The pods' hashes and the index to find them."""
    assert F.pod_key("web-1") == "skillbus:{prod}:pod:web-1"
    assert F.roster_key == "skillbus:{prod}:roster"
    assert F.events_channel == "skillbus:prod:events"


def test_skills() -> None:
    """What a digest of installed skills stands for."""
    assert F.skills_key("ab" * 32) == "skillbus:{prod}:skills:" + "ab" * 32


def test_audit() -> None:
    """One stream of control and keeper, one of each bot."""
    assert F.audit_key == "skillbus:{prod}:audit"
    assert F.bot_audit_key("pager") == "skillbus:{prod}:audit:bot:pager"


def test_operators_channels() -> None:
    """Rehearse, reconcile, and a pod's own voice."""
    assert F.drill_channel == "skillbus:prod:drill"
    assert F.sync_channel == "skillbus:prod:sync"
    assert F.echo_channel("web-1") == "skillbus:prod:echo:web-1"

"""A keeper and its server under every disturbance: what was published is on record, or it says that it is deaf."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from skillbus.clock import boottime_s
from skillbus.control.acl import AclUser, Role, acl_lines
from skillbus.core.scope import Fleet, Scope
from tests.faults.test_payloads import ORDERS
from tests.integration.test_acl import sha256
from tests.keepers import RunningKeeper, audited, keeper_process, tombstones_in
from tests.pods import (
    FAST,
    FLEET,
    GROUP,
    PROD,
    Path2Redis,
    WatchedPod,
    arm,
    eventually,
    freeze,
    order,
    outlast,
    own_server,
    record_of,
    reset,
    subscriber_ids,
)
from tests.servers import RawClient, RealServer, server_binary

POD = PROD.pod("one")


# -- a raw PUBLISH, and nobody else there ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDERS)
def test_any_bytes_are_recorded_without_a_pod(redis_server: RealServer, tmp_path: Path, name: str) -> None:
    """By the real redis-cli; then a pod that is started stays stopped, and the audit knows one kill."""
    arm(redis_server)
    with RunningKeeper(redis_server, tmp_path / "keeper") as keeper:
        keeper.until_hears()
        assert redis_server.publish(FLEET.kill_channel, ORDERS[name]) == 1
        record = eventually(lambda: record_of(redis_server), "it is recorded")
        assert record.heard_by == keeper.keeper.name
        with RawClient(redis_server.port) as client:
            for payload in ORDERS.values():
                client.call("PUBLISH", FLEET.kill_channel, payload)
        assert record_of(redis_server) == record
        with WatchedPod(redis_server, tmp_path, **FAST) as pod:
            pod.until_latched()
            assert pod.works_count == 0
        eventually(lambda: [e for e in audited(redis_server) if e["record"] == record.id], "the audit knows")
        assert keeper.standing.hears


@pytest.mark.parametrize("scope", [FLEET, GROUP, POD], ids=str)
def test_every_scope_and_no_other(redis_server: RealServer, tmp_path: Path, scope: Scope) -> None:
    """A raw message stops exactly the scope whose channel it came on, though nobody has ever heard of that scope."""
    arm(redis_server)
    with RunningKeeper(redis_server, tmp_path) as keeper:
        keeper.until_hears()
        redis_server.publish(scope.kill_channel, "stop")
        eventually(lambda: keeper.standing.persisted_count == 1, "it is recorded")
        assert [record_of(redis_server, one) is not None for one in (FLEET, GROUP, POD)] == [
            one == scope for one in (FLEET, GROUP, POD)
        ]


def handed_over(client: RawClient, scope: Scope, moments: random.Random) -> None:
    """Publish again and again, at random moments, until the server has handed it to somebody."""

    def is_handed() -> bool:
        outlast(moments.random() * 0.003, boottime_s())
        return client.call("PUBLISH", scope.kill_channel, "stop") != 0

    eventually(is_handed, "somebody listens")


def test_what_was_handed_over_is_recorded_however_young_the_keeper(redis_server: RealServer, tmp_path: Path) -> None:
    """The first message that a starting keeper is handed, confirmed or not, is on record."""
    moments = random.Random(5)
    arm(redis_server)
    with RawClient(redis_server.port) as client:
        for number in range(15):
            scope = PROD.pod(f"p{number}")
            with RunningKeeper(redis_server, tmp_path / str(number)):
                handed_over(client, scope, moments)
                eventually(lambda: record_of(redis_server, scope), "it is recorded")  # noqa: B023


def test_what_was_handed_over_is_recorded_at_any_moment_of_a_reconnect(tmp_path: Path) -> None:
    """Its connection is torn again and again, also while it is being made: what the next was handed is recorded."""
    moments = random.Random(6)
    with (
        own_server(tmp_path) as server,
        RawClient(server.port) as client,
        RunningKeeper(server, tmp_path / "keeper") as keeper,
    ):
        keeper.until_hears()
        for number in range(25):
            scope = PROD.pod(f"p{number}")
            for _ in range(moments.choice((1, 1, 2, 5))):
                client.call("CLIENT", "KILL", "TYPE", "PUBSUB")
                outlast(moments.random() * 0.003, boottime_s())
            handed_over(client, scope, moments)
            eventually(lambda: record_of(server, scope), "it is recorded")  # noqa: B023
            if moments.random() < 0.3:
                keeper.until_hears()
        keeper.until_hears()
        # The record is there before the keeper has its answer.
        eventually(lambda: keeper.standing.persisted_count == 25, "it has told of each")


# -- a server that breaks ----------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """Within two seconds it says that it is blind, and why; it hears again by itself, and nothing is forgotten."""
    with own_server(tmp_path) as server, RunningKeeper(server, tmp_path / "keeper") as keeper:
        keeper.until_hears()
        server.publish(GROUP.kill_channel, "before")
        eventually(lambda: keeper.tombstones, "it remembers")
        for _ in range(3):
            server.kill()
            killed_at_s = boottime_s()
            eventually(lambda: not keeper.standing.hears, "it says so")
            assert boottime_s() - killed_at_s < 3.0
            assert "is it up?" in keeper.standing.why
            assert keeper.standing.deaf_since_ms > 0
            server.start()
            keeper.until_hears()
        server.restart_empty()
        eventually(lambda: record_of(server, GROUP), "what was lost is back, though the fleet is not armed")
        server.publish(FLEET.kill_channel, "after")
        eventually(lambda: record_of(server), "it is recorded")


def test_a_frozen_server_is_noticed_within_three_seconds(tmp_path: Path) -> None:
    """SIGSTOP: connections stay open, nobody answers. It says so; what was sent meanwhile is recorded later."""
    with own_server(tmp_path) as server, RunningKeeper(server, tmp_path / "keeper") as keeper:
        keeper.until_hears()
        frozen_at_s = freeze(server)
        with RawClient(server.port) as client:
            client.send("PUBLISH", FLEET.kill_channel, "sent to a frozen one")
            eventually(lambda: not keeper.standing.hears, "it says so")
            assert boottime_s() - frozen_at_s < 3.5  # a beat, a command's timeout, and a loaded machine
            assert "no answer" in keeper.standing.why
            server.thaw()
            assert client.read() in (0, 1)
        keeper.until_hears()
        assert eventually(lambda: record_of(server), "it is recorded").reason == "sent to a frozen one"


def test_a_subscription_that_says_nothing_is_noticed_within_three_seconds(tmp_path: Path) -> None:
    """Its own voice does not come back: deaf, and not content with a connection that confirms nothing."""
    with own_server(tmp_path) as server, Path2Redis(server) as path, RunningKeeper(path.url, tmp_path / "k") as keeper:
        keeper.until_hears()
        path.deafens = True
        deaf_at_s = boottime_s()
        eventually(lambda: not keeper.standing.hears, "it says so")
        assert boottime_s() - deaf_at_s < 3.5
        eventually(lambda: "not subscribed: no confirmation" in keeper.standing.why, "and why")
        path.deafens = False
        keeper.until_hears()
        server.publish(FLEET.kill_channel, "stop")
        eventually(lambda: record_of(server), "it is recorded")


def test_a_partition_that_a_kill_and_a_reset_fall_into(tmp_path: Path) -> None:
    """Cut off over a reset: its late retry undoes nothing, and its tombstone goes."""
    folder = tmp_path / "keeper"
    with own_server(tmp_path) as server, Path2Redis(server) as path, RunningKeeper(path.url, folder) as keeper:
        keeper.until_hears()
        server.publish(FLEET.kill_channel, "stop")
        eventually(lambda: record_of(server), "it is recorded")
        eventually(lambda: keeper.tombstones, "it remembers")
        path.cuts = True
        eventually(lambda: not keeper.standing.hears, "it says so")
        reset(server)
        path.tear()
        path.cuts = False
        keeper.until_hears()
        eventually(lambda: not keeper.tombstones, "it forgets")
        assert record_of(server) is None


# -- what is lost, and what is lifted ----------------------------------------------------------------------------------


def test_a_flush_is_undone_and_told(redis_server: RealServer, tmp_path: Path) -> None:
    """Every record that stood is back, unchanged, whoever wrote it, and the audit says that it was restored."""
    arm(redis_server)
    with RunningKeeper(redis_server, tmp_path) as keeper:
        keeper.until_hears()
        redis_server.publish(FLEET.kill_channel, "raw")
        order(redis_server, GROUP, "by our tools", record_id="o1")
        eventually(lambda: len(keeper.tombstones) == 2, "it remembers both")
        eventually(lambda: audited(redis_server), "the raw one is told")
        assert [entry["reason"] for entry in audited(redis_server)] == ["raw"]
        before = [record_of(redis_server, scope) for scope in (FLEET, GROUP)]
        redis_server.cli("FLUSHALL")
        eventually(lambda: keeper.standing.restored_count == 2, "both are back")
        assert [record_of(redis_server, scope) for scope in (FLEET, GROUP)] == before
        eventually(lambda: len(audited(redis_server, "restored")) == 2, "both are told")
        assert {entry["record"] for entry in audited(redis_server, "restored")} == {one.id for one in before if one}
        assert audited(redis_server) == []


def test_a_reset_is_not_undone(redis_server: RealServer, tmp_path: Path) -> None:
    """Nor is a bare DEL behind it, by any number of beats."""
    arm(redis_server)
    with RunningKeeper(redis_server, tmp_path) as keeper:
        keeper.until_hears()
        redis_server.publish(FLEET.kill_channel, "raw")
        eventually(lambda: keeper.tombstones, "it remembers")
        eventually(lambda: record_of(redis_server), "it is recorded")
        reset(redis_server)
        eventually(lambda: not keeper.tombstones, "it forgets")
        redis_server.cli("DEL", FLEET.killed_key)
        outlast(2.5, boottime_s())
        assert record_of(redis_server) is None
        assert audited(redis_server, "restored") == []


# -- several, and the dead ---------------------------------------------------------------------------------------------


def test_two_keepers_and_pods_do_each_other_no_harm(redis_server: RealServer, tmp_path: Path) -> None:
    """One record, one entry for each order; a loss is restored and told once; either keeper alone is enough."""
    arm(redis_server)
    with RunningKeeper(redis_server, tmp_path / "a") as one, RunningKeeper(redis_server, tmp_path / "b") as two:
        one.until_hears()
        two.until_hears()
        with WatchedPod(redis_server, tmp_path, **FAST) as pod:
            pod.until_works()
            redis_server.publish(FLEET.kill_channel, "raw")
            pod.until_latched()
            eventually(lambda: one.tombstones and two.tombstones, "both remember")
            redis_server.publish(FLEET.kill_channel, "further")
            eventually(lambda: len(audited(redis_server)) == 2, "both orders are told")
        outlast(1.5, boottime_s())
        assert [entry["reason"] for entry in audited(redis_server)] == ["raw", "further"]
        record = record_of(redis_server)
        assert record is not None
        assert audited(redis_server)[0]["record"] == record.id
        redis_server.cli("DEL", FLEET.killed_key)
        eventually(lambda: audited(redis_server, "restored"), "it is back, and told")
        assert record_of(redis_server) == record
        outlast(1.5, boottime_s())
        assert len(audited(redis_server, "restored")) == 1
    with RunningKeeper(redis_server, tmp_path / "b") as two:
        two.until_hears()
        redis_server.publish(GROUP.kill_channel, "one is left")
        eventually(lambda: record_of(redis_server, GROUP), "one is enough")


def test_a_killed_keeper_remembers_in_its_next_life(tmp_path: Path) -> None:
    """SIGKILL of its process, and all data lost: the next one writes back at once what no server knew any more."""
    with own_server(tmp_path) as server:
        with keeper_process(server, tmp_path / "keeper") as process:
            server.publish(FLEET.kill_channel, "still wanted")
            before = eventually(lambda: record_of(server), "it is recorded")
            tombstone = tmp_path / "keeper" / "keeper" / "tombstones" / "prod~keeper~fleet~.json"
            eventually(lambda: tombstone.exists() and '"epoch": 0' in tombstone.read_text(), "it remembers, settled")
            process.send_signal(signal.SIGKILL)
            process.wait()
        server.restart_empty()
        with keeper_process(server, tmp_path / "keeper"):
            assert eventually(lambda: record_of(server), "it is back") == before
            eventually(lambda: audited(server, "restored"), "it is told")
        arm(server)
        with WatchedPod(server, tmp_path, "fresh", **FAST) as pod:
            pod.until_latched()
            assert pod.works_count == 0


def test_killed_at_any_moment_behind_a_message_the_kill_stands(redis_server: RealServer, tmp_path: Path) -> None:
    """SIGKILL at random moments behind PUBLISH: by the record, or by the tombstone in the next life, it stands."""
    moments = random.Random(11)
    arm(redis_server)
    for number in range(4):
        scope = PROD.pod(f"p{number}")
        with keeper_process(redis_server, tmp_path) as process:
            assert redis_server.cli("PUBLISH", scope.kill_channel, "stop") == 1
            outlast(moments.random() * 0.01, boottime_s())
            process.send_signal(signal.SIGKILL)
            process.wait()
        known = record_of(redis_server, scope) or any(scope.name in name for name in tombstones_in(tmp_path))
        if known:
            with keeper_process(redis_server, tmp_path):
                eventually(lambda: record_of(redis_server, scope), "it stands")  # noqa: B023


# -- credentials -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.KEEPER, Role.CONSOLE])
def test_the_printed_credentials_are_enough_and_no_more_is_asked(tmp_path: Path, role: Role) -> None:
    """With exactly the printed line: it hears, records, tells, restores, tidies, and is refused nothing."""
    users = [AclUser(role, "it", sha256("pw"))]
    (tmp_path / "users.acl").write_text(acl_lines("prod", users) + f"user root on #{sha256('root')} ~* &* +@all\n")
    with RealServer(server_binary(), tmp_path / "server", f"aclfile {tmp_path / 'users.acl'}") as server:
        root = {"user": "root", "password": "root"}
        server.cli("SETNX", FLEET.epoch_key, 0, **root)
        with RunningKeeper(server, tmp_path / "keeper", username="it", password="pw") as keeper:
            keeper.until_hears()
            for scope in (FLEET, GROUP, POD):
                server.cli("PUBLISH", scope.kill_channel, "stop", **root)
                eventually(lambda: server.cli("EXISTS", scope.killed_key, **root), "it is recorded")  # noqa: B023
            eventually(lambda: server.cli("XLEN", PROD.audit_key, **root) == 3, "it is told")
            server.cli("DEL", FLEET.killed_key, **root)
            eventually(lambda: keeper.standing.restored_count == 1, "it is back")
            eventually(lambda: keeper.standing.why == "", "nothing is wrong")
        log = server.cli("ACL", "LOG", **root)
        assert log == []


def test_a_channel_that_is_not_granted_is_said(tmp_path: Path) -> None:
    """Without the pattern it is deaf and names the refusal; granted, it hears by itself."""
    with own_server(tmp_path) as server:
        rules = ["on", ">pw", "~*", "+@all", "resetchannels", "&skillbus:prod:kill", "&skillbus:prod:echo:keeper:*"]
        server.cli("ACL", "SETUSER", "it", *rules)
        with RunningKeeper(server, tmp_path / "keeper", username="it", password="pw") as keeper:
            eventually(lambda: "not subscribed:" in keeper.standing.why, "it says so")
            assert "ACL" in keeper.standing.why
            assert not keeper.standing.hears
            server.cli("ACL", "SETUSER", "it", f"&{PROD.kill_pattern}")
            keeper.until_hears()
            server.cli("ACL", "SETUSER", "it", *rules)
            eventually(lambda: not keeper.standing.hears, "taken away, it says so again")


def test_an_audit_that_refuses_delays_no_record(tmp_path: Path) -> None:
    """The record is there, and the standing says that the audit is not told; granted, it is told."""
    with own_server(tmp_path) as server:
        server.cli("ACL", "SETUSER", "it", "on", ">pw", "~*", "&*", "+@all", "-xadd")
        with RunningKeeper(server, tmp_path / "keeper", username="it", password="pw") as keeper:
            keeper.until_hears()
            server.publish(FLEET.kill_channel, "stop")
            eventually(lambda: record_of(server), "it is recorded")
            eventually(lambda: "the audit is not told" in keeper.standing.why, "it says so")
            assert keeper.standing.hears
            server.cli("ACL", "SETUSER", "it", "+xadd")
            eventually(lambda: audited(server), "it is told")
            eventually(lambda: keeper.standing.why == "", "nothing is wrong any more")


# -- floods ------------------------------------------------------------------------------------------------------------


def test_ten_thousand_messages_are_one_record_and_few_words(tmp_path: Path) -> None:
    """The first order is on record at once; the keeper hears on; the audit stays short and counts the rest."""
    with own_server(tmp_path) as server, RunningKeeper(server, tmp_path / "keeper") as keeper:
        keeper.until_hears()
        listening = subscriber_ids(server)
        with RawClient(server.port) as client:
            client.send("PUBLISH", FLEET.kill_channel, "the first")
            for start in range(0, 10_000, 500):
                for number in range(start, start + 500):
                    client.send("PUBLISH", FLEET.kill_channel, f"message {number}")
            for _ in range(10_001):
                client.read()
        assert eventually(lambda: record_of(server), "it is recorded").reason == "the first"
        counted = eventually(lambda: [entry for entry in audited(server) if "count" in entry], "the rest is counted")
        entries = audited(server)
        assert len(entries) <= 30
        assert entries[0]["reason"] == "the first"
        assert sum(int(entry["count"]) for entry in counted) > 9_000
        assert subscriber_ids(server) == listening
        keeper.until_hears()
        server.publish(GROUP.kill_channel, "ours")
        eventually(lambda: record_of(server, GROUP), "it is recorded")


def test_two_fleets_on_one_server_are_strangers(redis_server: RealServer, tmp_path: Path) -> None:
    """A fleet whose name begins another's: neither hears the other's orders."""
    other = Fleet("prod.eu")
    with (
        RunningKeeper(redis_server, tmp_path / "a") as mine,
        RunningKeeper(redis_server, tmp_path / "b", fleet=other) as theirs,
    ):
        mine.until_hears()
        theirs.until_hears()
        redis_server.publish(other.scope.kill_channel, "theirs")
        eventually(lambda: record_of(redis_server, other.scope), "theirs is recorded")
        assert record_of(redis_server) is None
        assert mine.standing.persisted_count == 0

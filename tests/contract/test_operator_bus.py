"""An operator's bus on a real server: what it may be sure of, and what not."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from skillbus.bus.connect import Endpoint
from skillbus.bus.embedded import HOST, ServerBinary
from skillbus.bus.operator_bus import OperatorBus, OrderAnswers
from skillbus.clock import boottime_s
from skillbus.control.acl import AclUser, Role, acl_lines
from skillbus.control.held import held_by
from skillbus.control.kill import Kill
from skillbus.control.reset import Reset
from skillbus.core.certificate import Held
from skillbus.core.orders import KillOrder, KillRecord
from skillbus.core.scope import Fleet
from skillbus.errors import BusDenied, BusNotReady, BusUnreachable, RetryLater
from tests.pods import eventually, freeze
from tests.servers import RealServer, Reply, fill

PROD = Fleet("prod")
FLEET = PROD.scope

T = TypeVar("T")


def run(server: RealServer, test: Callable[[OperatorBus], Awaitable[T]], name: str = "", timeout_s: float = 0.3) -> T:
    """Run ``test`` with an operator's bus; with ``name``, as that user, whose password is its name."""

    async def main() -> T:
        who = {"username": name, "password": name} if name else {}
        async with OperatorBus(PROD, Endpoint(server.url, timeout_s=timeout_s, **who)) as bus:
            return await test(bus)

    return asyncio.run(main())


async def ordered(bus: OperatorBus) -> OrderAnswers:
    """An order of ours."""
    return await bus.order(FLEET, KillRecord(id="k1"), b"why", {"kind": "kill"})


@pytest.fixture
def guarded(real_server_binary: ServerBinary, tmp_path: Path) -> Iterator[RealServer]:
    """A server with the ACL lines of ours, and a fleet that is armed."""
    users = [
        AclUser(role, str(role), hashlib.sha256(str(role).encode()).hexdigest()) for role in (Role.BOT, Role.ADMIN)
    ]
    (tmp_path / "users.acl").write_text(acl_lines("prod", users))
    with RealServer(real_server_binary, tmp_path / "server", f"aclfile {tmp_path / 'users.acl'}") as server:
        server.cli("SETNX", FLEET.epoch_key, 0, user="admin", password="admin")
        yield server


def test_a_bot_is_told_that_it_killed_and_may_not_see_the_proof(guarded: RealServer) -> None:
    """Recorded, published and read back; the roster is NOPERM to a bot. Never an error instead of the report."""
    report = run(guarded, lambda bus: Kill(bus, FLEET, KillOrder(reason="why"), timeout_s=2.0).give(), "bot")
    assert (report.stands, report.first, report.answers.receivers) == (True, True, 0)
    assert report.certificate is None
    assert isinstance(report.not_seen, BusDenied)


def test_an_admins_credential_suffices_for_a_reset(guarded: RealServer) -> None:
    """WATCH of record, epoch and audit; MULTI; XADD, SET, DEL; EXEC."""
    run(guarded, ordered, "admin")
    report = run(guarded, lambda bus: Reset(bus, FLEET, "mended", "admin", even_recent=True).do(0), "admin")
    assert guarded.cli("GET", FLEET.epoch_key, user="admin", password="admin") == str(report.epoch).encode()
    assert guarded.cli("EXISTS", FLEET.killed_key, user="admin", password="admin") == 0
    assert guarded.cli("XLEN", PROD.audit_key, user="admin", password="admin") == 3


def test_a_replica_is_not_read(real_server: RealServer) -> None:
    """What it holds may be old: the same words as a pod's."""
    real_server.cli("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(BusNotReady, match="is no master"):
        run(real_server, lambda bus: bus.read([FLEET]))


def test_replicas_are_counted_on_the_connection_that_wrote(real_server: RealServer) -> None:
    """On another one WAIT would count every replica there is, whatever it holds."""

    async def test(bus: OperatorBus) -> None:
        await ordered(bus)
        assert await bus.replicas(1, 0.05) == 0
        real_server.cli("CLIENT", "KILL", "TYPE", "normal")
        with pytest.raises(RetryLater):  # It may find the connection broken in its hands.
            await bus.replicas(1, 0.05)
        with pytest.raises(BusNotReady, match="the connection that wrote the order is gone"):
            await bus.replicas(1, 0.05)

    run(real_server, test)


def test_an_order_is_unanswered_only_if_it_was_sent(real_server: RealServer) -> None:
    """To a server that froze after we connected it was sent; to a dead one it was not."""

    async def test(bus: OperatorBus) -> bool:
        with pytest.raises(BusUnreachable):
            await ordered(bus)
        return bus.unanswered

    async def frozen(bus: OperatorBus) -> bool:
        await bus.now_ms()
        real_server.freeze()
        try:
            return await test(bus)
        finally:
            real_server.thaw()

    assert run(real_server, frozen)
    real_server.kill()
    assert not run(real_server, test)


# -- what holds the record ----------------------------------------------------------------------------------------


@contextmanager
def replicated(binary: ServerBinary, folder: Path, *config: str) -> Iterator[tuple[RealServer, RealServer]]:
    """A master and its replica, in step."""
    with (
        RealServer(binary, folder / "master", *config) as master,
        RealServer(binary, folder / "replica", f"replicaof {HOST} {master.port}", *config) as replica,
    ):
        eventually(lambda: b"state=online" in bytes_of(master.cli("INFO", "replication")), "the replica is in step")
        yield master, replica


def bytes_of(reply: Reply) -> bytes:
    """A bulk reply."""
    assert isinstance(reply, bytes)
    return reply


def held(server: RealServer, wanted_count: int | None = None, patience_s: float = 2.0, name: str = "") -> Held:
    """What holds an order of ours."""

    async def test(bus: OperatorBus) -> Held:
        await ordered(bus)
        return await held_by(bus, wanted_count, patience_s)

    return run(server, test, name, timeout_s=3.0)


def knows_waitaof(server: RealServer) -> bool:
    """Whether the server is of a kind that has it."""
    return bool(server.cli("COMMAND", "INFO", "WAITAOF") != [None])


def test_what_holds_the_record_is_what_the_servers_said(real_server_binary: ServerBinary, tmp_path: Path) -> None:
    """A replica that confirms counts, a frozen one does not and is named, and is waited for with patience alone."""
    with replicated(real_server_binary, tmp_path, "appendfsync always") as (master, replica):
        has_waitaof = knows_waitaof(master)
        both = held(master)
        assert (both.replicas, both.connected) == (1, 1)
        if has_waitaof:
            assert (both.fsynced_here, both.fsynced_replicas) == (True, 1)
            assert both.sentence() == "on the master and 1 replica; fsynced on 2"
        else:
            assert (both.fsynced_here, both.fsynced_replicas) == (None, None)
            assert both.sentence() == "on the master and 1 replica"
        freeze(replica)
        began_at_s = boottime_s()
        alone = held(master, patience_s=0.3)
        assert boottime_s() - began_at_s < 3
        replica.thaw()
        assert (alone.replicas, alone.connected) == (0, 1)
        assert alone.fsynced_here is (True if has_waitaof else None)
        assert "(1 connected replica did not confirm)" in alone.sentence()
        assert held(master, wanted_count=1, patience_s=10).replicas == 1


@pytest.mark.parametrize("aof", ["yes", "no"])
def test_a_master_alone_is_said_to_be_alone(real_server_binary: ServerBinary, tmp_path: Path, aof: str) -> None:
    """With an AOF that is synced, its machine's loss loses the order; without one, a crash does."""
    config = (f"appendonly {aof}", "appendfsync always")
    with RealServer(real_server_binary, tmp_path / "server", *config) as server:
        found, asked = held(server), knows_waitaof(server)
    assert (found.replicas, found.connected) == (0, 0)
    assert found.fsynced_here is (True if asked and aof == "yes" else None)
    if found.fsynced_here:
        assert found.sentence() == "on the master alone, fsynced there: the loss of its disk now can lose the order"
    else:
        assert found.sentence() == "on the master alone: a crash of it now can lose the order"


def test_replicas_without_an_aof_are_not_said_to_have_synced(real_server_binary: ServerBinary, tmp_path: Path) -> None:
    """They hold it all the same."""
    with replicated(real_server_binary, tmp_path, "appendonly no") as (master, _):
        found, asked = held(master, patience_s=0.5), knows_waitaof(master)
    assert (found.replicas, found.fsynced_here, found.fsynced_replicas) == (1, None, 0 if asked else None)
    assert found.sentence() == "on the master and 1 replica" + ("; fsynced on 0" if asked else "")


def test_who_may_not_ask_is_not_told_and_no_error(real_server: RealServer) -> None:
    """A credential without WAITAOF: not asked. One without WAIT: nothing is known, and nothing is claimed."""
    real_server.cli("ACL", "SETUSER", "bot", "on", ">bot", "~*", "&*", "+@all", "-@blocking", "+wait")
    assert held(real_server, name="bot", patience_s=0.1) == Held(0, 0, None, None)
    real_server.cli("ACL", "SETUSER", "bot", "-wait", "-role")
    assert held(real_server, name="bot", patience_s=0.1) == Held()
    assert Held().sentence() == "on the master; whether any replica holds it is not known"


def test_a_bots_order_is_audited_in_its_own_stream(guarded: RealServer) -> None:
    """Control's refuses it (NOPERM): the second write goes where the ACL lets it, and so does all that follows."""

    async def test(bus: OperatorBus) -> OrderAnswers:
        await bus.audit({"kind": "drill"})
        return await ordered(bus)

    first = run(guarded, ordered, "bot")
    assert isinstance(first.audited, str)
    assert isinstance(run(guarded, test, "bot").audited, str)
    key = PROD.bot_audit_key("bot")
    assert guarded.cli("XLEN", key, user="admin", password="admin") == 3
    assert guarded.cli("EXISTS", PROD.audit_key, user="admin", password="admin") == 0


def test_streams_are_read_in_pages_from_both_ends(real_server: RealServer) -> None:
    """Each entry once; keys that only look like a bot's stream are none."""
    bot = PROD.bot_audit_key("slack")
    fill(real_server, [("XADD", bot, f"{number}-1", "kind", "kill") for number in range(1, 251)])
    real_server.cli("SET", PROD.bot_audit_key("fake"), "no stream")
    real_server.cli("XADD", PROD.audit_key + ":bot:no such name", "*", "kind", "kill")

    async def test(bus: OperatorBus) -> None:
        assert await bus.streams.keys() == [PROD.audit_key, bot]
        for read, sign in ((bus.streams.older, -1), (bus.streams.younger, 1)):
            found: list[int] = []
            page = await read(bot)
            while page:
                found += [row.at_ms for row in page]
                page = await read(bot, page[-1].id)
            assert found == list(range(1, 251))[::sign]
        assert [row.at_ms for row in await bus.streams.older(bot, since_ms=249)] == [250, 249]

    run(real_server, test)

"""An operator's bus on a real server: what it may be sure of, and what not."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from skillbus.bus.connect import Endpoint
from skillbus.bus.embedded import ServerBinary
from skillbus.bus.operator_bus import OperatorBus, OrderAnswers
from skillbus.control.acl import AclUser, Role, acl_lines
from skillbus.control.kill import Kill
from skillbus.control.reset import Reset
from skillbus.core.orders import KillOrder, KillRecord
from skillbus.core.scope import Fleet
from skillbus.errors import BusDenied, BusNotReady, BusUnreachable, RetryLater
from tests.servers import RealServer

PROD = Fleet("prod")
FLEET = PROD.scope

T = TypeVar("T")


def run(server: RealServer, test: Callable[[OperatorBus], Awaitable[T]], name: str = "") -> T:
    """Run ``test`` with an operator's bus; with ``name``, as that user, whose password is its name."""

    async def main() -> T:
        who = {"username": name, "password": name} if name else {}
        async with OperatorBus(PROD, Endpoint(server.url, timeout_s=0.3, **who)) as bus:
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

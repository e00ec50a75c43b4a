"""The hands that disturb: a fault test is worth what its disturbance is."""

from __future__ import annotations

import socket

import pytest

from tests.servers import RawClient, RealServer, Refused


def test_kill_and_start_keep_port_and_data(real_server: RealServer) -> None:
    """After a SIGKILL the server comes back on the same port with what it knew."""
    port = real_server.port
    real_server.cli("SET", "key", "value")
    real_server.kill()
    with pytest.raises(ConnectionRefusedError):
        real_server.cli("PING")
    real_server.start()
    assert real_server.port == port
    assert real_server.cli("GET", "key") == b"value"


def test_restart_empty_loses_everything(real_server: RealServer) -> None:
    """restart_empty is the lost volume: same port, nothing known."""
    real_server.cli("SET", "key", "value")
    real_server.restart_empty()
    assert real_server.cli("GET", "key") is None


def test_a_frozen_server_accepts_and_says_nothing(real_server: RealServer) -> None:
    """freeze: a connection is accepted, no answer comes; thaw: the answer comes on that very connection."""
    with RawClient(real_server.port, timeout_s=0.2) as early:
        assert early.call("PING") == b"PONG"
        real_server.freeze()
        socket.create_connection(("127.0.0.1", real_server.port), timeout=5).close()
        with pytest.raises(TimeoutError):
            early.call("PING")
    with RawClient(real_server.port) as late:
        late.send("PING")
        real_server.thaw()
        assert late.read() == b"PONG"


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe\x00not utf-8\r\n", b"x" * 1_100_000, '"kill" {\n}'])
def test_any_payload_is_published_as_it_is(redis_server: RealServer, payload: str | bytes) -> None:
    """publish sends any bytes unchanged, and gives back how many listeners were reached."""
    with RawClient(redis_server.port) as listener:
        listener.call("SUBSCRIBE", "skillbus:t:kill")
        assert redis_server.publish("skillbus:t:kill", payload) == 1
        sent = payload if isinstance(payload, bytes) else payload.encode()
        assert listener.read() == [b"message", b"skillbus:t:kill", sent]


def test_users_and_refusals(redis_server: RealServer) -> None:
    """cli and publish log in as a user, and a refusal is an exception with the server's words."""
    redis_server.cli("ACL", "SETUSER", "lame", "on", ">pw", "+ping")
    try:
        assert redis_server.cli("PING", user="lame", password="pw") == b"PONG"
        with pytest.raises(Refused, match="NOPERM"):
            redis_server.cli("GET", "x", user="lame", password="pw")
        with pytest.raises(Refused, match="NOPERM"):
            redis_server.publish("skillbus:t:kill", "no", user="lame", password="pw")
        with pytest.raises(Refused, match="WRONGPASS"):
            redis_server.cli("PING", user="lame", password="wrong")
    finally:
        redis_server.cli("ACL", "DELUSER", "lame")


def test_every_test_finds_the_session_server_empty(redis_server: RealServer) -> None:
    """What another test wrote is gone."""
    assert redis_server.cli("DBSIZE") == 0
    redis_server.cli("SET", "left", "behind")

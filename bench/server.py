"""A server of our own for the benches, and one raw connection to it."""

from __future__ import annotations

import socket
from pathlib import Path

from skillbus.bus.embedded import EmbeddedBus


class Server:
    """An embedded bus with a connection that sends one command at a time."""

    def __init__(self, folder: Path) -> None:
        self._bus = EmbeddedBus(folder)
        self._bus.start()
        self.url = self._bus.url
        self._socket = socket.create_connection(("127.0.0.1", self._bus.port))

    def call(self, *words: str) -> bytes:
        """Send a command; the first bytes of its answer."""
        parts = [word.encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
        return self._socket.recv(65536)

    def reads_count(self) -> int:
        """How often the server has read from a socket so far: once per round trip of a pipelined client."""
        text = self.call("INFO", "stats").decode()
        return int(text.split("total_reads_processed:")[1].split("\r\n")[0])

    def stop(self) -> None:
        """End it."""
        self._socket.close()
        self._bus.stop()

"""An HTTP/1 answer as it comes in. llhttp reads it, Node's parser (httptools); what it means is answer.py's to say.

``http.client`` would do. But it imports ``email`` and TLS, which is a tenth of the time that a cold pass takes, and
1.6 MiB of each pod (docs/decisions/http-client.md). llhttp, too, is loaded at the first answer only.
"""

from __future__ import annotations

from collections.abc import Callable

MAX_HEAD_BYTES = 64 * 1024
"""Bytes until the body begins, interim answers (1xx) included."""

_CHUNK = 64 * 1024


class Response:
    """The answer to one request, on a connection that is used for no other.

    Attributes:
        status: from 200 on.
    """

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        """Read its head.

        Args:
            receive: gives bytes as they come in, at most so many; none at the connection's end.

        Raises:
            OSError, HttpParserError: no sound answer.
        """
        from httptools import HttpParserError, HttpResponseParser

        self.status = 0
        self._receive = receive
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._has_head = self._has_ended = self._comes_in_chunks = False
        self._parser = HttpResponseParser(self)
        came = 0
        while not self._has_head:
            data = receive(_CHUNK)
            came += len(data)
            if not data:
                raise ConnectionError("it ended before its head did")
            self._feed(data)
            if came > MAX_HEAD_BYTES and not self._has_head:
                raise HttpParserError(f"its head is longer than {MAX_HEAD_BYTES} bytes")

    def header(self, name: str) -> str:
        """A header's value; the first if there are several, empty if there is none."""
        return self._headers.get(name.lower(), "")

    def read(self) -> bytes:
        """What comes next of the body; empty at its end.

        Raises:
            OSError, HttpParserError: it broke off, or is no HTTP.
        """
        while not self._body and not self._has_ended:
            data = self._receive(_CHUNK)
            if data:
                self._feed(data)
            elif self._lasts_to_the_end:
                self._has_ended = True
            else:
                raise ConnectionError("it ended before its body did")
        came, self._body = self._body, []
        return came[0] if len(came) == 1 else b"".join(came)

    @property
    def _lasts_to_the_end(self) -> bool:
        """Whether the connection ends the body: it has no length and does not come in chunks (RFC 9112, 6.3)."""
        return not self.header("Content-Length") and not self._comes_in_chunks

    def _feed(self, data: bytes) -> None:
        from httptools import HttpParserError, HttpParserUpgrade

        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            raise HttpParserError("it wants to speak something else") from None
        except HttpParserError:
            if not self._has_ended:  # What follows an answer is nobody's.
                raise

    # ---- what the parser calls -------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came. What comes behind the head, a trailer or another answer's, is none of this one's."""
        if self._has_head:
            return
        if name.lower() == b"transfer-encoding":
            self._comes_in_chunks |= b"chunked" in value.lower()
        self._headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())

    def on_headers_complete(self) -> None:
        """All headers came; those of an interim answer do not count."""
        if self._has_ended:
            return
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200
        if not self._has_head:
            self._headers.clear()
            self._comes_in_chunks = False

    def on_body(self, data: bytes) -> None:
        """Some of the body came."""
        if not self._has_ended:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """All of it came."""
        self._has_ended = self._has_head

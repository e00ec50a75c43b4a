"""An HTTP answer, byte by byte: its head, where its body ends, and what is no answer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat

import pytest
from httptools import HttpParserError

from skillbus.skills.sources.response import MAX_HEAD_BYTES, Response

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def receiver(said: bytes, size: int = 1 << 20) -> Callable[[int], bytes]:
    """A connection that brings ``said`` in pieces of at most ``size`` bytes, and then its end."""
    pieces = chain((said[at : at + size] for at in range(0, len(said), size)), repeat(b""))
    return lambda most: next(pieces)


def body(response: Response) -> bytes:
    """All of it."""
    return b"".join(iter(response.read, b""))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"Content-Length: 5\r\n\r\nhello, and what is nobody's", b"hello"),
        (OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhelloHTTP/1.1 500 No\r\n\r\nsecond", b"hello"),
        (OK + b"Content-Length: 5\r\n\r\nhello" + OK + b"Content-Length: 6\r\n\r\nsecond", b"hello"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
        (OK + b"\r\nto the end", b"to the end"),
        (OK + b"\r\n", b""),
        (CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: t\r\n\r\n", b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    ],
)
def test_where_a_body_ends(said: bytes, expected: bytes, size: int) -> None:
    """At its length, its last chunk, or the connection's end, however the bytes are cut; once there, it stays there."""
    response = Response(receiver(said, size))
    assert (response.status, body(response), response.read()) == (200, expected, b"")


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_304_has_no_body(size: int) -> None:
    """Whatever length it tells: so a connection that is kept open holds nobody up."""
    response = Response(receiver(b'HTTP/1.1 304 Not Modified\r\nETag: "e"\r\nContent-Length: 5\r\n\r\n', size))
    assert (response.status, response.header("etag"), body(response)) == (304, '"e"', b"")


def test_headers() -> None:
    """By name in any case, without blanks; the first of several; those of an interim answer do not count."""
    said = b"HTTP/1.1 100 Continue\r\nA: interim\r\nZ: z\r\n\r\n" + OK + b"a:  first \r\nA: second\r\nB: \xe9\r\n\r\n"
    response = Response(receiver(said))
    assert [response.header(name) for name in ("A", "b", "Z")] == ["first", "é", ""]


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    "said",
    [
        CHUNKED + b'2\r\nhi\r\n0\r\nETag: "evil"\r\n\r\n',
        OK + b"Content-Length: 2\r\n\r\nhi" + OK + b'ETag: "evil"\r\n\r\n',
    ],
)
def test_what_comes_behind_the_head_is_no_header(said: bytes, size: int) -> None:
    """Neither a trailer nor what follows the answer, however the bytes are cut."""
    response = Response(receiver(said, size))
    assert (body(response), response.header("ETag"), response.status) == (b"hi", "", 200)


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    "said",
    [
        OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        OK + b"Content-Length: 5\r\n\r\nhell",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhel",
    ],
)
def test_a_body_that_breaks_off(said: bytes, size: int) -> None:
    """An early end is never taken for the end."""
    response = Response(receiver(said, size))
    with pytest.raises(ConnectionError, match="body"):
        body(response)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\n",
        OK + b"a\x00b: c\r\n\r\n",
        OK + b"A: " + b"x" * (MAX_HEAD_BYTES + 1),
        b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * 4_000,
    ],
)
def test_no_sound_answer(said: bytes) -> None:
    """What could be read in two ways, has no end, or is no HTTP: an error that its caller puts in words."""
    with pytest.raises((HttpParserError, ConnectionError)):
        Response(receiver(said, 4096))


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("said", [CHUNKED + b"xyz\r\n", CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n"])
def test_a_body_that_is_no_http(said: bytes, size: int) -> None:
    """Chunks that cannot be told apart."""
    with pytest.raises(HttpParserError):
        body(Response(receiver(said, size)))

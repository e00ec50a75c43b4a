"""What a server said: good, bad, or asking to be left alone. Where it was asked, and how, is not known here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from skillbus.errors import RateLimited, SourceUnavailable
from skillbus.skills.sources.response import Response
from skillbus.skills.sources.route import Place

MIN_WAIT_S, DEFAULT_WAIT_S, MAX_WAIT_S = 1.0, 60.0, 3600.0
"""How long a server can have itself left alone. The default is what GitHub asks of whoever is told no time."""

_NAMES = "SKILLBUS_SKILLS_TOKEN or GITHUB_TOKEN; for SKILLBUS_SKILLS_TOKEN_HOSTS"


class Told(NamedTuple):
    """A small answer.

    Attributes:
        status: 200, 304, or one of those the caller allowed.
        changed: whether it is other than what was known (False: 304, and no body).
        etag: empty if there is none, or none that can be sent back.
        modified: the Last-Modified header, likewise.
    """

    status: int
    changed: bool
    etag: str = ""
    modified: str = ""
    body: bytes = b""


class Answer:
    """An answer, its body still to be read.

    Attributes:
        status: 200, or one of those the caller allowed.
        ref: the ETag; empty if there is none.
        modified: the Last-Modified header; empty if there is none.
    """

    def __init__(self, response: Response, place: Place, on_bytes: Callable[[int], None]) -> None:
        self._response = response
        self._place = place
        self._on_bytes = on_bytes
        self.status = response.status
        self.ref = _validator(response, "ETag")
        self.modified = _validator(response, "Last-Modified")

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives.

        Raises:
            SourceUnavailable: it broke off, or took too long.
        """
        while chunk := self._next():
            self._on_bytes(len(chunk))
            yield chunk

    def read(self, max_bytes: int) -> bytes | None:
        """The whole body; None if it is longer than ``max_bytes``.

        Raises:
            SourceUnavailable: as ``chunks``.
        """
        parts, total = [], 0
        for chunk in self.chunks():
            total += len(chunk)
            if total > max_bytes:
                return None
            parts.append(chunk)
        return b"".join(parts)

    def _next(self) -> bytes:
        with in_words(self._place):
            return self._response.read()


def check_status(response: Response, place: Place, allowed: frozenset[int], *, had_token: bool) -> None:
    """See that the answer is one.

    Raises:
        RateLimited: the server wants to be left alone.
        SourceUnavailable: the status is neither 200 nor ``allowed``.
    """
    status, shown = response.status, place.shown
    if status == 200 or status in allowed:
        return
    if status in {403, 429} and (wait_s := _asked_wait_s(response)) is not None:
        hint = "" if had_token else "; with a token the limit is higher (SKILLBUS_SKILLS_TOKEN, GITHUB_TOKEN)"
        text = f"{shown} answered {status}: too many requests; it will be asked again in {wait_s:.0f} s{hint}"
        raise RateLimited(text, wait_s)
    if status in {401, 403}:
        had = "the token was refused" if had_token else "it wants a token, and none is meant for it"
        raise SourceUnavailable(f"{shown} answered {status}: {had} ({_NAMES})")
    hint = "check the url" if 400 <= status < 500 else "it will be tried again"
    raise SourceUnavailable(f"{shown} answered {status}: {hint}")


def _validator(response: Response, name: str) -> str:
    """A header that is to be sent back; empty if it could not be."""
    value = response.header(name)
    return value if len(value) <= 200 and value.isascii() and value.isprintable() else ""


def _asked_wait_s(response: Response) -> float | None:
    """Seconds for which a 403 or 429 wants peace; None if it is about something else.

    After https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api and RFC 9110 (10.2.3). Instants
    are reckoned against the answer's own Date: what this machine takes for the time is no matter.
    """
    after = response.header("Retry-After")
    spent = response.header("x-ratelimit-remaining") == "0"
    reset = response.header("x-ratelimit-reset")
    if not after and not spent:
        return DEFAULT_WAIT_S if response.status == 429 or _speaks_of_a_limit(response) else None
    if _is_number(after):
        wait_s: float = int(after)
    else:
        at_s = _epoch_s(after) if after else float(reset) if _is_number(reset) else None
        now_s = _epoch_s(response.header("Date"))
        wait_s = DEFAULT_WAIT_S if at_s is None or now_s is None else at_s - now_s
    return min(max(wait_s, MIN_WAIT_S), MAX_WAIT_S)


def _speaks_of_a_limit(response: Response) -> bool:
    """GitHub's secondary limits come as a 403 with words alone."""
    try:
        return b"rate limit" in response.read().lower()
    except Exception:  # However it breaks, the status was the answer.
        return False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 12


def _epoch_s(date: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


@contextmanager
def in_words(place: Place) -> Iterator[None]:
    """Whatever breaks on the way to ``place``, or in its answer, as a SourceUnavailable."""
    from httptools import HttpParserError

    try:
        yield
    except (OSError, HttpParserError, ValueError) as error:
        raise _unavailable(place, error) from None


def _unavailable(place: Place, error: Exception) -> SourceUnavailable:
    kind = type(error).__name__
    if kind == "SSLCertVerificationError":
        return SourceUnavailable(
            f"{place.shown}: its TLS certificate was not accepted (SSL_CERT_FILE names more roots)"
        )
    if isinstance(error, ConnectionRefusedError):  # We are connected already: so it is the proxy that says so.
        return SourceUnavailable(f"{place.shown}: the proxy refused to connect to it (HTTPS_PROXY, NO_PROXY)")
    if isinstance(error, TimeoutError):
        return SourceUnavailable(f"{place.shown} did not answer in time: it will be tried again")
    return SourceUnavailable(f"{place.shown}: the answer broke off ({kind}): it will be tried again")

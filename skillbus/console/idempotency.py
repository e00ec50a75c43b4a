"""``Idempotency-Key``: a request that is sent again gets the answer that it got, and nothing is done twice.

In this process alone, in bounded number, for as long as it lives. What failed on our side (5xx) is not kept: there a
retry must try again. A kill is idempotent by nature; the key keeps its retries from ordering, and auditing, anew.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi.responses import Response

from skillbus.console.problems import Refused

HEADER = "Idempotency-Key"

_KEY_LIMIT = 200
_LIMIT = 1000
_SERVER_ERROR = 500


@dataclass(slots=True)
class _Kept:
    digest: str
    answer: asyncio.Future[tuple[int, bytes, str]]


class Idempotency:
    """What was answered to whom."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def once(self, who: str, key: str, request: bytes, do: Callable[[], Awaitable[Response]]) -> Response:
        """The answer to ``request`` by ``who`` under that key: made now, or before.

        Args:
            key: empty: none was given.

        Raises:
            Refused: 422, the key came with another request before, or cannot be one.
        """
        if not key:
            return await do()
        if len(key) > _KEY_LIMIT:
            raise Refused(422, f"{HEADER} has {_KEY_LIMIT} characters at most")
        place, digest = (who, key), hashlib.sha256(request).hexdigest()
        kept = self._kept.get(place)
        if kept is not None and kept.digest != digest:
            raise Refused(422, f"that {HEADER} came with another request before: make a new one for each order")
        if kept is not None:
            status, body, media = await asyncio.shield(kept.answer)
            return Response(body, status, media_type=media, headers={"Idempotency-Replayed": "true"})
        return await self._first(place, digest, do)

    async def _first(self, place: tuple[str, str], digest: str, do: Callable[[], Awaitable[Response]]) -> Response:
        kept = _Kept(digest, asyncio.get_running_loop().create_future())
        self._kept[place] = kept
        while len(self._kept) > _LIMIT:
            self._kept.popitem(last=False)
        try:
            response = await do()
        except BaseException as error:
            self._forget(place, kept)
            kept.answer.set_exception(error if isinstance(error, Exception) else Refused(503, "interrupted: try again"))
            kept.answer.exception()  # Whether or not somebody waits for it, it was told.
            raise
        if response.status_code >= _SERVER_ERROR:
            self._forget(place, kept)
        kept.answer.set_result((response.status_code, bytes(response.body), response.media_type or ""))
        return response

    def _forget(self, place: tuple[str, str], kept: _Kept) -> None:
        if self._kept.get(place) is kept:
            del self._kept[place]

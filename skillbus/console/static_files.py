"""Scripts, style and icons of the page: read once when the console starts, and answered from memory.

A browser asks for a dozen of them before the wall can be drawn. Read from the disk each, in threads, they would wait in
line with the thread that reads ten thousand pods. They are kept by browsers and asked for again: a new version of
skillbus shows at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fastapi import HTTPException, Request, Response

STATIC = Path(__file__).parent / "static"

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_IMPORT = re.compile(r'^import .* from "\./([a-z]+\.js)";$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Kept:
    body: bytes
    media_type: str
    etag: str


class StaticFiles:
    """Every file of the folder that is of a kind we know."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._kept = {path.name: _kept(path) for path in folder.iterdir() if path.suffix in _TYPES}

    async def answer(self, request: Request) -> Response:
        """One of them.

        Raises:
            HTTPException: 404.
        """
        one = self._kept.get(request.path_params["name"])
        if one is None:
            raise HTTPException(404)
        headers = {"Cache-Control": "no-cache", "ETag": one.etag}
        if {one.etag, "*"} & _etags(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        return Response(one.body, headers=headers, media_type=one.media_type)


def imported_by(name: str, folder: Path = STATIC) -> tuple[str, ...]:
    """The modules that this one imports, and what those import: to be fetched at once, not one behind the other."""
    found: list[str] = []
    open_ends = [name]
    while open_ends:
        for other in _IMPORT.findall((folder / open_ends.pop()).read_text(encoding="utf-8")):
            if other not in (name, *found):
                found.append(other)
                open_ends.append(other)
    return tuple(sorted(found))


def _kept(path: Path) -> _Kept:
    body = path.read_bytes()
    return _Kept(body, _TYPES[path.suffix], f'"{sha256(body).hexdigest()[:32]}"')


def _etags(header: str) -> set[str]:
    """RFC 9110 §13.1.2: compared weakly, for a proxy that compresses makes an ETag a weak one."""
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}

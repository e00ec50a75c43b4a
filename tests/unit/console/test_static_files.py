"""What a browser gets of scripts, style and icons, and how it learns which to fetch at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.routing import Route

from skillbus.console.static_files import STATIC, StaticFiles, imported_by


def client_of(folder: Path) -> Callable[..., httpx.Response]:
    """A browser's view of this folder: (method, name, If-None-Match) -> its answer."""
    app = Starlette(routes=[Route("/static/{name}", StaticFiles(folder).answer)])

    def ask(method: str, name: str, etags: str = "") -> httpx.Response:
        async def run() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console") as client:
                headers = {"If-None-Match": etags} if etags else {}
                return await client.request(method, f"/static/{name}", headers=headers)

        return asyncio.run(run())

    return ask


def test_every_file_is_answered_whole_and_as_what_it_is() -> None:
    """With its type, byte for byte, and kept only to be asked for again."""
    ask = client_of(STATIC)
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path in STATIC.iterdir():
        answer = ask("GET", path.name)
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"].split(";")[0] == types[path.suffix]
        assert answer.headers["cache-control"] == "no-cache"
        assert ask("HEAD", path.name).headers["content-length"] == str(path.stat().st_size)


def test_what_a_browser_has_is_not_sent_again(tmp_path: Path) -> None:
    """Also behind a proxy that made its ETag weak, and among others; another content is sent."""
    (tmp_path / "a.js").write_text("one")
    ask = client_of(tmp_path)
    etag = ask("GET", "a.js").headers["etag"]
    for tags in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = ask("GET", "a.js", tags)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    (tmp_path / "a.js").write_text("two")
    assert client_of(tmp_path)("GET", "a.js", etag).content == b"two"


def test_nothing_else_is_answered(tmp_path: Path) -> None:
    """No other folder, no other kind of file, no other method."""
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "a.js").write_text("ours")
    (folder / "notes.txt").write_text("not ours")
    (tmp_path / "secret.js").write_text("not ours")
    ask = client_of(folder)
    for name in ("b.js", "notes.txt", "..%2fsecret.js", "%2e%2e/secret.js", str(tmp_path / "secret.js"), ""):
        assert ask("GET", name).status_code == 404
    assert ask("POST", "a.js").status_code == 405


def test_modules_are_found_through_others(tmp_path: Path) -> None:
    """Each once, itself not among them, and round a circle."""
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\nimport { c } from "./c.js";\n')
    (tmp_path / "b.js").write_text('import { c } from "./c.js";\n')
    (tmp_path / "c.js").write_text('import { a, b } from "./b.js";\n')
    assert imported_by("a.js", tmp_path) == ("b.js", "c.js")


def test_no_import_of_the_page_is_missed() -> None:
    """Whatever a module of ours names as a module is found: none is fetched only once another was read."""
    found = {"console.js", *imported_by("console.js")}
    for name in found:
        text = (STATIC / name).read_text(encoding="utf-8")
        assert set(re.findall(r'"\./(\w+\.js)"', text)) <= found
        assert "import(" not in text

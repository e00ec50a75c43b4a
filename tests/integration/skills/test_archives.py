"""Archives over https: what tells that one changed, and what is fetched."""

from __future__ import annotations

import asyncio
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from skillbus.errors import BadArchive, RateLimited, SkillbusError, SourceUnavailable
from skillbus.skills.landing import Landing
from skillbus.skills.sources.archives import SOURCE
from skillbus.skills.sources.source import Access, Revision
from skillbus.skills.sources.web import Trust, Web
from tests.integration.skills.world import Server, skill_text, tarball

QUERY = "?sig=canary-query-22aa"
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
LATER = "Wed, 15 Nov 2023 22:13:20 GMT"


def _access(web: Server, max_bytes: int = 0) -> Access:
    return Access(Web(Trust(None, frozenset(), frozenset({web.host}))), max_bytes)


def _resolve(web: Server, known: Revision | None = None, path: str = "/a.tar.gz") -> Revision:
    reach = _access(web)
    return asyncio.run(SOURCE.resolve(SOURCE.origin(f"{web.url}{path}{QUERY}", reach), known, reach))


def _fetch(web: Server, folder: Path, revision: Revision, *subpaths: str, max_bytes: int = 0) -> dict[str, Landing]:
    reach = _access(web, max_bytes)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        landings = {subpath: Landing(descriptor, str(n)) for n, subpath in enumerate(subpaths)}
        SOURCE.fetch(SOURCE.origin(f"{web.url}/a.tar.gz{QUERY}", reach), revision, landings, reach)
    finally:
        os.close(descriptor)
    return landings


def _serve(web: Server, body: bytes, **validators: str) -> None:
    """``etag`` and ``modified``, with conditional answers."""
    headers = {"ETag": validators.get("etag", ""), "Last-Modified": validators.get("modified", "")}
    sent = {name: value for name, value in headers.items() if value}

    def route(handler: Any) -> None:
        asked = (handler.headers.get("If-None-Match"), handler.headers.get("If-Modified-Since"))
        same = any(value and value in asked for value in sent.values())
        handler.send_response(304 if same else 200)
        for name, value in {**sent, "Content-Length": "0" if same else str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        try:
            handler.wfile.write(b"" if same else body)
        except OSError:
            return  # Who only wanted the headers has gone.

    web.routes["/a.tar.gz"] = route


@pytest.mark.parametrize(
    ("validators", "revision"),
    [
        ({"etag": '"1"'}, Revision('"1"', '"1"')),
        ({"etag": 'W/"1"', "modified": DATE}, Revision('W/"1"', 'W/"1"')),
        ({"modified": DATE}, Revision(DATE)),
        ({}, Revision("")),
    ],
)
def test_what_a_server_says_by_which_to_tell(web: Server, validators: dict[str, str], revision: Revision) -> None:
    """The ETag, else Last-Modified, else nothing; then 304 is the known revision itself."""
    _serve(web, b"x" * 5_000_000, **validators)
    found = _resolve(web)
    assert found == revision
    again = _resolve(web, found)
    assert (again is found) == bool(validators)
    _serve(web, b"", **{name: '"2"' if name == "etag" else LATER for name in validators})
    assert (_resolve(web, found) != found) == bool(validators)


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
def test_each_kind_of_archive_by_its_bytes(web: Server, tmp_path: Path, kind: str) -> None:
    """Whatever the file is called; with a top folder or without."""
    body = tarball({"SKILL.md": skill_text("b"), "x.sh": b"#!"}, "b-1/")
    if kind == "tar":
        import gzip

        body = gzip.decompress(body)
    if kind == "zip":
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("b-1/SKILL.md", skill_text("b"))
            file.writestr("b-1/x.sh", b"#!")
        body = raw.getvalue()
    _serve(web, body, etag='"1"')
    landing = _fetch(web, tmp_path, _resolve(web), "")[""]
    assert landing.error is None
    assert set(landing.facts) == {"SKILL.md", "x.sh"}
    assert (tmp_path / "0/SKILL.md").read_bytes() == skill_text("b")
    assert len(web.seen) == 2


def test_several_skills_of_one_archive_by_one_download(web: Server, tmp_path: Path) -> None:
    """Each at its folder; what is not there is that one's error."""
    _serve(web, tarball({"skills/a/SKILL.md": skill_text("a"), "skills/b/SKILL.md": skill_text("b")}), etag='"1"')
    landings = _fetch(web, tmp_path, Revision('"1"'), "skills/a", "skills/b", "skills/c")
    assert [landings[path].error is None for path in landings] == [True, True, False]
    assert len(web.seen) == 1


def test_what_changed_between_question_and_download_is_told(web: Server, tmp_path: Path) -> None:
    """Else new bytes would be remembered under the old revision."""
    _serve(web, tarball({"SKILL.md": skill_text("a")}), etag='"2"')
    reach, descriptor = _access(web, 0), os.open(tmp_path, os.O_RDONLY)
    try:
        origin = SOURCE.origin(f"{web.url}/a.tar.gz", reach)
        for number, revision in enumerate(('"1"', '"2"', "")):
            landings = {"": Landing(descriptor, str(number))}
            assert SOURCE.fetch(origin, Revision(revision), landings, reach) is (revision == '"1"')
            assert landings[""].error is None
    finally:
        os.close(descriptor)


def test_without_a_revision_whatever_comes_is_taken(web: Server, tmp_path: Path) -> None:
    """There is nothing to compare with."""
    _serve(web, tarball({"SKILL.md": skill_text("a")}), etag='"2"')
    assert _fetch(web, tmp_path, Revision(""), "")[""].error is None


def test_errors_show_no_query(web: Server, tmp_path: Path) -> None:
    """Not found, too many, too heavy, no archive."""
    web.routes["/a.tar.gz"] = (404, {}, b"")
    errors: list[SkillbusError] = []
    for work in (lambda: _resolve(web), lambda: _fetch(web, tmp_path, Revision(""), "n1")):
        with pytest.raises(SourceUnavailable, match="404") as caught:
            work()
        errors.append(caught.value)
    web.routes["/a.tar.gz"] = (429, {"Retry-After": "5"}, b"")
    with pytest.raises(RateLimited) as limited:
        _resolve(web)
    web.routes["/a.tar.gz"] = (200, {}, tarball({"SKILL.md": os.urandom(5000)}))
    for number, max_bytes in enumerate((1000, 0)):
        folder = tmp_path / str(number + 10)
        folder.mkdir()
        with pytest.raises(BadArchive) as bad:
            _fetch(web, folder, Revision(""), "", max_bytes=max_bytes)
        errors.append(bad.value)
        web.routes["/a.tar.gz"] = (200, {}, b"<html>no archive</html>" * 100)
    assert not [error for error in (*errors, limited.value) if "canary" in str(error)]

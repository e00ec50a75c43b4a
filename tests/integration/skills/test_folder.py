"""Folders and archives of this machine: cheap while nothing changes, exact when something does."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from skillbus.errors import BadArchive, BadManifest, SkillbusError, SourceUnavailable, TooBig
from skillbus.skills import tree
from skillbus.skills.landing import Landing
from skillbus.skills.rules import tree_digest
from skillbus.skills.sources import folder as module
from skillbus.skills.sources.folder import SOURCE
from skillbus.skills.sources.route import Trust
from skillbus.skills.sources.source import Access, Revision
from skillbus.skills.sources.web import Web
from tests.integration.skills.world import skill_text, tarball, visible, write_tree

ACCESS = Access(Web(Trust(None, frozenset(), frozenset())), 1_000_000)
FILES = {"SKILL.md": skill_text("a"), "run.sh": b"#!/bin/sh\n", "1/2/deep": bytes(range(256)) * 2048, "empty": b""}


@pytest.fixture
def skill(tmp_path: Path) -> Path:
    """A folder with a skill."""
    write_tree(tmp_path / "skill", FILES)
    return tmp_path / "skill"


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """Where skills land."""
    (tmp_path / "staging").mkdir()
    return tmp_path / "staging"


def _resolve(url: str | Path, known: Revision | None = None) -> Revision:
    return asyncio.run(SOURCE.resolve(SOURCE.origin(str(url), ACCESS), known, ACCESS))


def _fetch(url: str | Path, staging: Path, revision: Revision, *subpaths: str) -> list[Landing]:
    opened = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        start = len(list(staging.iterdir()))
        landings = {subpath: Landing(opened, str(start + at)) for at, subpath in enumerate(subpaths or ("",))}
        SOURCE.fetch(SOURCE.origin(str(url), ACCESS), revision, landings, ACCESS)
        for landing in landings.values():
            landing.rest()
        return list(landings.values())
    finally:
        os.close(opened)


def _age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an hour pass, without waiting for it."""
    now_ms = int(time.time() * 1000)
    monkeypatch.setattr(module, "wall_ms", lambda: now_ms + 3_600_000)


def test_a_folder(skill: Path, staging: Path) -> None:
    """What is resolved is the digest of what is copied: bytes and executable bits."""
    revision = _resolve(skill)
    (landing,) = _fetch(skill, staging, revision)
    assert landing.error is None
    assert tree_digest(landing.facts) == revision.id
    assert visible(staging / "0") == visible(skill)
    assert "run.sh*" in visible(staging / "0")


def test_a_link_to_a_folder_is_that_folder(skill: Path, staging: Path, tmp_path: Path) -> None:
    """Links in it are refused, at its first look."""
    link = tmp_path / "link"
    link.symlink_to(skill)
    revision = _resolve(link)
    assert revision.id == _resolve(skill).id
    assert _fetch(link, staging, revision)[0].error is None
    (skill / "inner").symlink_to("SKILL.md")
    with pytest.raises(BadArchive, match="link"):
        _resolve(link)
    with pytest.raises(BadArchive, match="link"):
        _fetch(link, staging, revision)


def test_while_nothing_changes_no_file_is_read(skill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is then what was known. Any change that leaves a trace in stat is seen."""
    assert _resolve(skill).etag == ""  # It has just been written.
    _age(monkeypatch)
    known = _resolve(skill)
    assert known.etag
    with monkeypatch.context() as patched:
        patched.setattr(tree, "files_in", None)
        assert _resolve(skill, known) is known
    changes: dict[str, Callable[[], object]] = {
        "content": lambda: (skill / "empty").write_bytes(b"x"),
        "mode": lambda: (skill / "empty").chmod(0o755),
        "name": lambda: (skill / "empty").rename(skill / "other"),
        "new": lambda: (skill / "1" / "new").write_bytes(b""),
        "gone": lambda: (skill / "other").unlink(),
        "same size": lambda: (skill / "1" / "2" / "deep").write_bytes(bytes(256 * 2048)),
    }
    for what, change in changes.items():
        change()
        found = _resolve(skill, known)
        assert found.id != known.id, what
        assert found.etag != known.etag
        known = found


def test_a_touch_changes_nothing_but_what_is_remembered(skill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id is that of the content."""
    _age(monkeypatch)
    known = _resolve(skill)
    os.utime(skill / "empty", (1, 1))
    found = _resolve(skill, known)
    assert found.id == known.id
    assert found.etag != known.etag


def test_what_changes_between_a_look_and_the_fetch(skill: Path, staging: Path, tmp_path: Path) -> None:
    """Is not taken for what was resolved; nor is a change in the middle of a look."""
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tarball(FILES))
    for path, change in ((skill, skill / "empty"), (archive, archive)):
        revision = _resolve(path)
        change.write_bytes(tarball({"SKILL.md": b"other"}))
        with pytest.raises(SourceUnavailable, match="changed while it was read: it will be tried again"):
            _fetch(path, staging, revision)


def test_what_changes_during_the_look(skill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the one and half of the other is neither."""
    files_in = tree.files_in

    def meddled(opened: int) -> Iterator[tuple[str, int]]:
        for at, found in enumerate(files_in(opened)):
            yield found
            if at == 0:
                (skill / "run.sh").write_bytes(b"changed")

    monkeypatch.setattr(tree, "files_in", meddled)
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        _resolve(skill)


@pytest.mark.parametrize("kind", ["tar.gz", "tgz", "tar", "zip"])
def test_an_archive(staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Of each kind, with a folder in it or without; known by its bytes, and read again only if it changed."""
    archive = tmp_path / f"skills-1.4.{kind}"
    archive.write_bytes(_archive(kind))
    _age(monkeypatch)
    revision = _resolve(archive)
    assert revision.id == sha256(archive.read_bytes()).hexdigest()
    assert _resolve(archive, revision) is revision
    found = _fetch(f"{archive}#subdirectory=a", staging, revision, "a", "b", "none")
    assert [landing.error is None for landing in found] == [True, True, False]
    assert (staging / "0" / "SKILL.md").read_bytes() == skill_text("a")
    assert (staging / "1" / "SKILL.md").read_bytes() == skill_text("b")


def _archive(kind: str) -> bytes:
    files = {"skills-1.4/a/SKILL.md": skill_text("a"), "skills-1.4/b/SKILL.md": skill_text("b")}
    if kind == "zip":
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as packed:
            for path, data in files.items():
                packed.writestr(path, data)
        return raw.getvalue()
    import gzip

    return gzip.decompress(tarball(files)) if kind == "tar" else tarball(files)


@pytest.mark.parametrize(
    ("url", "subpath", "fallback"),
    [
        ("/srv/pdf", "", "pdf"),
        ("/srv/pdf.zip", "", "pdf"),
        ("/srv/pdf-1.4.TAR.GZ", "", "pdf-1.4"),
        ("/srv/all.tgz#subdirectory=x/pdf", "x/pdf", "pdf"),
        ("/srv/c#", "", "c#"),
    ],
)
def test_origins(url: str, subpath: str, fallback: str) -> None:
    """An archive's folders share a place; a # elsewhere is a name's."""
    assert SOURCE.accepts(url, ACCESS)
    origin = SOURCE.origin(url, ACCESS)
    assert (origin.subpath, origin.fallback, origin.place) == (subpath, fallback, url.partition("#sub")[0])


def test_what_cannot_be_taken(tmp_path: Path, staging: Path) -> None:
    """Each with its word."""
    (tmp_path / "big.zip").write_bytes(bytes(1_000_001))
    (tmp_path / "text.zip").write_bytes(b"no archive at all")
    os.mkfifo(tmp_path / "pipe")
    for path, kind, word in (
        ("none", SourceUnavailable, "cannot be opened"),
        ("pipe", SourceUnavailable, "neither a folder nor a file"),
        ("big.zip", TooBig, "SKILLBUS_SKILLS_MAX_ARCHIVE_MB"),
    ):
        with pytest.raises(kind, match=word):
            _resolve(tmp_path / path)
    with pytest.raises(SkillbusError):
        _fetch(tmp_path / "text.zip", staging, _resolve(tmp_path / "text.zip"))
    for url in ("/srv/pdf#subdirectory=x", "/srv/a.zip#subdirectory=../x", "/srv/a.zip#subdirectory="):
        with pytest.raises(BadManifest):
            SOURCE.origin(url, ACCESS)


def test_cancelled_between_two_files(skill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it returns, nothing of it reads on; and no second file was read."""
    read: list[str] = []
    files_in = tree.files_in
    reading, go_on = threading.Event(), threading.Event()

    def watched(opened: int) -> Iterator[tuple[str, int]]:
        for path, file in files_in(opened):
            read.append(path)
            reading.set()
            go_on.wait(20)
            yield path, file

    async def scenario() -> None:
        work = asyncio.create_task(SOURCE.resolve(SOURCE.origin(str(skill), ACCESS), None, ACCESS))
        await asyncio.to_thread(reading.wait, 20)
        work.cancel()
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await work
        assert go_on.is_set()

    monkeypatch.setattr(tree, "files_in", watched)
    asyncio.run(scenario())
    assert len(read) == 1

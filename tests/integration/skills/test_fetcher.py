"""The child process itself, over its pipes: the protocol, several jobs at once, limits, and how it ends."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import skillbus
from skillbus.skills.fetcher import _Out, fallback_name, in_words
from skillbus.skills.rules import SKILL_FILE, FileFact, tree_digest
from skillbus.skills.sources.source import Origin
from tests.integration.skills.world import skill_text, write_tree
from tests.unit.skills.packing import Member, make

HELLO: dict[str, Any] = {
    "token": "canary-token-91ab",
    "token_hosts": ["example.org"],
    "local_hosts": [],
    "redirect_hosts": [],
    "github": {"github.com": "https://api.github.com"},
    "max_archive_bytes": 100 * 1024 * 1024,
    "strict": False,
}


class Process:
    """A started fetcher."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def send(self, job: dict[str, Any]) -> None:
        """One job, or the hello."""
        self._stdin.write(json.dumps(job).encode() + b"\n")
        self._stdin.flush()

    def read(self) -> dict[str, Any]:
        """The next line."""
        return dict(json.loads(self._stdout.readline()))

    def until_answer(self, number: int) -> list[dict[str, Any]]:
        """Every line up to the last one of this job."""
        lines = [self.read()]
        while lines[-1]["id"] != number or not lines[-1].keys() & {"ok", "error"}:
            lines.append(self.read())
        return lines

    def ask(self, **job: Any) -> dict[str, Any]:
        """One job and its answer."""
        self.send({"id": 1, **job})
        return self.until_answer(1)[-1]

    def end(self) -> int:
        """Close its stdin, and wait for it."""
        self._stdin.close()
        return self.process.wait(20)


@contextmanager
def fetcher(*, hello: dict[str, Any] | None = None) -> Iterator[Process]:
    """A fetcher as a pod starts it."""
    package = str(Path(skillbus.__file__).parent.parent)
    path = os.pathsep.join([package, *(part for part in sys.path if part)])
    process = subprocess.Popen(
        [sys.executable, "-S", "-P", "-X", "utf8", "-m", "skillbus.skills.fetcher", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        cwd="/",
        start_new_session=True,
    )
    with process:
        running = Process(process)
        try:
            running.send(HELLO if hello is None else hello)
            yield running
        finally:
            process.kill()


def _fetch(number: int, url: Path, folder: Path, *subpaths: str, trees: bool = False) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    slots = {subpath: f"{number}-{n}" for n, subpath in enumerate(subpaths)}
    origin = Origin("folder", str(url), str(url), "", subpaths[0], url.name)
    job = {"id": number, "job": "fetch", "origin": origin._asdict(), "revision": {"id": "", "etag": ""}}
    info = folder.stat()
    return {**job, "folder": str(folder), "inode": [info.st_dev, info.st_ino], "slots": slots, "trees": trees}


def test_a_manifest_is_parsed() -> None:
    """Plain data in, plain data out; what cannot be read is an error with its line."""
    with fetcher() as child:
        for text, answer in (
            (b"skills:\n - url: no\n", {"ok": {"data": {"skills": [{"url": "no"}]}}}),
            (b'{"skills": []}', {"ok": {"data": {"skills": []}}}),
            (b"a: 1\na: 2", {"error": ["BadManifest", "the key 'a' is there twice (line 2)"]}),
        ):
            told = child.ask(job="manifest", data=base64.b64encode(text).decode())
            assert told == {"id": 1, **answer}
        assert child.end() == 0


def test_a_folder_is_fetched_into_its_slot(tmp_path: Path) -> None:
    """The landed line says what lies there: name, digest, and of each file its digest, bit and size."""
    files = {SKILL_FILE: skill_text("My Skill"), "é/run.sh": b"#!"}
    write_tree(tmp_path / "skill", files)
    (tmp_path / "skill" / "é" / "run.sh").chmod(0o755)
    with fetcher() as child:
        child.send(_fetch(1, tmp_path / "skill", tmp_path / "staging", "", trees=True))
        landed, answer = [line for line in child.until_answer(1) if "progress" not in line]
    told = landed["landed"]
    assert answer == {"id": 1, "ok": {"trees": None}}
    assert (told["subpath"], told["slot"], told["name"]) == ("", "1-0", "my-skill")
    assert told["warnings"] == ["its name is not 1-64 of a-z, 0-9 and single hyphens"]
    facts = {path: FileFact(sha256, executable) for path, (sha256, executable, _) in told["files"].items()}
    assert told["digest"] == tree_digest(facts)
    assert {path: size for path, (_, _, size) in told["files"].items()} == {p: len(d) for p, d in files.items()}
    slot = tmp_path / "staging" / "1-0"
    assert (slot / SKILL_FILE).read_bytes() == files[SKILL_FILE]
    assert (slot / "é" / "run.sh").stat().st_mode & 0o777 == 0o755


def test_an_archive_gives_each_skill_its_own_line(tmp_path: Path) -> None:
    """One fetch for all: the faulty one has an error of its own kind, the missing one another, the good one lands."""
    archive = tmp_path / "skills.tar.gz"
    members = [
        Member("s/a/SKILL.md", skill_text("a")),
        Member("s/b/SKILL.md", skill_text("b")),
        Member("s/b/S", mode=0o4755),
    ]
    archive.write_bytes(make(members))
    with fetcher() as child:
        child.send(_fetch(7, archive, tmp_path / "staging", "a", "b", "c"))
        lines = child.until_answer(7)
    landed = {line["landed"]["subpath"]: line["landed"] for line in lines if "landed" in line}
    assert landed["a"]["name"] == "a"
    assert landed["b"]["error"][0] == "SetuidInArchive"
    assert landed["c"]["error"][0] == "BadBundle"
    assert lines[-1] == {"id": 7, "ok": {"trees": None}}


def test_what_a_place_does_wrong_is_one_error(tmp_path: Path) -> None:
    """And the next job is served; an unknown job, or a place that is not there, too."""
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(make([Member("../evil")]))
    with fetcher() as child:
        for url, kind in ((bad, "NameEscapes"), (tmp_path / "none", "SourceUnavailable")):
            child.send(_fetch(2, url, tmp_path / "staging", ""))
            assert child.until_answer(2)[-1]["error"][0] == kind
            (tmp_path / "staging" / "2-0").rmdir()
        assert child.ask(job="nonsense")["error"][0] == "SourceUnavailable"
        assert child.ask(job="manifest", data="e30=")["ok"] == {"data": {}}
    assert not (tmp_path / "evil").exists()


def test_many_jobs_at_once_are_each_answered_whole(tmp_path: Path) -> None:
    """Fetches and other jobs under way together: every line is a line, longer than a pipe is wide, or short."""
    count = 8
    for number in range(count):
        files = {f"{n:03}-{'n' * 190}": b"" for n in range(500)}
        write_tree(tmp_path / f"s{number}", {SKILL_FILE: skill_text(f"s{number}"), **files})
    with fetcher() as child:
        for number in range(count):
            child.send(_fetch(number, tmp_path / f"s{number}", tmp_path / "staging", ""))
            child.send({"id": 100 + number, "job": "manifest", "data": "e30="})
        answered: set[int] = set()
        landed: dict[int, str] = {}
        while len(answered) < 2 * count:
            line = child.read()
            if "landed" in line:
                assert len(line["landed"]["files"]) == 501
                landed[line["id"]] = line["landed"]["name"]
            elif "ok" in line:
                answered.add(line["id"])
        assert child.end() == 0
    assert landed == {number: f"s{number}" for number in range(count)}
    assert answered == set(range(count)) | set(range(100, 100 + count))


def test_a_skill_is_validated(tmp_path: Path) -> None:
    """The findings as plain data."""
    write_tree(tmp_path / "a", {SKILL_FILE: skill_text("b")})
    with fetcher() as child:
        (finding,) = child.ask(job="validate", path=str(tmp_path / "a"))["ok"]["findings"]
    assert (finding["path"], finding["line"], finding["rule"]) == (SKILL_FILE, 2, "name-folder")
    assert set(finding) == {"path", "line", "rule", "text", "severity"}


def test_a_wrong_staging_is_the_disks_fault(tmp_path: Path) -> None:
    """Not there, a link, or another folder than the parent opened: DiskRefused, with what to do."""
    write_tree(tmp_path / "a", {SKILL_FILE: skill_text("a")})
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with fetcher() as child:
        (tmp_path / "other").mkdir()
        for folder in ("none", "link", "other"):
            job = _fetch(3, tmp_path / "a", tmp_path / "real", "") | {"folder": str(tmp_path / folder)}
            child.send(job)
            assert child.until_answer(3)[-1]["error"][0] == "DiskRefused"
    assert list((tmp_path / "real").iterdir()) == list((tmp_path / "other").iterdir()) == []


def test_it_ends_with_its_parent_and_with_its_pipes() -> None:
    """Somebody else's child ends at once; one whose stdin ends, or whose answers nobody reads, too."""
    with fetcher() as child:
        assert child.end() == 0
    with fetcher() as child:
        child.process.stdout.close()  # type: ignore[union-attr]
        child.send({"id": 1, "job": "manifest", "data": "e30="})
        assert child.process.wait(20) == 1
    command = [sys.executable, "-m", "skillbus.skills.fetcher", "1"]
    assert subprocess.run(command, input=json.dumps(HELLO).encode() + b"\n", capture_output=True).returncode == 1


def test_lines_longer_than_the_pipe_do_not_mix() -> None:
    """Four threads, each blocked in the middle of a line that nobody has read yet: every line arrives whole."""
    reading, writing = os.pipe()
    out = _Out(writing)
    lines = [{"id": number, "x": str(number) * 300_000} for number in range(4)]
    threads = [threading.Thread(target=out.say, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    got = b""
    while got.count(b"\n") < len(lines):
        got += os.read(reading, 4096)
    for thread in threads:
        thread.join()
    os.close(reading)
    os.close(writing)
    assert sorted((json.loads(line) for line in got.splitlines()), key=lambda line: int(line["id"])) == lines


def test_its_limits_are_set_and_many_threads_fit() -> None:
    """Memory, files, no core, no new rights; and eight fetches still have room for their threads."""
    with fetcher() as child:
        child.ask(job="manifest", data="e30=")
        process = psutil.Process(child.process.pid)
        assert process.rlimit(psutil.RLIMIT_AS)[0] == 1024**3
        assert process.rlimit(psutil.RLIMIT_FSIZE)[0] == 100 * 1024 * 1024
        assert process.rlimit(psutil.RLIMIT_CORE)[0] == 0
        assert 0 < process.rlimit(psutil.RLIMIT_CPU)[0] <= 70
        status = Path(f"/proc/{child.process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status


@pytest.mark.parametrize("cap", [0, 1024])
def test_the_cap_on_archives_sets_the_size_of_a_file(cap: int) -> None:
    """A zip is spooled, so the two must fit; no cap is a gigabyte, for a disk is not endless."""
    with fetcher(hello=HELLO | {"max_archive_bytes": cap}) as child:
        child.ask(job="manifest", data="e30=")
        limit = psutil.Process(child.process.pid).rlimit(psutil.RLIMIT_FSIZE)[0]
    assert limit == (64 * 1024 * 1024 if cap else 1024**3)


def test_errors_in_words_hold_no_text_of_strangers() -> None:
    """An unexpected error's text may hold a URL's query: only its class is told."""
    assert in_words(ValueError("https://x/?token=secret")) == ["SourceUnavailable", "reading it failed (ValueError)"]
    assert in_words(MemoryError())[0] == "BadArchive"


def test_the_name_of_a_nameless_skill() -> None:
    """Its origin's if the origin is its own, else its folder's."""
    origin = Origin("git", "p", "u", "", "skills/a", "given")
    assert fallback_name("skills/a", origin) == "given"
    assert fallback_name("skills/b", origin) == "b"
    assert fallback_name("", origin) == "given"


def test_it_is_up_soon() -> None:
    """A pass waits for it: half a second would be felt (some 70 ms where a bare Python takes 15)."""
    began = time.perf_counter()
    with fetcher() as child:
        child.ask(job="manifest", data=base64.b64encode(b"a: 1").decode())
        assert time.perf_counter() - began < 2.0

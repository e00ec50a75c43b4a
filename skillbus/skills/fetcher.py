"""The child process that fetches and parses foreign bytes: ``python -m skillbus.skills.fetcher PARENT_PID``.

Manifests, frontmatter and archives come from people whom nobody vetted. They are parsed here, in a process with limits
on memory, CPU and file size, which the pod SIGKILLs when it must stop and which the kernel SIGKILLs when the pod dies.
A crash of a parser costs what was under way.

It reads JSON jobs, one a line, from stdin and answers each on stdout. Several jobs are under way at once, and answers
come in any order, each line whole. The first line it gets is no job but what it may do (token, hosts, limits): so the
token is in neither argv nor environment. It writes nothing but the folders that a ``fetch`` job names, and decides
nothing: the parent believes no answer.

    {"id", "job": "manifest", "data": base64}                      -> {"id", "ok": {"data": …}}
    {"id", "job": "trees", "origin", "revision", "subpaths"}       -> {"id", "ok": {"trees": {subpath: tree id} | null}}
    {"id", "job": "fetch", "origin", "revision", "folder", "inode": [device, inode], "slots": {subpath: slot},
     "trees": bool}
        -> {"id", "progress": {"bytes"}} …                            now and then
        -> {"id", "landed": {"subpath", "slot", "name", "digest", "files": {path: [sha256, executable, size]},
                             "warnings"}}                             for each skill, or
           {"id", "landed": {"subpath", "error": [kind, text]}}
        -> {"id", "ok": {"trees": … | null}}                          last
    {"id", "job": "validate", "path"}                              -> {"id", "ok": {"findings": […]}}
    any of them                                                    -> {"id", "error": [kind, text] or [… , wait_s]}

It is started for a pass and often for one small job, so nothing is imported before it is needed: PyYAML in a thread
while the network is waited for, the HTTP client by the sources.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from json import dumps, loads
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from skillbus.errors import BadArchive, DiskRefused, RateLimited, SkillbusError, TooManyFiles
from skillbus.skills.confined import Cpu, harden, limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skillbus.skills.landing import Landing
    from skillbus.skills.sources.source import Access, Origin, Revision, Source

FILE_BYTES = 64 * 1024 * 1024
"""Bytes of one file, or of the heaviest archive that is allowed: a zip is spooled, git keeps what it fetches."""

UNCAPPED_BYTES = 1024 * 1024 * 1024
NETWORK_JOBS = 4
"""Fetches under way at once; as many listings beside them."""

MAX_LINE_BYTES = 4 * 1024 * 1024
PROGRESS_S = 0.2

Tell = Callable[[dict[str, Any]], None]


class Fetcher:
    """What the parent asks, answered. Its methods may be used by several threads.

    Args:
        hello: what it may do, as in the protocol's first line.
        say: given one answer at a time, fit for JSON.
    """

    def __init__(self, hello: Mapping[str, Any], say: Tell) -> None:
        self._hello = hello
        self._say = say
        self._access: Access | None = None
        self._building = threading.Lock()
        self._of_thread = threading.local()
        self._jobs: Mapping[str, Callable[[dict[str, Any], Tell], dict[str, Any]]] = {
            "manifest": self._manifest,
            "trees": self._trees,
            "fetch": self._fetch,
            "validate": self._validate,
        }

    def serve(self, job: dict[str, Any]) -> None:
        """Do one job and say what came of it. Never raises for what a job can do wrong."""

        def tell(line: dict[str, Any]) -> None:
            self._say({"id": job["id"], **line})

        try:
            tell({"ok": self._jobs[job["job"]](job, tell)})
        except Exception as error:
            tell({"error": in_words(error)})
        if job["job"] == "manifest":
            _import_ahead()

    # ---- jobs ------------------------------------------------------------------------------------------------------

    def _manifest(self, job: dict[str, Any], tell: Tell) -> dict[str, Any]:
        from binascii import a2b_base64

        from skillbus.skills.document import load_document

        return {"data": load_document(a2b_base64(job["data"]))}

    def _validate(self, job: dict[str, Any], tell: Tell) -> dict[str, Any]:
        from skillbus.skills.validate import findings

        return {"findings": [finding.plain() for finding in findings(job["path"])]}

    def _trees(self, job: dict[str, Any], tell: Tell) -> dict[str, Any]:
        source, origin, revision, access = self._place(job)
        parser = _Later(_import_parser)  # A fetch follows, as a rule, and now the network is waited for.
        try:
            return {"trees": _plain(source.trees(origin, revision, job["subpaths"], access))}
        finally:
            parser.wait()

    def _fetch(self, job: dict[str, Any], tell: Tell) -> dict[str, Any]:
        source, origin, revision, access = self._place(job)
        slots: dict[str, str] = job["slots"]
        listing = _Later(lambda: source.trees(origin, revision, list(slots), access)) if job.get("trees") else None
        parser = _Later(_import_parser)
        try:
            with _landings(job["folder"], job["inode"], slots) as landings:
                self._of_thread.progress = _Progress(tell)
                try:
                    other = source.fetch(origin, revision, landings, access)
                finally:
                    self._of_thread.progress = None
                parser.result()
                self._tell_landed(landings, origin, slots, tell)
            return {"trees": _plain(listing.result()) if listing else None, **({"other": True} if other else {})}
        finally:
            for later in (listing, parser):
                if later is not None:
                    later.wait()

    def _tell_landed(
        self, landings: Mapping[str, Landing], origin: Origin, slots: Mapping[str, str], tell: Tell
    ) -> None:
        from skillbus.skills.bundle import judge

        for subpath, landing in landings.items():
            try:
                judged = judge(landing, fallback_name(subpath, origin), strict=self._hello["strict"])
                facts = landing.facts.items()
                told = {
                    "subpath": subpath,
                    "slot": slots[subpath],
                    "name": judged.name,
                    "digest": judged.digest,
                    "files": {path: [f.sha256, f.executable, landing.sizes[path]] for path, f in facts},
                    "warnings": list(judged.warnings),
                }
                if (
                    sum(len(path) + 100 for path in landing.facts) > MAX_LINE_BYTES // 4
                    and _weight(told) > MAX_LINE_BYTES
                ):
                    raise TooManyFiles("its list of files is too long")
            except Exception as error:
                told = {"subpath": subpath, "error": in_words(error)}
            tell({"landed": told})

    # ---- what a source needs ---------------------------------------------------------------------------------------

    def _place(self, job: dict[str, Any]) -> tuple[Source, Origin, Revision, Access]:
        from skillbus.skills.sources import source_named
        from skillbus.skills.sources.source import Origin, Revision

        with self._building:  # two threads that import one another's modules would wait for each other
            if self._access is None:
                self._access = self._built_access()
            source = source_named(job["origin"]["source"])
        return source, Origin(**job["origin"]), Revision(**job["revision"]), self._access

    def _built_access(self) -> Access:
        from skillbus.skills.sources.source import Access
        from skillbus.skills.sources.web import Trust, Web

        hello = self._hello
        trust = Trust(
            hello["token"],
            frozenset(hello["token_hosts"]),
            frozenset(hello["local_hosts"]),
            frozenset(hello["redirect_hosts"]),
        )
        return Access(Web(trust, self._note_bytes), hello["max_archive_bytes"], dict(hello["github"]))

    def _note_bytes(self, count: int) -> None:
        """Bytes came in, in the thread of the fetch that asked for them."""
        progress: _Progress | None = getattr(self._of_thread, "progress", None)
        if progress is not None:
            progress.add(count)


def fallback_name(subpath: str, origin: Origin) -> str:
    """The name for a skill that has none. A job's origin is that of one of its skills, or of none."""
    return origin.fallback if subpath in {"", origin.subpath} else subpath.rpartition("/")[2]


def in_words(error: Exception) -> list[Any]:
    """An error as the protocol has it: ``[kind, text]``, and for RateLimited the seconds to wait."""
    if isinstance(error, RateLimited):
        return [type(error).__name__, str(error), error.wait_s]
    if isinstance(error, SkillbusError):
        return [type(error).__name__, str(error)]
    if isinstance(error, MemoryError):
        return [BadArchive.__name__, "it needs more memory than a skill may"]
    # Whatever a parser raises, the next job is served. The error's own text may hold a URL's query.
    return ["SourceUnavailable", f"reading it failed ({type(error).__name__})"]


def _plain(trees: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if trees is None else dict(trees)


def _import_ahead() -> None:
    """What a fetch will need, while the pod thinks about the manifest, which takes it about as long."""
    import skillbus.skills.archive
    import skillbus.skills.landing  # noqa: F401
    from skillbus.skills.sources.wire import import_client

    import_client()


def _import_parser() -> None:
    import skillbus.skills.bundle
    import skillbus.skills.document  # noqa: F401


def _weight(told: dict[str, Any]) -> int:
    return len(_line(told))


def _line(line: dict[str, Any]) -> bytes:
    return dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


@contextmanager
def _landings(path: str, inode: list[int], slots: Mapping[str, str]) -> Iterator[dict[str, Landing]]:
    """A landing for each slot in the staging folder, closed at the end.

    Args:
        inode: its device and inode: a link above it could lead elsewhere by now.
    """
    from skillbus.skills.landing import Landing, disk_refused

    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise disk_refused(error) from error
    landings: dict[str, Landing] = {}
    try:
        info = os.fstat(folder)
        if [info.st_dev, info.st_ino] != inode:
            raise DiskRefused(f"{path} is no longer the staging folder: look at it by hand")
        for subpath, slot in slots.items():
            landings[subpath] = Landing(folder, slot)
        yield landings
    finally:
        for landing in landings.values():
            landing.rest()
        os.close(folder)


class _Progress:
    """Bytes that came in, told now and then: a stream that still runs is told from one that hangs."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._bytes = 0
        self._next_at = 0.0

    def add(self, count: int) -> None:
        self._bytes += count
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + PROGRESS_S
            self._tell({"progress": {"bytes": self._bytes}})


class _Later:
    """Work in a thread of its own, while this one does something else."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="skills.later", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        self._thread.join()

    def result(self) -> Any:
        self.wait()
        if self._error is not None:
            raise self._error
        return self._result


class _Crew:
    """At most ``size`` threads for one kind of job, started when there is work."""

    def __init__(self, size: int, serve: Callable[[dict[str, Any]], None]) -> None:
        self._size = size
        self._serve = serve
        self._jobs: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def add(self, job: dict[str, Any]) -> None:
        self._jobs.put(job)
        if len(self._threads) < self._size:
            self._threads.append(threading.Thread(target=self._run, name="skills.job", daemon=True))
            self._threads[-1].start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._serve(job)

    def end(self) -> None:
        """No more jobs come: finish those there are."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()


class _Out:
    """stdout, one whole line at a time."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._lock = threading.Lock()

    def say(self, line: dict[str, Any]) -> None:
        rest = memoryview(_line(line))
        with self._lock:
            try:
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            except OSError:
                os._exit(1)  # Nobody listens: whatever the other threads do is for nobody.


def main() -> None:
    """Serve jobs until stdin ends."""
    harden(int(sys.argv[1]))
    gc.set_threshold(50_000, 20, 20)  # an unpacked archive is many small things and no cycles: a tenth of the time
    lines = sys.stdin.buffer
    hello = loads(lines.readline())
    limit("FSIZE", max(FILE_BYTES, hello["max_archive_bytes"] or UNCAPPED_BYTES))
    fetcher = Fetcher(hello, _Out(sys.stdout.fileno()).say)
    cpu = Cpu()

    def serve(job: dict[str, Any]) -> None:
        with cpu.of_one_job():
            fetcher.serve(job)

    quick, listings, fetches = _Crew(1, serve), _Crew(NETWORK_JOBS, serve), _Crew(NETWORK_JOBS, serve)
    crews = {"trees": listings, "fetch": fetches}
    for line in lines:
        job = loads(line)
        crews.get(job["job"], quick).add(job)
    for crew in (quick, listings, fetches):
        crew.end()


if __name__ == "__main__":
    main()

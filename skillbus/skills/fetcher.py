"""The child process that fetches and parses foreign bytes: ``python -m skillbus.skills.fetcher PARENT_PID``.

Manifests, frontmatter and archives come from people whom nobody vetted. They are parsed here, in a process with limits
on memory, CPU and file size, which the pod SIGKILLs when it must stop and which the kernel SIGKILLs when the pod dies.
A crash of a parser costs one entry.

It reads JSON jobs, one a line, from stdin and answers each with one line on stdout. The first line it gets is no job
but what it may do (token, hosts, limits): so the token is in neither argv nor environment. It writes nothing but the
folder that a ``stage`` job names, and decides nothing: the parent believes no answer.

    {"id": 1, "job": "manifest", "source": …}           -> {"id": 1, "ok": {"data": …}}
    {"id": 2, "job": "look", "url": …}                  -> {"id": 2, "ok": {"name", "digest", "ref", "warnings"}}
    {"id": 3, "job": "stage", "url", "folder", "slot"}  -> {"id": 3, "ok": {}}
    any of them                                         -> {"id": n, "error": ["BadArchive", "why, and what to do"]}
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from skillbus.errors import BadManifest, SkillbusError, SourceUnavailable
from skillbus.skills import tree
from skillbus.skills.bundle import Judged, judge
from skillbus.skills.document import MAX_TEXT_BYTES, load_document
from skillbus.skills.sources import SOURCES
from skillbus.skills.sources.source import Access, Fetched
from skillbus.skills.sources.web import Trust, Web

MEMORY_BYTES = 1024 * 1024 * 1024
CPU_S = 60
"""Seconds of CPU for one job."""

FILE_BYTES = 64 * 1024 * 1024
_CACHE_BYTES = 64 * 1024 * 1024
"""Bytes of skills that were looked at and are kept, so that staging them needs no second fetch."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


class Fetcher:
    """What the parent asks, answered."""

    def __init__(self, access: Access, *, strict: bool) -> None:
        self._access = access
        self._strict = strict
        self._cache: dict[str, tuple[Fetched, Judged]] = {}
        self._jobs: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "manifest": self._manifest,
            "look": self._look,
            "stage": self._stage,
        }

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """The answer to one job. Never raises."""
        try:
            return {"id": job["id"], "ok": self._jobs[job["job"]](job)}
        except SkillbusError as error:
            return {"id": job["id"], "error": [type(error).__name__, str(error)]}
        except MemoryError:
            self._cache.clear()
            return {"id": job["id"], "error": ["BadArchive", "it needs more memory than a skill may"]}
        except Exception as error:
            # Whatever a parser raises, the next job is served. The error's own text may hold a URL's query.
            return {"id": job["id"], "error": ["SourceUnavailable", f"reading it failed ({type(error).__name__})"]}

    def _manifest(self, job: dict[str, Any]) -> dict[str, Any]:
        return {"data": load_document(_read_manifest(job["source"], self._access.web))}

    def _look(self, job: dict[str, Any]) -> dict[str, Any]:
        fetched, judged = self._fetched(job["url"])
        return {
            "name": judged.name,
            "digest": judged.digest,
            "ref": fetched.ref,
            "warnings": list(judged.warnings),
        }

    def _stage(self, job: dict[str, Any]) -> dict[str, Any]:
        fetched, _ = self._fetched(job["url"])
        with tree.disk_words("the staging folder cannot be written"):
            folder = os.open(job["folder"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                tree.write_new(folder, job["slot"], fetched.files)
            finally:
                os.close(folder)
        return {}

    def _fetched(self, url: str) -> tuple[Fetched, Judged]:
        if url not in self._cache:
            source = next((source for source in SOURCES if source.accepts(url)), None)
            if source is None:
                raise BadManifest("no source takes such a url: use a folder, or a tar.gz over https")
            fetched = source.fetch(url, self._access)
            self._cache[url] = fetched, judge(fetched.files, fetched.fallback, strict=self._strict)
        found = self._cache[url]
        while len(self._cache) > 1 and sum(map(_weight, self._cache.values())) > _CACHE_BYTES:
            del self._cache[next(iter(self._cache))]
        return found


def _weight(cached: tuple[Fetched, Judged]) -> int:
    return sum(len(file.data) for file in cached[0].files.values())


def _read_manifest(source: str, web: Web) -> bytes:
    if source.startswith(("http://", "https://")):
        return web.get_own(source, MAX_TEXT_BYTES)
    try:
        with open(source, "rb") as file:
            return file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise SourceUnavailable(f"it cannot be read ({error.strerror}): check the path") from None


def harden(parent: int) -> None:
    """Die with the parent, gain no rights, and stay within limits."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # It died before the line above: nobody would ever end us.
        sys.exit(1)
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        _, hard = resource.getrlimit(what)
        lower = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (lower, lower))


def _allow_cpu() -> None:
    """Let one job have its seconds: the kernel ends a process that uses more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime) + 1 + CPU_S
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _access(hello: dict[str, Any]) -> Access:
    trust = Trust(hello["token"], frozenset(hello["token_hosts"]), frozenset(hello["local_hosts"]))
    return Access(Web(trust), hello["max_archive_bytes"])


def main() -> None:
    """Serve jobs until stdin ends."""
    harden(int(sys.argv[1]))
    hello = json.loads(sys.stdin.buffer.readline())
    fetcher = Fetcher(_access(hello), strict=hello["strict"])
    for line in sys.stdin.buffer:
        _allow_cpu()
        sys.stdout.buffer.write(json.dumps(fetcher.answer(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

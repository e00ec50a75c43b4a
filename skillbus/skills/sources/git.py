"""Any git remote as a source: ``git+https://``, ``git+ssh://``, ``git+file://``, through the git of this machine.

What a branch or tag means now is asked with ls-remote, in the pod's process: a few hundred bytes. In the child one
commit is fetched, without history, and first without files; then, in one more request, the files of the wanted folders
alone. A server that cannot do that sends the whole commit.

Files are read as git's objects, by their ids, and not by ``git archive`` or a checkout. So what is written is what was
committed: no line ends are converted, nothing is substituted or left out, whatever a .gitattributes says; no filter, no
hook, no LFS, and no file name reaches the disk before landing.py has looked at it.

There are no tree ids to be had without fetching the commit, so every new commit is fetched, and a skill whose digest
is what it was stays untouched. git's own check of objects (fsck) is left as the operator set it: old repositories fail
it for reasons that harm nobody, and nothing here relies on what it would find.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from subprocess import DEVNULL, PIPE, Popen
from typing import TYPE_CHECKING

from skillbus.clock import boottime_s
from skillbus.errors import (
    BadBundle,
    DiskRefused,
    HostileName,
    LinkInArchive,
    SourceUnavailable,
    TooBig,
    TooManyFiles,
)
from skillbus.skills.sources import git_process
from skillbus.skills.sources.git_objects import File, Objects
from skillbus.skills.sources.git_process import REMOTE, Remote, plain_environment
from skillbus.skills.sources.pip_url import GitUrl, git_url
from skillbus.skills.sources.source import Access, Origin, Revision

if TYPE_CHECKING:
    from skillbus.skills.landing import Landing

RESOLVE_S = 30.0
FETCH_S = 120.0
"""Seconds for all requests of one fetch. The parent gives up somewhat later."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_UNWILLING = re.compile(rb"not our ref|unadvertised object|couldn't find remote ref|remote ref .* not found", re.I)
"""How a server says that it does not have, or does not give, what was named."""


class GitSource:
    """``git+https://host/path.git@ref#subdirectory=dir`` and its kin, as pip writes them."""

    general = False

    def accepts(self, url: str, access: Access) -> bool:
        """Whether it says that it is a git remote."""
        return url.lower().startswith("git+")

    def origin(self, url: str, access: Access) -> Origin:
        """The url taken apart.

        Raises:
            BadManifest: it cannot be used; with what to write instead.
        """
        parts = git_url(url)
        place = f"{parts.shown}@{parts.ref}" if parts.ref else parts.shown
        fallback = PurePosixPath(parts.subpath or parts.shown).name.removesuffix(".git")
        return Origin("git", place, url.partition("#")[0], parts.ref, parts.subpath, fallback)

    async def resolve(self, origin: Origin, known: Revision | None, access: Access) -> Revision:
        """The commit that the ref means now. Cancelled, it has ended every process of its own when it returns.

        Raises:
            BadManifest: the remote may not be asked.
            SourceUnavailable: it did not answer, or has no such ref.
        """
        if _COMMIT.fullmatch(origin.ref):
            found = origin.ref.lower()
        else:
            url = git_url(origin.url)
            remote = await git_process.resolved(url, access)
            names = _names(origin.ref)
            asked = ["ls-remote", "--exit-code", "--", REMOTE, *names, *(f"{name}^{{}}" for name in names)]
            _, out = await git_process.ask(remote, asked, RESOLVE_S)
            found = _chosen(out, names, url)
        return known if known is not None and known.id == found else Revision(found)

    def trees(
        self, origin: Origin, revision: Revision, subpaths: Sequence[str], access: Access
    ) -> Mapping[str, str] | None:
        """None: see above."""
        return None

    def fetch(self, origin: Origin, revision: Revision, landings: Mapping[str, Landing], access: Access) -> None:
        """Fetch one commit's wanted folders, and write their files.

        Raises:
            SkillbusError: the remote does not give them.
        """
        if not landings:
            return
        remote = git_process.resolved_in_child(git_url(origin.url), access)
        until_s = boottime_s() + FETCH_S
        with _scratch(next(iter(landings.values()))) as folder:
            clone = _Clone(folder, remote, access.max_archive_bytes, until_s)
            clone.bring_commit(revision.id, origin.ref)
            wanted = clone.listed(revision.id, landings)
            if not clone.bring_files({file.id for files in wanted.values() for file in files}):
                clone = _Clone(folder, remote, access.max_archive_bytes, until_s, sparing=False)
                clone.bring_commit(revision.id, origin.ref)
            clone.write(wanted, landings)


SOURCE = GitSource()


def _names(ref: str) -> tuple[str, ...]:
    """What ``ref`` may be called in full, the likeliest first."""
    if ref in {"", "HEAD"}:
        return ("HEAD",)
    return (ref,) if ref.startswith("refs/") else (f"refs/heads/{ref}", f"refs/tags/{ref}")


def _chosen(out: bytes, names: Sequence[str], url: GitUrl) -> str:
    """The commit among ls-remote's lines: a tag's own is that of the line with ``^{}``."""
    told = {
        name: commit
        for commit, _, name in (line.partition("\t") for line in out.decode("utf-8", "replace").splitlines())
    }
    for name in names:
        commit = told.get(f"{name}^{{}}") or told.get(name)
        if commit is not None and _COMMIT.fullmatch(commit):
            return commit.lower()
        if commit is not None:
            raise SourceUnavailable(f"{url.shown} names no commit that is known here: only SHA-1 repositories are read")
    if not url.ref:
        raise SourceUnavailable(f"{url.shown} has no default branch, or no commit yet: name one, as in path.git@main")
    raise SourceUnavailable(
        f"{url.shown} has no branch or tag {url.ref!r}: check it (a commit is written with all its 40 digits)"
    )


@contextmanager
def _scratch(landing: Landing) -> Iterator[int]:
    """A folder beside the skills that come in, open, gone afterwards. One left behind is swept with the staging.

    Everything in it is reached by its descriptor, git's own processes included: they begin in it. So whoever moves it
    away, and puts another in its place, gets nothing of ours, and we read nothing of his.
    """
    name = f"{landing.slot}.git"
    os.mkdir(name, 0o700, dir_fd=landing.folder)
    folder = os.open(name, _FOLDER, dir_fd=landing.folder)
    try:
        info = os.fstat(folder)
        if info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise DiskRefused(f"somebody else writes in the staging folder ({name} is not what was made): look there")
        try:
            yield folder
        finally:
            for inner in os.listdir(folder):  # noqa: PTH208 - an open folder
                shutil.rmtree(inner, dir_fd=folder, ignore_errors=True)
    finally:
        os.close(folder)
        with suppress(OSError):
            os.rmdir(name, dir_fd=landing.folder)


class _Clone:
    """A bare repository with one commit in it, and at first not even that commit's files."""

    def __init__(self, folder: int, remote: Remote, max_bytes: int, until_s: float, *, sparing: bool = True) -> None:
        self._folder = folder
        self._repository = "sparing" if sparing else "whole"
        self._remote = remote
        self._max_bytes = max_bytes
        self._sparing = sparing
        self._until_s = until_s
        said = self._run(["init", "--quiet", "--bare", "--template="], "/dev/null")
        if said is not None:
            raise remote.failure(said)
        with open(self._opened("config", os.O_RDONLY), "rb") as file:
            self._config = file.read()

    def bring_commit(self, commit: str, ref: str) -> None:
        """Fetch the commit by its id; from a server that does not give those, by its ref.

        Raises:
            SourceUnavailable: it is not to be had.
        """
        if self._brought(commit):
            return
        for name in _names("" if _COMMIT.fullmatch(ref) else ref):
            if self._brought(name):
                with self._objects() as objects:
                    if objects.find(f"{commit}^{{commit}}") is not None:
                        return
        shown = self._remote.url.shown
        if _COMMIT.fullmatch(ref):
            raise SourceUnavailable(
                f"{shown} does not give out the commit {commit}: check it, or name a branch or a tag"
            )
        raise SourceUnavailable(f"{shown} changed while it was fetched: it will be tried again")

    def listed(self, commit: str, landings: Mapping[str, Landing]) -> dict[str, list[File]]:
        """The files of each wanted folder. A folder that cannot be taken is refused, and left out."""
        found: dict[str, list[File]] = {}
        with self._objects() as objects:
            for subpath, landing in landings.items():
                top = objects.find(f"{commit}:{subpath}")
                try:
                    if top is None or top[1] != "tree":
                        raise BadBundle(
                            f"there is no folder {subpath!r} in it at {commit[:12]}: check the subdirectory"
                        )
                    found[subpath] = list(objects.files(top[0]))
                except (BadBundle, HostileName, LinkInArchive, TooManyFiles) as error:
                    landing.refuse(error)
        return found

    def bring_files(self, ids: set[str]) -> bool:
        """Fetch the files of these ids, as far as they did not come with the commit. False if the server will not."""
        missing = ids - self._present(ids)
        if not missing:
            return True
        self._write("wanted", "".join(f"{one}\n" for one in sorted(missing)).encode())
        return self._brought("--stdin", stdin=f"{self._repository}/wanted")

    def write(self, wanted: Mapping[str, list[File]], landings: Mapping[str, Landing]) -> None:
        """Write the files."""
        with self._objects() as objects:
            for subpath, files in wanted.items():
                landing = landings[subpath]
                for file in files:
                    if landing.error is not None:
                        break
                    content = objects.content(file.id)
                    landing.write(file.path, content, executable=file.executable)
                    for _ in content:  # what the landing did not want any more: the next answer begins behind it
                        pass

    def _present(self, ids: set[str]) -> set[str]:
        command = self._plain("cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectname)")
        cwd, env = git_process.inside(self._folder), plain_environment()
        with Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, cwd=cwd, env=env) as process:
            assert process.stdout is not None  # noqa: S101 - started with a pipe
            return {one for line in process.stdout if (one := line.strip().decode()) in ids}

    def _brought(self, name: str, stdin: str = "/dev/null") -> bool:
        """Fetch what is called ``name``. False if the server does not have it, or does not give it."""
        plain = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
        if name == "--stdin":
            how, names = ["-c", "fetch.negotiationAlgorithm=noop", *plain, "--filter=blob:none", name], []
        else:
            how, names = [*plain, "--depth=1", *(["--filter=blob:none"] if self._sparing else [])], [name]
        said = self._run([*how, "--", REMOTE, *names], stdin)
        # It noted that what is missing may be had from the remote. Nothing but a fetch is to speak to that.
        self._write("config", self._config)
        if said is None:
            self._look()
            return True
        if _UNWILLING.search(said):
            return False
        raise self._remote.failure(said)

    def _look(self) -> None:
        """Whether a fetch may go on."""
        shown = self._remote.url.shown
        if boottime_s() > self._until_s:
            raise SourceUnavailable(f"{shown} took longer than {FETCH_S:g} s: it will be tried again")
        if self._max_bytes and self._weight() > self._max_bytes:
            mib = self._max_bytes // 1024 // 1024
            raise TooBig(f"{shown} weighs more than {mib} MiB (SKILLBUS_SKILLS_MAX_ARCHIVE_MB)")

    def _weight(self) -> int:
        try:
            packs = self._opened("objects/pack", _FOLDER)
        except OSError:
            return 0
        try:
            with os.scandir(packs) as found:
                return sum(pack.stat(follow_symlinks=False).st_size for pack in found)
        except OSError:
            return 0
        finally:
            os.close(packs)

    def _run(self, arguments: Sequence[str], stdin: str) -> bytes | None:
        return git_process.run(self._remote, self._folder, self._repository, arguments, self._look, stdin)

    def _opened(self, name: str, flags: int) -> int:
        return os.open(f"{self._repository}/{name}", flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._folder)

    def _write(self, name: str, data: bytes) -> None:
        with open(self._opened(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(data)

    def _plain(self, *arguments: str) -> list[str]:
        return ["git", f"--git-dir={self._repository}", *arguments]

    @contextmanager
    def _objects(self) -> Iterator[Objects]:
        command = self._plain("cat-file", "--batch")
        cwd, env = git_process.inside(self._folder), plain_environment()
        with Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd=cwd, env=env) as process:
            try:
                yield Objects(process)
            finally:
                process.kill()  # it may be in the middle of a file that nobody wants any more

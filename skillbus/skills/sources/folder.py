"""A folder of this machine, or an archive lying on it, as a source: the operator's own disk, checked like any other.

Links inside are refused, because what they point at is not the skill's. The folder or archive itself may be one.

So that a pass with nothing new reads no file, what ``stat`` says of all of them is remembered with the digest. It is
relied on only if none of them had changed in the two seconds before: a change that follows so soon may leave no trace
in the times of a coarse file system (git's index has the same rule, for the same reason).
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from skillbus.clock import wall_ms
from skillbus.errors import BadManifest, PassAborted, SkillbusError, SourceUnavailable, TooBig, TooManyFiles
from skillbus.skills import tree
from skillbus.skills.rules import MAX_BYTES, MAX_DEPTH, MAX_FILES, FileFact, shown_url, tree_digest
from skillbus.skills.sources.pip_url import subdirectory
from skillbus.skills.sources.source import Access, Origin, Revision

if TYPE_CHECKING:
    from skillbus.skills.landing import Landing

_CHUNK = 256 * 1024
_SETTLED_MS = 2_000
_ENDS = (".tar.gz", ".tgz", ".tar", ".zip")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

GoOn = Callable[[], object]


class FolderSource:
    """``/absolute/folder`` or ``/absolute/archive.zip#subdirectory=dir``: the manifest made relative ones absolute."""

    general = False

    def accepts(self, url: str, access: Access) -> bool:
        """Whether it is a path."""
        return url.startswith("/")

    def origin(self, url: str, access: Access) -> Origin:
        """The path, and for an archive the folder in it.

        Raises:
            BadManifest: what follows the ``#`` cannot be used.
        """
        path, subpath = url, ""
        before, mark, fragment = url.partition("#subdirectory=")
        if mark:
            if not before.lower().endswith(_ENDS):
                raise BadManifest(
                    f"{shown_url(before)}: '#subdirectory=' is for archives: write the path of the skill's own folder"
                )
            path, subpath = before, subdirectory(f"subdirectory={fragment}", shown_url(before))
        name = PurePosixPath(subpath or path).name
        end = "" if subpath else next((end for end in _ENDS if name.lower().endswith(end)), "")
        return Origin("folder", _shown(path), path, "", subpath, name.removesuffix(name[-len(end) :] if end else ""))

    async def resolve(self, origin: Origin, known: Revision | None, access: Access) -> Revision:
        """The digest of what lies there now. Cancelled, no thread of it reads on when it returns.

        Raises:
            SourceUnavailable: it is not there, cannot be read, or changes while it is read.
            BadArchive: something in it cannot be a skill's.
        """
        from skillbus.skills.quiet import (
            in_own_thread,
            to_the_end,
        )  # only in the pod's process, which has it: it brings much along

        stopped = threading.Event()

        def go_on() -> None:
            if stopped.is_set():
                raise PassAborted("the pass was cancelled")

        read = partial(_resolved, origin.url, known, access.max_archive_bytes, go_on)
        return await to_the_end(in_own_thread(read, "skills.folder"), stopped.set)

    def trees(
        self, origin: Origin, revision: Revision, subpaths: Sequence[str], access: Access
    ) -> Mapping[str, str] | None:
        """None: a folder has no such ids, and reading it is cheap."""
        return None

    def fetch(self, origin: Origin, revision: Revision, landings: Mapping[str, Landing], access: Access) -> None:
        """Copy the folder, or unpack the archive.

        Raises:
            SourceUnavailable: it is not there, cannot be read, or is no longer what was resolved.
            BadArchive: the archive is hostile or broken.
        """
        with _opened(origin.url) as (file, is_folder):
            if is_folder:
                _copy(file, revision, landings)
            else:
                _unpack(file, revision, landings, access.max_archive_bytes)


SOURCE = FolderSource()


def _shown(path: str) -> str:
    """The path for people; what may be a secret in it (the query of a url without a scheme) as digits of its digest."""
    return shown_url(path) + (f"?{sha256(path.encode()).hexdigest()[:8]}" if shown_url(path) != path else "")


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, bool]]:
    """A descriptor of the folder or file, and whether it is a folder."""
    shown = shown_url(path)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SourceUnavailable(f"{shown} cannot be opened ({error.strerror}): check the path") from None
    try:
        mode = os.fstat(file).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise SourceUnavailable(f"{shown} is neither a folder nor a file: check the path")
        yield file, stat.S_ISDIR(mode)
    except OSError as error:
        raise SourceUnavailable(f"{shown} cannot be read ({error.strerror}): check its permissions") from None
    finally:
        os.close(file)


# ---- what is there now -----------------------------------------------------------------------------------------------


def _resolved(path: str, known: Revision | None, max_bytes: int, go_on: GoOn) -> Revision:
    with _opened(path) as (file, is_folder):
        began_ms = wall_ms()
        seen, newest_ms = _seen(file, is_folder, go_on)
        if known is not None and known.etag and known.etag == seen:
            return known
        digest = _folder_digest(file, go_on) if is_folder else _file_digest(file, max_bytes, go_on)
        if _seen(file, is_folder, go_on)[0] != seen:
            raise _changed()
    settled = newest_ms <= began_ms - _SETTLED_MS
    return Revision(digest, seen if settled else "")


def _seen(file: int, is_folder: bool, go_on: GoOn) -> tuple[str, float]:
    """A digest of what ``stat`` says of everything there, and when the latest of it changed, in ms since 1970."""
    told = sha256()
    newest_ns = 0
    for path, info in _stats(file, "") if is_folder else [("", os.fstat(file))]:
        go_on()
        facts = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)
        told.update(path.encode("utf-8", "surrogateescape") + f"\0{facts}\n".encode())
        newest_ns = max(newest_ns, info.st_mtime_ns, info.st_ctime_ns)
    return told.hexdigest(), newest_ns / 1e6


def _stats(folder: int, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    if prefix.count("/") > MAX_DEPTH:
        raise TooManyFiles(f"it has folders more than {MAX_DEPTH} deep")
    for name in tree.names_in(folder, 2 * MAX_FILES):
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        yield prefix + name, info
        if stat.S_ISDIR(info.st_mode):
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                yield from _stats(inner, f"{prefix}{name}/")
            finally:
                os.close(inner)


def _folder_digest(folder: int, go_on: GoOn) -> str:
    facts: dict[str, FileFact] = {}
    missing = MAX_BYTES
    for path, file in tree.files_in(folder):
        digest = sha256()
        for chunk in _chunks(file):
            go_on()
            missing -= len(chunk)
            if missing < 0:
                raise TooBig(f"it is bigger than {MAX_BYTES // 1024 // 1024} MiB")
            digest.update(chunk)
        facts[path] = FileFact(digest.hexdigest(), tree.is_executable(file))
        if len(facts) > MAX_FILES:
            raise TooManyFiles(f"it has more than {MAX_FILES} files")
    return tree_digest(facts)


def _file_digest(file: int, max_bytes: int, go_on: GoOn) -> str:
    size = os.fstat(file).st_size
    if max_bytes and size > max_bytes:
        raise TooBig(f"it weighs more than {max_bytes // 1024 // 1024} MiB (SKILLBUS_SKILLS_MAX_ARCHIVE_MB)")
    digest = sha256()
    for chunk in _chunks(file):
        go_on()
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: int) -> Iterator[bytes]:
    while chunk := os.read(file, _CHUNK):
        yield chunk


def _changed() -> SkillbusError:
    return SourceUnavailable("it changed while it was read: it will be tried again")


# ---- taking it -------------------------------------------------------------------------------------------------------


def _copy(folder: int, revision: Revision, landings: Mapping[str, Landing]) -> None:
    for subpath, landing in landings.items():
        if subpath:
            landing.refuse(BadManifest("it is a folder and no archive: write the path of the skill's own folder"))
            continue
        try:
            for path, file in tree.files_in(folder):
                landing.write(path, _chunks(file), executable=tree.is_executable(file))
                if landing.error is not None:
                    break
        except (FileNotFoundError, NotADirectoryError):
            raise _changed() from None
        if landing.error is None and revision.id and tree_digest(landing.facts) != revision.id:
            raise _changed()


def _unpack(file: int, revision: Revision, landings: Mapping[str, Landing], max_bytes: int) -> None:
    from skillbus.skills.archive import Top, unpack  # only the child needs it

    digest = sha256()

    def hashed() -> Iterator[bytes]:
        for chunk in _chunks(file):
            digest.update(chunk)
            yield chunk

    chunks = hashed()
    unpack(chunks, landings, max_bytes, top=Top.EITHER)
    for _ in chunks:  # what lies behind the archive's end counts as well
        pass
    if revision.id and digest.hexdigest() != revision.id:
        raise _changed()

"""A skill's folder in the staging, while its files come in: where the child writes, and the only place it writes to.

Only the child imports this. Every file is checked before it is written (names, kinds, sizes, counts) and hashed on its
way. A skill that breaks a rule is refused by itself: what else comes for it is dropped, and its neighbours go on. What
was written for it until then stays, for the parent to sweep with the rest of the staging.

Nothing is fsynced here: the parent does that when it knows that the skill is wanted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from hashlib import sha256

from skillbus.errors import (
    BadArchive,
    DiskRefused,
    HostileName,
    NameEscapes,
    NameNotUtf8,
    NamesCollide,
    SkillbusError,
    TooBig,
    TooDeep,
    TooManyFiles,
)
from skillbus.skills.rules import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_FILES,
    MAX_PATH_BYTES,
    SKILL_FILE,
    FileFact,
    PathSet,
    checked_path,
)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN = re.compile(
    r"(?!/)(?:(?:^|/)(?!\.{1,2}(?:/|$)|\.git(?:/|$)|(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:[./]|$))"
    r"[A-Za-z0-9_.+@=,~-]{0,199}[A-Za-z0-9_+@=,~-])+",
    re.ASCII | re.IGNORECASE,
)
"""Names about which rules.py would have nothing to say."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Landing:
    """One skill on its way in. ``write`` each file, or ``refuse`` the whole.

    Attributes:
        folder: the open staging folder.
        slot: the name, in it, of the skill's folder.
        facts: every file written so far.
        sizes: the bytes of each.
        skill_file: the bytes of its SKILL.md, once written.
        error: why it is refused, or None.
        warnings: what is odd about it and not worth a refusal; a source may add to it.
    """

    def __init__(self, folder: int, slot: str) -> None:
        """``folder`` is the open staging folder; ``slot`` the name, in it, of the folder to be made.

        Raises:
            DiskRefused: it cannot be made, or is there.
        """
        self.folder = folder
        self.slot = slot
        self.error: SkillbusError | None = None
        self.warnings: list[str] = []
        self._open: list[tuple[str, int]] = []
        self._fresh()

    def _fresh(self) -> None:
        self.facts: dict[str, FileFact] = {}
        self.sizes: dict[str, int] = {}
        self.skill_file: bytes | None = None
        self._paths = PathSet()
        self._bytes = 0
        self._made = {""}
        try:
            os.mkdir(self.slot, 0o755, dir_fd=self.folder)
        except OSError as error:
            raise disk_refused(error) from error

    @property
    def is_empty(self) -> bool:
        """Whether nothing came for it, not even a folder."""
        return len(self._paths) == 0

    @property
    def is_untouched(self) -> bool:
        """Whether nothing came for it and nothing was said against it."""
        return self.is_empty and self.error is None

    def write(self, path: str, chunks: Iterable[bytes], *, executable: bool) -> None:
        """Write one file; ``path`` is relative to the skill's folder. Never raises for what is the skill's fault.

        Raises:
            DiskRefused: the staging cannot be written.
        """
        incoming = self.begin(path, executable=executable)
        if incoming is None:
            return
        try:
            for chunk in chunks:
                if not incoming.add(chunk):
                    return
            incoming.end()
        finally:
            incoming.close()
            self.rest()

    def begin(self, path: str, *, executable: bool) -> Incoming | None:
        """Open one new file, for those who cannot hand over its chunks in one go; None if it is not wanted any more.

        Raises:
            DiskRefused: the staging cannot be written.
        """
        if not self._takes(path, folder=False):
            return None
        if len(self.facts) >= MAX_FILES:
            self.refuse(TooManyFiles(f"it has more than {MAX_FILES} files"))
            return None
        where, _, name = path.rpartition("/")
        try:
            file = os.open(name, _NEW_FILE, 0o755 if executable else 0o644, dir_fd=self._folder(where))
        except OSError as error:
            raise disk_refused(error) from error
        return Incoming(self, path, file, executable)

    def add_folder(self, path: str) -> None:
        """Note that there is a folder: it may collide with something. It is made when a file in it comes."""
        self._takes(path, folder=True)

    def refuse(self, error: SkillbusError) -> None:
        """This skill cannot be taken; the first reason stays."""
        if self.error is None:
            self.error = error
            self.rest()

    def rest(self) -> None:
        """Close what is kept open between files. What comes next opens it again."""
        while self._open:
            os.close(self._open.pop()[1])

    def restart(self) -> None:
        """Forget what came: it was another folder's. What was written is left for the sweep.

        Raises:
            DiskRefused: the staging cannot be written.
        """
        self.rest()
        self.error = None
        self._rename(self.slot, f"{self.slot}.left")
        self._fresh()

    def nest(self, name: str) -> None:
        """Put all that came into a folder ``name``: it lay one deeper than it looked.

        Raises:
            DiskRefused: the staging cannot be written.
        """
        self.rest()
        facts, sizes, aside = self.facts, self.sizes, f"{self.slot}.inner"
        self._rename(self.slot, aside)
        self._fresh()
        self._rename(aside, f"{self.slot}/{name}")
        self._made |= {name}
        for path, fact in facts.items():
            deeper = f"{name}/{path}"
            self._takes(deeper, folder=False)
            self._made |= _folders_above(deeper)
            self.facts[deeper], self.sizes[deeper] = fact, sizes[path]
            self._bytes += sizes[path]

    def beside(self) -> Landing:
        """A second landing, for another reading of the same archive: see ``adopt``.

        Raises:
            DiskRefused: the staging cannot be written.
        """
        return Landing(self.folder, f"{self.slot}.inside")

    def adopt(self, other: Landing) -> None:
        """Be what ``other`` is: the other reading was the right one.

        Raises:
            DiskRefused: the staging cannot be written.
        """
        self.rest()
        other.rest()
        self._rename(self.slot, f"{self.slot}.left")
        self._rename(other.slot, self.slot)
        self.facts, self.sizes, self.skill_file = other.facts, other.sizes, other.skill_file
        self.error, self._paths, self._bytes, self._made = other.error, other._paths, other._bytes, other._made

    def _rename(self, old: str, new: str) -> None:
        try:
            os.rename(old, new, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        except OSError as error:
            raise disk_refused(error) from error

    def _takes(self, path: str, *, folder: bool) -> bool:
        if self.error is not None:
            return False
        try:
            if path.count("/") >= MAX_DEPTH:
                raise TooDeep(f"it has a file that lies more than {MAX_DEPTH} folders deep")
            plain = check_name(path)
            try:
                self._paths.add(path, folder=folder, checked=plain)
            except BadArchive as error:
                raise NamesCollide(str(error)) from None
            if len(self._paths) > 2 * MAX_FILES:
                raise TooManyFiles(f"it has more than {2 * MAX_FILES} files and folders")
        except BadArchive as error:
            self.refuse(error)
            return False
        return True

    def _folder(self, path: str) -> int:
        """The open folder ``path``. Those above it stay open too: the next file lies near, as a rule."""
        opened = self._open
        while opened and not (opened[-1][0] == path or path.startswith(opened[-1][0] + "/") or not opened[-1][0]):
            os.close(opened.pop()[1])
        if not opened:
            opened.append(("", os.open(self.slot, _FOLDER, dir_fd=self.folder)))
        at, folder = opened[-1]
        while at != path:
            part = path[len(at) + 1 if at else 0 :].partition("/")[0]
            at = f"{at}/{part}" if at else part
            if at not in self._made:
                os.mkdir(part, 0o755, dir_fd=folder)
                self._made.add(at)
            folder = os.open(part, _FOLDER, dir_fd=folder)
            opened.append((at, folder))
        return folder

    def _grow(self, size: int) -> bool:
        self._bytes += size
        if self._bytes > MAX_BYTES:
            self.refuse(TooBig(f"it is bigger than {MAX_BYTES // 1024 // 1024} MiB"))
        return self.error is None

    def _keep(self, path: str, fact: FileFact, size: int, data: bytes | None) -> None:
        self.facts[path] = fact
        self.sizes[path] = size
        if path == SKILL_FILE:
            self.skill_file = data


class Incoming:
    """One file on its way in. ``end`` makes it count; ``close`` in any case."""

    __slots__ = ("_digest", "_executable", "_file", "_kept", "_landing", "_path", "_size")

    def __init__(self, landing: Landing, path: str, file: int, executable: bool) -> None:
        self._landing = landing
        self._path = path
        self._file = file
        self._executable = executable
        self._digest = sha256()
        self._kept: list[bytes] | None = [] if path == SKILL_FILE else None
        self._size = 0

    def add(self, chunk: bytes | memoryview) -> bool:
        """Write what comes next; False if the skill is refused, and no more of it is wanted.

        Raises:
            DiskRefused: the staging cannot be written.
        """
        size = len(chunk)
        if not self._landing._grow(size):
            return False
        self._size += size
        self._digest.update(chunk)
        if self._kept is not None:
            self._kept.append(bytes(chunk))
        try:
            while (done := os.write(self._file, chunk)) < len(chunk):
                chunk = memoryview(chunk)[done:]
        except OSError as error:
            raise disk_refused(error) from error
        return True

    def end(self) -> None:
        """All of it came."""
        data = None if self._kept is None else b"".join(self._kept)
        self._landing._keep(self._path, FileFact(self._digest.hexdigest(), self._executable), self._size, data)

    def close(self) -> None:
        """Let go of the file. As often as you like."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def check_name(path: str) -> bool:
    """See that every part of ``path``, however deep, is a name that is the same on every system.

    Returns:
        Whether it is so plain that rules.py has nothing to add, unless it is too deep.

    Raises:
        NameEscapes: it is absolute, or leaves its folder.
        NameNotUtf8: it has bytes that are no text.
        HostileName: anything else that rules.py does not take.
    """
    if _PLAIN.fullmatch(path) and len(path) <= MAX_PATH_BYTES:  # most names; a tenth of the time
        return True
    parts = path.split("/")
    if "" in parts or "." in parts or ".." in parts:
        raise NameEscapes(f"the name {path[:120]!r} is absolute or leaves its folder")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise NameNotUtf8(f"the name {path[:120]!r} is not UTF-8") from None
    if size > MAX_PATH_BYTES:
        raise HostileName(f"the path {path[:120]!r} is longer than {MAX_PATH_BYTES} bytes")
    try:
        checked_path(path if len(parts) <= MAX_DEPTH else "/".join(parts[:MAX_DEPTH]))
    except BadArchive as error:
        raise HostileName(str(error)) from None
    if len(parts) > MAX_DEPTH:
        check_name("/".join(parts[MAX_DEPTH:]))
    return False


def _folders_above(path: str) -> set[str]:
    parts = path.split("/")[:-1]
    return {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}


def disk_refused(error: OSError) -> DiskRefused:
    """What an OSError in the staging means for a person."""
    from skillbus.skills import tree  # only now: it costs time that a fetch without a fault need not spend

    try:
        with tree.disk_words("the staging folder cannot be written"):
            raise error
    except DiskRefused as refused:
        return refused

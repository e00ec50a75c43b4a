"""The disk against the lock, for one skills root. It reads and changes nothing, and creates nothing either.

It answers what somebody asks who is in doubt: is what lies here what skillbus placed? So it trusts nothing but the
bytes: every file of every managed skill is hashed. A pass that is at work meanwhile is noticed and told, for what
differs then may be its doing.

It does not repair (a pass does), nor does it know what a manifest wants (plan.py).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from skillbus.errors import DiskRefused
from skillbus.skills import tree
from skillbus.skills.lock import Receipt, read_lock
from skillbus.skills.root import LOCK_NAME, OWN_NAME, Root
from skillbus.skills.rules import MAX_BYTES, MAX_DEPTH, MAX_FILES
from skillbus.skills.swap import read_journal

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_FOLDER = frozenset({errno.ENOTDIR, errno.ELOOP})
_MAX_LOOKED_AT = 4 * MAX_FILES
"""Files and folders that are looked at in one skill. Beyond these whatever else is there is not told one by one."""


class State(StrEnum):
    """How one managed skill lies there."""

    OK = "ok"
    CHANGED = "changed"
    MISSING = "missing"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class FileDrift:
    """One file that is not as it was placed.

    Attributes:
        path: in the skill's folder.
        change: ``changed``, ``added``, ``missing``, ``mode`` (the executable bit alone), or ``no file`` for a link, a
            device, or a folder in the place of a file.
    """

    path: str
    change: str


@dataclass(frozen=True, slots=True)
class SkillState:
    """One skill that the lock names."""

    name: str
    state: State
    receipt: Receipt
    files: tuple[FileDrift, ...] = ()


@dataclass(frozen=True, slots=True)
class RootState:
    """One skills root.

    Attributes:
        skills: every skill that the lock names, by name.
        others_count: folders and files beside them that are not ours.
        unsettled: the skills of a change that a pass began and did not settle. The next pass undoes it.
        at_work: whether a pass works there just now.
        error: why the root cannot be verified; else empty.
    """

    path: Path
    skills: tuple[SkillState, ...] = ()
    others_count: int = 0
    unsettled: tuple[str, ...] = ()
    at_work: bool = False
    error: str = ""

    @property
    def drifted(self) -> bool:
        """Whether anything is not as the lock says, or cannot be known."""
        is_unsettled = bool(self.unsettled) and not self.at_work
        return bool(self.error) or is_unsettled or any(one.state is not State.OK for one in self.skills)


def verify(path: Path) -> RootState:
    """The state of the skills root at ``path``. Blocking. It raises nothing for what it finds: ``error`` tells it."""
    try:
        with looked_at(path) as root:
            return RootState(path) if root is None else _verify(root)
    except DiskRefused as error:
        return RootState(path, error=str(error))


@contextmanager
def looked_at(path: Path) -> Iterator[Root | None]:
    """The root, opened for reading alone: our own folder is not made in it. None if nothing is there.

    Its ``own`` may be used only if ``has_own``.

    Raises:
        DiskRefused: it is a link or no folder, or the disk refuses it.
    """
    with tree.disk_words(f"the skills folder {path} cannot be read"):
        try:
            fd = os.open(path, _FOLDER)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            what = "a link, which is not followed" if path.is_symlink() else "no folder"
            raise DiskRefused(f"the skills folder {path} is {what}: name the folder itself as the target") from None
        own = None
        try:
            own = tree.open_folder(fd, OWN_NAME)
            root = Root(path, fd, os.dup(fd) if own is None else own)
        except BaseException:
            os.close(fd)
            raise
    try:
        yield root
    finally:
        root.close()


def has_own(root: Root) -> bool:
    """Whether our own folder is there: with it a flock, perhaps a journal, perhaps kept versions.

    Raises:
        DiskRefused: the disk failed.
    """
    with tree.disk_words(f"the skills folder {root.path} cannot be read"):
        return tree.inode(root.fd, OWN_NAME) is not None


def _verify(root: Root) -> RootState:
    is_ours = has_own(root)
    at_work = is_ours and _is_at_work(root)
    unsettled = tuple(undo.name for undo in read_journal(root) or ()) if is_ours else ()
    lock = read_lock(root)
    with tree.disk_words(f"the skills folder {root.path} cannot be read"):
        skills = tuple(_skill(root, name, receipt) for name, receipt in sorted(lock.receipts.items()))
        others = set(tree.all_names_in(root.fd)) - lock.receipts.keys() - {OWN_NAME, LOCK_NAME}
    return RootState(root.path, skills, len(others), unsettled, at_work)


def _is_at_work(root: Root) -> bool:
    """Whether a pass has the root's flock. It is given back at once, so that no pass waits for us."""
    try:
        flock = os.open("flock", _FILE, dir_fd=root.own)
    except OSError:
        return False
    try:
        fcntl.flock(flock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(flock)
    return False


def _skill(root: Root, name: str, receipt: Receipt) -> SkillState:
    try:
        folder = os.open(name, _FOLDER, dir_fd=root.fd)
    except FileNotFoundError:
        return SkillState(name, State.MISSING, receipt)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        return SkillState(name, State.REPLACED, receipt)
    try:
        found = _Found(receipt)
        found.look(folder, "", 0)
    finally:
        os.close(folder)
    files = found.drift()
    return SkillState(name, State.CHANGED if files else State.OK, receipt, files)


class _Found:
    """What lies in one skill's folder, against its receipt."""

    def __init__(self, receipt: Receipt) -> None:
        self._placed = receipt.files
        self._folders = {path[:end] for path in receipt.files for end in _slashes(path)}
        self._seen: set[str] = set()
        self._drift: dict[str, str] = {}
        self._looked_at = 0

    def look(self, folder: int, prefix: str, depth: int) -> None:
        """Everything in ``folder``. Only what was placed is read; of anything else it is enough that it is there."""
        for name in sorted(tree.all_names_in(folder)):
            self._looked_at += 1
            if self._looked_at > _MAX_LOOKED_AT:
                self._drift[f"{prefix}…"] = "added"
                return
            try:
                self._look_at(folder, name, prefix + name, depth)
            except FileNotFoundError:  # It went while we looked.
                self._seen.discard(prefix + name)

    def _look_at(self, folder: int, name: str, path: str, depth: int) -> None:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode) and path not in self._placed:
            if depth >= MAX_DEPTH:
                self._drift[path] = "added"
                return
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                self.look(inner, path + "/", depth + 1)
            finally:
                os.close(inner)
        elif path in self._placed:
            self._seen.add(path)
            self._drift[path] = self._difference(folder, name, path, info)
        elif not stat.S_ISREG(info.st_mode) or path in self._folders:
            self._drift[path] = "no file"
        else:
            self._drift[path] = "added"

    def _difference(self, folder: int, name: str, path: str, info: os.stat_result) -> str:
        if not stat.S_ISREG(info.st_mode):
            return "no file"
        if info.st_size > MAX_BYTES or _sha256(folder, name) != self._placed[path].sha256:
            return "changed"
        return "" if bool(info.st_mode & 0o100) == self._placed[path].executable else "mode"

    def drift(self) -> tuple[FileDrift, ...]:
        """Every file that differs, by path."""
        found = {path: change for path, change in self._drift.items() if change}
        found |= dict.fromkeys(self._placed.keys() - self._seen, "missing")
        return tuple(FileDrift(path, change) for path, change in sorted(found.items()))


def _slashes(path: str) -> list[int]:
    return [place for place, char in enumerate(path) if char == "/"]


def _sha256(folder: int, name: str) -> str:
    with open(os.open(name, _FILE, dir_fd=folder), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

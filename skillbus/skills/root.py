"""An opened skills root: the folder where an agent looks, and our own folder ``.skillbus`` in it.

    <root>/<skill>/           what agents read: ours if skillbus.lock names it, else the user's
    <root>/skillbus.lock      lock.py
    <root>/.skillbus/flock    one pass at a time, across processes
    <root>/.skillbus/staging/ what a pass is about to place; swept at the next start
    <root>/.skillbus/undo/    what a pass took away, and the journal of a swap in progress (swap.py)

Opened once, by descriptor, links refused: from then on nobody can make us work elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from skillbus.errors import DiskRefused
from skillbus.skills import tree

OWN_NAME = ".skillbus"
LOCK_NAME = "skillbus.lock"
_FLOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Root:
    """Use ``open_root``. Close it when the pass is over; that releases its flock.

    Attributes:
        identity: device and inode.
        is_taken: whether its flock is ours.
    """

    def __init__(self, path: Path, fd: int, own: int, own_path: Path | None = None) -> None:
        self.path = path
        self._own_path = own_path or path / OWN_NAME
        self.fd = fd
        self.own = own
        self._extra: dict[str, int] = {}
        self.is_taken = False
        info = os.fstat(fd)
        self.identity = (info.st_dev, info.st_ino)

    @property
    def staging(self) -> int:
        """``.skillbus/staging``, made at first use."""
        return self._folder("staging")

    @property
    def undo(self) -> int:
        """``.skillbus/undo``, made at first use."""
        return self._folder("undo")

    def has(self, name: str) -> bool:
        """Whether our own folder has a folder ``name``."""
        return tree.inode(self.own, name) is not None

    @property
    def staging_path(self) -> Path:
        """The path by which the child reaches ``staging``."""
        return self._own_path / "staging"

    def _folder(self, name: str) -> int:
        if name not in self._extra:
            opened = tree.open_folder(self.own, name, create=True)
            assert opened is not None  # noqa: S101 - it was created
            self._extra[name] = opened
        return self._extra[name]

    def try_flock(self) -> bool:
        """Take the root for one pass. False if another pass has it.

        Raises:
            OSError: the disk failed.
        """
        if "flock" not in self._extra:
            self._extra["flock"] = os.open("flock", _FLOCK, 0o644, dir_fd=self.own)
        try:
            fcntl.flock(self._extra["flock"], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.is_taken = True
        return True

    def release(self) -> None:
        """Let another pass have it."""
        if self.is_taken:
            self.is_taken = False
            fcntl.flock(self._extra["flock"], fcntl.LOCK_UN)

    def read_file(self, name: str, limit: int, *, own: str = "") -> bytes | None:
        """The bytes of the regular file ``name`` in the root, or in our folder ``own``; None if there is none.

        Raises:
            OSError: it is a link, no file, longer than ``limit``, or the disk failed.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(name, flags, dir_fd=self._folder(own) if own else self.fd)
        except FileNotFoundError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", name)
            data = tree.read_at_most(file, limit + 1)
        finally:
            os.close(file)
        if len(data) > limit:
            raise OSError(errno.EFBIG, "it is too long", name)
        return data

    def close(self) -> None:
        """Close every descriptor. The flock goes with them."""
        for fd in (*self._extra.values(), self.own, self.fd):
            os.close(fd)
        # A number that is closed may soon be somebody else's file.
        self._extra, self.own, self.fd = {}, -1, -1


def open_root(path: Path, *, create: bool) -> Root | None:
    """The skills root at ``path``.

    Args:
        create: make the root and our folder in it. Otherwise None is returned where we never placed anything.

    Raises:
        DiskRefused: it is a link or no folder, or the disk refuses it.
    """
    with tree.disk_words(f"the skills folder {path} cannot be used"):
        if create and not os.path.lexists(path):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            fd = _checked_folder(path)
        except FileNotFoundError:
            return None
        try:
            ours = create or tree.inode(fd, LOCK_NAME) is not None
            own = tree.open_folder(fd, OWN_NAME, create=ours)
        except BaseException:
            os.close(fd)
            raise
    if own is None:
        os.close(fd)
        return None
    return Root(path, fd, own)


def _checked_folder(path: Path) -> int:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise DiskRefused(f"the skills folder {path} is a link, which is not followed: name {path.resolve()} itself")
    if not stat.S_ISDIR(mode):
        raise DiskRefused(f"the skills folder {path} is no folder: move the file away, or choose another target")
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_beside(path: Path, scratch: Path) -> Root:
    """The skills root at ``path`` with our own folder elsewhere, for looking at: nothing is ever written in it.

    Args:
        scratch: a folder that is there; what would be ours in the root goes to new folders in it.

    Raises:
        DiskRefused: as ``open_root``.
    """
    own_path, empty = (scratch / f"{kind}{len(list(scratch.iterdir()))}" for kind in ("own", "empty"))
    with tree.disk_words(f"the skills folder {path} cannot be looked at"):
        own_path.mkdir()
        empty.mkdir()
        fd = _checked_folder(path) if os.path.lexists(path) else _checked_folder(empty)
        return Root(path, fd, _checked_folder(own_path), own_path)

"""A tree as its names and stat data tell: what lets a pass with nothing new read no file.

Two uses: a tree whose outline is what it was when it was hashed still has that digest (as git's index has it), and a
tree that the child wrote is what the child says it wrote. It reads no byte of any file, and follows no link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from skillbus.skills import tree
from skillbus.skills.rules import MAX_DEPTH, MAX_FILES

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Mark = tuple[str, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Outline:
    """A tree without its bytes, from the names and stat data alone.

    Attributes:
        files: size in bytes and executable bit of each file, by path.
        print: of names, inodes, sizes, modes and times: equal prints of one process mean an equal tree.
        newest_ns: the latest change in it, by the file system's clock, in nanoseconds.
    """

    files: Mapping[str, tuple[int, bool]]
    print: int
    newest_ns: int


def outline(parent: int, name: str, *, unshared: bool = False) -> Outline | None:
    """The outline of the folder ``name`` in ``parent``; None if there is none, or one with links or devices in it.

    None as well if it may not be read. What we place can be.

    Args:
        unshared: whether hard links count as links. The child writes none; a backup makes some of what was placed.

    Raises:
        OSError: the disk failed.
    """
    files: dict[str, tuple[int, bool]] = {}
    marks: list[_Mark] = []
    folder = tree.readable_folder(parent, name)
    if folder is None:
        return None
    try:
        if not _outline(folder, "", files, marks, unshared=unshared):
            return None
    except PermissionError:
        return None
    finally:
        os.close(folder)
    marks.sort()
    return Outline(files, hash(tuple(marks)), max((max(mark[3], mark[4]) for mark in marks), default=0))


def _outline(
    folder: int, prefix: str, files: dict[str, tuple[int, bool]], marks: list[_Mark], *, unshared: bool
) -> bool:
    with os.scandir(folder) as entries:
        for entry in entries:
            info = entry.stat(follow_symlinks=False)
            path, mode = prefix + entry.name, info.st_mode
            marks.append((path, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, mode))
            if stat.S_ISREG(mode) and (info.st_nlink == 1 or not unshared):
                files[path] = (info.st_size, bool(mode & 0o100))
            elif not stat.S_ISDIR(mode) or len(marks) > 2 * MAX_FILES or prefix.count("/") > MAX_DEPTH:
                return False
            else:
                inner = os.open(entry.name, _FOLDER, dir_fd=folder)
                try:
                    if not _outline(inner, path + "/", files, marks, unshared=unshared):
                        return False
                finally:
                    os.close(inner)
    return True

"""The last versions of each managed skill, kept beside the lock so that ``skillbus rollback`` can restore one.

    .skillbus/history/<skill>/<digest>/tree/          its files, as they were placed
    .skillbus/history/<skill>/<digest>/receipt.json   what the lock said of it

Agents look for ``SKILL.md`` at any depth, some in hidden folders too. So no file in here has that name: each is kept
under another one, which follows from the receipt, and gets its own back when it is restored. What is staged or was
taken away keeps its names: after a kill it lies there until the next start, and such agents could see it.

The receipt is written last: what has none is half a retirement and counts as nothing. Each step can be found done: a
retirement that a crash cut is finished by the next pass, from wherever it had come to (retiring.py). Nothing is
fsynced, because the tree was when it was placed, and a history that a power cut shortens harms nobody; what is
restored is checked against its digest.

It decides neither when a version is retired (apply.py) nor which one is restored (rollback.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from skillbus.errors import BadArchive, BadBundle
from skillbus.skills import tree
from skillbus.skills.lock import Receipt, parse_receipt
from skillbus.skills.root import Root
from skillbus.skills.rules import SKILL_FILE, Facts, folded_name, is_sha256

MAX_VERSIONS = 5
"""Versions kept of one skill, not counting the one in place."""

MAX_FORGOTTEN = 50
"""Skills that the lock no longer names and whose versions are kept all the same."""

_HISTORY, _TREE, _RECEIPT = "history", "tree", "receipt.json"
_MAX_RECEIPT_BYTES = 4 * 1024 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Kept:
    """One version that can be restored.

    Attributes:
        digest: its tree digest.
        revision: what its source called it; may be empty.
        url: where it came from, without a query.
        placed_at: when it was placed, ISO 8601.
        retired_at: when something else took its place, ISO 8601, by the file system's clock.
    """

    digest: str
    revision: str
    url: str
    placed_at: str
    retired_at: str


def retire(root: Root, name: str, folder: int, slot: str, receipt: Receipt, in_place: str) -> None:
    """Keep a tree that was just swapped out: a few renames, and at most ``MAX_VERSIONS`` are left of this skill.

    A version that is kept already is replaced by this one, which is known to be sound, and counts as the newest.

    Args:
        folder: the open folder, on the root's file system, where the tree lies under ``slot``. Afterwards there is
            nothing there, or what is to be swept.
        receipt: what it is. The caller has seen that this is still so; see ``own_names``.
        in_place: the digest of what took its place, if anything did. That version stays kept however old it is: what
            was rolled back to is repaired from it.

    Raises:
        DiskRefused: the disk failed, or something in it is gone; what is left under ``slot`` is to be swept.
    """
    with tree.disk_words(f"the old version of {root.path / name} cannot be kept"):
        with _opened(folder, slot) as outgoing:
            _rename(_there(outgoing), _hidden_names(receipt.files))
        with _opened(root.own, _HISTORY, name, create=True) as skill:
            with _opened(_there(skill), receipt.digest, create=True) as version:
                _move_in(folder, slot, _there(version))
                _write_receipt(_there(version), receipt)
            _prune(_there(skill), in_place)


def finish(root: Root, name: str, old: int, receipt: Receipt, in_place: str) -> None:
    """End a retirement that a crash cut behind the move of the tree, if there was one.

    Args:
        old: the inode of the tree.
        receipt, in_place: as for ``retire``.

    Raises:
        DiskRefused: the disk failed.
    """
    with (
        tree.disk_words(f"the old version of {root.path / name} cannot be kept"),
        _opened(root.own, _HISTORY, name) as skill,
        _opened(skill, receipt.digest) as version,
    ):
        if skill is not None and version is not None and tree.inode(version, _TREE) == old:
            _write_receipt(version, receipt)
            _prune(skill, in_place)


def own_names(facts: Facts, files: Facts) -> Facts:
    """``facts`` by the names that the files had while they were in place, as far as they have been given others.

    Args:
        files: what the receipt says.
    """
    shown = {other: path for path, other in _hidden_names(files).items()}
    return {shown.get(path, path): fact for path, fact in facts.items()}


def versions(root: Root, name: str) -> list[Kept]:
    """What is kept of one skill, newest first. What cannot be read is left out.

    Raises:
        DiskRefused: the disk failed.
    """
    found = []
    with (
        tree.disk_words(f"the old versions of {root.path / name} cannot be read"),
        _opened(root.own, _HISTORY, name) as skill,
    ):
        for at_ns, digest in [] if skill is None else _by_age(skill):
            if at_ns < 0:
                continue
            with _opened(_there(skill), digest) as version:
                receipt = None if version is None else _read_receipt(version, digest)
            if receipt is not None:
                retired_at = _iso(at_ns // 1_000_000_000)
                found.append(Kept(digest, receipt.revision, receipt.url, receipt.placed_at, retired_at))
    return found


def restore(root: Root, name: str, digest: str, slot: str, go_on: Callable[[], object]) -> Receipt:
    """Copy a kept version to ``slot`` in the root's staging, fsynced. It stays kept.

    Args:
        go_on: called before each file; what it raises ends the copying.

    Returns:
        The receipt that it was kept with, with the time of this copy as ``placed_at``.

    Raises:
        BadBundle: it is not kept, or it is no longer what its receipt says.
        DiskRefused: the disk failed.
    """
    label = f"the version {digest[:12]} of {name!r} in {root.path}"
    with tree.disk_words(f"{label} cannot be restored"):
        with _opened(root.own, _HISTORY, name, digest) as version:
            receipt = None if version is None else _read_receipt(version, digest)
            if receipt is None:
                raise BadBundle(f"{label} is not kept: see skillbus rollback {name} --list")
            hidden = _hidden_names(receipt.files)
            with _opened(_there(version), _TREE) as kept:
                facts = _copied(_there(kept), root.staging, slot, go_on)
        if facts != {hidden.get(path, path): fact for path, fact in receipt.files.items()}:
            raise BadBundle(f"{label} was changed by somebody, so it is not restored: choose another version")
        with _opened(root.staging, slot) as copied:
            _rename(_there(copied), {other: path for path, other in hidden.items()}, durably=True)
            placed_at = _iso(int(os.fstat(_there(copied)).st_mtime))
        os.fsync(root.staging)
    return replace(receipt, placed_at=placed_at)


def forget(root: Root, named: Collection[str], go_on: Callable[[], object]) -> None:
    """Drop the versions of skills that are long gone: all but the ``MAX_FORGOTTEN`` that were changed last.

    Args:
        named: the skills that the lock names, which keep theirs.
        go_on: called before each skill; what it raises ends the forgetting.

    Raises:
        DiskRefused: the disk failed.
    """
    with (
        tree.disk_words(f"the old versions in {root.path} cannot be swept"),
        _opened(root.own, _HISTORY) as history,
    ):
        gone = [] if history is None else [name for name in tree.all_names_in(history) if name not in named]
        if len(gone) > MAX_FORGOTTEN:
            gone.sort(key=lambda name: os.stat(name, dir_fd=history, follow_symlinks=False).st_mtime_ns)
            for name in gone[:-MAX_FORGOTTEN]:
                go_on()
                tree.remove(_there(history), name)


def _copied(kept: int, staging: int, slot: str, go_on: Callable[[], object]) -> Facts | None:
    """None if there is something in it that no skill has."""
    try:
        return tree.copy(kept, staging, slot, go_on)
    except (BadArchive, BadBundle):
        return None


# ---- names -----------------------------------------------------------------------------------------------------------


def _hidden_names(files: Facts) -> dict[str, str]:
    """For each file that an agent would take for a skill, the path under which it is kept: as long, and nobody's."""
    taken = {folded_name(path) for path in files}
    found = {}
    for path in sorted(files):
        folder, slash, name = path.rpartition("/")
        if folded_name(name) == folded_name(SKILL_FILE):
            others = (f"{folder}{slash}SKILL.{n:02d}" for n in range(len(files) + 1))
            found[path] = next(other for other in others if folded_name(other) not in taken)
            taken.add(folded_name(found[path]))
    return found


def _rename(top: int, names: dict[str, str], *, durably: bool = False) -> None:
    """Give each file of the tree its other name, in the same folder, unless it has it."""
    for path, other in names.items():
        *folders, name = path.split("/")
        with _opened(top, *folders) as opened:
            folder = _there(opened)
            if tree.inode(folder, name) is not None or tree.inode(folder, other.rpartition("/")[2]) is None:
                os.rename(name, other.rpartition("/")[2], src_dir_fd=folder, dst_dir_fd=folder)
            if durably:
                os.fsync(folder)


# ---- folders ---------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(parent: int | None, *names: str, create: bool = False) -> Iterator[int | None]:
    """The folder that ``names`` lead to from ``parent``, following no link; None if it, or ``parent``, is not there."""
    found = None if parent is None else os.dup(parent)
    try:
        for name in names:
            if found is None:
                break
            inner = tree.open_folder(found, name, create=create)
            os.close(found)
            found = inner
        yield found
    finally:
        if found is not None:
            os.close(found)


def _there(folder: int | None) -> int:
    if folder is None:
        raise FileNotFoundError(2, "part of it is gone")
    return folder


def _move_in(folder: int, slot: str, version: int) -> None:
    if tree.inode(version, _TREE) is not None and tree.exchange(folder, slot, version, _TREE):
        return
    tree.remove(version, _TREE)
    tree.move_new(folder, slot, version, _TREE)


def _prune(skill: int, in_place: str) -> None:
    """Drop half retirements, and the oldest versions beyond the limit."""
    for place, (at_ns, old) in enumerate(_by_age(skill)):
        if at_ns < 0 or (place >= MAX_VERSIONS and old != in_place):
            with suppress(OSError), _opened(skill, old) as version:
                os.unlink(_RECEIPT, dir_fd=_there(version))  # First: what is half gone must count as nothing.
            tree.remove(skill, old)


def _by_age(skill: int) -> list[tuple[int, str]]:
    """Every name in a skill's history with its nanoseconds of retirement, newest first; half ones last, with -1."""
    return sorted(((_retired_ns(skill, name), name) for name in tree.all_names_in(skill)), reverse=True)


def _retired_ns(skill: int, name: str) -> int:
    try:
        with _opened(skill, name) as version:
            if not is_sha256(name) or tree.inode(_there(version), _TREE) is None:
                return -1
            return os.stat(_RECEIPT, dir_fd=version, follow_symlinks=False).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _write_receipt(version: int, receipt: Receipt) -> None:
    draft = f"{_RECEIPT}.draft"
    with open(os.open(draft, _NEW, 0o644, dir_fd=version), "wb") as file:
        file.write(json.dumps(receipt.as_json()).encode())
    os.rename(draft, _RECEIPT, src_dir_fd=version, dst_dir_fd=version)


def _read_receipt(version: int, digest: str) -> Receipt | None:
    """None if it is none, or that of something else."""
    try:
        with open(os.open(_RECEIPT, _READ, dir_fd=version), "rb") as file:
            receipt = parse_receipt(json.loads(file.read(_MAX_RECEIPT_BYTES)))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return receipt if receipt.digest == digest else None


def _iso(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

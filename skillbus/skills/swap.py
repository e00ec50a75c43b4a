"""Changes of skills on the disk, with the lock that tells of them, as one batch that is kept or undone whole.

    journal -> (permit -> rename) for each -> permit -> lock -> (settle, by the caller) -> keep: journal is ``settled``
                                                                                      -> undo: renamed back, old lock

While a journal lies in ``.skillbus/undo``, the changes that it describes have not been settled. So whoever finds one
at the start of a pass undoes them: the process died in them, and nobody judged whether they may stay. Undoing looks at
what is where (by inode, which a rename does not change), so it can itself be killed and done again.

While ``settled`` lies there, what went out in changes that stay has not yet gone to the history: see retiring.py. If
nothing went out there is none.

Each in one step where the file system can exchange two names; where it cannot, by two renames, between which a kill
leaves the name empty until the next start. Nothing is deleted: what was taken away lies in ``staging`` or ``undo``.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from skillbus.core.ports import Checkpoint, Permit
from skillbus.errors import BadBundle, DiskRefused, SkillbusError
from skillbus.skills import tree
from skillbus.skills.lock import MAX_LOCK_BYTES, Lock, Receipt, parse_receipt, read_lock, write_lock
from skillbus.skills.root import Root
from skillbus.skills.rules import is_skill_name

_JOURNAL = "journal"
SETTLED = "settled"
_STUCK = "stuck-"


@dataclass(frozen=True, slots=True)
class Change:
    """One skill's part of a batch.

    Attributes:
        slot: the name of its tree in ``staging``, durable already; for a removal, of what goes out, in ``undo``.
        receipt: what the lock shall say; None for a skill that is no more.
        moves: False to change the lock alone.
    """

    name: str
    slot: str
    receipt: Receipt | None
    moves: bool = True


@dataclass(frozen=True, slots=True)
class Undo:
    """What one unsettled change needs to be undone: a line of the journal.

    Attributes:
        new: the inode that comes in; None if nothing does.
        old: the inode that goes out; None if nothing does.
        receipt: what the lock said before.
    """

    name: str
    slot: str
    new: int | None
    old: int | None
    receipt: Receipt | None

    def as_json(self) -> dict[str, Any]:
        """Plain data for the journal."""
        receipt = None if self.receipt is None else self.receipt.as_json()
        return {"name": self.name, "slot": self.slot, "new": self.new, "old": self.old, "receipt": receipt}


class Batch:
    """Changes with names that differ. ``make`` them, then either ``keep`` or ``undo`` them. Blocking: for a thread.

    Args:
        lock: as it stands on the disk.

    Attributes:
        done: the changes that were made, once ``make`` has returned.
        failed: those that could not be, each with why; the others go on.
        moved: the names whose folders were touched, also when ``make`` failed.
    """

    def __init__(self, root: Root, lock: Lock, changes: Sequence[Change]) -> None:
        self._root = root
        self._lock = lock
        self._changes = tuple(changes)
        self.done: list[Change] = []
        self.failed: list[tuple[Change, SkillbusError]] = []
        self.moved: list[str] = []
        with tree.disk_words(f"{root.path} cannot be changed"):
            self._journal = [self._undo_of(change) for change in self._changes]

    def _undo_of(self, change: Change) -> Undo:
        comes, goes = change.moves and change.receipt is not None, change.moves
        return Undo(
            change.name,
            change.slot,
            tree.inode(self._root.staging, change.slot) if comes else None,
            tree.inode(self._root.fd, change.name) if goes else None,
            self._lock.receipts.get(change.name),
        )

    def make(self, checkpoint: Checkpoint) -> Permit:
        """Do them. On any error they are undone already, all of them.

        Returns:
            The permit under which the first was made, to be settled.

        Raises:
            PassAborted: as a checkpoint raised it.
            DiskRefused: the disk failed.
        """
        checkpoint()
        what = f"{self._root.path} cannot be changed"
        journal = json.dumps([undo.as_json() for undo in self._journal]).encode()
        if len(journal) > MAX_LOCK_BYTES:
            raise DiskRefused(f"{what}: too many files at once: let the manifests ask for fewer skills")
        with tree.disk_words(what):
            tree.write_file(self._root.undo, _JOURNAL, journal, self._root.own)
        try:
            permit = checkpoint()
            for undo, change in zip(self._journal, self._changes, strict=True):
                self._make_one(undo, change, checkpoint)
            with tree.disk_words(what):
                for folder in (self._root.fd, self._root.staging, self._root.undo) if self.moved else ():
                    os.fsync(folder)
            checkpoint()
            write_lock(self._root, self.lock_after)
        except BaseException as error:
            try:
                self.undo()
            except DiskRefused as refused:
                error.add_note(str(refused))
            raise
        return permit

    def _make_one(self, undo: Undo, change: Change, checkpoint: Checkpoint) -> None:
        checkpoint()
        what = f"{self._root.path / change.name} cannot be changed"
        try:
            with tree.disk_words(what), _refused_alone(what):
                if change.moves:
                    self._move(undo, change)
        except BadBundle as error:
            self.failed.append((change, error))
            with tree.disk_words(f"{self._root.path / change.name} cannot be undone"):
                _move_back(self._root, undo, _nothing)
        else:
            self.done.append(change)

    def _move(self, undo: Undo, change: Change) -> None:
        root, name, slot = self._root, undo.name, undo.slot
        if undo.old is not None and undo.receipt is not None:
            with suppress(OSError):  # If it does not help, the move says why.
                tree.make_writable(root.fd, name)
        if change.receipt is None:
            if undo.old is not None:
                self.moved.append(name)
                tree.move_new(root.fd, name, root.undo, slot)
        elif undo.old is None:
            _place(root, name, slot)
            self.moved.append(name)
        else:
            self.moved.append(name)
            if not tree.exchange(root.fd, name, root.staging, slot):
                tree.move_new(root.fd, name, root.undo, slot)
                _place(root, name, slot)

    @property
    def lock_after(self) -> Lock:
        """The lock once the changes stay."""
        return self._lock.having({change.name: change.receipt for change in self.done})

    @property
    def takes_out(self) -> bool:
        """Whether anything goes out in the changes, which is then to be retired."""
        return any(undo.old is not None for undo in self._journal)

    def keep(self) -> None:
        """The changes were settled. What went out in them, if anything did, is for retiring.py.

        Raises:
            DiskRefused: the journal cannot be put away; the next pass will undo the changes, and make them again.
        """
        with tree.disk_words(f"{self._root.path} cannot be changed"):
            if self.takes_out:
                os.rename(_JOURNAL, SETTLED, src_dir_fd=self._root.undo, dst_dir_fd=self._root.undo)
            else:
                os.unlink(_JOURNAL, dir_fd=self._root.undo)
            os.fsync(self._root.undo)

    def undo(self) -> None:
        """Undo everything.

        Raises:
            DiskRefused: not possible now; the next pass finds the journal and does it.
        """
        _undo(self._root, self._journal, _nothing)


def _nothing() -> None:
    """What was not allowed to stay is undone whatever happens meanwhile."""


@contextmanager
def _refused_alone(what: str) -> Iterator[None]:
    """Where a permission is missing for one skill, the others go on."""
    try:
        yield
    except PermissionError as error:
        raise BadBundle(f"{what}: permission is missing: give this user the right to write there") from error


def _place(root: Root, name: str, slot: str) -> None:
    try:
        tree.move_new(root.staging, slot, root.fd, name)
    except FileExistsError:
        raise BadBundle(f"{root.path / name} appeared while it was to be placed: it is left alone") from None


def recover(root: Root, go_on: Callable[[], object]) -> list[str]:
    """Undo the changes that a dead process left unsettled. The names of the skills.

    Args:
        go_on: called before each step; what it raises ends the undoing, and the next pass does the rest.

    Raises:
        DiskRefused: the disk failed, or the journal cannot be understood.
    """
    journal = read_journal(root)
    if journal is None:
        return []
    _undo(root, journal, go_on)
    return [undo.name for undo in journal]


def read_journal(root: Root) -> list[Undo] | None:
    """The journal that lies there; None if there is none.

    Raises:
        DiskRefused: the disk failed, or it cannot be understood.
    """
    try:
        return lines_of(root, _JOURNAL)
    except (ValueError, RecursionError) as error:
        raise DiskRefused(
            f"{root.path}/.skillbus/undo/journal cannot be understood ({error}): delete it, and check the skills there"
        ) from None


def lines_of(root: Root, name: str) -> list[Undo] | None:
    """The journal under that name; None if there is none.

    Raises:
        DiskRefused: the disk failed.
        ValueError, RecursionError: it makes no sense.
    """
    if not root.has("undo"):
        return None
    with tree.disk_words(f"{root.path} cannot be recovered"):
        raw = root.read_file(name, MAX_LOCK_BYTES, own="undo")
    return None if raw is None else [_parse(line) for line in _listed(json.loads(raw))]


def sweep(root: Root, go_on: Callable[[], object]) -> None:
    """Delete what earlier passes staged or took away. Only when no journal is left, settled or not.

    Args:
        go_on: called before each removal; what it raises ends the sweep.

    Raises:
        DiskRefused: a journal is there, or the disk failed; what could be deleted is gone all the same.
    """
    what = f"{root.path}/.skillbus cannot be swept"
    failure: OSError | None = None
    with tree.disk_words(what):
        for own in ("undo", "staging"):
            if not root.has(own):
                continue
            folder = root.staging if own == "staging" else root.undo
            names = tree.all_names_in(folder)
            if own == "undo" and {_JOURNAL, SETTLED}.intersection(names):
                raise DiskRefused(f"{what}: what a pass changed there is not yet dealt with: it will be tried again")
            for name in names:
                go_on()
                try:
                    tree.remove(folder, name)
                except OSError as error:
                    failure = error
                    _put_aside(folder, name)
        if failure is not None:
            raise failure


def _put_aside(folder: int, name: str) -> None:
    """Give what cannot be deleted a name that no slot has, so that the next pass can work beside it."""
    if not name.startswith(_STUCK):
        with suppress(OSError):
            os.rename(name, f"{_STUCK}{tree.inode(folder, name)}", src_dir_fd=folder, dst_dir_fd=folder)


def needs_sweep(root: Root) -> bool:
    """Whether ``sweep`` would delete anything.

    Raises:
        DiskRefused: the disk failed.
    """
    with tree.disk_words(f"{root.path}/.skillbus cannot be read"):
        return any(
            root.has(own) and tree.all_names_in(root.staging if own == "staging" else root.undo)
            for own in ("staging", "undo")
        )


def _undo(root: Root, journal: Sequence[Undo], go_on: Callable[[], object]) -> None:
    with tree.disk_words(f"the changes in {root.path} cannot be undone"):
        for undo in journal:
            _move_back(root, undo, go_on)
        os.fsync(root.fd)
    lock = read_lock(root)
    if any(lock.receipts.get(undo.name) != undo.receipt for undo in journal):
        go_on()
        write_lock(root, lock.having({undo.name: undo.receipt for undo in journal}))
    go_on()
    with tree.disk_words(f"{root.path}/.skillbus cannot be written"), suppress(FileNotFoundError):
        os.unlink(_JOURNAL, dir_fd=root.undo)
        os.fsync(root.undo)


def _move_back(root: Root, undo: Undo, go_on: Callable[[], object]) -> None:
    name, slot = undo.name, undo.slot
    there = tree.inode(root.fd, name)
    if undo.new is not None and there == undo.new:
        go_on()
        if undo.old is not None and tree.inode(root.staging, slot) == undo.old:
            if not tree.exchange(root.fd, name, root.staging, slot):
                raise OSError(errno.EOPNOTSUPP, "the file system no longer exchanges names")
            return
        tree.move_new(root.fd, name, root.staging, slot)
        there = None
    if there is None and undo.old is not None and tree.inode(root.undo, slot) == undo.old:
        go_on()
        tree.move_new(root.undo, slot, root.fd, name)


def _listed(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError("it is no list")
    return data


def _parse(data: Any) -> Undo:
    if not isinstance(data, dict) or not is_skill_name(data.get("name")):
        raise ValueError("it names no skill")
    slot = data.get("slot")
    if not isinstance(slot, str) or not slot.isalnum():
        raise ValueError("it names no slot")
    inodes = [data.get("new"), data.get("old")]
    if not all(one is None or isinstance(one, int) for one in inodes):
        raise ValueError("it names no inodes")
    receipt = data.get("receipt")
    return Undo(data["name"], slot, inodes[0], inodes[1], None if receipt is None else parse_receipt(receipt))

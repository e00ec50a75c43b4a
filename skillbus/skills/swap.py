"""One change of a skill on the disk, with the lock that tells of it, as a unit that is kept or undone whole.

    journal -> permit -> rename -> permit -> lock -> (settle, by the caller) -> keep: journal gone
                                                                            -> undo: renamed back, old lock

While a journal lies in ``.skillbus/undo``, the change that it describes has not been settled. So whoever finds one at
the start of a pass undoes that change: the process died in it, and nobody judged whether it may stay. Undoing looks
at what is where (by inode, which a rename does not change), so it can itself be killed and done again.

In one step where the file system can exchange two names; where it cannot, by two renames, between which a kill leaves
the name empty until the next start. It never deletes anything: what was taken away lies in ``staging`` or ``undo``.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from skillbus.core.ports import Checkpoint, Permit
from skillbus.errors import BadBundle, DiskRefused
from skillbus.skills import tree
from skillbus.skills.lock import Lock, Receipt, parse_receipt, read_lock, write_lock
from skillbus.skills.root import Root
from skillbus.skills.rules import is_skill_name

_JOURNAL = "journal"
_MAX_JOURNAL_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Journal:
    """What an unsettled change needs to be undone.

    Attributes:
        name: the skill.
        slot: the name, in ``staging``, of what comes in, and in ``undo`` of what goes out.
        new: the inode that comes in; None if nothing does.
        old: the inode that goes out; None if nothing does.
        receipt: what the lock said before.
    """

    name: str
    slot: str
    new: int | None
    old: int | None
    receipt: Receipt | None

    def as_bytes(self) -> bytes:
        """The journal file."""
        receipt = None if self.receipt is None else self.receipt.as_json()
        return json.dumps(
            {"name": self.name, "slot": self.slot, "new": self.new, "old": self.old, "receipt": receipt}
        ).encode()


class Swap:
    """One change. ``make`` it, then either ``keep`` or ``undo`` it. Blocking: for a thread.

    Args:
        lock: as it stands on the disk.
        slot: the fsynced tree in ``staging`` that is to become the skill; None to take the skill away.
        receipt: what the lock shall say; None for a skill that is no more.
        moves: False to change the lock alone.
    """

    def __init__(
        self, root: Root, lock: Lock, name: str, slot: str, receipt: Receipt | None, *, moves: bool = True
    ) -> None:
        self._root = root
        self._lock = lock
        self._receipt = receipt
        self._moves = moves
        self.moved = False
        comes, goes = moves and receipt is not None, moves
        self._journal = Journal(
            name,
            slot,
            tree.inode(root.staging, slot) if comes else None,
            tree.inode(root.fd, name) if goes else None,
            lock.receipts.get(name),
        )

    def make(self, checkpoint: Checkpoint) -> Permit:
        """Do it. On any error it is undone already.

        Returns:
            The permit under which the skill was changed, to be settled.

        Raises:
            PassAborted: as a checkpoint raised it.
            BadBundle: somebody else took the name meanwhile.
            DiskRefused: the disk failed.
        """
        journal = self._journal
        what = f"{self._root.path / journal.name} cannot be changed"
        checkpoint()
        with tree.disk_words(what):
            tree.write_file(self._root.undo, _JOURNAL, journal.as_bytes(), self._root.own)
        try:
            permit = checkpoint()
            with tree.disk_words(what):
                self.moved = self._moves
                self._move()
            checkpoint()
            write_lock(self._root, self.lock_after)
        except BaseException as error:
            try:
                self.undo()
            except DiskRefused as refused:
                error.add_note(str(refused))
            raise
        return permit

    @property
    def lock_after(self) -> Lock:
        """The lock once the change stays."""
        return self._lock.having(self._journal.name, self._receipt)

    def keep(self) -> None:
        """The change was settled.

        Raises:
            DiskRefused: the journal cannot be removed; the next pass will undo the change, and make it again.
        """
        with tree.disk_words(f"{self._root.path} cannot be changed"):
            os.unlink(_JOURNAL, dir_fd=self._root.undo)
            os.fsync(self._root.undo)

    def undo(self) -> None:
        """Put everything back.

        Raises:
            DiskRefused: not possible now; the next pass finds the journal and does it.
        """
        _undo(self._root, self._journal)

    def _move(self) -> None:
        if not self._moves:
            return
        root, name, slot = self._root, self._journal.name, self._journal.slot
        if self._receipt is None:
            if self._journal.old is not None:
                tree.move_new(root.fd, name, root.undo, slot)
        elif self._journal.old is None:
            _place(root, name, slot)
        elif not tree.exchange(root.fd, name, root.staging, slot):
            tree.move_new(root.fd, name, root.undo, slot)
            _place(root, name, slot)
        for folder in (root.fd, root.staging, root.undo):
            os.fsync(folder)


def _place(root: Root, name: str, slot: str) -> None:
    try:
        tree.move_new(root.staging, slot, root.fd, name)
    except FileExistsError:
        raise BadBundle(f"{root.path / name} appeared while it was to be placed: it is left alone") from None


def recover(root: Root) -> str | None:
    """Undo the change that a dead process left unsettled. The name of the skill, or None if there was none.

    Raises:
        DiskRefused: the disk failed, or the journal cannot be understood.
    """
    if not root.has("undo"):
        return None
    with tree.disk_words(f"{root.path} cannot be recovered"):
        raw = root.read_file(_JOURNAL, _MAX_JOURNAL_BYTES, own="undo")
    if raw is None:
        return None
    try:
        journal = _parse(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise DiskRefused(
            f"{root.path}/.skillbus/undo/journal cannot be understood ({error}): delete it, and check the skills there"
        ) from None
    _undo(root, journal)
    return journal.name


def sweep(root: Root) -> None:
    """Delete what earlier passes staged or took away. Only without a journal.

    Raises:
        DiskRefused: the disk failed.
    """
    with tree.disk_words(f"{root.path}/.skillbus cannot be swept"):
        for own in ("staging", "undo"):
            if root.has(own):
                folder = root.staging if own == "staging" else root.undo
                for name in tree.all_names_in(folder):
                    tree.remove(folder, name)


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


def _undo(root: Root, journal: Journal) -> None:
    with tree.disk_words(f"{root.path / journal.name} cannot be put back"):
        _move_back(root, journal)
        os.fsync(root.fd)
    lock = read_lock(root)
    if lock.receipts.get(journal.name) != journal.receipt:
        write_lock(root, lock.having(journal.name, journal.receipt))
    with tree.disk_words(f"{root.path}/.skillbus cannot be written"), suppress(FileNotFoundError):
        os.unlink(_JOURNAL, dir_fd=root.undo)
        os.fsync(root.undo)


def _move_back(root: Root, journal: Journal) -> None:
    name, slot = journal.name, journal.slot
    there = tree.inode(root.fd, name)
    if journal.new is not None and there == journal.new:
        if journal.old is not None and tree.inode(root.staging, slot) == journal.old:
            if not tree.exchange(root.fd, name, root.staging, slot):
                raise OSError(errno.EOPNOTSUPP, "the file system no longer exchanges names")
            return
        tree.move_new(root.fd, name, root.staging, slot)
        there = None
    if there is None and journal.old is not None and tree.inode(root.undo, slot) == journal.old:
        tree.move_new(root.undo, slot, root.fd, name)


def _parse(data: Any) -> Journal:
    if not isinstance(data, dict) or not is_skill_name(data.get("name")):
        raise ValueError("it names no skill")
    slot = data.get("slot")
    if not isinstance(slot, str) or not slot.isalnum():
        raise ValueError("it names no slot")
    inodes = [data.get("new"), data.get("old")]
    if not all(one is None or isinstance(one, int) for one in inodes):
        raise ValueError("it names no inodes")
    receipt = data.get("receipt")
    return Journal(data["name"], slot, inodes[0], inodes[1], None if receipt is None else parse_receipt(receipt))

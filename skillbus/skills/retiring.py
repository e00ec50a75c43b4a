"""What went out in changes that stay, put into the history: right behind each batch, or by the next pass.

Its journal lies there under the name ``settled`` until that is done, and as long as it does nothing is swept. So a kill
or a crash between the judgement and the history, or in the midst of the history, costs no version.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from skillbus.errors import DiskRefused
from skillbus.skills import history, tree
from skillbus.skills.lock import Lock, read_lock
from skillbus.skills.root import Root
from skillbus.skills.rules import tree_digest
from skillbus.skills.swap import SETTLED, Undo, lines_of


def retire_settled(root: Root, go_on: Callable[[], object], lock: Lock | None = None) -> list[str]:
    """Put what went out in changes that stay into the history, if it still is what had been placed.

    Args:
        go_on: called before each file and step; what it raises ends the work, and the next pass does the rest.
        lock: as it stands on the disk, if that is known; else it is read.

    Returns:
        A sentence for each version that cannot be kept. It is given up: the next sweep deletes it.

    Raises:
        DiskRefused: the disk failed.
    """
    errors: list[str] = []
    try:
        settled = lines_of(root, SETTLED)
    except (ValueError, RecursionError) as error:
        settled = []
        errors.append(f"{root.path}/.skillbus/undo/settled cannot be understood ({error}): old versions are not kept")
    if settled is None:
        return []
    lock = read_lock(root) if lock is None else lock
    for undo in settled:
        go_on()
        try:
            _retire(root, undo, lock, go_on)
        except DiskRefused as error:
            errors.append(str(error))
    go_on()
    with tree.disk_words(f"{root.path}/.skillbus cannot be written"), suppress(FileNotFoundError):
        os.unlink(SETTLED, dir_fd=root.undo)
    return errors


def _retire(root: Root, undo: Undo, lock: Lock, go_on: Callable[[], object]) -> None:
    """From wherever a crash left it: where the swap put it, with its names or others, or moved without a receipt."""
    receipt, now = undo.receipt, lock.receipts.get(undo.name)
    if receipt is None or undo.old is None:
        return
    in_place = "" if now is None else now.digest
    with tree.disk_words(f"the old version of {root.path / undo.name} cannot be read"):
        folder = _outgoing(root, undo)
        facts = None if folder is None else tree.scan(folder, undo.slot, go_on)
    if folder is None:
        history.finish(root, undo.name, undo.old, receipt, in_place)
    elif facts is not None and tree_digest(history.own_names(facts, receipt.files)) == receipt.digest:
        history.retire(root, undo.name, folder, undo.slot, receipt, in_place)


def _outgoing(root: Root, undo: Undo) -> int | None:
    """The open folder in which what was taken away lies under its slot; None if nothing does."""
    for folder in (root.staging, root.undo):
        if undo.old is not None and tree.inode(folder, undo.slot) == undo.old:
            return folder
    return None

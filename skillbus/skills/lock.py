"""``skillbus.lock``: what we placed beside the user's own skills, and from where. The proof that a skill is managed.

The values and their JSON form are pure; reading and writing go through tree.py. A lock that cannot be read is an error
and never an empty lock: an empty one would make every managed skill the user's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from skillbus.errors import BadArchive, DiskRefused
from skillbus.skills import tree
from skillbus.skills.root import LOCK_NAME, Root
from skillbus.skills.rules import Facts, FileFact, PathSet, is_sha256, is_skill_name, tree_digest

LOCK_VERSION = 1
MAX_LOCK_BYTES = 64 * 1024 * 1024
_NEXT = ",\n"
_WORDS = ("url", "source_id", "own_name", "revision", "tree_id", "digest", "placed_at")
_OVERRIDE = ("instead_of", "instead_of_revision", "instead_of_tree_id")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was placed under one name.

    Attributes:
        url: where it came from, without a query.
        source_id: which entry it is for: a digest of that entry's whole url, which may hold a secret.
        own_name: what the skill calls itself, as a name.
        revision: the source's own name for what was fetched (a commit, an ETag); may be empty.
        tree_id: the git tree that it was, if the source has such ids; else empty.
        digest: the tree digest.
        files: every file that was placed.
        placed_at: when, by the file system's clock, ISO 8601.
        instead_of: for a version that ``skillbus rollback`` restored, the digest of the one that it replaces: it stays
            until the manifest asks for a third. Else empty.
        instead_of_revision: that one's revision, so that a fresh process knows it without a fetch. Else empty.
        instead_of_tree_id: that one's tree id. Else empty.
    """

    url: str
    source_id: str
    own_name: str
    revision: str
    tree_id: str
    digest: str
    files: Facts
    placed_at: str
    instead_of: str = ""
    instead_of_revision: str = ""
    instead_of_tree_id: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data for the lock."""
        files = {
            path: {"sha256": fact.sha256, "executable": fact.executable} for path, fact in sorted(self.files.items())
        }
        words = {word: getattr(self, word) for word in _WORDS}
        override = {word: getattr(self, word) for word in _OVERRIDE if getattr(self, word)}
        return {**words, **override, "files": files}

    def standing_in_for(self, replaced: Receipt) -> Receipt:
        """This one, restored in place of ``replaced``. What the manifest asks for is no override of itself."""
        asked_for = (replaced.digest, replaced.revision, replaced.tree_id)
        if replaced.instead_of:
            asked_for = (replaced.instead_of, replaced.instead_of_revision, replaced.instead_of_tree_id)
        digest, revision, tree_id = ("", "", "") if asked_for[0] == self.digest else asked_for
        return replace(
            self,
            source_id=replaced.source_id,
            instead_of=digest,
            instead_of_revision=revision,
            instead_of_tree_id=tree_id,
        )


@dataclass(frozen=True, slots=True)
class Lock:
    """Every receipt of one skills root, by the skill's name."""

    receipts: Mapping[str, Receipt] = field(default_factory=dict)

    def having(self, changes: Mapping[str, Receipt | None]) -> Lock:
        """The same with the receipt of each name in ``changes``; with None, without it."""
        others = {name: receipt for name, receipt in self.receipts.items() if name not in changes}
        return Lock(others | {name: receipt for name, receipt in changes.items() if receipt is not None})

    def as_bytes(self) -> bytes:
        """The lock file: a line for each skill, so that two of them compare well."""
        lines = [f"{json.dumps(name)}: {json.dumps(one.as_json())}" for name, one in sorted(self.receipts.items())]
        return f'{{"v": {LOCK_VERSION}, "skills": {{\n{_NEXT.join(lines)}\n}}}}\n'.encode()


def parse_lock(raw: bytes) -> Lock:
    """The lock in ``raw``. Unknown fields are dropped.

    Raises:
        ValueError: it is no lock, or one of a later version.
    """
    data = json.loads(raw)
    if not isinstance(data, dict) or data.get("v") != LOCK_VERSION or not isinstance(data.get("skills"), dict):
        raise ValueError("it is no lock of version 1")
    return Lock({_name(name): parse_receipt(one) for name, one in data["skills"].items()})


def parse_receipt(data: Any) -> Receipt:
    """One receipt from plain data.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(data, dict) or not isinstance(data.get("files"), dict):
        raise ValueError("a receipt has no files")
    paths = PathSet()
    files = {}
    for path, one in data["files"].items():
        if not (isinstance(one, dict) and is_sha256(one.get("sha256")) and isinstance(one.get("executable"), bool)):
            raise ValueError("a receipt's file has no digest")
        try:
            paths.add(path, folder=False)
        except BadArchive as error:
            raise ValueError(str(error)) from None
        files[path] = FileFact(one["sha256"], one["executable"])
    words = {word: data.get(word, "") for word in (*_WORDS, *_OVERRIDE)}
    if not all(isinstance(text, str) for text in words.values()) or words["digest"] != tree_digest(files):
        raise ValueError("a receipt is not complete, or its digest is not that of its files")
    return Receipt(files=files, **words)


def _name(name: str) -> str:
    if not is_skill_name(name):
        raise ValueError("a name in it is no skill's name")
    return name


def read_lock(root: Root) -> Lock:
    """The root's lock; an empty one if there is no file.

    Raises:
        DiskRefused: it cannot be read or understood.
    """
    with tree.disk_words(f"{root.path / LOCK_NAME} cannot be read"):
        raw = root.read_file(LOCK_NAME, MAX_LOCK_BYTES)
    if raw is None:
        return Lock()
    try:
        return parse_lock(raw)
    except (ValueError, RecursionError) as error:
        raise DiskRefused(
            f"{root.path / LOCK_NAME} cannot be understood ({error}), so nothing there is touched: restore it from a "
            "backup, or delete it (the skills that it names then count as your own)"
        ) from None


def write_lock(root: Root, lock: Lock) -> None:
    """Put ``lock`` in place, wholly and durably.

    Raises:
        DiskRefused: the disk failed, or no pass could read it again; the old lock stands.
    """
    raw = lock.as_bytes()
    if len(raw) > MAX_LOCK_BYTES:
        raise DiskRefused(f"{root.path / LOCK_NAME} would be too long: let the manifests ask for fewer skills")
    with tree.disk_words(f"{root.path / LOCK_NAME} cannot be written"):
        tree.write_file(root.fd, LOCK_NAME, raw, root.own)

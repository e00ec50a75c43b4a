"""``skillbus.lock``: what we placed beside the user's own skills, and from where. The proof that a skill is managed.

The values and their JSON form are pure; reading and writing go through tree.py. A lock that cannot be read is an error
and never an empty lock: an empty one would make every managed skill the user's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skillbus.errors import BadArchive, DiskRefused
from skillbus.skills import tree
from skillbus.skills.root import LOCK_NAME, Root
from skillbus.skills.rules import Facts, FileFact, PathSet, is_sha256, is_skill_name, tree_digest

LOCK_VERSION = 1
MAX_LOCK_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was placed under one name.

    Attributes:
        url: where it came from, without a query.
        ref: the source's own name for what was fetched; may be empty.
        digest: the tree digest.
        files: every file that was placed.
        placed_at: when, by the file system's clock, ISO 8601.
    """

    url: str
    ref: str
    digest: str
    files: Facts
    placed_at: str

    def as_json(self) -> dict[str, Any]:
        """Plain data for the lock."""
        files = {
            path: {"sha256": fact.sha256, "executable": fact.executable} for path, fact in sorted(self.files.items())
        }
        return {
            "url": self.url,
            "ref": self.ref,
            "digest": self.digest,
            "placed_at": self.placed_at,
            "files": files,
        }


@dataclass(frozen=True, slots=True)
class Lock:
    """Every receipt of one skills root, by the skill's name."""

    receipts: Mapping[str, Receipt] = field(default_factory=dict)

    def having(self, name: str, receipt: Receipt | None) -> Lock:
        """The same with ``receipt`` for ``name``; with None, without it."""
        others = {known: one for known, one in self.receipts.items() if known != name}
        return Lock(others if receipt is None else others | {name: receipt})

    def as_bytes(self) -> bytes:
        """The lock file."""
        skills = {name: receipt.as_json() for name, receipt in sorted(self.receipts.items())}
        return json.dumps({"v": LOCK_VERSION, "skills": skills}, indent=1).encode() + b"\n"


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
    words = [data.get(key) for key in ("url", "ref", "digest", "placed_at")]
    if not all(isinstance(word, str) for word in words) or data["digest"] != tree_digest(files):
        raise ValueError("a receipt is not complete, or its digest is not that of its files")
    return Receipt(data["url"], data["ref"], data["digest"], files, data["placed_at"])


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
        DiskRefused: the disk failed; the old lock stands.
    """
    with tree.disk_words(f"{root.path / LOCK_NAME} cannot be written"):
        tree.write_file(root.fd, LOCK_NAME, lock.as_bytes(), root.own)

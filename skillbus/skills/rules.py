"""The rules of names, paths, sizes and digests that every other file here goes by. Pure.

Both sides use them: the child on what it fetched, the pod's process on what the child answered and on what lies on
the disk. So this imports no parser of foreign bytes, and does no I/O. Sources: docs/skills.md, and the measured
failures behind it (names that differ by case or Unicode form alone, reserved names, names that no tool can delete).

What the child imports has no dataclasses: they alone would cost a fifth of its start (they import ``inspect``).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from skillbus.core.text import harmless
from skillbus.errors import BadArchive

MAX_BYTES = 20 * 1024 * 1024
"""Bytes of all files of one skill."""

MAX_FILES = 2_000
"""Files and folders of one skill."""

MAX_DEPTH = 16
MAX_NAME_BYTES = 200
MAX_PATH_BYTES = 1024
"""What every tool can still list and delete. Deeper or longer trees make ``rm -r`` itself fail."""

SKILL_FILE = "SKILL.md"

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?<!\.)")
"""What most names look like. Only the few others are looked at letter by letter."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUBDIRECTORY = re.compile(r"subdirectory=[^&=?#]*")
_RESERVED = frozenset({"con", "prn", "aux", "nul"} | {f"{word}{n}" for word in ("com", "lpt") for n in "123456789¹²³"})
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class FileFact(NamedTuple):
    """What is known of one file of a skill without its bytes: sha256 in hex, and whether it may be executed."""

    sha256: str
    executable: bool


Facts = Mapping[str, FileFact]
"""A tree's files by path, ``/`` between folders. Empty folders do not count, as in git."""


def tree_digest(facts: Facts) -> str:
    """The digest of a tree in hex: sha256 over its sorted (path, executable bit, sha256)."""
    whole = hashlib.sha256()
    for path in sorted(facts, key=lambda path: path.encode("utf-8", "surrogateescape")):
        fact = facts[path]
        mark = b"x" if fact.executable else b"-"
        whole.update(path.encode("utf-8", "surrogateescape") + b"\0" + mark + b"\0" + fact.sha256.encode() + b"\n")
    return whole.hexdigest()


def is_sha256(text: object) -> bool:
    """Whether ``text`` is 64 lower-case hex digits."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def is_skill_name(text: object) -> bool:
    """1-64 of ``a-z0-9-``, no leading, trailing or double hyphen (agentskills.io's rule)."""
    return isinstance(text, str) and len(text) <= 64 and _NAME.fullmatch(text) is not None


def slug(text: str) -> str:
    """``text`` as a skill's name: ``My Skill_2`` -> ``my-skill-2``. Empty if nothing of it can be kept."""
    plain = unicodedata.normalize("NFKD", text[:200]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:64].rstrip("-")


def checked_path(path: str) -> str:
    """``path`` itself: relative, ``/`` between parts, and each part a name that is the same everywhere.

    Raises:
        BadArchive: with the reason.
    """
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        raise BadArchive(f"{_quoted(path)} lies more than {MAX_DEPTH} folders deep")
    for part in parts:
        why = _why_not(part)
        if why:
            raise BadArchive(f"the name {_quoted(path)} {why}")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise BadArchive(f"the path {_quoted(path)} is longer than {MAX_PATH_BYTES} bytes")
    return path


def _why_not(part: str) -> str:
    if _PLAIN.fullmatch(part) and len(part) <= MAX_NAME_BYTES:
        return "is reserved on Windows" if part.split(".", 1)[0].lower() in _RESERVED else ""
    if part in {"", ".", ".."}:
        return "is absolute or leaves its folder"
    try:
        if len(part.encode()) > MAX_NAME_BYTES:
            return f"is longer than {MAX_NAME_BYTES} bytes"
    except UnicodeEncodeError:
        return "is not UTF-8"
    if any(unicodedata.category(char) in _FORBIDDEN_CATEGORIES for char in part):
        return "holds a control or formatting character"
    if "\\" in part or ":" in part:
        return "holds a backslash or a colon"
    if part[-1] in ". ":
        return "ends with a dot or a space"
    folded = folded_name(part)
    if folded == ".git":
        return "is git's own folder"
    return "is reserved on Windows" if folded.split(".")[0].rstrip() in _RESERVED else ""


def folded_name(name: str) -> str:
    """Two names with the same fold are one file on some file system (case, or Unicode form)."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class PathSet:
    """The paths of one tree so far. Says of each whether it can lie beside the others on any file system."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}
        self._folders: set[str] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, path: str, *, folder: bool, checked: bool = False) -> None:
        """Take ``path`` in, with the folders above it.

        Args:
            checked: whether the caller knows that ``checked_path`` has nothing to say.

        Raises:
            BadArchive: it is hostile, or it collides with another.
        """
        if not checked:
            checked_path(path)
        above = path.rpartition("/")[0]
        if above and above not in self._folders:
            parts = above.split("/")
            for depth in range(1, len(parts) + 1):
                self._add_one("/".join(parts[:depth]), folder=True)
            self._folders.add(above)
        self._add_one(path, folder=folder)

    def _add_one(self, path: str, *, folder: bool) -> None:
        folded = folded_name(path)
        known = self._seen.get(folded)
        if known is None:
            self._seen[folded] = (path, folder)
        elif known[0] != path:
            raise BadArchive(f"{_quoted(path)} and {_quoted(known[0])} differ by case or Unicode form alone")
        elif not (folder and known[1]):
            raise BadArchive(f"{_quoted(path)} is there twice")


@lru_cache(maxsize=2048)
def source_id(url: str) -> str:
    """Which entry a url is, in 16 hex digits: the url itself may hold a secret."""
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@lru_cache(maxsize=2048)
def shown_url(url: str) -> str:
    """A URL for people: scheme, host, port, path and subdirectory; never a user, a password, a query, another fragment.

    A path of this machine is shown as it is, less what would be a query: it may be a url whose scheme was forgotten.
    """
    before, mark, fragment = url.partition("#")
    plain = before.partition("?")[0]
    if plain.startswith(("/", ".", "~")) or "://" not in plain:
        first, slash, rest = plain.partition("/")
        shown = f"{first.rpartition('@')[2]}{slash}{rest}"
        kept = mark and ("?" not in url or _SUBDIRECTORY.fullmatch(fragment))  # ``#`` may well be part of a path
        return harmless(f"{shown}{mark}{fragment}" if kept else shown)
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        host = parts.hostname or ""
    except ValueError:
        return "a URL that cannot be read"
    host = f"[{host}]" if ":" in host else host
    fragment = f"#{parts.fragment}" if _SUBDIRECTORY.fullmatch(parts.fragment) else ""
    return harmless(f"{parts.scheme}://{host}{port}{parts.path}{fragment}")


def _quoted(text: str) -> str:
    return repr(harmless(text.encode("utf-8", "replace").decode(), 120))

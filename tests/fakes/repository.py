"""Repositories in memory, with git's own ids and tarballs as GitHub makes them."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha1

BEGAN_AT = 1_700_000_000
"""Seconds since 1970 at which the first commit of any repository was made."""


@dataclass(frozen=True, slots=True)
class File:
    """A file with its executable bit."""

    data: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


Content = Mapping[str, bytes | File | Link]
"""A commit's files by path; plain bytes are a file that cannot be executed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a tree: git's mode (``100644``, ``100755``, ``120000``, ``040000``), and the id."""

    path: str
    mode: str
    id: str
    size: int = 0

    @property
    def kind(self) -> str:
        """``tree`` or ``blob``."""
        return "tree" if self.mode == "040000" else "blob"


@dataclass(slots=True)
class Commit:
    """A commit and everything in it; ``trees`` has the direct entries of each folder, by its path.

    What takes long to make (its tarball, and its recursive listing as the server tells it) is made once.
    """

    id: str
    at: int
    files: dict[str, File | Link]
    trees: dict[str, list[Entry]]
    tree_ids: dict[str, str]
    tarball: bytes | None = None
    listing: bytes | None = None


class Repo:
    """A repository.

    Attributes:
        refs: branches and tags: the commit of each.
        private: whether it is there only for who bears the server's token.
        truncated: whether recursive listings are cut in half, as those of big repositories are.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.refs: dict[str, str] = {}
        self.default = "main"
        self.private = False
        self.truncated = False
        self.commits: dict[str, Commit] = {}

    def commit(self, content: Content, ref: str = "main") -> str:
        """A commit with exactly ``content``, to which ``ref`` then points. Its id, 40 hex digits."""
        files = {path: File(one) if isinstance(one, bytes) else one for path, one in content.items()}
        trees, ids = _trees(files)
        at = BEGAN_AT + len(self.commits)
        parent = f"parent {self.refs[ref]}\n" if ref in self.refs else ""
        text = f"tree {ids['']}\n{parent}author A <a@b> {at} +0000\ncommitter A <a@b> {at} +0000\n\nwork\n"
        commit = Commit(_git_id("commit", text.encode()), at, files, trees, ids)
        self.commits[commit.id] = commit
        self.refs[ref] = commit.id
        return commit.id

    def tag(self, name: str, commit: str) -> None:
        """Point a tag, or a branch, at a commit."""
        self.refs[name] = commit

    def tree_id(self, commit: str, folder: str = "") -> str:
        """git's id of a folder."""
        return self.commits[commit].tree_ids[folder]

    def found(self, ref: str) -> Commit | None:
        """The commit that a ref or an id means."""
        name = self.default if ref == "HEAD" else ref
        return self.commits.get(self.refs.get(name, name))

    def tarball(self, commit: Commit) -> bytes:
        """The tar.gz of a commit; made once."""
        if commit.tarball is None:
            commit.tarball = _tarball(commit, f"{self.name.replace('/', '-')}-{commit.id[:7]}")
        return commit.tarball


def _git_id(kind: str, data: bytes) -> str:
    return sha1(f"{kind} {len(data)}".encode() + b"\0" + data, usedforsecurity=False).hexdigest()


def _mode(one: File | Link) -> str:
    return "120000" if isinstance(one, Link) else "100755" if one.executable else "100644"


def _bytes(one: File | Link) -> bytes:
    return one.target.encode() if isinstance(one, Link) else one.data


def _trees(files: Mapping[str, File | Link]) -> tuple[dict[str, list[Entry]], dict[str, str]]:
    """The entries of each folder, in git's order, and each folder's id; by path, the top is ``""``."""
    children: dict[str, dict[str, File | Link | None]] = {"": {}}
    for path, one in files.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above, folder = "/".join(parts[: depth - 1]), "/".join(parts[:depth])
            children[above][folder] = None
            children.setdefault(folder, {})
        children["/".join(parts[:-1])][path] = one
    trees: dict[str, list[Entry]] = {}
    ids: dict[str, str] = {}
    for folder in sorted(children, key=lambda path: (-path.count("/"), path == "")):
        entries = []
        for path, child in children[folder].items():
            if child is None:
                entries.append(Entry(path, "040000", ids[path]))
            else:
                data = _bytes(child)
                entries.append(Entry(path, _mode(child), _git_id("blob", data), len(data)))
        entries.sort(key=lambda one: one.path + ("/" if one.kind == "tree" else ""))
        lines = (f"{e.mode.lstrip('0')} {e.path.rpartition('/')[2]}\0".encode() + bytes.fromhex(e.id) for e in entries)
        trees[folder], ids[folder] = entries, _git_id("tree", b"".join(lines))
    return trees, ids


def _tarball(commit: Commit, top: str) -> bytes:
    """As ``git archive --prefix=<top>/`` makes it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        comment = f"52 comment={commit.id}\n".encode()
        _add(tar, "pax_global_header", comment, tarfile.XGLTYPE, 0o666, commit.at)
        _add(tar, top, b"", tarfile.DIRTYPE, 0o775, commit.at)
        every = [entry for entries in commit.trees.values() for entry in entries]
        for entry in sorted(every, key=lambda one: one.path):
            one = commit.files.get(entry.path)
            if one is None:
                _add(tar, f"{top}/{entry.path}", b"", tarfile.DIRTYPE, 0o775, commit.at)
            elif isinstance(one, Link):
                _add(tar, f"{top}/{entry.path}", b"", tarfile.SYMTYPE, 0o777, commit.at, one.target)
            else:
                mode = 0o775 if one.executable else 0o664
                _add(tar, f"{top}/{entry.path}", one.data, tarfile.REGTYPE, mode, commit.at)
    return gzip.compress(raw.getvalue(), 6, mtime=0)


def _add(tar: tarfile.TarFile, name: str, data: bytes, kind: bytes, mode: int, at: int, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.linkname = kind, mode, at, link
    info.uname = info.gname = "root"
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))

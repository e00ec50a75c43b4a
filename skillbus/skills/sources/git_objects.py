"""The objects of a local repository, one after the other, through ``git cat-file --batch``.

Read by their ids, so that what comes is what was committed; and with limits on how much of it is listed. It fetches
nothing (git.py does), and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from subprocess import Popen

from skillbus.errors import BadBundle, LinkInArchive, NameNotUtf8, SourceUnavailable, TooManyFiles
from skillbus.skills.rules import MAX_DEPTH, MAX_FILES

_CHUNK = 256 * 1024
_TREE_CHUNKS = 16
"""How much of a folder's list is read: 4 MiB, of which a file takes 30 bytes or more."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a commit: its path in the wanted folder, its object's id."""

    path: str
    id: str
    executable: bool


class Objects:
    """The repository's objects, through ``git cat-file --batch``: one at a time, each read to its end."""

    def __init__(self, process: Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - started with pipes
        self._questions = process.stdin
        self._answers = process.stdout

    def find(self, name: str) -> tuple[str, str] | None:
        """The id and the kind of what is called ``name``; None if it is not there."""
        found = self._asked(name)
        if found is None:
            return None
        for _ in self._body(found[2]):
            pass
        return found[:2]

    def files(self, tree: str) -> Iterator[File]:
        """Every file under a tree.

        Raises:
            BadBundle, HostileName, LinkInArchive, TooManyFiles: one that no skill may have.
        """
        count, todo = 0, [("", tree)]
        while todo:
            prefix, tree = todo.pop()
            for mode, path, one in self._entries(prefix, tree):
                count += 1
                if count > 2 * MAX_FILES or path.count("/") > MAX_DEPTH:
                    raise TooManyFiles(
                        f"it has more than {2 * MAX_FILES} files and folders, or more than {MAX_DEPTH} deep"
                    )
                if mode == "120000":
                    raise LinkInArchive(f"{path!r} is a link: only files and folders are taken")
                if mode == "160000":
                    raise BadBundle(f"{path!r} is a submodule, which is not fetched: list its own repository instead")
                if mode.startswith("04") or mode.startswith("4"):
                    todo.append((f"{path}/", one))
                else:
                    yield File(path, one, mode == "100755")

    def _entries(self, prefix: str, tree: str) -> Iterator[tuple[str, str, str]]:
        """(mode, path, id) for each line of a tree object: ``mode SP name NUL id``, the id in 20 bytes."""
        asked = self._asked(tree)
        if asked is None:
            raise BadBundle(f"{prefix or 'its top'} is a folder that the repository lacks")
        data = b"".join(chunk for at, chunk in enumerate(self._body(asked[2])) if at < _TREE_CHUNKS)
        at = 0
        while at < len(data):
            end = data.find(b"\0", at)
            if end < 0 or end + 21 > len(data):
                raise TooManyFiles(f"{prefix or 'its top'} is too big a folder, or a damaged one")
            mode, _, name = data[at:end].partition(b" ")
            try:
                yield mode.decode(), prefix + name.decode(), data[end + 1 : end + 21].hex()
            except UnicodeDecodeError:
                raise NameNotUtf8(f"a name in {prefix or 'its top'} is not UTF-8") from None
            at = end + 21

    def content(self, file: str) -> Iterator[bytes]:
        """A file's bytes. All of them have to be read before the next question."""
        asked = self._asked(file)
        if asked is None:
            raise SourceUnavailable("git did not keep what it fetched: it will be tried again")
        yield from self._body(asked[2])

    def _asked(self, name: str) -> tuple[str, str, int] | None:
        try:
            self._questions.write(name.encode() + b"\n")
            self._questions.flush()
        except OSError:
            raise SourceUnavailable("git ended while it was asked: it will be tried again") from None
        words = self._answers.readline(4096).split()
        if len(words) == 3 and words[2].isdigit():
            return words[0].decode(), words[1].decode(), int(words[2])
        if not words:
            raise SourceUnavailable("git ended while it was asked: it will be tried again")
        return None

    def _body(self, size: int) -> Iterator[bytes]:
        while size:
            chunk = self._answers.read(min(size, _CHUNK))
            if not chunk:
                raise SourceUnavailable("git ended in the middle of a file: it will be tried again")
            size -= len(chunk)
            yield chunk
        self._answers.read(1)  # the line's end behind each object

"""A folder on the disk held against the specification of skills (agentskills.io), with line numbers.

Stricter than a pass: what there is a warning is an error here, for it is said to whoever can still change it. Like
every parser of foreign bytes it runs in the child only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from skillbus.errors import BadArchive, BadBundle, BadManifest
from skillbus.skills.bundle import MAX_DESCRIPTION_CHARS, front_lines, no_skill_file
from skillbus.skills.document import load_yaml
from skillbus.skills.landing import check_name
from skillbus.skills.rules import MAX_BYTES, MAX_DEPTH, MAX_FILES, SKILL_FILE, PathSet, is_skill_name, slug

MAX_BODY_LINES = 500
MAX_COMPATIBILITY_CHARS = 500
_FIELDS = ("name", "description", "license", "compatibility", "metadata", "allowed-tools")
_LINE = re.compile(r" \(line (\d+)\)$")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that breaks a rule.

    Attributes:
        path: the file, relative to the skill's folder; empty for the folder itself.
        line: counted from 1; 0 if it is about no line.
        rule: a short name for the rule.
        text: what is wrong, and what to do.
        severity: an ``error`` breaks the specification or cannot be placed; a ``warning`` is advice.
    """

    path: str
    line: int
    rule: str
    text: str
    severity: Literal["error", "warning"] = "error"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def findings(path: str) -> list[Finding]:
    """What is wrong with the skill in the folder ``path``; empty if nothing is.

    Files come first in the order of their names, then SKILL.md in the order of its lines.
    """
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return [Finding("", 0, "folder", f"it cannot be opened ({error.strerror}): name the skill's own folder")]
    try:
        tree = _Tree()
        tree.walk(folder, "")
        name = os.path.basename(os.path.realpath(path))  # noqa: PTH119 - no pathlib: it costs this process time
        return tree.found + sorted(_of_skill_file(folder, name), key=lambda one: one.line)
    except OSError as error:
        return [Finding("", 0, "folder", f"it cannot be read ({error.strerror})")]
    finally:
        os.close(folder)


class _Tree:
    """The files of a folder: names, kinds, sizes."""

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self._paths = PathSet()
        self._files = 0
        self._bytes = 0

    def walk(self, folder: int, prefix: str) -> None:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            if self._files > MAX_FILES or self._bytes > MAX_BYTES:
                return
            self._look(folder, prefix + name, name)

    def _look(self, folder: int, path: str, name: str) -> None:
        told = os.stat(name, dir_fd=folder, follow_symlinks=False)
        is_folder = stat.S_ISDIR(told.st_mode)
        self._check_name(path, is_folder)
        if is_folder:
            if path.count("/") >= MAX_DEPTH - 1:
                self._add(path, "depth", f"it lies {MAX_DEPTH} folders deep: at most {MAX_DEPTH - 1} are allowed")
                return
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                self.walk(inner, path + "/")
            finally:
                os.close(inner)
            return
        self._check_file(path, told)

    def _check_name(self, path: str, is_folder: bool) -> None:
        try:
            check_name(path)
            self._paths.add(path, folder=is_folder)
        except BadArchive as error:
            self._add(path, "file-name", f"{error}: rename it")

    def _check_file(self, path: str, told: os.stat_result) -> None:
        if stat.S_ISLNK(told.st_mode):
            self._add(path, "link", "it is a link, and links are not installed: put a copy in its place")
        elif not stat.S_ISREG(told.st_mode):
            self._add(path, "device", "it is no file: remove it")
        elif told.st_mode & 0o6000:
            self._add(path, "setuid", "it is setuid or setgid: chmod ug-s it")
        self._files += 1
        self._bytes += told.st_size if stat.S_ISREG(told.st_mode) else 0
        if self._files > MAX_FILES:
            self._add("", "files", f"it has more than {MAX_FILES} files")
        elif self._bytes > MAX_BYTES:
            self._add("", "size", f"it is bigger than {MAX_BYTES // 1024 // 1024} MiB")

    def _add(self, path: str, rule: str, text: str) -> None:
        self.found.append(Finding(path.encode("utf-8", "replace").decode(), 0, rule, text))


def _of_skill_file(folder: int, name: str) -> Iterator[Finding]:
    raw = _skill_file(folder)
    if raw is None:
        with os.scandir(folder) as entries:
            text = no_skill_file(entry.name for entry in entries)
        yield Finding("", 0, "skill-file", text)
        return
    try:
        lines = front_lines(raw)
    except BadBundle as error:
        yield _skill_finding(_bad_line(raw), "frontmatter", str(error))
        return
    yield from _of_body(raw, len(lines) + 2)
    try:
        front = load_yaml("\n".join(lines))
    except BadManifest as error:
        match = _LINE.search(str(error))
        line = int(match[1]) + 1 if match else 1
        yield _skill_finding(line, "frontmatter", f"the frontmatter cannot be read: {_LINE.sub('', str(error))}")
        return
    if not isinstance(front, dict):
        yield _skill_finding(1, "frontmatter", "the frontmatter is no mapping: it needs 'name:' and 'description:'")
        return
    yield from _of_front(front, lines, name)


def _bad_line(raw: bytes) -> int:
    """The line of the first byte that is no UTF-8; else the first."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return raw.count(b"\n", 0, error.start) + 1
    return 1


def _skill_file(folder: int) -> bytes | None:
    try:
        file = os.open(SKILL_FILE, _FILE, dir_fd=folder)
    except OSError:
        return None
    with open(file, "rb") as opened:
        return opened.read(MAX_BYTES) if stat.S_ISREG(os.fstat(file).st_mode) else None


def _of_body(raw: bytes, front_count: int) -> Iterator[Finding]:
    count = len(raw.decode("utf-8-sig").splitlines()) - front_count
    if count > MAX_BODY_LINES:
        text = f"the body has {count} lines, more than {MAX_BODY_LINES}: move details to files beside it"
        yield _skill_finding(front_count + MAX_BODY_LINES + 1, "body-length", text, "warning")


def _of_front(front: dict[str, Any], lines: list[str], folder: str) -> Iterator[Finding]:
    def at(key: str) -> int:
        start = re.compile(rf"""["']?{re.escape(key)}["']?\s*:""")
        return next((n for n, line in enumerate(lines, 2) if start.match(line)), 1)

    yield from _of_name(front, at("name"), folder)
    yield from _of_description(front, at("description"))
    for rule, text in _of_others(front):
        yield _skill_finding(at(rule), rule, text)
    for key in front:
        if key not in _FIELDS:
            text = f"the field {key[:60]!r} is not in the specification: agents may ignore it (or put it in 'metadata')"
            yield _skill_finding(at(key), "unknown-field", text, "warning")


def _of_name(front: dict[str, Any], line: int, folder: str) -> Iterator[Finding]:
    name = front.get("name")
    if not isinstance(name, str) or not name:
        yield _skill_finding(line, "name", "'name' is missing, or no text")
    elif not is_skill_name(name):
        hint = f": write {slug(name)}" if slug(name) else ""
        yield _skill_finding(line, "name", f"the name is not 1-64 of a-z, 0-9 and single inner hyphens{hint}")
    elif name != folder:
        text = f"the name {name!r} is not that of its folder, {folder[:80]!r}: rename one of the two"
        yield _skill_finding(line, "name-folder", text)


def _of_description(front: dict[str, Any], line: int) -> Iterator[Finding]:
    text = front.get("description")
    if not isinstance(text, str) or not text.strip():
        yield _skill_finding(line, "description", "'description' is missing or empty: agents choose skills by it")
    elif len(text) > MAX_DESCRIPTION_CHARS:
        told = f"the description has {len(text)} characters, more than {MAX_DESCRIPTION_CHARS}: shorten it"
        yield _skill_finding(line, "description", told)


def _of_others(front: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not isinstance(front.get("allowed-tools", ""), str):
        yield "allowed-tools", "'allowed-tools' must be text, with spaces between the tools: Read Bash(git:*)"
    if not isinstance(front.get("license", ""), str):
        yield "license", "'license' must be text: the license's name, or its file's"
    compatibility = front.get("compatibility", "x")
    if not isinstance(compatibility, str) or not 0 < len(compatibility) <= MAX_COMPATIBILITY_CHARS:
        yield "compatibility", f"'compatibility' must be text of 1-{MAX_COMPATIBILITY_CHARS} characters"
    metadata = front.get("metadata", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        yield "metadata", "'metadata' must map names to text: put quotes around what else could be a number"


def _skill_finding(line: int, rule: str, text: str, severity: Literal["error", "warning"] = "error") -> Finding:
    return Finding(SKILL_FILE, line, rule, text, severity)

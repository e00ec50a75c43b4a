"""Where the parts of a YAML text lie: what PyYAML and libyaml let pass and YAML 1.2 does not, found by their marks.

Both readers are lenient in the same places, and strict readers (those of other agents among them) are not: there one
text would mean two things, or something here and nothing there. So it is refused, with its line. Whatever the public
yaml-test-suite calls wrong is refused by the readers themselves or here; tests/unit/skills/test_yaml_suite.py runs it.

One leniency stays: a closing bracket may stand as far left as its key. Everybody writes it so, and it means one thing.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from skillbus.errors import BadManifest

_CONTINUED = re.compile(r"[\r\n]( *)(?=[^ \t\r\n])|[\r\n]( *)\t[ \t]*(?=[^ \t\r\n])")
"""The beginning of each further line of a text that says something, with the spaces that indent it."""

_LEADING = re.compile(r"[^\n]*\n((?:[ ]*\n)*)( *)(?=[^ \n])")
"""A block's head, the empty lines behind it, and the spaces of the first line that says something."""

_SPACES = re.compile(r"[ \t\r\n]*")
_CUT_END = re.compile(r"(?:\A|(?<=\n))[ \t]+\Z")
_BLOCK = frozenset("|>")
_AFTER_DASH = frozenset(",[]{}")


def with_last_end(text: str) -> str:
    """The text with an end to its last line, if that is of spaces alone: without one both readers misread a block."""
    return f"{text}\n" if _CUT_END.search(text) else text


def refuse_close_question_marks(text: str) -> None:
    """Refuse ``[?a]``: a key to the readers, a word to YAML. For the few texts that have such marks and brackets.

    Raises:
        BadManifest: there is one.
        yaml.YAMLError: it is no YAML.
    """
    token: Any
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        at = token.start_mark.index
        if isinstance(token, yaml.KeyToken) and text[at : at + 1] == "?" and text[at + 1 : at + 2] not in {*" \t\r\n"}:
            raise _refused("a question mark in front of a word needs quotes, or a space behind it", token.start_mark)


class Layout:
    """Looks at each event of one text, in order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[tuple[int, bool]] = []  # of each open collection: its column, and whether it has brackets

    def check(self, event: Any) -> None:
        """Refuse it if it may not lie there.

        Raises:
            BadManifest: it may not.
        """
        if isinstance(event, yaml.ScalarEvent):
            self._check_place(event)
            self._check_scalar(event)
            self._check_behind(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check_place(event)
            mark: Any = event.start_mark
            self._open.append((mark.column, bool(event.flow_style)))
            if event.flow_style:
                self._check_behind(event)
        elif isinstance(event, yaml.CollectionEndEvent) and self._open.pop()[1]:
            self._check_behind(event)

    @property
    def _in_brackets(self) -> bool:
        return bool(self._open) and self._open[-1][1]

    def _column(self) -> int:
        """The column of the innermost collection without brackets: what is in it lies further right."""
        return next((column for column, brackets in reversed(self._open) if not brackets), -1)

    def _check_place(self, event: Any) -> None:
        """What begins a line within brackets."""
        if self._in_brackets and 0 <= event.start_mark.column <= self._column():
            raise _refused("what stands in brackets must be indented more than its key", event.start_mark)

    def _check_scalar(self, event: Any) -> None:
        start, end = event.start_mark.index, event.end_mark.index
        if event.style in _BLOCK:
            self._check_block(event)
        elif event.start_mark.line != event.end_mark.line:
            for line in _CONTINUED.finditer(self._text, start, end):
                if len(line[1] if line[1] is not None else line[2]) <= self._column():
                    raise _refused("the further lines of a text must be indented more than its key", event.start_mark)
        elif event.value == "-" and not event.style and self._in_brackets and self._text[end : end + 1] in _AFTER_DASH:
            raise _refused("a lone '-' in brackets needs quotes", event.start_mark)

    def _check_block(self, event: Any) -> None:
        """Whether an empty line before the first that says something has more spaces than that."""
        head = _LEADING.match(self._text, event.start_mark.index)
        if head is None or re.match(r"[|>][-+]?[1-9]", head[0]):
            return
        empty = max((len(line) for line in head[1].split("\n")), default=0)
        if self._column() < len(head[2]) < empty:
            raise _refused("an empty line in front of a text has more spaces than that text", event.start_mark)

    def _check_behind(self, event: Any) -> None:
        """Whether a comment begins right behind it, or right behind its comma or colon, without a space."""
        text, end = self._text, event.end_mark.index
        if text[end : end + 1] == "#" and text[end - 1 : end] not in {" ", "\t", "\n", "\r"}:
            raise _refused("a comment needs a space in front of its '#'", event.end_mark)
        if self._in_brackets or (isinstance(event, yaml.ScalarEvent) and event.style in {"'", '"'}):
            comma = _SPACES.match(text, end)
            at = comma.end() if comma else end
            if text[at : at + 1] in {",", ":"} and text[at + 1 : at + 2] == "#":
                raise _refused("a comment needs a space in front of its '#'", event.end_mark)


def _refused(why: str, mark: Any) -> BadManifest:
    return BadManifest(f"{why} (line {mark.line + 1})")

"""YAML or JSON text -> plain data, under strict limits. Only the child imports this (and with it, PyYAML).

YAML is read as events (libyaml's where it is there: a twentieth of the time) and built by the thirty lines below:
PyYAML's own composers recurse (50 KB of ``[`` crashes the C one), expand aliases, let the last of two equal keys win,
and read ``no`` as False. Refused: more than 256 KB, more than 32 levels, anchors, aliases, tags, merge keys, keys that
are not scalars, equal keys, a second document, and what is YAML to PyYAML alone (yaml_layout.py). Scalars are those of
YAML 1.2's core schema. Keys are always text.

It does not know what a manifest or a frontmatter is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from skillbus.core.text import harmless
from skillbus.errors import BadManifest
from skillbus.skills.yaml_layout import Layout, refuse_close_question_marks, with_last_end

MAX_TEXT_BYTES = 256 * 1024
MAX_LEVELS = 32
_MAX_DIGITS = 64

_FAST: Any = getattr(yaml, "CSafeLoader", None)
_ODD = re.compile(
    r"[\0-\t\x0b-\x1f\x7f]"  # tabs, carriage returns
    r"|^%"  # directives
    r"|[|>][-+0-9]*#"  # a comment too close to a block's mark
    r"|:[\]},\[{]",  # a key without a value in brackets
    re.MULTILINE,
)
"""What the two readers of YAML take differently (with question marks in brackets). It is left to the slow one."""

_ODD_BREAKS = r"[\x80-\x9f\u2000-\u3000\ud800-\uffff]"
"""Odd breaks and spaces beyond ASCII: likewise. Compiled when first needed, for that takes longer than most texts."""

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)


def load_document(raw: bytes) -> Any:
    """The data in ``raw``: JSON if it is an object of JSON, else YAML.

    Raises:
        BadManifest: too long, not UTF-8, not well-formed, or one of the refused features; with the line where known.
    """
    text = decoded(raw)
    if text.lstrip().startswith("{"):
        try:
            return _load_json(text)
        except json.JSONDecodeError:
            return load_yaml(text)
    return load_yaml(text)


def decoded(raw: bytes) -> str:
    """UTF-8, with or without a byte order mark, as text.

    Raises:
        BadManifest: too long, or not UTF-8.
    """
    if len(raw) > MAX_TEXT_BYTES:
        raise BadManifest(f"it is longer than {MAX_TEXT_BYTES // 1024} KB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadManifest(f"it is not UTF-8 (byte {error.start})") from None


def load_yaml(text: str) -> Any:
    """The data in the one YAML document in ``text``; None if there is none.

    Raises:
        BadManifest: as ``load_document``.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise BadManifest(f"it is longer than {MAX_TEXT_BYTES // 1024} KB")
    text = with_last_end(text)
    try:
        odd = _is_odd(text)
        if odd and "?" in text:
            refuse_close_question_marks(text)
        loader = yaml.SafeLoader if _FAST is None or odd else _FAST
        return _Builder(text).build(yaml.parse(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadManifest(f"{error.problem or 'it is no YAML'}{_line(mark)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadManifest(f"it is no YAML ({type(error).__name__})") from None


def _is_odd(text: str) -> bool:
    if _ODD.search(text) or ("?" in text and ("[" in text or "{" in text)):
        return True
    return not text.isascii() and re.search(_ODD_BREAKS, text) is not None


def _line(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1})"


class _Builder:
    """Events -> data, with an explicit stack. One use each."""

    def __init__(self, text: str) -> None:
        self._layout = Layout(text)
        self._open: list[_Node] = []
        self._root: list[Any] = []

    def build(self, events: Iterator[Any]) -> Any:
        for event in events:
            if isinstance(event, yaml.AliasEvent):
                raise BadManifest(f"aliases are not allowed{_line(event.start_mark)}")
            if isinstance(event, yaml.DocumentStartEvent) and event.tags:
                raise BadManifest(f"tags are not allowed{_line(event.start_mark)}")
            self._layout.check(event)
            if isinstance(event, yaml.NodeEvent):
                _refuse_marks(event)
                self._take_node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._take(self._open.pop().closed(), event)
        return self._root[0] if self._root else None

    def _take_node(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            # Wrapped, because a key needs the text and a value needs what it means.
            self._take(event.value if self._wants_key() else _meaning(event), event)
            return
        if self._wants_key():
            raise BadManifest(f"a key must be a plain word{_line(event.start_mark)}")
        if len(self._open) >= MAX_LEVELS:
            raise BadManifest(f"it is nested more than {MAX_LEVELS} levels deep{_line(event.start_mark)}")
        self._open.append(_Map() if isinstance(event, yaml.MappingStartEvent) else _List())

    def _wants_key(self) -> bool:
        return bool(self._open) and self._open[-1].wants_key

    def _take(self, value: Any, event: Any) -> None:
        if self._open:
            self._open[-1].take(value, event)
        elif self._root:
            raise BadManifest(f"a second document is not allowed{_line(event.start_mark)}")
        else:
            self._root.append(value)


class _List:
    """A sequence under construction."""

    wants_key = False

    def __init__(self) -> None:
        self._items: list[Any] = []

    def take(self, value: Any, event: Any) -> None:
        self._items.append(value)

    def closed(self) -> Any:
        return self._items


class _Map:
    """A mapping under construction."""

    def __init__(self) -> None:
        self._items: dict[str, Any] = {}
        self._key = ""
        self.wants_key = True

    def take(self, value: Any, event: Any) -> None:
        if not self.wants_key:
            self._items[self._key] = value
        elif value == "<<" and not event.style:
            raise BadManifest(f"merge keys are not allowed{_line(event.start_mark)}")
        elif value in self._items:
            raise BadManifest(f"the key {harmless(value, 60)!r} is there twice{_line(event.start_mark)}")
        else:
            self._key = value
        self.wants_key = not self.wants_key

    def closed(self) -> Any:
        return self._items


_Node = _List | _Map


def _refuse_marks(event: Any) -> None:
    if event.anchor is not None:
        raise BadManifest(f"anchors are not allowed{_line(event.start_mark)}")
    if getattr(event, "tag", None) is not None:
        raise BadManifest(f"tags are not allowed{_line(event.start_mark)}")


def _meaning(event: Any) -> Any:
    text: str = event.value
    if event.style:  # libyaml says '' of a plain one
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) or _FLOAT.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise BadManifest(f"a number of more than {_MAX_DIGITS} digits{_line(event.start_mark)}")
        if _INT.fullmatch(text):
            return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _load_json(text: str) -> Any:
    try:
        data = json.loads(text, object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=_int)
    except RecursionError:
        raise BadManifest(f"it is nested more than {MAX_LEVELS} levels deep") from None
    _check_levels(data)
    return data


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise BadManifest(f"a number of more than {_MAX_DIGITS} digits")
    return int(text)


def _no_constant(text: str) -> Any:
    raise BadManifest(f"{text} is no JSON")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadManifest(f"the key {harmless(key, 60)!r} is there twice")
        found[key] = value
    return found


def _check_levels(data: Any) -> None:
    level = [data]
    for _ in range(MAX_LEVELS + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise BadManifest(f"it is nested more than {MAX_LEVELS} levels deep")


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []

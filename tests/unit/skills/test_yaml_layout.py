"""YAML as the specification has it: agreed with or refused, never read as something else.

The public yaml-test-suite is run too where the environment names a checkout of its ``data`` branch:

    git clone -b data https://github.com/yaml/yaml-test-suite && YAML_TEST_SUITE=yaml-test-suite make test
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from skillbus.errors import BadManifest
from skillbus.skills import document
from skillbus.skills.document import load_yaml

SUITE = os.environ.get("YAML_TEST_SUITE", "")
_REFUSED = object()


@pytest.fixture(params=["SafeLoader", "CSafeLoader"], autouse=True)
def loader(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each of the two readers below ours."""
    with mock.patch.object(document, "_FAST", getattr(yaml, request.param)):
        yield


@pytest.mark.parametrize(
    ("wrong", "line", "right", "means"),
    [
        ("[a, ?b]", 1, "[a, '?b']", ["a", "?b"]),
        ("{a: 1, ?b: 2}", 1, "{a: 1, ? b : 2}", {"a": 1, "b": 2}),
        ("[a, ?]", 1, "[a, '?']", ["a", "?"]),
        ("[-, a]", 1, "[-1, '-', - 1]", None),
        ("[a, -]", 1, "[a, '-', -x]", ["a", "-", "-x"]),
        ("x: [a]#b", 1, "x: [a] #b", {"x": ["a"]}),
        ("x: [a,#b\n  c]", 1, "x: [a, #b\n  c]", {"x": ["a", "c"]}),
        ("x: [#b\n  c]", 1, "x: [ #b\n  c]", {"x": ["c"]}),
        ("x: 'a'#b", 1, "x: a#b", {"x": "a#b"}),
        ('x: {"a":#b\n  c}', 1, 'x: {"a": #b\n  c}', {"x": {"a": "c"}}),
        ("é: 'ä'#b", 1, "é: 'ä' #b", {"é": "ä"}),
        ("x:\n  - [a,\n  b]", 3, "x:\n  - [a,\n   b\n  ]", {"x": [["a", "b"]]}),
        ("x: [a,\n{b: c}]", 2, "x: [a,\n {b: c}\n]", {"x": ["a", {"b": "c"}]}),
        ("x: 'a\nb'", 1, "x: 'a\n b'", {"x": "a b"}),
        ("x: 'a\n\tb'", 1, "x: 'a\n \tb'", {"x": "a b"}),
        ("- x: [a b\n  c]", 1, "- x: [a b\n   c]", [{"x": ["a b c"]}]),
        ("x: |\n   \n  a", 1, "x: |\n  \n  a", {"x": "\na"}),
        ("x: >\n    \n  # a\n", 1, "x: >2\n    \n  # a\n", {"x": "  \n# a\n"}),
    ],
)
def test_what_both_readers_let_pass_is_refused(wrong: str, line: int, right: str, means: Any) -> None:
    """Each with its line; and its twin, which the specification allows, is read."""
    with pytest.raises(BadManifest, match=rf"line {line}\)"):
        load_yaml(wrong)
    if means is not None:
        assert load_yaml(right) == means


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("x: |\n  a\n   ", {"x": "a\n \n"}),
        ("- |+\n   ", ["\n"]),
        ("x: |\n  a", {"x": "a"}),
        ("x: |\n    \ny: 1\n", {"x": "", "y": 1}),
        ("x: [\n  a\n]\ny: {\n}", {"x": ["a"], "y": {}}),
        ("'a\nb'", "a b"),
        ("[a,\nb]", ["a", "b"]),
        ("x: 'a\n\n b'", {"x": "a\nb"}),
        ("x: [a\n\n  # b\n ,c]", {"x": ["a", "c"]}),
    ],
)
def test_what_is_allowed_is_read(text: str, means: Any) -> None:
    """Ends without a line's end, brackets closed at the left, texts that no collection holds."""
    assert load_yaml(text) == means


def _cases() -> list[Path]:
    found = [path.parent for path in sorted(Path(SUITE).rglob("in.yaml"))] if SUITE else []
    return [case for case in found if not {"name", "tags"} & set(case.relative_to(SUITE).parts)]


@pytest.mark.skipif(not SUITE, reason="YAML_TEST_SUITE names no checkout of the yaml-test-suite's data branch")
def test_the_yaml_test_suite() -> None:
    """All of it is agreed with or refused, what is wrong is refused, each within a second and without a crash.

    And not by refusing: every case that is read here with the features that we take is counted.
    """
    wrong, agreed_count = [], 0
    for case in _cases():
        began_at_s = time.monotonic()
        try:
            got = load_yaml(document.decoded((case / "in.yaml").read_bytes()))
        except BadManifest:
            continue
        finally:
            assert time.monotonic() - began_at_s < 1
        wanted = _REFUSED if (case / "error").exists() else _wanted(case)
        agreed_count += got == wanted
        if got != wanted:
            wrong.append((str(case), got, wanted))
    assert wrong == []
    assert agreed_count >= 174


def _wanted(case: Path) -> Any:
    """What its events say, built by hand; _REFUSED for what we do not take."""
    lines = (case / "test.event").read_text().splitlines()
    if any(re.match(r"(?:=ALI|\+(?:MAP|SEQ)(?: \S+)* [&<]|=VAL [&<])", line) for line in lines):
        return _REFUSED
    if sum(line.startswith("+DOC") for line in lines) > 1:
        return _REFUSED
    told = _nodes(iter(line for line in lines if line[1:4] not in {"STR", "DOC"}))
    found = told[0] if told else None
    if (case / "in.json").exists():
        text = (case / "in.json").read_text()
        assert found == (json.loads(text) if text.strip() else None), case
    return found


def _nodes(lines: Iterator[str], *, keys: bool = False) -> list[Any]:
    """Every node up to the end of the collection; with ``keys`` every other one as the text that it is."""
    found: list[Any] = []
    for line in lines:
        if line.startswith("-"):
            return found
        if line.startswith("=VAL"):
            found.append(_text(line) if keys and len(found) % 2 == 0 else _scalar(line))
        elif line.startswith("+SEQ"):
            found.append(_nodes(lines))
        else:
            flat = _nodes(lines, keys=True)
            found.append(_pairs(flat))
    return found


def _pairs(flat: list[Any]) -> Any:
    """The mapping; what is none of ours if a key is no word, or is there twice."""
    keys = flat[::2]
    if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        return _REFUSED
    return dict(zip(keys, flat[1::2], strict=True))


def _text(line: str) -> str:
    escapes = {"\\\\": "\\", "\\n": "\n", "\\t": "\t", "\\r": "\r", "\\b": "\b"}
    return re.sub(r"\\.", lambda found: escapes[found[0]], line[len("=VAL :") :])


def _scalar(line: str) -> Any:
    text = _text(line)
    if line[len("=VAL ")] != ":":
        return text
    if text in {"", "~", "null"}:
        return None
    if text in {"true", "false"}:
        return text == "true"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d+\.\d+(?:e[-+]?\d+)?", text) else text

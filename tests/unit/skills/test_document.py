"""YAML and JSON under strict limits."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from unittest import mock

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from skillbus.errors import BadManifest
from skillbus.skills import document
from skillbus.skills.document import MAX_TEXT_BYTES, load_document

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), plain, max_size=4))
def test_json_is_read_as_json(data: dict[str, Any]) -> None:
    """An object of JSON means what json.loads says."""
    assert load_document(json.dumps(data).encode()) == data


@given(plain)
@settings(max_examples=60)
def test_quoted_yaml_is_read_as_written(data: Any) -> None:
    """YAML as a careful writer writes it (every string quoted) comes back as it was."""
    text = yaml.safe_dump({"data": data}, default_style='"', allow_unicode=True)
    if "!!" in text:  # PyYAML tags what is no string in this style.
        text = json.dumps({"data": data})
    assert load_document(text.encode()) == {"data": data}


@given(st.binary(max_size=300) | st.text(alphabet=":-[]{}&*!|>'\"%@` \n#,?ab01~<", max_size=120).map(str.encode))
@settings(max_examples=200)
def test_no_bytes_crash_it(raw: bytes) -> None:
    """Any bytes are data or a BadManifest, never another error."""
    with contextlib.suppress(BadManifest):
        load_document(raw)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("no", "no"),
        ("on", "on"),
        ("0777", 777),
        ("0o17", 15),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("~", None),
        ("1.5e3", 1500.0),
        ("'1'", "1"),
        ("=", "="),
        ("-.inf", float("-inf")),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, means: Any) -> None:
    """``no`` is a word, and a time is not a number."""
    found = load_document(f"x: {text}".encode())["x"]
    assert found == means
    assert type(found) is type(means)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2",
        '{"a": 1, "a": 2}',
        "a: &x 1\nb: *x",
        "a: &x 1",
        "a: !!python/object:os.system x",
        "a: !t x",
        "<<: {a: 1}",
        "? [a, b]\n: 1",
        "? {a: b}\n: 1",
        "a: 1\n---\nb: 2",
        "%TAG ! tag:x,2000:\n---\na: 1",
        "a: [1, 2",
        "\ta: 1",
        '{"a": NaN}',
        "a: " + "9" * 5000,
        '{"a": ' + "9" * 5000 + "}",
        "[" * 50_000,
        '{"a":' * 50_000,
        "{" * 2_000,
        "- " * 40 + "x",
        "[" * 33 + "]" * 33,
        '{"a":' * 33 + "1" + "}" * 33,
        "x: " + "a" * MAX_TEXT_BYTES,
    ],
)
def test_what_is_refused(text: str) -> None:
    """Doubles, anchors, aliases, tags, merge keys, odd keys, depth, length, brokenness: one error, no crash."""
    with pytest.raises(BadManifest):
        load_document(text.encode())


CORPUS = [
    "a: 1",
    "a:\n  - b\n  - c: d\n",
    "a: |\n  x\n  y\n",
    "a: >-\n  x\n  y\nb: 'it''s'",
    'a: "\\u00e9\\n"',
    "a: [b, {c: d}]",
    "{a: b}",
    "[a, b]",
    "- - a\n  - b",
    "a: b # c",
    "# only",
    "",
    "a:",
    "? a\n: b",
    "? a",
    "a: - b",
    "a: b: c",
    "a\n b: c",
    "'a': b",
    '"a": b',
    "a:\tb",
    "\ta: b",
    "a: b\t",
    "a: [b\n, c]",
    "a: [b,\nc\n]",
    "[a, b: c]",
    "{a, b: c}",
    "{a: b, }",
    "[a, , b]",
    "a: @b",
    "a: `b",
    "a: %b",
    "%YAML 1.2\n---\na: b",
    "%FOO\n---\na: b",
    "--- a",
    "---\na: b\n...",
    "a: b\n...\nc",
    "...",
    "a: !b c",
    "a: &b c",
    "a: *b",
    "<<: a",
    "'<<': a",
    "a: b\n  c",
    "a: b\n c: d",
    "a: 'b",
    'a: "b',
    'a: "\\q"',
    "a: |\n\n\n  x",
    "a: |2\n  x",
    "a: |9x",
    "a: {b: c",
    "a: b}",
    "a: ]",
    "é: 日本",
    "a: 😀",
    "a: \ufeffb",
    "\ufeffa: b",
    "a: \x07",
    "a: \x85b",
    "a: \u2028b",
    "a: \xa0",
    "a::b",
    "a:b",
    "{a:b}",
    '{"a":b}',
    "[a:b]",
    "[?a]",
    "{? a}",
    "{?a: b}",
    "[-]",
    "[- a]",
    "-",
    "- ",
    "-a",
    "a: -",
    "a: ?",
    "a: ? b",
    "a: :",
    ":",
    ": a",
    "x" * 1100 + ": a",
    "[" + "x" * 1100 + ": a]",
    "a: 1\r\nb: 2\r\n",
    "a: 1\rb: 2",
    "a:  \n\n\n b",
    "a: b\n\n c",
    "- a\nb: c",
    "a: b\n- c",
    "a: #b",
    "a: b#c",
    "a: 'b'c",
    "'a'b: c",
    "a: |\n x\n  y\n z",
    "a: |\n  x\n y",
    "a: >\n  x\n\n  y\n   z\n",
    "a: |+\n  x\n\n",
    "a: |-\n  x\n\n",
    "a: |#",
    "[?]",
    "{a?}",
    "[a:]",
    "[?,a]",
    "--- |\n x",
    "--- - a",
    "---\n---",
    "a\n---\nb",
    "--- #a\n",
    "a: '\n\n b'",
    'a: "b\\\n  c"',
    "a: {b: [c, {d: e}]}",
    "[[[[]]]]",
    "{{a: b}: c}",
    "[a]: b",
    "{a: b}: c",
    "- ? a\n  : b",
    "!!map {a: b}",
    "&a b: c",
    "a : b",
    "a :b",
    "? |\n  a\n: b",
]
"""Small YAML of every kind, good and bad."""


def _both(text: str) -> list[Any]:
    results = []
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        with mock.patch.object(document, "_FAST", loader):
            try:
                results.append(repr(document.load_yaml(text)))
            except BadManifest:
                results.append("refused")
    return results


@pytest.mark.parametrize("text", CORPUS)
def test_both_readers_of_yaml_say_the_same(text: str) -> None:
    """libyaml where it is there, Python where it is not: a manifest means the same on every machine."""
    slow, fast = _both(text)
    assert slow == fast


@given(
    st.text(alphabet=":-[]{}&*!|>'\"%@` \n#,?ab01~<\\.é\t", max_size=40)
    | st.lists(
        st.sampled_from(
            [
                "a",
                "b",
                ": ",
                ":",
                "- ",
                "\n",
                "  ",
                "[",
                "]",
                "{",
                "}",
                ", ",
                "|",
                ">",
                "'",
                '"',
                "# ",
                "? ",
                "---",
                "...",
                "é",
            ]
        ),
        max_size=14,
    ).map("".join)
)
@settings(max_examples=3000)
def test_both_readers_of_yaml_say_the_same_of_anything(text: str) -> None:
    """Also of what nobody would write."""
    slow, fast = _both(text)
    assert slow == fast


def test_a_billion_laughs_ends_at_the_first() -> None:
    """An alias bomb is refused at its first anchor."""
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
    )
    with pytest.raises(BadManifest, match="anchors"):
        load_document(bomb.encode())


def test_thirty_two_levels_are_allowed_and_a_bom_is_legal() -> None:
    """The limits are not tighter than they say."""
    assert load_document(("[" * 32 + "]" * 32).encode())
    assert load_document(b"\xef\xbb\xbfa: 1") == {"a": 1}
    assert load_document(b"") is None

"""YAML and JSON under strict limits."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from skillbus.errors import BadManifest
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

"""Sets of skills, named by their content: one text for one set, and no other text is believed."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.core.skillset import SET_BYTES_LIMIT, SKILLS_LIMIT, decoded, digest_of, encoded, is_digest
from tests import profiles

assert profiles

A, B = "a" * 64, "b" * 64
SETS = st.dictionaries(st.from_regex("[a-z0-9-]{1,20}", fullmatch=True), st.sampled_from([A, B]), max_size=8)


@given(SETS)
def test_a_set_is_read_back(skills: dict[str, str]) -> None:
    """Whatever order it was given in: one text, one digest, and the same set out of it."""
    value = encoded(skills)
    assert encoded(dict(reversed(skills.items()))) == value
    assert decoded(digest_of(value), value) == skills


def test_the_largest_set_is_within_the_limit() -> None:
    """As many names as may be, as long as they may be."""
    skills = {f"{n:064d}": A for n in range(SKILLS_LIMIT)}
    assert len(encoded(skills)) <= SET_BYTES_LIMIT


@pytest.mark.parametrize("other", [b"", b"{}", encoded({"x": B}), encoded({"x": A}) + b" ", b"x" * 1_000_000, None])
def test_a_value_with_another_digest_is_not_believed(other: bytes | None) -> None:
    """Whoever put it there."""
    assert decoded(digest_of(encoded({"x": A})), other) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"v":1}',
        b'{"skills":[],"v":1}',
        b'{"skills":{"x":7},"v":1}',
        b'{"skills":{"x":"short"},"v":1}',
        json.dumps({"skills": {"a b\x1b[31m": A}}).encode(),
        json.dumps({"skills": {"x": A.upper()}}).encode(),
    ],
    ids=range(11),
)
def test_garbage_under_its_own_digest_is_no_set(value: bytes) -> None:
    """A pod may name whatever it likes by its true digest: that is still no set."""
    assert decoded(hashlib.sha256(value).hexdigest(), value) is None


def test_a_newer_set_is_read() -> None:
    """Unknown fields are ignored."""
    value = json.dumps({"v": 2, "skills": {"x": A}, "signed": "y"}).encode()
    assert decoded(digest_of(value), value) == {"x": A}


def test_what_is_a_digest() -> None:
    """64 lower-case hexadecimal digits, as text, and nothing around them."""
    assert is_digest(A)
    assert not any(is_digest(text) for text in ("", A[:-1], A + "a", A.upper(), A[:-1] + "\n", A + "\n", None, 7))

"""Somebody else's list of pods."""

from __future__ import annotations

import pytest

from skillbus.core.expect import pods_expected
from skillbus.errors import BadSettings


def test_one_id_a_line() -> None:
    """Comments, blank lines, white space, Windows' ends of lines and a mark in front say nothing."""
    text = "\ufeff# the fleet\r\npod-1\r\n\r\n  pod-2  # moved\nPod.3\npod-1\n"
    assert pods_expected(text, "roster") == {"pod-1", "pod-2", "Pod.3"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pod-1\n\nno such name\n", r"roster, line 3: 'no such name' cannot be the name of a pod"),
        ("pod-1,pod-2", r"roster, line 1: "),
        ("x" * 65, r"roster, line 1: "),
        ("pod\x1b[2J", r"roster, line 1: 'pod \[2J'"),
        ("", r"roster names no pod"),
        ("# nobody\n\n", r"roster names no pod"),
    ],
)
def test_what_is_no_list_is_refused(text: str, said: str) -> None:
    """With the line, for a list is long; an empty one would expect nobody, and prove as much."""
    with pytest.raises(BadSettings, match=said):
        pods_expected(text, "roster")

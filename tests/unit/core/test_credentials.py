"""By whose credentials evidence is written: what pods say, and what follows from it."""

from __future__ import annotations

import pytest

from skillbus.core.credentials import Identity, of_users


@pytest.mark.parametrize(
    ("said", "identity", "words"),
    [
        ([], Identity.UNKNOWN, "there is no evidence"),
        ([("a", "pod-a"), ("b", "pod-b")], Identity.OWN, "each pod says"),
        ([("a", "pod-a"), ("a", "pod-a")], Identity.OWN, "each pod says"),
        ([("a", "pods"), ("b", "pods"), ("c", "pod-c")], Identity.SHARED, "2 pods as the ACL user 'pods'"),
        ([("a", "default")], Identity.SHARED, "1 pod as the ACL user 'default'"),
        ([("a", "pod-a"), ("b", "")], Identity.UNKNOWN, "1 of 2 pods do not say"),
        ([("a", "pods"), ("b", "pods"), ("c", "")], Identity.SHARED, "whoever holds that credential"),
    ],
)
def test_who_could_have_written_it(said: list[tuple[str, str]], identity: Identity, words: str) -> None:
    """Two lives of one pod share nothing; ``default`` is everybody's; one silent pod is enough not to say ``own``."""
    found = of_users(said)
    assert found.identity is identity
    assert words in found.sentence()

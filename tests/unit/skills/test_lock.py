"""The lock: what it says comes back, and what is no lock is never taken for one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.errors import DiskRefused
from skillbus.skills import lock as module
from skillbus.skills.lock import Lock, Receipt, parse_lock, parse_receipt, read_lock, write_lock
from skillbus.skills.root import Root, open_root
from skillbus.skills.rules import FileFact, is_skill_name
from tests.unit.skills.receipts import receipt_of

FACTS = {"SKILL.md": FileFact("1" * 64, executable=False), "d/run.sh": FileFact("2" * 64, executable=True)}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A skills root."""
    opened = open_root(tmp_path / "root", create=True)
    assert opened is not None
    yield opened
    opened.close()


digests = st.text("0123456789abcdef", min_size=64, max_size=64)
facts = st.dictionaries(
    st.sampled_from(["SKILL.md", "a", "b/c", "b/d/e.txt", "ünïcode", "日本/語"]),
    st.builds(FileFact, digests, st.booleans()),
    min_size=1,
)
words = st.text(max_size=40)
receipts = st.builds(
    lambda files, **given: receipt_of(files, **given),
    facts,
    url=words,
    source_id=words,
    own_name=words,
    revision=words,
    tree_id=words,
    placed_at=words,
    instead_of=st.just("") | digests,
)
names = st.text("abc0-", min_size=1, max_size=8).filter(is_skill_name)


@given(st.dictionaries(names, receipts, max_size=4))
def test_what_is_written_is_read(found: dict[str, Receipt]) -> None:
    """Every receipt comes back as it was, whatever its words."""
    assert parse_lock(Lock(found).as_bytes()) == Lock(found)


def test_it_is_the_same_bytes_whatever_the_order() -> None:
    """Sorted by name and path, so that a lock in a repository shows what changed and nothing else."""
    one, two = receipt_of(FACTS), receipt_of(dict(reversed(FACTS.items())))
    assert Lock({"a": one, "b": two}).as_bytes() == Lock({"b": one, "a": two}).as_bytes()


def _with(**changes: Any) -> dict[str, Any]:
    return {**receipt_of(FACTS).as_json(), **changes}


GOOD = {"sha256": "1" * 64, "executable": False}


@pytest.mark.parametrize(
    "receipt",
    [
        None,
        [],
        {},
        _with(files=None),
        _with(files=[]),
        _with(digest="0" * 64),
        _with(digest=None),
        _with(url=3),
        _with(revision=None),
        _with(instead_of=5),
        _with(files={"../evil": GOOD}),
        _with(files={"/etc/passwd": GOOD}),
        _with(files={"a": GOOD, "A": GOOD}),
        _with(files={"a": {"sha256": "1" * 63, "executable": False}}),
        _with(files={"a": {"sha256": "1" * 64, "executable": 1}}),
        _with(files={"a": {"sha256": "1" * 64}}),
        _with(files={"a": None}),
    ],
)
def test_what_is_no_receipt(receipt: Any) -> None:
    """It names a tree whose digest it has, with paths that a skill may have, or it is an error."""
    with pytest.raises(ValueError, match=r"receipt|name|path|'"):
        parse_receipt(receipt)


def test_unknown_fields_are_dropped() -> None:
    """A later version may say more."""
    assert parse_receipt(_with(later=1)) == receipt_of(FACTS)
    whole = {"v": 1, "skills": {"a": _with()}, "later": {}}
    assert parse_lock(json.dumps(whole).encode()).receipts == {"a": receipt_of(FACTS)}


def test_having_changes_only_what_is_named() -> None:
    """With a receipt it is that one, with None it is gone, the others stay."""
    one, two = receipt_of(FACTS), receipt_of(FACTS, revision="2")
    lock = Lock({"a": one, "b": one})
    assert lock.having({"a": two, "c": two}).receipts == {"a": two, "b": one, "c": two}
    assert lock.having({"a": None, "z": None}).receipts == {"b": one}
    assert lock.receipts == {"a": one, "b": one}


def test_no_file_is_an_empty_lock(root: Root) -> None:
    """Nothing was placed."""
    assert read_lock(root) == Lock()


def test_written_and_read(root: Root) -> None:
    """In place wholly: nothing else is left beside it."""
    lock = Lock({"a": receipt_of(FACTS)})
    write_lock(root, lock)
    write_lock(root, lock.having({"b": receipt_of(FACTS)}))
    assert set(read_lock(root).receipts) == {"a", "b"}
    assert {path.name for path in root.path.iterdir()} == {".skillbus", "skillbus.lock"}
    assert list((root.path / ".skillbus").iterdir()) == []


@pytest.mark.parametrize("what", ["link", "folder", "pipe"])
def test_what_is_no_file_is_refused(root: Root, what: str) -> None:
    """A link is not followed, a pipe not waited for."""
    path = root.path / "skillbus.lock"
    if what == "link":
        (root.path.parent / "elsewhere").write_bytes(Lock().as_bytes())
        path.symlink_to(root.path.parent / "elsewhere")
    elif what == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(DiskRefused, match=r"skillbus\.lock"):
        read_lock(root)


def test_a_lock_that_could_not_be_read_again_is_not_written(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too long for the reader would stop this root for good: the old one stands."""
    write_lock(root, Lock())
    monkeypatch.setattr(module, "MAX_LOCK_BYTES", 200)
    with pytest.raises(DiskRefused, match="fewer"):
        write_lock(root, Lock({"a": receipt_of(FACTS)}))
    assert read_lock(root) == Lock()

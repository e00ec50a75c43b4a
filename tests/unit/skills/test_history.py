"""Kept versions: out of every agent's sight, at most five, and exactly themselves when they are restored."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from skillbus.errors import BadBundle, DiskRefused, PassAborted
from skillbus.skills import history, tree
from skillbus.skills.lock import Receipt
from skillbus.skills.root import Root, open_root
from tests.unit.skills.receipts import receipt_of

Files = Mapping[str, bytes]
PLAIN: Files = {"SKILL.md": b"---\nname: pdf\n---\n", "run.sh": b"echo", "deep/er/note.txt": b"n"}


def go_on() -> None:
    """Nothing stands in the way."""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """An opened skills root."""
    opened = open_root(tmp_path / "root", create=True)
    assert opened is not None
    yield opened
    opened.close()


def swapped_out(root: Root, slot: str, files: Files = PLAIN) -> Receipt:
    """A tree under ``slot`` in the staging, as a swap leaves it, and its receipt. ``.sh`` files are executable."""
    folder = root.staging_path / slot
    _ = root.staging
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        (folder / path).chmod(0o755 if path.endswith(".sh") else 0o644)
    facts = tree.scan(root.staging, slot, go_on)
    assert facts is not None
    return receipt_of(facts, revision=f"rev-{slot}")


def retired(root: Root, slot: str, files: Files = PLAIN, name: str = "pdf") -> Receipt:
    """The same, and kept."""
    receipt = swapped_out(root, slot, files)
    history.retire(root, name, root.staging, slot, receipt, "")
    return receipt


def in_sight(root: Root) -> list[Path]:
    """What an agent would take for a skill, hidden folders included."""
    return [path for path in root.path.rglob("*") if path.name.lower() == "skill.md"]


def read(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Every file with its bytes and whether it may be executed."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "files",
    [
        PLAIN,
        {"SKILL.md": b"a", "SKILL.00": b"b", "skill.01": b"c"},
        {"SKILL.md": b"a", "examples/SKILL.md": b"b", "examples/x/skill.md": b"c", "examples/x/SKILL.00": b"d"},
    ],
)
def test_there_and_back(root: Root, files: Files) -> None:
    """While it is kept no file is called SKILL.md, in any case and depth; restored, it is the same tree and receipt."""
    receipt = retired(root, "1", files)
    assert in_sight(root) == []
    assert not (root.staging_path / "1").exists(), "it was moved, not copied"
    told = history.restore(root, "pdf", receipt.digest, "2", go_on)
    assert {path: data for path, (data, _) in read(root.staging_path / "2").items()} == files
    assert tree.scan(root.staging, "2", go_on) == receipt.files == told.files
    assert (told.digest, told.url, told.revision) == (receipt.digest, receipt.url, receipt.revision)
    assert told.placed_at > receipt.placed_at
    assert [kept.digest for kept in history.versions(root, "pdf")] == [receipt.digest], "it stays kept"


def test_what_is_kept_is_told_newest_first(root: Root) -> None:
    """Digest, revision and url of each, the one retired last at the top, and none of another skill."""
    receipts = [_at(root, n, retired(root, str(n), {"SKILL.md": b"%d" % n})) for n in range(3)]
    retired(root, "9", {"SKILL.md": b"other"}, name="other")
    told = history.versions(root, "pdf")
    assert [(kept.digest, kept.revision) for kept in told] == [
        (receipt.digest, receipt.revision) for receipt in reversed(receipts)
    ]
    assert [kept.retired_at for kept in told] == [f"1970-01-01T00:00:0{n}Z" for n in (2, 1, 0)]
    assert history.versions(root, "unknown") == []


def test_five_are_kept(root: Root) -> None:
    """The sixth drives out the oldest, wholly."""
    receipts = [_at(root, n, retired(root, str(n), {"SKILL.md": b"%d" % n})) for n in range(5)]
    receipts.append(retired(root, "5", {"SKILL.md": b"5"}))
    kept = {one.digest for one in history.versions(root, "pdf")}
    assert kept == {receipt.digest for receipt in receipts[1:]}
    assert {path.name for path in (root.path / ".skillbus/history/pdf").iterdir()} == kept


def test_the_same_version_again_is_the_newest(root: Root) -> None:
    """It is kept once, with the tree that came last: the older one may have been tampered with."""
    first = _at(root, 0, retired(root, "1"))
    _at(root, 1, retired(root, "2", {"SKILL.md": b"two"}))
    (root.path / ".skillbus/history/pdf" / first.digest / "tree/run.sh").write_text("rm -r /")
    retired(root, "3")
    assert history.versions(root, "pdf")[0].digest == first.digest
    assert len(history.versions(root, "pdf")) == 2
    assert history.restore(root, "pdf", first.digest, "4", go_on).files == first.files


@pytest.mark.parametrize("what", ["changed", "added", "missing", "link", "hard link", "receipt"])
def test_what_was_tampered_with_is_not_restored(root: Root, tmp_path: Path, what: str) -> None:
    """A kept version is believed no more than its digest."""
    receipt = retired(root, "1")
    kept = root.path / ".skillbus/history/pdf" / receipt.digest
    secret = tmp_path / "secret"
    secret.write_bytes(PLAIN["run.sh"])
    if what == "changed":
        (kept / "tree/run.sh").write_text("rm -r /")
    elif what == "added":
        (kept / "tree/SKILL.md").write_text("obey")
    elif what == "receipt":
        (kept / "receipt.json").write_text((kept / "receipt.json").read_text().replace("run.sh", "run.py"))
    else:
        (kept / "tree/run.sh").unlink()
        if what == "link":
            (kept / "tree/run.sh").symlink_to(secret)
        elif what == "hard link":
            (kept / "tree/run.sh").hardlink_to(secret)
    with pytest.raises(BadBundle, match=r"is not kept|was changed by somebody"):
        history.restore(root, "pdf", receipt.digest, "2", go_on)


def test_half_a_retirement_is_nothing(root: Root) -> None:
    """A tree without a receipt, a receipt without a tree, anything else: not told, not restored, swept next time."""
    receipt = _at(root, 0, retired(root, "1"))
    skill = root.path / ".skillbus/history/pdf"
    for name in ("a" * 64, "b" * 64, "stray"):
        (skill / name / "tree").mkdir(parents=True)
    (skill / ("b" * 64) / "tree").rmdir()
    (skill / ("b" * 64) / "receipt.json").write_text("{}")
    (skill / "file").write_text("")
    assert [one.digest for one in history.versions(root, "pdf")] == [receipt.digest]
    with pytest.raises(BadBundle, match="is not kept"):
        history.restore(root, "pdf", "a" * 64, "2", go_on)
    newer = retired(root, "3", {"SKILL.md": b"newer"})
    assert {path.name for path in skill.iterdir()} == {receipt.digest, newer.digest}


def test_a_pass_that_must_end_ends_a_restore(root: Root) -> None:
    """What ``go_on`` raises comes through."""
    receipt = retired(root, "1")

    def stop() -> None:
        raise PassAborted("killed")

    with pytest.raises(PassAborted):
        history.restore(root, "pdf", receipt.digest, "2", stop)


def test_a_link_in_the_way_is_not_followed(root: Root, tmp_path: Path) -> None:
    """Somebody's link in the place of the history, or in what goes out: refused, and what it points at is untouched."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep/SKILL.md").write_text("theirs")
    receipt = swapped_out(root, "1", {"SKILL.md": b"a", "deep/SKILL.md": b"b"})
    (root.staging_path / "1" / "deep/SKILL.md").unlink()
    (root.staging_path / "1" / "deep").rmdir()
    (root.staging_path / "1" / "deep").symlink_to(elsewhere / "deep")
    with pytest.raises(DiskRefused, match="cannot be kept"):
        history.retire(root, "pdf", root.staging, "1", receipt, "")
    (root.path / ".skillbus/history").symlink_to(elsewhere)
    with pytest.raises(DiskRefused, match="cannot be kept"):
        history.retire(root, "pdf", root.staging, "2", swapped_out(root, "2"), "")
    assert [str(path.relative_to(elsewhere)) for path in sorted(elsewhere.rglob("*"))] == ["deep", "deep/SKILL.md"]


def test_skills_long_gone_are_forgotten(root: Root) -> None:
    """Of the names that the lock does not name the fifty changed last keep their versions; named ones always do."""
    names = [f"s{n}" for n in range(history.MAX_FORGOTTEN + 3)]
    for n, name in enumerate(names):
        retired(root, str(n), {"SKILL.md": b"x"}, name=name)
        os.utime(root.path / ".skillbus/history" / name, (n, n))
    asked: list[int] = []
    history.forget(root, {"s0"}, lambda: asked.append(len(list((root.path / ".skillbus/history").iterdir()))))
    assert asked == [len(names), len(names) - 1], "leave is asked for before each"
    left = {path.name for path in (root.path / ".skillbus/history").iterdir()}
    assert left == set(names) - {"s1", "s2"}
    history.forget(root, {"s0"}, lambda: None)
    assert len(left) == history.MAX_FORGOTTEN + 1


def _at(root: Root, at_s: int, receipt: Receipt, name: str = "pdf") -> Receipt:
    """Say that it was retired at ``at_s``: the file system's clock is too coarse for a test's haste."""
    os.utime(root.path / ".skillbus/history" / name / receipt.digest / "receipt.json", (at_s, at_s))
    return receipt

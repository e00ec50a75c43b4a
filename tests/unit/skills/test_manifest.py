"""Manifests: entries, errors that name their place, merging."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillbus.errors import BadManifest
from skillbus.skills.manifest import Entry, Manifest, merge, read_manifest

GOOD = "https://h.example/a.tar.gz"


@pytest.mark.parametrize("data", [None, [], "skills", 3, {}, {"skills": None}, {"skills": {}}, {"skills": "x"}])
def test_what_is_no_manifest(data: Any) -> None:
    """Without a mapping and a list in it there is nothing to go by."""
    with pytest.raises(BadManifest, match=r"team\.yaml"):
        read_manifest(data, "team.yaml", "/m")


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ("x", "no mapping"),
        ({}, ".url"),
        ({"url": ""}, ".url"),
        ({"url": 3}, ".url"),
        ({"url": "https://h/\x07"}, ".url"),
        ({"url": "https://h/" + "a" * 3000}, ".url"),
        ({"url": GOOD, "name": "Bad Name"}, ".name"),
        ({"url": GOOD, "name": "../x"}, ".name"),
        ({"url": GOOD, "name": True}, ".name"),
        ({"url": GOOD, "scope": "global"}, ".scope"),
        ({"url": GOOD, "scope": ["user"]}, ".scope"),
        ({"url": GOOD, "sha256": "abc"}, ".sha256"),
        ({"url": GOOD, "sha256": 12}, ".sha256"),
    ],
)
def test_a_bad_entry_is_named_and_stops_no_other(raw: Any, field: str) -> None:
    """The error says source, index and field; the entry after it is read."""
    found = read_manifest({"skills": [raw, {"url": GOOD}]}, "team.yaml", "/m")
    assert [entry.url for entry in found.entries] == [GOOD]
    assert len(found.errors) == 1
    assert "team.yaml, skills[0]" in found.errors[0]
    assert field in found.errors[0]


def test_what_the_other_project_accepts_is_accepted_unchanged() -> None:
    """url, name, scope as they come; digests with or without their word; a path becomes absolute."""
    raw = [
        {"url": "https://github.com/o/r/tree/main/skills/x", "name": "x-y", "scope": "project"},
        {"url": "./skills/../skills/a", "sha256": "sha256:" + "A" * 64},
        {"url": "/abs/b", "name": None, "scope": None},
    ]
    found = read_manifest({"skills": raw, "extra": 1}, "m", "/base")
    assert found.errors == ()
    assert [(e.url, e.name, e.scope, e.sha256) for e in found.entries] == [
        ("https://github.com/o/r/tree/main/skills/x", "x-y", "project", None),
        ("/base/skills/a", None, "user", "a" * 64),
        ("/abs/b", None, "user", None),
    ]


def test_a_manifest_from_the_web_names_no_folder() -> None:
    """What a stranger wrote does not read this disk."""
    found = read_manifest({"skills": [{"url": "./x"}, {"url": "/etc"}, {"url": "~/x"}]}, "m", None)
    assert found.entries == ()
    assert len(found.errors) == 3


def test_an_unknown_field_is_a_warning() -> None:
    """A typing error is seen, and what later versions add breaks nothing."""
    found = read_manifest({"skills": [{"url": GOOD, "nmae": "x"}]}, "m", None)
    assert len(found.entries) == 1
    assert "nmae" in found.warnings[0]


def test_a_bad_entry_still_holds_what_it_means() -> None:
    """Its url and name keep the managed skill from being removed."""
    found = read_manifest(
        {"skills": [{"url": GOOD + "?q", "name": "a", "scope": "no"}, {"url": 1, "name": "b"}]}, "m", "/"
    )
    assert found.held.urls == {GOOD}
    assert found.held.names == {"a", "b"}


def test_the_same_url_twice_first_wins() -> None:
    """The second is dropped with a warning that names both places."""
    one, two = (read_manifest({"skills": [{"url": GOOD, "name": n}]}, n, None) for n in ("first", "second"))
    merged = merge([one, two])
    assert [entry.name for entry in merged.entries] == ["first"]
    assert len(merged.warnings) == 1
    assert "first, skills[0]" in merged.warnings[0]
    assert "second, skills[0]" in merged.warnings[0]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["url", "name", "scope", "x"]), inner),
    max_leaves=10,
)


@given(st.lists(anything, max_size=5), st.sampled_from([None, "/base"]))
def test_any_data_gives_entries_or_errors(skills: list[Any], base: str | None) -> None:
    """Every element is an entry or an error, and nothing else is ever raised."""
    found = read_manifest({"skills": skills}, "m", base)
    assert len(found.entries) + len(found.errors) == len(skills)
    merged = merge([found, Manifest()])
    assert {entry.url for entry in merged.entries} == {entry.url for entry in found.entries}
    assert all(isinstance(entry, Entry) and entry.scope in ("user", "project") for entry in merged.entries)

"""The manifest's JSON Schema and the reader of manifests say the same, as far as a schema can say it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from skillbus.errors import BadManifest
from skillbus.skills.document import load_document
from skillbus.skills.manifest import read_manifest

SCHEMA = json.loads(files("skillbus.skills").joinpath("manifest.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
URL = "https://h.example/a.tar.gz"
BAD_ENTRIES: tuple[Any, ...] = (
    "x",
    None,
    [],
    {},
    {"name": "a"},
    {"url": ""},
    {"url": "  "},
    {"url": 3},
    {"url": None},
    {"url": "https://h/\x07"},
    {"url": "a\nb"},
    {"url": "a\x7f"},
    {"url": "x" * 2049},
    {"url": URL, "name": ""},
    {"url": URL, "name": "Bad Name"},
    {"url": URL, "name": "../x"},
    {"url": URL, "name": "-a"},
    {"url": URL, "name": "a--b"},
    {"url": URL, "name": "a" * 65},
    {"url": URL, "name": True},
    {"url": URL, "name": 12},
    {"url": URL, "scope": "global"},
    {"url": URL, "scope": ["user"]},
    {"url": URL, "scope": False},
    {"url": URL, "sha256": "abc"},
    {"url": URL, "sha256": "g" * 64},
    {"url": URL, "sha256": "SHA256:" + "a" * 64},
    {"url": URL, "sha256": 12},
)
EXAMPLES = Path(__file__).parents[3] / "examples"


def is_read(data: Any) -> bool:
    """Whether the reader takes all of it, as it would from a file."""
    try:
        return not read_manifest(data, "m", "/base").errors
    except BadManifest:
        return False


def test_it_is_a_schema() -> None:
    """By the words of its own dialect, with a name and a description for every field."""
    Draft202012Validator.check_schema(SCHEMA)
    fields = SCHEMA["$defs"]["entry"]["properties"]
    assert all(field["description"] for field in fields.values())
    for example in fields["url"]["examples"]:
        assert VALIDATOR.is_valid({"skills": [{"url": example}]})
        assert is_read({"skills": [{"url": example}]})


def test_every_example_validates() -> None:
    """What we tell people to start from is good."""
    manifests = [path for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".json")]
    assert manifests
    for path in manifests:
        data = load_document(path.read_bytes())
        assert is_read(data)
        assert list(VALIDATOR.iter_errors(data)) == []


@pytest.mark.parametrize(
    "data",
    [
        {"skills": []},
        {"skills": [], "later": 1},
        {"skills": [{"url": URL}]},
        {"skills": [{"url": "  ./x  "}, {"url": "/abs"}, {"url": "x"}]},
        {"skills": [{"url": "x" * 2048}]},
        {"skills": [{"url": "  " + "x" * 2048 + "\n"}]},
        {"skills": [{"url": "./mit leerem ä"}]},
        {"skills": [{"url": URL, "name": None, "scope": None, "sha256": None}]},
        {"skills": [{"url": URL, "name": "a", "scope": "project", "sha256": "A" * 64}]},
        {"skills": [{"url": URL, "name": "a-1-b", "scope": "user", "sha256": "sha256:" + "a" * 64}]},
        {"skills": [{"url": URL, "name": "a" * 64}]},
        {"skills": [{"url": URL, "nmae": "x"}]},
        {"skills": [{"url": URL}] * 1000},
    ],
)
def test_what_is_read_validates(data: Any) -> None:
    """An editor marks nothing that a pass would take."""
    assert is_read(data)
    assert list(VALIDATOR.iter_errors(data)) == []


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "skills",
        {},
        {"skills": None},
        {"skills": {}},
        {"skills": "x"},
        {"skills": [{"url": URL}] * 1001},
        *({"skills": [entry]} for entry in BAD_ENTRIES),
    ],
)
def test_what_is_refused_does_not_validate(data: Any) -> None:
    """Every shape that the reader refuses is marked by an editor, too."""
    assert not is_read(data)
    assert not VALIDATOR.is_valid(data)


anything = st.none() | st.booleans() | st.integers() | st.lists(st.none(), max_size=1)
entries = st.fixed_dictionaries(
    {},
    optional={
        "url": anything | st.sampled_from([URL, "./x", "", " "]) | st.text("ab /:.#\t", max_size=9),
        "name": anything | st.text("ab-A ", max_size=6),
        "scope": anything | st.sampled_from(["user", "project", "x"]),
        "sha256": anything | st.sampled_from(["a" * 64, "A" * 63, "sha256:" + "0" * 64]),
        "other": anything,
    },
)


@given(st.lists(entries | anything, max_size=3))
def test_both_say_the_same(skills: list[Any]) -> None:
    """Of any manifest of ASCII."""
    assert VALIDATOR.is_valid({"skills": skills}) == is_read({"skills": skills})

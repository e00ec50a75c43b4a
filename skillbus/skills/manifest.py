"""A manifest's data -> entries, and several manifests -> one. Pure: no I/O, no parser, no fetch.

Every error names the source, the index and the field, and one bad entry does not stop the others. What an entry's url
may be is for the sources to say (sources/): here it is text, and for a manifest from disk a path becomes absolute.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from skillbus.core.text import harmless
from skillbus.errors import BadManifest
from skillbus.skills.rules import is_sha256, is_skill_name, shown_url, source_id

MAX_ENTRIES = 1_000
MAX_URL_CHARS = 2_048
USER, PROJECT = "user", "project"
_FIELDS = ("url", "name", "scope", "sha256")


@dataclass(frozen=True, slots=True)
class Entry:
    """One skill that a manifest asks for.

    Attributes:
        url: as the manifest says; a path made absolute.
        name: the name to place it under, or None to ask the skill.
        scope: ``user`` or ``project``.
        sha256: the tree digest that the skill must have, or None.
        place: where the entry stands, for errors: ``team.yaml, skills[2]``.
    """

    url: str
    name: str | None
    scope: str
    sha256: str | None
    place: str


@dataclass(frozen=True, slots=True)
class Held:
    """What a failed entry still lets us see: the managed skills it may mean are kept as they are.

    Attributes:
        urls: as receipts show them.
        ids: source ids: a version that was rolled back to may have come from another url.
    """

    urls: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()

    @classmethod
    def of(cls, url: str, name: str | None) -> Held:
        """What an entry with that whole url, and that name if it has one, may mean."""
        return cls(frozenset([shown_url(url)]), frozenset([name] if name else []), frozenset([source_id(url)]))

    def __or__(self, other: Held) -> Held:
        return Held(self.urls | other.urls, self.names | other.names, self.ids | other.ids)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one source asks for, or all of them merged."""

    entries: tuple[Entry, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    held: Held = Held()


def read_manifest(data: Any, source: str, base: str | None) -> Manifest:
    """The entries in ``data``.

    Args:
        data: plain data, as JSON has it. Not trusted.
        source: the manifest's name for errors.
        base: the folder of a manifest read from disk, absolute; None for one from the web, which can name no folder.

    Raises:
        BadManifest: it is no manifest at all.
    """
    if not isinstance(data, dict):
        raise BadManifest(f"{source} is no mapping: a manifest is 'skills:' and below it a list of entries")
    listed = data.get("skills")
    if not isinstance(listed, list):
        raise BadManifest(f"{source} has no list named 'skills': add 'skills:' with one '- url: …' per skill")
    if len(listed) > MAX_ENTRIES:
        raise BadManifest(f"{source} lists {len(listed)} skills: at most {MAX_ENTRIES}, so split it")
    entries, errors, warnings, held = [], [], [], Held()
    for index, raw in enumerate(listed):
        place = f"{source}, skills[{index}]"
        try:
            entries.append(_entry(raw, place, base))
        except BadManifest as error:
            errors.append(str(error))
            held |= _still_seen(raw, base)
        else:
            warnings += [f"{place}: {key!r} means nothing here" for key in _unknown(raw)]
    return Manifest(tuple(entries), tuple(errors), tuple(warnings), held)


def merge(manifests: Iterable[Manifest]) -> Manifest:
    """All of them as one, in order. Of two entries with one url the first wins, and a warning names both."""
    manifests = tuple(manifests)
    first: dict[str, Entry] = {}
    warnings = [warning for manifest in manifests for warning in manifest.warnings]
    for entry in (entry for manifest in manifests for entry in manifest.entries):
        winner = first.setdefault(entry.url, entry)
        if winner is not entry:
            warnings.append(f"{entry.place}: {shown_url(entry.url)} stands at {winner.place} too, which wins")
    held = Held()
    for manifest in manifests:
        held |= manifest.held
    errors = tuple(error for manifest in manifests for error in manifest.errors)
    return Manifest(tuple(first.values()), errors, tuple(warnings), held)


def _entry(raw: Any, place: str, base: str | None) -> Entry:
    if not isinstance(raw, Mapping):
        raise BadManifest(f"{place} is no mapping: write '- url: …'")
    url = _url(raw.get("url"), place, base)
    name, scope, sha256 = raw.get("name"), raw.get("scope"), raw.get("sha256")
    if name is not None and not is_skill_name(name):
        raise BadManifest(
            f"{place}.name: {_told(name)} is no name: use 1-64 of a-z, 0-9 and single hyphens between them"
        )
    if scope is not None and scope not in (USER, PROJECT):
        raise BadManifest(f"{place}.scope: {_told(scope)} is no scope: use {USER} or {PROJECT}")
    if sha256 is not None:
        sha256 = sha256.removeprefix("sha256:").lower() if isinstance(sha256, str) else sha256
        if not is_sha256(sha256):
            raise BadManifest(
                f"{place}.sha256: {_told(sha256)} is no digest: copy the 64 hex digits from skillbus.lock"
            )
    return Entry(url, name, scope or USER, sha256, place)


def _url(url: Any, place: str, base: str | None) -> str:
    if not isinstance(url, str) or not url.strip():
        raise BadManifest(f"{place}.url: an entry needs one: https://…, or a folder such as ./skills/name")
    text: str = url.strip()
    if len(text) > MAX_URL_CHARS or not text.isprintable():
        raise BadManifest(f"{place}.url: it is longer than {MAX_URL_CHARS} characters, or holds a control character")
    if _has_scheme(text) and not (base is None and text.lower().startswith("git+file:")):
        return text
    if base is None:
        raise BadManifest(
            f"{place}.url: {_told(shown_url(text))} is a folder, and only a manifest read from disk may name one"
        )
    return _absolute(text, base)


def _absolute(url: str, base: str) -> str:
    return posixpath.normpath(posixpath.join(base, url))


def _still_seen(raw: Any, base: str | None) -> Held:
    if not isinstance(raw, Mapping):
        return Held()
    url, name = raw.get("url"), raw.get("name")
    known = name if isinstance(name, str) else None
    if not isinstance(url, str):
        return Held(names=frozenset([known] if known else []))
    whole = url.strip() if base is None or _has_scheme(url) else _absolute(url.strip(), base)
    return Held.of(whole, known)


def _has_scheme(url: str) -> bool:
    return ":" in url.split("/", 1)[0]


def _unknown(raw: Mapping[str, Any]) -> list[str]:
    return [harmless(str(key), 60) for key in raw if key not in _FIELDS]


def _told(value: Any) -> str:
    return harmless(repr(value), 120) if isinstance(value, str | int | float | bool) else f"a {type(value).__name__}"

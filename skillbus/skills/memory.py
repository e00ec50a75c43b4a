"""What the reconciler keeps from one pass to the next, so that a pass with nothing new costs next to nothing.

Nothing in here is needed: without it (after a restart) a pass asks again and reads again, and comes to the same. So it
lies in no file. It is bounded by what the last pass used or could not ask, which replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from skillbus.errors import SkillbusError
from skillbus.skills.lock import Lock
from skillbus.skills.manifest import Entry, Manifest
from skillbus.skills.rules import source_id
from skillbus.skills.sources.source import Origin, Revision, Source
from skillbus.skills.tree import Mark

RootId = tuple[int, int]
"""A root's device and inode."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A manifest that was parsed: ``mark`` is its ETag, or the sha256 of the file."""

    mark: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of an entry's skill at a revision: that of its place, its own name, its digest, its tree id."""

    revision: str
    own_name: str
    digest: str
    tree_id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an entry's skill was not taken at a revision of its place, with that pin: the same bytes, the same error."""

    revision: str
    pinned: str | None
    error: SkillbusError


@dataclass(slots=True)
class Memory:
    """What one pass leaves to the next.

    Attributes:
        manifests: by where they lie.
        origins: an entry's url, taken apart.
        locks: by root: the file's mark, and what it says.
        revisions: by source and place.
        seen: by the entry's source id.
        refused: by the entry's source id.
        digests: of what lies on the disk, by root and name: the outline's print, and the digest of that tree.
    """

    manifests: dict[str, Parsed] = field(default_factory=dict)
    origins: dict[str, tuple[Source, Origin]] = field(default_factory=dict)
    locks: dict[RootId, tuple[Mark, Lock]] = field(default_factory=dict)
    revisions: dict[tuple[str, str], Revision] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    digests: dict[tuple[RootId, str], tuple[int, str]] = field(default_factory=dict)

    def hand_on(self, entries: Iterable[Entry], later: Memory) -> None:
        """Note in ``later`` what is known of ``entries``, of which nothing new was heard."""
        for entry in entries:
            source = source_id(entry.url)
            if entry.url in self.origins:
                _, origin = later.origins[entry.url] = self.origins[entry.url]
                place = (origin.source, origin.place)
                if place in self.revisions:
                    later.revisions.setdefault(place, self.revisions[place])
            if source in self.seen:
                later.seen.setdefault(source, self.seen[source])
            if source in self.refused:
                later.refused.setdefault(source, self.refused[source])

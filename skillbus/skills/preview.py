"""What a pass would do, without doing it: for ``skillbus plan``. It asks and fetches like a pass, and changes nothing.

What it fetches lies in a temporary folder of its own. It needs no Redis and asks no latch: a person at a keyboard may
look at any time, also while the fleet is stopped. Only what changes something goes through the gate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skillbus.clock import Clock
from skillbus.skills.options import SkillsOptions
from skillbus.skills.passing import Passing
from skillbus.skills.places import Place
from skillbus.skills.plan import Kind, Step
from skillbus.skills.rules import Facts, shown_url
from skillbus.skills.tally import Tell
from skillbus.skills.tree import scan
from skillbus.skills.ungated import Ungated


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of a skill: ``added``, ``changed``, ``removed``, or ``mode`` (the executable bit alone)."""

    path: str
    change: str


@dataclass(frozen=True, slots=True)
class StepPreview:
    """What would become of one skill. ``url``, ``revision`` and ``digest`` are those wanted; empty for a removal."""

    kind: Kind
    name: str
    url: str
    revision: str
    digest: str
    files: tuple[FileChange, ...]


@dataclass(frozen=True, slots=True)
class PlacePreview:
    """What would be done in one skills root."""

    path: Path
    steps: tuple[StepPreview, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """What one pass would come to."""

    places: tuple[PlacePreview, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


async def preview(options: SkillsOptions, clock: Clock, tell: Tell = lambda sentence: None) -> Preview:
    """Everything that a pass with ``options`` would do now, and the errors that it would have."""
    with tempfile.TemporaryDirectory(prefix="skillbus-plan-") as beside:
        passing = Passing(options, clock, Ungated(), tell=tell, beside=Path(beside))
        try:
            steps, landed = await passing.plan()
            fetched = {url: one.facts for url, one in landed.items()}
            roots = dict.fromkeys(place for place, _ in steps)
            places = tuple(
                PlacePreview(
                    root.root.path, tuple(_preview(place, step, fetched) for place, step in steps if place is root)
                )
                for root in roots
            )
            return Preview(places, tuple(passing.tally.errors), tuple(passing.tally.warnings))
        finally:
            await passing.close()


def _preview(place: Place, step: Step, fetched: Mapping[str, Facts]) -> StepPreview:
    wanted = step.wanted
    before = (scan(place.root.fd, step.name, lambda: None) or {}) if step.places else {}
    after: Facts = fetched.get(wanted.entry.url, {}) if wanted and step.places else {}
    if step.restores:
        after = place.lock.receipts[step.name].files
    if wanted is None:
        return StepPreview(step.kind, step.name, "", "", "", _changes(before, {}))
    url = shown_url(wanted.entry.url)
    return StepPreview(step.kind, step.name, url, wanted.revision, wanted.digest, _changes(before, after))


def _changes(before: Facts, after: Facts) -> tuple[FileChange, ...]:
    found = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if old is None or new is None:
            found.append(FileChange(path, "added" if old is None else "removed"))
        else:
            found.append(FileChange(path, "mode" if old.sha256 == new.sha256 else "changed"))
    return tuple(found)

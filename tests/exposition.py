"""A strict reader of Prometheus' text format 0.0.4: what it does not know by its rules is an error.

https://prometheus.io/docs/instrumenting/exposition_formats/ : the metric families of one name stand together, HELP and
TYPE before their samples, no sample twice, the last line ended.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

PROMTOOL = shutil.which("promtool", path=os.pathsep.join((str(Path(sys.executable).parent), os.defpath)))
"""As deploy/get-promtool.sh brings it, or the system's; None: there is none."""

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"({_NAME})(?:\{{([^{{}}]*)\}})? (NaN|[+-]Inf|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')


@dataclass(slots=True)
class Family:
    """One metric: its type, its help, and its samples by their labels."""

    kind: str
    told: str
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Of the one sample without labels."""
        assert list(self.samples) == [()], self.samples
        return self.samples[()]

    def by(self, label: str) -> dict[str, float]:
        """The samples by the value of their one label."""
        return {dict(labels)[label]: value for labels, value in self.samples.items() if len(labels) == 1}


def parsed(text: str) -> dict[str, Family]:
    """The families of an exposition, by name. Raises AssertionError at the first line that breaks a rule."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    helped: tuple[str, str] | None = None
    open_name = ""
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            name, told = line.removeprefix("# HELP ").split(" ", 1)
            assert name not in families, f"{name} stands in two places"
            assert told == told.strip() != "", line
            helped = (name, told)
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert helped is not None, line
            assert helped[0] == name, line
            assert kind in ("counter", "gauge"), line
            assert (kind == "counter") == name.endswith("_total"), line
            families[name] = Family(kind, helped[1])
            open_name = name
        else:
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] == open_name, line
            labels = _labels(match[2] or "")
            assert labels not in families[open_name].samples, f"twice: {line}"
            families[open_name].samples[labels] = float(match[3])
    assert all(family.samples for family in families.values())
    return families


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    if not text:
        return ()
    found = [match.groups() for match in _LABEL.finditer(text)]
    assert ",".join(f'{name}="{value}"' for name, value in found) == text, text
    return tuple(sorted((name, value) for name, value in found))

"""Hypothesis, made to be the same in every run: import this module to load the profile.

Derandomized, so that a red test is red again; no deadline, for a slow machine proves nothing; and nothing is kept on
disk between runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import configuration, settings

configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir(), "skillbus-hypothesis"))
settings.register_profile("skillbus", derandomize=True, deadline=None, database=None, max_examples=200)
settings.load_profile("skillbus")

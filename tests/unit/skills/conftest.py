"""Hypothesis' profile for these tests."""

import tests.profiles  # noqa: F401 - imported for its effect

"""``skillbus demo``: a whole fleet on this machine."""

from __future__ import annotations


def demo() -> None:
    """Run a whole fleet on this machine."""

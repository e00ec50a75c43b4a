"""Foreign text, made fit to be shown. Apart from the models, so that a child process that needs it starts fast."""

from __future__ import annotations


def harmless(text: str, limit: int = 300) -> str:
    """``text`` fit for a terminal or a log line: no control, bidi or format character, at most ``limit`` long."""
    if len(text) <= limit and text.isprintable():  # nearly always, and a fleet has thousands of them
        return text
    shown = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"

"""What somebody may put where a person will read it."""

from __future__ import annotations

from tests.pods import Ran

HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 \r\nSTOPPED 44\n \u202egnitsrever\u2066 \x9b2J \u200b\x7f "
    "\\[bold]slash [bold]markup[/bold] [/nonsense] [link=http://x]y[/link] {x} %s"
)


def is_harmless(ran: Ran) -> None:
    """What was printed holds no control, bidi or format character; it is lines of text."""
    for text in (ran.out, ran.err):
        bad = sorted({ascii(char) for char in text if char != "\n" and not char.isprintable()})
        assert not bad, f"{bad} in {text!r}"
    assert not any(line.startswith("STOPPED 44") for line in (ran.out + ran.err).splitlines()), ran

"""What a pass has come to so far: counts, errors, warnings. One summary at its end, whatever happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.skills.plan import Kind

Tell = Callable[[str], None]
"""Called with one short sentence whenever something begins that a person at a terminal may want to see."""


def telling(tell: Tell, checkpoint: Checkpoint) -> Tell:
    """Tell both who is at this terminal and, by way of the pod, who looks on from elsewhere."""

    def both(sentence: str) -> None:
        tell(sentence)
        checkpoint.tell(sentence)

    return both


@dataclass(slots=True)
class Tally:
    """A pass' summary in the making.

    Attributes:
        reverted: names of changes that were undone.
        installed: the digest of every managed skill; None until the pass knows.
        retry_after_s: how long a source wants to be left alone.
    """

    tell: Tell = lambda sentence: None
    counts: dict[str, int] = field(default_factory=lambda: {kind.value: 0 for kind in Kind})
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reverted: list[str] = field(default_factory=list)
    installed: dict[str, str] | None = None
    retry_after_s: float = 0.0

    def warn(self, text: str) -> None:
        """Worth a word, and no error."""
        self.warnings.append(text)

    def result(self) -> PassResult:
        """The summary so far."""
        return PassResult(
            dict(self.counts),
            tuple(self.errors),
            tuple(self.reverted),
            installed=self.installed,
            retry_after_s=self.retry_after_s,
            warnings=tuple(self.warnings),
        )

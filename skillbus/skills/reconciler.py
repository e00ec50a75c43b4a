"""The built-in reconciler: keeps folders of skills in line with manifests. One pass, told as a list of steps.

    recover -> load manifests -> look at each skill -> take stock -> plan -> stage, swap, settle, one by one -> sweep

A checkpoint stands before every fetch and right before every change on the disk. All bytes from outside are parsed in
a child process (fetcher.py), whose answers are checked again here; this process imports no YAML, no HTTP client and no
archive reader. It keeps nothing from one pass to the next: what it must know lies in the locks.

It does not decide when a pass is due, nor whether this pod may work: that is pod/.
"""

from __future__ import annotations

import asyncio
import logging

from skillbus.clock import Clock
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.errors import PassAborted
from skillbus.skills.options import SkillsOptions
from skillbus.skills.passing import Passing

log = logging.getLogger(__name__)

__all__ = ["ReconcileAborted", "SkillsOptions", "SkillsReconciler"]


class ReconcileAborted(PassAborted):
    """The pass was aborted by its checkpoint.

    Attributes:
        result: what it had done until then; ``reverted`` names what was put back.
    """

    def __init__(self, why: str, result: PassResult) -> None:
        super().__init__(why)
        self.result = result


class SkillsReconciler:
    """Implements :class:`skillbus.core.ports.Reconciler` for skills."""

    def __init__(self, options: SkillsOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._warnings: tuple[str, ...] = ()

    @property
    def vouched(self) -> bool:
        """True: when ``reconcile`` ends, its child is seen dead and its threads have come back."""
        return True

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the last pass found worth a word and no error. They are logged, too."""
        return self._warnings

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One pass.

        Raises:
            ReconcileAborted: the checkpoint aborted it, be it in a change that a cancellation found under way. Its
                ``result`` says what was done and what was put back.
            asyncio.CancelledError: it was cancelled, and nothing had to be put back. It bears ``result``, too.
        """
        passing = Passing(self._options, self._clock, checkpoint)
        try:
            await passing.run()
        except PassAborted as error:
            raise ReconcileAborted(str(error), passing.result()) from error
        except asyncio.CancelledError as error:
            result = passing.result()
            if result.reverted:  # A task that was cancelled has no room for a result, and this one must be told.
                raise ReconcileAborted("the pass was cancelled in a change, which was put back", result) from error
            error.result = result  # type: ignore[attr-defined]
            raise
        finally:
            await passing.close()
            self._warnings = tuple(passing.warnings)
            for warning in passing.warnings:
                log.warning("pass warning warning=%s", warning)
        return passing.result()

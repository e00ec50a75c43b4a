"""The built-in reconciler: keeps folders of skills in line with manifests. One pass, told as a list of steps.

    recover, take stock -> manifests -> resolve each place -> fetch what is new -> plan -> swap, settle, lock -> sweep

A checkpoint stands before every fetch and right before every change on the disk. Bytes from outside are parsed in a
child process (fetcher.py), whose answers are checked again here; this process imports no YAML and no archive reader.
What it keeps from one pass to the next saves it questions and readings, and nothing depends on it (memory.py).

It does not decide when a pass is due, nor whether this pod may work: that is pod/.
"""

from __future__ import annotations

import asyncio

from skillbus.clock import Clock
from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.errors import PassAborted
from skillbus.skills.memory import Memory
from skillbus.skills.options import SkillsOptions
from skillbus.skills.passing import Passing
from skillbus.skills.tally import Tell, telling

__all__ = ["ReconcileAborted", "SkillsOptions", "SkillsReconciler"]


class ReconcileAborted(PassAborted):
    """The pass was aborted by its checkpoint.

    Attributes:
        result: what it had done until then; ``reverted`` names what was undone.
    """

    def __init__(self, why: str, result: PassResult) -> None:
        super().__init__(why)
        self.result = result


class SkillsReconciler:
    """Implements :class:`skillbus.core.ports.Reconciler` for skills.

    Args:
        tell: called with a short sentence whenever something begins, for a person at this terminal. Who looks on from
            elsewhere is told by way of the checkpoint.
    """

    def __init__(self, options: SkillsOptions, clock: Clock, tell: Tell = lambda sentence: None) -> None:
        self._options = options
        self._clock = clock
        self._tell = tell
        self._memory = Memory()

    @property
    def vouched(self) -> bool:
        """True: when ``reconcile`` ends, its child is seen dead and its threads have come back."""
        return True

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One pass.

        Raises:
            ReconcileAborted: the checkpoint aborted it, be it in a change that a cancellation found under way. Its
                ``result`` says what was done and what was undone.
            asyncio.CancelledError: it was cancelled, and nothing had to be undone. It bears ``result``, too.
        """
        tell = telling(self._tell, checkpoint)
        passing = Passing(self._options, self._clock, checkpoint, memory=self._memory, tell=tell)
        try:
            await passing.run()
            self._memory = passing.kept
        except PassAborted as error:
            raise ReconcileAborted(str(error), passing.result()) from error
        except asyncio.CancelledError as error:
            result = passing.result()
            if result.reverted:  # A task that was cancelled has no room for a result, and this one must be told.
                raise ReconcileAborted("the pass was cancelled in a change, which was undone", result) from error
            error.result = result  # type: ignore[attr-defined]
            raise
        finally:
            await passing.close()
        return passing.result()

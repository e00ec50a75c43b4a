"""A user's function as a reconciler.

Why it exists: somebody who embeds a pod has a function, not a program. It may be sync or async, and it may be busy for
minutes; the pod must hear a kill all the same. So both kinds run in a thread of their own, an async one with a loop of
its own in there: user code never runs on the pod's loop.

How it is stopped: an async function's task is cancelled, once, so that its clean-up is not cut short in turn. A sync
function cannot be interrupted; its next ``checkpoint()`` raises ``PassAborted``. Either way the pass is over when the
thread is.

What it deliberately does not do: follow threads and processes that the function starts and leaves behind. Who starts a
program uses command.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint, Permit
from skillbus.errors import BadSettings, NeedsHuman, PassAborted
from skillbus.reconcilers.own_thread import see_out


class CallbackReconciler:
    """Runs ``function`` once per pass."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """``function``: sync or async, returning None or a PassResult.

        It is given the checkpoint if it has a parameter without a default, or one called ``checkpoint``.

        Raises:
            BadSettings: it cannot be called, or not with at most one argument.
        """
        self._function = function
        self._name = getattr(function, "__qualname__", None) or type(function).__qualname__
        self._wants_checkpoint = _wants_checkpoint(function, self._name)

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        """One call of the function, in a thread of its own; returns or raises when that thread has ended.

        Raises:
            PassAborted: as a checkpoint raised it.
            NeedsHuman: the function called ``sys.exit``, cancelled itself, or returned something else.
            Exception: whatever the function raised.
        """
        checkpoint()
        call = _Call(checkpoint, asyncio.get_running_loop())
        arguments = (call,) if self._wants_checkpoint else ()
        result = await see_out(lambda: call.run(self._function, arguments, self._name), call.end, "skillbus-callback")
        if result is None:
            return PassResult()
        if not isinstance(result, PassResult):
            raise BadSettings(
                f"the function {self._name} returned a {type(result).__name__}: let it return None or a PassResult"
            )
        return result

    @property
    def vouched(self) -> bool:
        """True: the function's thread is waited for."""
        return True


class _Call:
    """One call of a function, and the checkpoint that it is given.

    A checkpoint of its own, for two reasons. It must say no after a cancellation that the pod's latch knows nothing of.
    And the pod's ``settle`` speaks to Redis on connections of the pod's loop: awaited in another loop it would break.
    """

    def __init__(self, checkpoint: Checkpoint, pod_loop: asyncio.AbstractEventLoop) -> None:
        self._checkpoint = checkpoint
        self._pod_loop = pod_loop
        self._lock = threading.Lock()
        self._must_end = False
        self._task: asyncio.Task[Any] | None = None

    # -- in the function's thread --------------------------------------------------------------------------------

    def __call__(self) -> Permit:
        """As the pod's checkpoint; after a cancellation of the pass it always refuses."""
        self._refuse_if_over()
        return self._checkpoint()

    async def settle(self, permit: Permit) -> None:
        """As the pod's checkpoint, awaitable in any loop. A cancellation meanwhile is a refusal too."""
        self._refuse_if_over()
        asked = asyncio.run_coroutine_threadsafe(self._checkpoint.settle(permit), self._pod_loop)
        try:
            await asyncio.wrap_future(asked)
        except asyncio.CancelledError as error:
            raise PassAborted("the pass was told to end before its last change had been settled") from error
        self._refuse_if_over()

    @property
    def lease_ends_at_s(self) -> float:
        """Boot-time clock, seconds."""
        return self._checkpoint.lease_ends_at_s

    def tell(self, text: str) -> None:
        """As the pod's checkpoint."""
        self._checkpoint.tell(text)

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], name: str) -> Any:
        """Call the function, and await what it returned if that can be awaited."""
        try:
            result = function(*arguments)
            if inspect.isawaitable(result):
                # Leaving the runner ends the tasks and executor threads that the function left behind in its loop.
                with asyncio.Runner() as runner:
                    result = runner.run(self._awaited(result))
        except SystemExit as error:
            # It would end the pod's loop, and with it the ears of the pod.
            raise NeedsHuman(f"the function {name} called sys.exit({error.code!r}): let it return or raise") from error
        except asyncio.CancelledError as error:
            if self._must_end:
                raise
            raise NeedsHuman(f"the function {name} cancelled itself: let it return or raise") from error
        return result

    async def _awaited(self, result: Awaitable[Any]) -> Any:
        with self._lock:
            self._task = asyncio.current_task()
            if self._must_end and self._task is not None:
                self._task.cancel()
        try:
            return await result
        finally:
            with self._lock:
                self._task = None

    def _refuse_if_over(self) -> None:
        if self._must_end:
            raise PassAborted("this pass may not act: it was cancelled")

    # -- in the pod's loop ---------------------------------------------------------------------------------------

    def end(self) -> None:
        """Make the function end as soon as it can be made to."""
        with self._lock:
            self._must_end = True
            if self._task is not None:
                # Its loop may close at this very moment; then the task is over already.
                with contextlib.suppress(RuntimeError):
                    self._task.get_loop().call_soon_threadsafe(self._task.cancel)


def _wants_checkpoint(function: Callable[..., Any], name: str) -> bool:
    """Whether the function takes the checkpoint. A parameter with a default keeps it, unless it is named so."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return False  # Some built-in functions do not tell.
    except TypeError as error:
        raise BadSettings(f"{name} is no function: give one that takes at most one argument, the checkpoint") from error
    wanted = "checkpoint" in signature.parameters
    with contextlib.suppress(TypeError):
        if not wanted:
            signature.bind()
            return False
    try:
        signature.bind(None)
    except TypeError as error:
        raise BadSettings(f"the function {name}{signature} must take at most one argument, the checkpoint") from error
    return True

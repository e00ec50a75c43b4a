"""The search for cyclic garbage, and when it is in the way."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def spare_what_is_here() -> None:
    """Search once more, and then never again in what is here now: modules and models, which stay to the end.

    For a process that is all a pod's: such a search takes 20 ms there, and it would fall into a pass or a kill.
    """
    gc.collect()
    gc.freeze()


@contextmanager
def unswept() -> Iterator[None]:
    """No search for cyclic garbage meanwhile: a look at thousands of pods makes none, and would be searched often."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

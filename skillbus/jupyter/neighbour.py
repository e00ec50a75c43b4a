"""notebook-intelligence in the same server: its own reconciler knows no bus, so a kill may be passed on to it.

Only if asked for (``SKILLBUS_GUARD_NBI``), and only its public ``stop()`` is called. Nothing of it is imported: its
reconciler is found among the objects of this process by the module that it comes from. It is not claimed that it has
stopped: its ``stop()`` is known to let the pass under way go on.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

from skillbus.core.text import harmless

log = logging.getLogger(__name__)

_MODULE = "notebook_intelligence.skill_reconciler"


def reconcilers() -> list[Any]:
    """What in this process reconciles for notebook-intelligence; nothing if that is not loaded."""
    if _MODULE not in sys.modules:
        return []
    return [one for one in gc.get_objects() if type(one).__module__ == _MODULE and callable(getattr(one, "stop", None))]


class Neighbour:
    """Told to stop once, in a thread of its own: whatever it takes, it delays no stop of ours."""

    def __init__(self, find: Callable[[], list[Any]] = reconcilers) -> None:
        self._find = find
        self._told = threading.Event()

    def stop(self) -> threading.Thread | None:
        """Call its ``stop()``. The thread that does; None if it was told before."""
        if self._told.is_set():
            return None
        self._told.set()
        thread = threading.Thread(target=self._stop, name="skillbus-neighbour", daemon=True)
        thread.start()
        return thread

    def _stop(self) -> None:
        found = self._find()
        for one in found:
            try:
                one.stop()
            except Exception as error:
                log.warning("notebook-intelligence refused to stop error=%s", harmless(repr(error)))
        log.warning("notebook-intelligence told to stop reconcilers=%d", len(found))

"""How long a raw PUBLISH takes to become a record, by the keeper of a console alone: no pod hears it.

Watched from outside, by the server's own word that a key was set, so that nothing polls on the same processors.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from tests.pods import PROD
from tests.servers import RawClient

TELLS_OF_KEYS = "notify-keyspace-events E$"
"""The server's configuration that this needs."""

_SETTLES_S = 0.05
"""Between two orders: each is a kill of its own, and not a flood."""


def until_recorded_s(port: int, names: Iterable[str]) -> list[float]:
    """Seconds from sending PUBLISH on each pod's channel to the server's word that its record is set. Sorted."""
    taken_s = []
    with RawClient(port) as orders, RawClient(port) as words:
        words.call("SUBSCRIBE", "__keyevent@0__:set")
        for name in names:
            scope = PROD.pod(name)
            began_s = time.monotonic()
            orders.call("PUBLISH", scope.kill_channel, "bench")
            while words.read() != [b"message", b"__keyevent@0__:set", scope.killed_key.encode()]:
                continue
            taken_s.append(time.monotonic() - began_s)
            time.sleep(_SETTLES_S)
    return sorted(taken_s)

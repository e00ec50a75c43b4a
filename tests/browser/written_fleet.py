"""A fleet that is only written: evidence of any number of pods, in any state, without their processes.

For pictures that always show the same, and for ten thousand pods. What real pods do is tested with real pods.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from skillbus import __version__
from skillbus.core.heartbeat import CauseLine, Heartbeat, PassLine
from skillbus.core.latch import State
from skillbus.core.scope import Fleet
from tests.servers import RawClient, RealServer

_EVERY_S = 1.0
_BATCH = 500
SKILLS = "9c1e44a07b2f5d"


class WrittenFleet:
    """Evidence of ``count`` pods, kept fresh in a thread while it is open."""

    def __init__(self, server: RealServer, fleet: str, count: int, groups: tuple[str, ...] = ("eu", "us")) -> None:
        self._server = server
        self.fleet = Fleet(fleet)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="written-fleet", daemon=True)
        self.ids = [f"web-{number:0{max(2, len(str(count)))}d}" for number in range(1, count + 1)]
        self._given: dict[str, dict[str, Any]] = {
            pod_id: {"state": State.RUNNING, "groups": (groups[number % len(groups)],) if groups else ()}
            for number, pod_id in enumerate(self.ids)
        }

    def change(self, ids: Iterable[str], *, tell: bool = True, **given: Any) -> None:
        """These pods are now so: fields of a heartbeat. Written at once, and hinted at as pods do."""
        chosen = list(ids)
        with self._lock:
            for pod_id in chosen:
                self._given[pod_id] |= given
        self.write(chosen, tell=tell)

    def stop(self, ids: Iterable[str], record_id: str, order_ms: int) -> None:
        """These have obeyed the fleet's kill, each a little later than the one before."""
        cause = CauseLine(kind="order", scope="fleet", record_id=record_id)
        for pod_id in ids:
            quiet_at_ms = order_ms + 40 + self.ids.index(pod_id) ** 2 // 6
            self.change([pod_id], state=State.STOPPED, causes=(cause,), quiet=True, quiet_at_ms=quiet_at_ms)

    def write(self, ids: Iterable[str] = (), *, tell: bool = False) -> None:
        """Write the evidence of these, or of all."""
        chosen = list(ids) or self.ids
        with RawClient(self._server.port, timeout_s=60.0) as client:
            for start in range(0, len(chosen), _BATCH):
                self._write(client, chosen[start : start + _BATCH], tell=tell)

    def _write(self, client: RawClient, ids: list[str], *, tell: bool) -> None:
        now = client.call("TIME")
        assert isinstance(now, list)
        now_ms = int(now[0]) * 1000 + int(now[1]) // 1000  # type: ignore[arg-type]
        count = 0
        for pod_id in ids:
            with self._lock:
                beat = self._beat(pod_id, now_ms)
            if beat is None:
                continue
            client.send("HSET", self.fleet.pod_key(pod_id), beat.incarnation, beat.to_bytes())
            client.send("ZADD", self.fleet.roster_key, now_ms, pod_id)
            count += 2
            if tell:
                client.send("PUBLISH", self.fleet.events_channel, pod_id)
                count += 1
        for _ in range(count):
            client.read()

    def _beat(self, pod_id: str, now_ms: int) -> Heartbeat | None:
        given = dict(self._given[pod_id])
        if given.pop("is_silent", False):
            return None
        number = self.ids.index(pod_id) if len(self.ids) < 1000 else 0
        last = PassLine(id=f"p-{pod_id}", outcome="ok", began_at_ms=now_ms - (240 + number % 60) * 1000, took_s=0.4)
        whole = {
            "lease_s": 600.0,
            "armed": True,
            "hears_since_ms": now_ms - 3_600_000,
            "version": __version__,
            "skills": SKILLS,
        }
        return Heartbeat(
            incarnation=f"i-{pod_id}", beat_at_ms=now_ms, started_at_ms=now_ms - 3_600_000,
            **{**whole, "last_pass": last, **given},
        )  # fmt: skip

    def _renew(self) -> None:
        while not self._ending.wait(_EVERY_S if len(self.ids) < 1000 else 10 * _EVERY_S):
            try:
                self.write()
            except OSError:
                continue  # The server was frozen or ended: that is what is shown.

    def __enter__(self) -> Self:
        self.write(tell=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

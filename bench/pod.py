"""A pod that is idle, or in the middle of a pass, and says when it was observed quiet."""

from __future__ import annotations

import asyncio
import sys
import threading

from skillbus.core.outcome import PassResult
from skillbus.core.ports import Checkpoint
from skillbus.settings import Settings
from skillbus.wiring import pod_of


class Work:
    """A pass that goes on until it is stopped, or one that has nothing to do."""

    vouched = True

    def __init__(self, busy: bool) -> None:
        self._busy = busy

    async def reconcile(self, checkpoint: Checkpoint) -> PassResult:
        while self._busy:
            checkpoint()
            await asyncio.sleep(0.005)
        return PassResult()


def main(url: str, pod_id: str, folder: str, kind: str) -> None:
    settings = Settings.load(redis_url=url, fleet="bench", pod_id=pod_id, state_dir=folder, every_s=3600)
    pod = pod_of(settings, Work(kind == "busy"), work="bench")
    quiet = threading.Event()

    def tell(standing: object) -> None:
        state = getattr(standing, "state", None)
        if state == "running":
            print("ready", flush=True)
        elif state == "stopped":
            print("quiet", flush=True)
            quiet.set()

    pod.on_change(tell)
    pod.start()
    quiet.wait()
    pod.stop()


if __name__ == "__main__":
    main(*sys.argv[1:5])

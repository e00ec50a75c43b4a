"""A pod with the built-in skills reconciler, embedded. It makes a pass for each line on stdin, and tells of each.

One line of JSON per pass: what it came to, the seconds it took, and by how many MiB pod and child together were bigger
in it than the idle pod was: the kernel's high-water marks of both, added up, though they need not fall together, and
pages that both share counted twice. (The child's is read while it lives: what the kernel tells of a child that ended
begins with the size of the pod that it was forked from.) When it is stopped, a line with the boot-time instant at
which it was quiet; when it first holds, for its fleet is not armed yet, a line that says so: that is the idle pod.
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from skillbus.clock import boottime_s
from skillbus.core.latch import State
from skillbus.garbage import spare_what_is_here
from skillbus.settings import Settings
from skillbus.wiring import skills_pod

_LOOK_S = 0.02
_CHILD = "skillbus.skills.fetcher"


def _status_mib(word: str, pid: str = "self") -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{word}:")), 0) / 1024


class ChildPeak(threading.Thread):
    """Looks at the pod's child while there is one. ``taken_mib`` is its high-water mark since it was last asked."""

    def __init__(self) -> None:
        super().__init__(name="bench.child-peak", daemon=True)
        self._peak_mib = 0.0

    def run(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_S):
            for children in Path("/proc/self/task").glob("*/children"):
                with suppress(OSError):
                    for pid in children.read_text().split():
                        if (
                            _CHILD in Path(f"/proc/{pid}/cmdline").read_text()
                        ):  # else it is just forked, and still the pod
                            self._peak_mib = max(self._peak_mib, _status_mib("VmHWM", pid))

    def taken_mib(self) -> float:
        peak_mib, self._peak_mib = self._peak_mib, 0.0
        return peak_mib


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def main(url: str, folder: str, manifest: str, target: str) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    settings = Settings.load(
        redis_url=url,
        fleet="bench",
        pod_id="skills",
        state_dir=folder,
        every_s=86400,
        spread_s=0,
        skills_manifest=(manifest,),
        skills_targets=(target,),
    )
    pod = skills_pod(settings)
    spare_what_is_here()  # as skillbus run does
    idle_mib = [0.0]
    child = ChildPeak()
    child.start()

    def passed(ended: Any) -> None:
        last = pod.last_pass
        _say(
            event="pass",
            outcome=ended.outcome,
            counts=dict(ended.result.counts),
            errors=list(ended.result.errors)[:3],
            reverted=len(ended.result.reverted),
            took_s=last.took_s if last else 0.0,
            grown_mib=_status_mib("VmHWM") - idle_mib[0] + child.taken_mib(),
        )
        idle_mib[0] = _status_mib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew

    def changed(standing: Any) -> None:
        if standing.state is State.HOLDING and not idle_mib[0]:
            idle_mib[0] = _status_mib("VmRSS")
            _say(event="idle")
        if standing.state is State.STOPPED and standing.quiet:
            _say(event="quiet", at_s=boottime_s())

    pod.on_pass(passed)
    pod.on_change(changed)
    pod.start()
    for _ in sys.stdin:
        _say(event="asked", at_s=boottime_s())
        pod.reconcile_now()


if __name__ == "__main__":
    main(*sys.argv[1:5])

"""A pod with the built-in skills reconciler, embedded; says ``ready`` after its first pass."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from skillbus.settings import Settings
from skillbus.wiring import skills_pod


def main(url: str, folder: str, manifest: str, target: str) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    settings = Settings.load(
        redis_url=url,
        fleet="bench",
        pod_id="skills",
        state_dir=folder,
        skills_manifest=(manifest,),
        skills_targets=(target,),
    )
    pod = skills_pod(settings)
    pod.on_pass(lambda ended: print("ready" if ended.outcome == "ok" else ended, flush=True))
    pod.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:5])

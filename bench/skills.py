"""Passes of the skills reconciler inside a running pod, against a GitHub on loopback, beside curl and tar in one run.

200 skills of 54 KB in one repository. Each figure is the median of ratios: a pass, then the plain tool, alternating.

    cold       nothing is there                      / curl -L of the tarball | tar xz
    no-op      nothing has changed                   / curl of one conditional request
    update     a tenth of the skills has changed     / curl | tar xz of just those
    kill       PUBLISH at a random moment of a pass  -> quiet, 100 times; and what changes on the disk behind it
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.server import Server
from skillbus.clock import boottime_s
from tests.fakes.github import FakeGitHub, File

SKILLS = 200
ROUNDS = 7
KILLS = 100
_SIZES = {
    "SKILL.md": 9_000,
    "references/api.md": 15_000,
    "references/guide.md": 15_000,
    "scripts/run.py": 10_000,
    "scripts/lib.py": 5_000,
}


def _text(source: random.Random, size: int) -> bytes:
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 9))) for _ in range(400)]
    return " ".join(source.choices(words, k=size // 5)).encode()[:size].ljust(size, b".")


def contents(changed: range = range(0)) -> dict[str, bytes | File]:
    """The repository's files; the skills in ``changed`` differ from those without."""
    files: dict[str, bytes | File] = {}
    for number in range(SKILLS):
        source = random.Random(number)
        name = f"skill-{number:03d}"
        for path, size in _SIZES.items():
            head = (
                f"---\nname: {name}\ndescription: Use it when {name} is asked for.\n---\n" if path == "SKILL.md" else ""
            )
            tail = f"\nchanged in {changed}" if number in changed else ""
            data = (head + tail).encode() + _text(source, size)
            files[f"skills/{name}/{path}"] = File(data, executable=path == "scripts/run.py")
    return files


class PodProcess:
    """A pod in a process of its own."""

    def __init__(self, server: Server, github: FakeGitHub, folder: Path) -> None:
        self.target = folder / "root"
        manifest = folder / "manifest.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        page = github.page("org/skills", "tree/main/skills")
        manifest.write_text("skills:\n" + "".join(f"- url: {page}/skill-{n:03d}\n" for n in range(SKILLS)))
        env = os.environ | {
            "SKILLBUS_GITHUB_API_URL": github.api,
            "GITHUB_SERVER_URL": github.url,
            "SKILLBUS_SKILLS_LOCAL_HOSTS": github.host,
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        command = [
            sys.executable,
            "-m",
            "bench.skills_pod",
            server.url,
            str(folder / "state"),
            str(manifest),
            str(self.target),
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env
        )

    def hear(self, event: str) -> dict[str, Any]:
        """The next line of that kind."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            said: dict[str, Any] = json.loads(line)
            if said["event"] == event:
                return said
        raise RuntimeError("the pod ended")

    def ask(self) -> None:
        """Ask for a pass."""
        assert self.process.stdin is not None
        self.process.stdin.write("pass\n")
        self.process.stdin.flush()

    def one_pass(self) -> dict[str, Any]:
        """A pass from its request to its end."""
        self.ask()
        said = self.hear("pass")
        assert said["outcome"] == "ok", said
        return said

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def _ground() -> Iterator[Path]:
    """A folder in memory where there is one: what is measured is work, not the noise of a shared disk."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where, prefix="skillbus-bench-") as name:
        yield Path(name)


def _timed_s(script: str) -> float:
    began_s = time.perf_counter()
    subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began_s


def _warm(github: FakeGitHub, commit: str, folder: Path) -> None:
    """Have the fake make its tarball and its listing, which it does once: the real one's work is not done here."""
    url = f"{github.api}/repos/org/skills/git/trees/{commit}?recursive=1"
    subprocess.run(["curl", "-sf", "-o", "/dev/null", url], check=True)
    _curl_tar_s(github, commit, folder)


def _curl_tar_s(github: FakeGitHub, commit: str, folder: Path, only: str = "") -> float:
    folder.mkdir()
    url = f"{github.api}/repos/org/skills/tarball/{commit}"
    took_s = _timed_s(f"curl -sL '{url}' | tar xzf - -C {folder} {only}")
    shutil.rmtree(folder)
    return took_s


def _curl_s(github: FakeGitHub, commit: str) -> float:
    accept = "Accept: application/vnd.github.sha"
    url = f"{github.api}/repos/org/skills/commits/main"
    return _timed_s(f"curl -s -H '{accept}' -H 'If-None-Match: \"{commit}\"' '{url}'")


def _requests(github: FakeGitHub, work: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    before = len(github.requests)
    result = work()
    kinds = [one.kind for one in github.requests[before:]]
    return result, {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def passes(server: Server, latency_s: float) -> list[tuple[str, float, float]]:
    """``(what, ratio, limit)`` for cold, no-op and update."""
    ratios: dict[str, list[float]] = {"cold": [], "no-op": [], "update": []}
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in ratios}
    counted: dict[str, dict[str, int]] = {}
    grown_mib = 0.0
    with _ground() as folder, FakeGitHub(latency_s=latency_s) as github:
        repo = github.repo("org/skills")
        for turn in range(ROUNDS):
            first = repo.commit(contents())
            _warm(github, first, folder / "warm")
            server.call("FLUSHALL")
            pod = PodProcess(server, github, folder / f"pod{turn}")
            try:
                pod.hear("idle")
                server.call("SETNX", "skillbus:{bench}:epoch", "0")
                cold, counted["cold"] = _requests(github, lambda pod=pod: pod.hear("pass"))  # type: ignore[misc]
                assert cold["counts"]["added"] == SKILLS, cold
                seconds["cold"].append((cold["took_s"], _curl_tar_s(github, first, folder / "c")))
                time.sleep(2.1)  # what was just written is not trusted to be settled
                pod.one_pass()
                noop, counted["no-op"] = _requests(github, pod.one_pass)
                seconds["no-op"].append((noop["took_s"], _curl_s(github, first)))
                tenth = range(turn % 10, SKILLS, 10)
                second = repo.commit(contents(tenth))
                names = " ".join(f"org-skills-{second[:7]}/skills/skill-{n:03d}" for n in tenth)
                _warm(github, second, folder / "warm")
                update, counted["update"] = _requests(github, pod.one_pass)
                assert update["counts"]["updated"] == SKILLS // 10, update
                seconds["update"].append((update["took_s"], _curl_tar_s(github, second, folder / "c", names)))
                grown_mib = max(grown_mib, cold["grown_mib"], update["grown_mib"])
            finally:
                pod.end()
    rows = []
    suffix = f", {latency_s * 1000:.0f} ms per request" if latency_s else ""
    for kind, limit in (("cold", 1.5), ("no-op", 3.0), ("update", 2.0)):
        ours, theirs = (statistics.median(pair[n] for pair in seconds[kind]) for n in (0, 1))
        print(
            f"  skills {kind:6} pass {ours * 1000:6.1f} ms, plain tool {theirs * 1000:6.1f} ms, {counted[kind]}{suffix}"
        )
        best = " / ".join(f"{min(pair[n] for pair in seconds[kind]) * 1000:.0f}" for n in (0, 1))
        print(f"  … the quickest of each: {best} ms")
        ratio = statistics.median(a / b for a, b in seconds[kind])
        rows.append((f"skills: a {kind} pass / the plain tool{suffix}", ratio, limit))
    rows.append((f"skills: MiB a pass takes beyond the idle pod / 40{suffix}", grown_mib / 40, 1.0))
    return rows


def kills(server: Server) -> list[tuple[str, float, float]]:
    """Kills at random moments of cold passes and updates."""
    source = random.Random(4)
    quiet_s: list[float] = []
    late = 0
    with _ground() as folder, FakeGitHub() as github:
        repo = github.repo("org/skills")
        commits = [repo.commit(contents()), repo.commit(contents(range(0, SKILLS, 10)))]
        for commit in commits:
            _warm(github, commit, folder / "warm")
        for turn in range(KILLS):
            late += _one_kill(server, github, folder / str(turn), source, quiet_s)
            shutil.rmtree(folder / str(turn))
    quiet_s.sort()
    p95_s = quiet_s[int(len(quiet_s) * 0.95)]
    middle_s = quiet_s[len(quiet_s) // 2]
    figures = {"p50": middle_s, "p95": p95_s, "max": quiet_s[-1]}
    told = ", ".join(f"{word} {at_s * 1000:.1f} ms" for word, at_s in figures.items())
    print(f"  kill in a pass -> quiet: {told}")
    return [
        ("skills: p95 of kills in the middle of a pass / 50 ms", p95_s / 0.05, 1.0),
        ("skills: changes that stay behind a kill", float(late), 0.0),
    ]


def _one_kill(server: Server, github: FakeGitHub, folder: Path, source: random.Random, quiet_s: list[float]) -> int:
    server.call("FLUSHALL")
    server.call("SETNX", "skillbus:{bench}:epoch", "0")
    pod = PodProcess(server, github, folder)
    try:
        pod.hear("pass")
        shutil.rmtree(pod.target)
        pod.ask()
        pod.hear("asked")
        time.sleep(source.uniform(0.0, 0.4))
        at_s = boottime_s()
        server.call("PUBLISH", "skillbus:bench:kill", "bench")
        quiet_s.append(max(0.0, pod.hear("quiet")["at_s"] - at_s))
        before = _snapshot(pod.target)
        time.sleep(0.2)
        return int(_snapshot(pod.target) != before)
    finally:
        pod.end()


def _snapshot(root: Path) -> list[tuple[str, int, int]]:
    return [
        (str(path), info.st_ino, info.st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if ".skillbus" not in path.parts
        for info in [path.lstat()]
    ]


def run(server: Server, folder: Path) -> list[tuple[str, float, float]]:
    """``(what, ratio, limit)``."""
    return [*passes(server, 0.0), *passes(server, 0.02), *kills(server)]

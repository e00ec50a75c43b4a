"""How git is run: for remotes that a stranger may have named, without ever asking a person, and so that it ends.

The operator's own git settings stay in force: a company's proxy, its certificates and its credential helpers stand
there, and without them git would reach nothing. What could ask, run foreign code, lead elsewhere or outlive us is
switched off on the command line, which wins over every file; the repository in whose folder we happen to be is not
looked at. A token goes by environment, for its own host alone.

Every git that speaks to a remote runs under a small shell, with a pipe from us as a lifeline: should this process die
by SIGKILL, the pipe closes and the shell kills its whole process group.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import select
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import Popen
from typing import IO

from skillbus.clock import boottime_s
from skillbus.core.text import harmless
from skillbus.errors import BadManifest, DiskRefused, SkillbusError, SourceUnavailable, TooBig
from skillbus.skills.sources.pip_url import GitUrl
from skillbus.skills.sources.route import Route, is_inside
from skillbus.skills.sources.source import Access

REMOTE = "skillbus"
"""What git knows the remote by. Some people have settings for every "origin"."""

_OUTPUT_BYTES = 64 * 1024
_LOOK_S = 0.1
"""Seconds between looks at how much a fetch has brought."""

_LAUNCH = """
exec 3<&0 </dev/null
ulimit -v 1048576 2>/dev/null
input=$1; shift
"$@" <"$input" 3<&- & git=$!
{ read -r _ <&3 || kill -s KILL 0; } >/dev/null 2>&1 & watch=$!
wait $git; code=$?
kill $watch; wait $watch 2>/dev/null
exit $code
"""
"""git as the shell's child, beside one that reads from us until we are gone. 1 GiB of memory for each."""

_SSH = (
    "ssh -o BatchMode=yes -o ControlMaster=no -o ControlPath=none -o ConnectTimeout=10 -o ServerAliveInterval=10"
    " -o ServerAliveCountMax=2 -o ClearAllForwardings=yes -o ForwardAgent=no -o PermitLocalCommand=no"
)
_PROXIES = tuple(name for word in ("http", "https", "all", "no") for name in (f"{word}_proxy", f"{word}_proxy".upper()))
_PASSED_ON = ("PATH", "HOME", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", *_PROXIES)
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "credential.interactive": "false",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "20",
    "transfer.bundleURI": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "fetch.unpackLimit": "1",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "pack.threads": "1",
}
_HINTS = (
    (r"git: (?:command )?not found|No such file.*\bgit\b", "git is not installed: install it (2.31 or later)"),
    (r"cannot run ssh|ssh: (?:command )?not found", "ssh is not installed: install it, or use git+https://"),
    (
        r"Host key verification failed",
        "ssh does not know this host's key: look at it, and add it to known_hosts (ssh-keyscan)",
    ),
    (r"Permission denied \(", "ssh was refused: give this user a key that may read it"),
    (
        r"could not read (?:Username|Password)|Authentication failed|terminal prompts disabled|returned error: 40[13]",
        "it wants a login: set SKILLBUS_SKILLS_TOKEN and _TOKEN_HOSTS, or give git a credential helper",
    ),
    (
        r"dubious ownership",
        "the folder is somebody else's: if they are trusted, git config --global --add safe.directory PATH",
    ),
    (r"returned error: 30\d|redirect", "it redirects: write the final address (many servers want .git at its end)"),
    (r"transport '\w+' not allowed", "git's own settings (url.*.insteadOf) turn it into another protocol"),
    (
        r"not found|does not appear to be a git repository|does not exist|returned error: 404",
        "there is no such repository, or it takes a login to see it: check the url",
    ),
    (r"Could not resolve host", "the host's name cannot be resolved: check it, and DNS"),
    (r"SSL|certificate", "its TLS certificate was not accepted (SSL_CERT_FILE names more roots)"),
)
_TOO_BIG = re.compile(r"File too large|died of signal 25")
_BROKE_OFF = re.compile(r"early EOF|disconnect|RPC failed|hung up")
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote that may be spoken to, with what git is told about it.

    Attributes:
        settings: seen by every process of this machine, so no secret is in them.
        secrets: settings that go by environment.
        hidden: what no text may show.
    """

    url: GitUrl
    settings: Mapping[str, str]
    secrets: Mapping[str, str]
    hidden: tuple[str, ...]

    def arguments(self, git_dir: str) -> list[str]:
        """What every git command begins with. Run it in ``/`` or a scratch folder, where nobody has a repository."""
        told = _SETTINGS | dict(self.settings)
        return ["git", f"--git-dir={git_dir}", *(word for key in told for word in ("-c", f"{key}={told[key]}"))]

    def environment(self) -> dict[str, str]:
        """git's environment."""
        env = plain_environment() | {"GIT_ALLOW_PROTOCOL": self.url.scheme}
        if "SSL_CERT_FILE" in os.environ:
            env["GIT_SSL_CAINFO"] = os.environ["SSL_CERT_FILE"]
        env["GIT_CONFIG_COUNT"] = str(len(self.secrets))
        for index, (key, value) in enumerate(self.secrets.items()):
            env |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
        return env

    def failure(self, said: bytes) -> SkillbusError:
        """What git's complaint means, and what to do."""
        text = said.decode("utf-8", "replace")
        for secret in self.hidden:
            text = text.replace(secret, "********")
        text = re.sub(r"://[^/\s@]*@", "://", text)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        words = next((line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))), "".join(lines[-1:]))
        if _DISK_FULL.search(text):
            return DiskRefused("the staging folder cannot be written: the disk or the quota is full: free some space")
        # The kernel ends an index-pack that writes more than this process may, and git knows no better words for it.
        silently = "invalid index-pack output" in text and not _BROKE_OFF.search(text)
        if silently or _TOO_BIG.search(text):
            return TooBig(f"{self.url.shown}: it is bigger than a download may be (SKILLBUS_SKILLS_MAX_ARCHIVE_MB)")
        hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "it will be tried again")
        return SourceUnavailable(f"{self.url.shown}: {hint} (git: {harmless(words, 200) or 'ended without a word'})")


def plain_environment() -> dict[str, str]:
    """For a git that speaks to nobody: it may use no protocol, ask no one, and reads no variable but a few."""
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return env | {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",  # set and empty, it rules out core.askPass and SSH_ASKPASS
        "SSH_ASKPASS_REQUIRE": "never",
        "GCM_INTERACTIVE": "never",
        "GIT_SSH_COMMAND": _SSH,
        "GIT_SSH_VARIANT": "ssh",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOW_PROTOCOL": "none",
    }


# ---- where it may go -------------------------------------------------------------------------------------------------


async def resolved(url: GitUrl, access: Access) -> Remote:
    """``url`` as a remote, its name looked up and its addresses checked.

    Raises:
        BadManifest: it leads where it may not.
        SourceUnavailable: its name cannot be looked up.
    """
    if url.scheme == "file":
        return _remote(url, [], access)
    from skillbus.skills.quiet import in_own_thread  # a name server that hangs is not waited for

    return _remote(url, await in_own_thread(lambda: _looked_up(url.host), "skills.git"), access)


def resolved_in_child(url: GitUrl, access: Access) -> Remote:
    """As ``resolved``, where nobody waits for anything else.

    Raises:
        BadManifest, SourceUnavailable: as ``resolved``.
    """
    return _remote(url, [] if url.scheme == "file" else _looked_up(url.host), access)


def _looked_up(host: str) -> list[str]:
    """The addresses of ``host``, each once; none if nobody knows it."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def _remote(url: GitUrl, addresses: list[str], access: Access) -> Remote:
    settings = {f"remote.{REMOTE}.url": url.remote}
    if url.scheme == "file":
        return Remote(url, settings, {}, ())
    trust = access.web.trust
    if url.scheme == "ssh":
        # A name that DNS does not know may be one of the operator's ~/.ssh/config.
        names = {url.host, f"{url.host}:{url.port or 22}"}
        if trust.local_hosts.isdisjoint(names) and any(map(is_inside, addresses)):
            raise BadManifest(f"{url.shown} leads to this machine or its own link: see SKILLBUS_SKILLS_LOCAL_HOSTS")
        return Remote(url, settings, {}, ())
    route = Route(url.remote, trust, own=False)
    route.check(addresses)
    if not addresses:
        if not any(name in os.environ for name in _PROXIES[:6]):
            raise SourceUnavailable(f"{url.shown}: the name {url.host} cannot be resolved: check it, and DNS")
        route.check_name()
    elif url.host not in addresses:
        pins = ",".join(f"[{one.partition('%')[0]}]" if ":" in one else one for one in addresses)
        settings["http.curloptResolve"] = f"{url.host}:{route.place.port}:{pins}"
    if not route.gets_token:
        return Remote(url, settings, {}, ())
    login = base64.b64encode(f"x-access-token:{trust.token}".encode()).decode()
    header = {f"http.{url.scheme}://{route.place.authority}/.extraHeader": f"Authorization: Basic {login}"}
    return Remote(url, settings, header, (str(trust.token), login))


# ---- in the pod's process --------------------------------------------------------------------------------------------


async def ask(remote: Remote, arguments: Sequence[str], limit_s: float) -> tuple[int, bytes]:
    """Run a git command without a repository. When this returns, or is cancelled, none of its processes runs any more.

    Returns:
        How it ended, and its output, of which no more than 64 KiB is kept.

    Raises:
        SourceUnavailable: it failed otherwise than by 2, which is a command's own word; or took too long.
    """
    from skillbus.skills.quiet import to_the_end  # only in the pod's process, which has it: it brings much along

    asking = _Asking(remote, arguments, limit_s)
    code, out, said = await to_the_end(asking.run(), asking.kill)
    if code not in {0, 2}:
        raise remote.failure(said)
    return code, out


class _Asking:
    """One git command of the pod's process, in a session of its own."""

    def __init__(self, remote: Remote, arguments: Sequence[str], limit_s: float) -> None:
        self._remote = remote
        self._arguments = arguments
        self._limit_s = limit_s
        self._process: Process | None = None
        self._killed = False
        self._late = False

    def kill(self) -> None:
        """End it, whenever it starts."""
        self._killed = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _give_up(self) -> None:
        self._late = True
        self.kill()

    async def run(self) -> tuple[int, bytes, bytes]:
        command = ["sh", "-c", _LAUNCH, "sh", "/dev/null", *self._remote.arguments("/dev/null"), *self._arguments]
        self._process = process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd="/",
            env=self._remote.environment(),
            start_new_session=True,
        )
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 - started with pipes
        if self._killed:
            self.kill()
        late = asyncio.get_running_loop().call_later(self._limit_s, self._give_up)
        try:
            # Both end when all who could write are gone: git, and what it started.
            out, said = await asyncio.gather(_some(process.stdout), _some(process.stderr))
            code = await process.wait()
        finally:
            late.cancel()
            self.kill()
            process.stdin.close()
            with suppress(OSError):
                await process.stdin.wait_closed()
        if self._late:
            raise SourceUnavailable(
                f"{self._remote.url.shown} gave no answer in {self._limit_s:g} s: it will be tried again"
            )
        return code, out, said


async def _some(stream: asyncio.StreamReader) -> bytes:
    """The first of what comes, until nothing more comes."""
    kept = b""
    while chunk := await stream.read(_OUTPUT_BYTES):
        kept += chunk[: _OUTPUT_BYTES - len(kept)]
    return kept


# ---- in the child ----------------------------------------------------------------------------------------------------


def run(
    remote: Remote, scratch: int, git_dir: str, arguments: Sequence[str], look: Callable[[], None], stdin: str
) -> bytes | None:
    """Run a git command on a repository, in this process' own group.

    Args:
        scratch: the open folder in which git runs: by descriptor, so that nobody can lead it to another.
        git_dir: the repository's name in it.
        look: called now and then; what it raises ends the command.
        stdin: the path, in the scratch folder or absolute, of the file that git reads.

    Returns:
        None if it went well, else its complaint.
    """
    process = Popen(
        ["sh", "-c", _LAUNCH, "sh", stdin, *remote.arguments(git_dir), *arguments],
        stdin=PIPE,
        stdout=DEVNULL,
        stderr=PIPE,
        cwd=inside(scratch),
        env=remote.environment(),
    )
    assert process.stderr is not None and process.stdin is not None  # noqa: S101, PT018 - started with pipes
    try:
        said = _heard(process.stderr, look)
        return said if process.wait() else None
    finally:
        _end(process)
        process.stdin.close()
        process.stderr.close()


def inside(folder: int) -> str:
    """The open folder, as what a new process is to begin in."""
    return f"/proc/self/fd/{folder}"


def _heard(stream: IO[bytes], look: Callable[[], None]) -> bytes:
    kept, looked_at = b"", boottime_s()
    while True:
        ready, _, _ = select.select([stream], [], [], _LOOK_S)
        if boottime_s() - looked_at >= _LOOK_S:
            look()
            looked_at = boottime_s()
        if ready:
            chunk = os.read(stream.fileno(), _OUTPUT_BYTES)
            if not chunk:
                return kept
            kept += chunk[: _OUTPUT_BYTES - len(kept)]


def _end(process: Popen[bytes]) -> None:
    """Kill it with all that it started. The group is ours too, and so cannot be killed as one."""
    while process.poll() is None:
        for pid in [*_below(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _below(pid: int) -> list[int]:
    """Every descendant of ``pid``, the youngest first."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed
        if name.isdigit():
            with suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found, new = [pid], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found[:0:-1]

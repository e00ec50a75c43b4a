"""The dead man's handle of a program: a small process between the pod and what it runs (docs/protocol.md §3.10).

Why it exists: a pod can be SIGKILLed, frozen or cut off, and its program must end all the same, with every process it
has started, however far they have run from their parent. Nobody but another process can see to that. The guard is the
subreaper of all of them: an orphan becomes its child, so *no child left* means *no descendant left*. It kills them all
when the socket to the pod closes, when the pod's lease is over, and when the grace of a stop is over.

It is run by its path, with ``python -I -S``, and imports a handful of standard modules: it starts fast, and nothing
that a user installs can break it. In a session of its own, so that a terminal's Ctrl-C reaches the pod alone. What it
is to run comes over the socket and not as arguments, so that ``pkill -f the-program`` does not find the guard. The
socket is its standard input; the words are lines of JSON:

    to the guard   {"run": [argv], "grace": s, "lease": t}   start it, if t is still to come
                   {"lease": t}         the pod may act until t, seconds on the boot-time clock
                   {"stop": s}          SIGTERM to all; what is left after s seconds is killed
    to the pod     {"ready": true}      now ask the checkpoint, and say run
                   {"began": pid}       the program runs; or it cannot be started: {"refused": errno}
                   {"exited": n}        it ended; -n: by signal n. What it left behind gets SIGTERM, and the grace
                   {"lease_over": true} the lease came to its end, so everything is being killed
                   {"quiet": true}      no descendant is left. Never said without proof

What it deliberately does not do: reach processes that it is no ancestor of. What a program has another daemon start
(docker, systemd-run, cron) is that daemon's; so is what it starts in a PID namespace that it has joined.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable

_CLOCK_BOOTTIME, _TFD_TIMER_ABSTIME, _WALL = 7, 1, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_NEVER = float("inf")
_SHED = ("HUP", "INT", "QUIT", "USR1", "USR2", "PIPE", "ALRM", "TERM", "TSTP", "TTIN", "TTOU", "XFSZ", "VTALRM", "PROF")
"""Signals that the guard ignores: none of them may take the handle away. The program gets them at their defaults."""
_LOOKS, _GRABS, _REAPED_AT_ONCE, _PACE_LIMIT_S = 10, 1000, 200, 1.0
"""A family that doubles at each look is all found long before ten; one whose members live no longer than a look, never.
What does not die at SIGKILL (it waits for a disk, or is another user's) is tried again once a second."""

_libc = ctypes.CDLL(None, use_errno=True)

Found = dict[int, str]
"""Processes by id, each with its start time, by which an id that was given anew is told from the old one."""

# Processes: used by the pod as well, when its guard was killed.


def all_processes() -> dict[int, tuple[int, str]]:
    """Every process of this machine that can be seen: its parent's id and its start time."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - pathlib is slow to import
    return {pid: stat for pid in pids if (stat := _stat(pid))}


def descendants() -> Found:
    """All that descend from this process, zombies included. One look: a busy family can hide somebody from it."""
    seen = all_processes()
    family: dict[int, list[int]] = {}
    for pid, (parent, _) in seen.items():
        family.setdefault(parent, []).append(pid)
    found: Found = {}
    waiting = [os.getpid()]
    while waiting:
        for pid in family.pop(waiting.pop(), ()):
            found[pid] = seen[pid][1]
            waiting.append(pid)
    return found


def signal_all(found: Found, signum: int) -> None:
    """Send a signal to each, and to nobody who got its id since. Who has ended or is not ours to signal is passed over.

    Zombies are not passed over: one whose first thread has ended still runs in its others.
    """
    for pid, started in found.items():
        try:
            handle = os.pidfd_open(pid)
        except (OSError, AttributeError):
            handle = -1  # Gone, or a kernel without them: then the id must do, looked at right before.
        with contextlib.suppress(OSError):
            if (stat := _stat(pid)) and stat[1] == started:
                os.kill(pid, signum) if handle < 0 else signal.pidfd_send_signal(handle, signum)
        if handle >= 0:
            os.close(handle)


def freeze_and_kill(find: Callable[[], Found]) -> int:
    """SIGSTOP all that ``find`` finds until it finds nobody new, then SIGKILL them. How many.

    Stopped first, because killing makes room: whoever forks faster than we kill would be replaced for ever. A stopped
    process forks no more and still counts against the limit on processes, so each look has fewer to find.
    """
    frozen: Found = {}
    for _ in range(_LOOKS):
        new = {pid: started for pid, started in find().items() if frozen.get(pid) != started}
        if not new:
            break
        signal_all(new, signal.SIGSTOP)
        frozen |= new
    signal_all(frozen, signal.SIGKILL)
    return len(frozen)


def freeze_children(program: int) -> None:
    """SIGSTOP our own children, without a look at anybody else, until no new one shows up.

    For those who run away by forking and ending, over and over: no full look at /proc is fast enough to meet one alive,
    but as orphans they all come by here. All but the program are collected on the way, to keep the list short.
    """
    grabbed: set[int] = set()
    for _ in range(_GRABS):
        new = children() - grabbed
        for pid in sorted(new, reverse=True):
            with contextlib.suppress(PermissionError):
                os.kill(pid, signal.SIGSTOP)
        grabbed |= {pid for pid in new if pid == program or not os.waitpid(pid, os.WNOHANG | _WALL)[0]}
        if not new:
            return


def children() -> set[int]:
    """Our own children, zombies included. Not every kernel has the list; then nobody, and the full look must do."""
    with contextlib.suppress(OSError):
        return {int(pid) for pid in _contents(f"/proc/self/task/{os.getpid()}/children").split()}
    return set()


def _stat(pid: int) -> tuple[int, str] | None:
    """Parent's id and start time of a process (proc_pid_stat(5)); None if it is gone."""
    try:
        # The name comes first, in parentheses, and may hold anything, parentheses too.
        fields = _contents(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return int(fields[1]), fields[19].decode()
    except (OSError, IndexError):
        return None


def _contents(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


class Alarm:
    """Wakes a poll at an instant of the boot-time clock, which poll's own timeout does not follow through a suspend."""

    def __init__(self) -> None:
        self.handle: int = _libc.timerfd_create(_CLOCK_BOOTTIME, os.O_CLOEXEC | os.O_NONBLOCK)
        self.timeout_ms = None if self.handle >= 0 else 250  # A kernel without such timers: poll at a pace.

    def set(self, at_s: float) -> None:
        """Ring at ``at_s``, at once if that is over; infinity: never."""
        at_ns = 0 if at_s == _NEVER else max(1, int(at_s * 1e9))  # Zero switches it off.
        spec = (ctypes.c_long * 4)(0, 0, at_ns // 10**9, at_ns % 10**9)
        _libc.timerfd_settime(self.handle, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)


class Guard:
    """One program from its start until none of its descendants is left."""

    def __init__(self, link: int) -> None:
        self._link = link
        self._unread = b""
        self._alarm = Alarm()
        self._bell, self._ringer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._ringer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        self._poll = select.poll()
        for handle in {link, self._bell, self._alarm.handle} - {-1}:
            self._poll.register(handle, select.POLLIN)
        self._argv: list[str] = []
        self._grace_s = 0.0
        self._lease_at_s = self._kill_at_s = _NEVER
        self._pid, self._exited = 0, False
        self._exec_errors = -1
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        with contextlib.suppress(OSError):  # Where we may: thousands of forks would leave us no processor to act on.
            os.setpriority(os.PRIO_PROCESS, 0, -20)

    def watch(self) -> None:
        """Start the program and watch over it. Returns when whatever is left must be killed at once."""
        self._say(ready=True)
        while True:
            self._alarm.set(min(self._lease_at_s, self._kill_at_s))
            self._poll.poll(self._alarm.timeout_ms)
            _drain(self._bell)
            # The deadline before the renewals: a frozen machine wakes up with some unread, and they are no excuse.
            if self._time_is_up() or not self._hear() or self._time_is_up():
                return
            if not self._pid:
                if self._kill_at_s != _NEVER:
                    return
                if self._argv:
                    self._start()
            self._hear_exec()
            self._reap()
            if self._exited and not self._others():
                return

    def _time_is_up(self) -> bool:
        # On the boot-time clock: a machine that slept through a lease wakes up past it.
        now_s = time.clock_gettime(_CLOCK_BOOTTIME)
        if now_s >= self._lease_at_s:
            self._say(lease_over=True)
        return now_s >= min(self._lease_at_s, self._kill_at_s)

    def _hear(self) -> bool:
        """Take in what the pod has said. False if it is gone."""
        while True:
            try:
                data = os.read(self._link, 65536)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                return False
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                self._obey(json.loads(line))

    def _obey(self, message: dict[str, object]) -> None:
        match message:
            case {"run": list(argv), "grace": int() | float() as grace_s, "lease": int() | float() as until_s}:
                self._argv, self._grace_s, self._lease_at_s = argv, grace_s, until_s
            case {"lease": int() | float() as until_s}:
                self._lease_at_s = until_s
            case {"stop": int() | float() as grace_s}:
                self._stop_within(grace_s)

    def _stop_within(self, grace_s: float) -> None:
        """SIGTERM to all, once, and a deadline, which only ever moves nearer."""
        if self._pid and self._kill_at_s == _NEVER and grace_s > 0:
            found = descendants()
            signal_all(found, signal.SIGTERM)
            signal_all(found, signal.SIGCONT)  # Who is stopped would not see it otherwise.
        self._kill_at_s = min(self._kill_at_s, time.clock_gettime(_CLOCK_BOOTTIME) + grace_s)

    def _start(self) -> None:
        self._exec_errors, errors = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._exec_errors, select.POLLIN)
        guard = os.getpid()
        # Held back until the child has dispositions of its own: a SIGTERM that it inherits as ignored would be lost.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            self._pid = os.fork()
            if not self._pid:
                _become(self._argv, guard, self._niceness, errors)
        except OSError as error:
            os.write(errors, str(error.errno).encode())
            self._kill_at_s = 0.0
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.close(errors)

    def _hear_exec(self) -> None:
        """Whether exec worked. Not waited for: it can hang on a dead file server, and the lease must not."""
        if self._exec_errors < 0:
            return
        try:
            refusal = os.read(self._exec_errors, 16)
        except BlockingIOError:
            return
        self._poll.unregister(self._exec_errors)
        os.close(self._exec_errors)
        self._exec_errors = -1
        self._say(**({"refused": int(refusal)} if refusal else {"began": self._pid}))

    def _reap(self) -> None:
        """Collect who has ended, but not the program: while it is there, nobody can get its id or its group's anew."""
        for _ in range(_REAPED_AT_ONCE):
            if not self._pid or self._exited:
                return
            # None while children run; no ChildProcessError, for the program's own entry is there.
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG | _WALL)
            if ended is None:
                return
            if ended.si_pid != self._pid:
                os.waitpid(ended.si_pid, os.WNOHANG | _WALL)
                continue
            self._exited = True
            self._hear_exec()
            self._say(exited=ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)
            if self._others():
                self._stop_within(self._grace_s)
            return
        os.write(self._ringer, b".")  # Whoever is born and dies faster than that must not keep us from the lease.

    def _others(self) -> Found:
        """Who is there besides the program. Those who have ended are collected, if they are ours by now."""
        found = descendants()
        found.pop(self._pid, None)
        for pid in list(found):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG | _WALL)[0]:
                    del found[pid]
        return found

    def end(self) -> None:
        """Kill until the kernel says that there is no child, and so no descendant; then say so."""
        self._kill_at_s = 0.0
        pace_s = 0.01
        while not self._is_quiet():
            if self._pid:
                # In one step for all who stayed in its group, those included who are being forked this moment.
                with contextlib.suppress(OSError):
                    os.killpg(self._pid, signal.SIGSTOP)
            freeze_children(self._pid)
            freeze_and_kill(descendants)
            select.select((self._bell,), (), (), pace_s)
            _drain(self._bell)
            pace_s = min(2 * pace_s, _PACE_LIMIT_S)
        self._say(quiet=True)

    def _is_quiet(self) -> bool:
        """Whether nobody is left. Then the program's zombie goes last, and the kernel is asked."""
        self._reap()
        if self._others() or (self._pid and not self._exited) or children() - {self._pid}:
            return False
        self._pid = 0
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG | _WALL)[0]:
                ...
            return False
        return not descendants()

    def _say(self, **message: object) -> None:
        # To a pod that is gone, or frozen for so long that nothing fits any more: it will see the end.
        with contextlib.suppress(OSError):
            os.write(self._link, json.dumps(message).encode() + b"\n")


def _become(argv: list[str], guard: int, niceness: int, errors: int) -> None:
    """In the forked child: become the program, and never return. It dies with the guard, should somebody kill that."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == guard:  # Or it died before we asked.
            os.setsid()
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, niceness)
            for name in _SHED:
                signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvpe(argv[0], argv, _environment())  # noqa: S606 - it is to be no shell
    except OSError as error:
        os.write(errors, str(error.errno or errno.EINVAL).encode())
    finally:
        os._exit(127)


def _environment() -> dict[bytes, bytes]:
    """The environment as it was given. In a C locale Python adds LC_CTYPE to its own: not for the program to see."""
    pairs = (entry.partition(b"=") for entry in _contents("/proc/self/environ").split(b"\0"))
    return {name: value for name, is_pair, value in pairs if is_pair}


def _take_link() -> int:
    """Move the socket away from standard input, out of the program's reach, and see that 0, 1 and 2 are open."""
    link = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    os.set_blocking(link, False)
    os.close(0)
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    return link


def _drain(handle: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(handle, 4096):
            pass


def main() -> None:
    """Guard the program that the pod names over standard input."""
    link = _take_link()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # A pod's thread may have blocked some; that would be inherited.
    for name in _SHED:
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit(f"skillbus guard: no subreaper: {os.strerror(ctypes.get_errno())}")
    guard = Guard(link)
    try:
        guard.watch()
    finally:
        guard.end()


if __name__ == "__main__":
    main()

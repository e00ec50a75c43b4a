"""Bearer tokens: who may do what here, from a file that holds their hashes alone.

    # NAME   ROLE      sha256:HASH   [SCOPE …]      made by: skillbus token NAME --role ROLE
    oncall   operator  sha256:9f86…
    alerts   bot       sha256:60303…  group:eu

A token is 256 random bits, so one round of sha256 hides it as well as a slow hash would, and costs a kill nothing
(docs/decisions/console-tokens.md). The file, or every file of a directory (a mounted secret), is looked at each second
and read again when it changes. A line that cannot be used is left out and told; the others stand. A file that cannot be
read any more changes nothing: an accident with it must not take the kill away. Emptying it does.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from skillbus.clock import Clock
from skillbus.core.scope import NAME, Fleet, Scope
from skillbus.core.text import harmless
from skillbus.errors import BadSettings

_log = logging.getLogger(__name__)

_EVERY_S = 1.0
_FILE_LIMIT = 1024 * 1024
_TOKEN_LIMIT = 512
"""Characters of what is hashed at all."""


class Power(StrEnum):
    """What somebody may do here."""

    SEE = "see"
    KILL = "kill"
    DRILL = "drill"
    SYNC = "sync"
    RESET = "reset"


class Role(StrEnum):
    """What a token is for."""

    VIEWER = "viewer"
    BOT = "bot"
    OPERATOR = "operator"
    ADMIN = "admin"


_OPERATOR = frozenset({Power.SEE, Power.KILL, Power.DRILL, Power.SYNC})
POWERS: dict[Role, frozenset[Power]] = {
    Role.VIEWER: frozenset({Power.SEE}),
    Role.BOT: frozenset({Power.KILL}),
    Role.OPERATOR: _OPERATOR,
    Role.ADMIN: _OPERATOR | {Power.RESET},
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who was recognised.

    Attributes:
        scopes: labels of the only scopes that they may order about; empty: all.
        token_hash: by which it is seen whether the token, ours or the hub's, still holds; empty: nobody's, who looks on
            at loopback.
    """

    name: str
    role: Role
    scopes: tuple[str, ...] = ()
    token_hash: str = ""

    def may(self, power: Power) -> bool:
        """Whether their role has that power."""
        return power in POWERS[self.role]

    def reaches(self, scope: Scope) -> bool:
        """Whether their token is for that scope. One that is bound to a group does not reach the fleet."""
        return not self.scopes or scope.label in self.scopes


ANYBODY = Principal("anybody", Role.VIEWER)
"""Who looks on at loopback, while no file of tokens is given."""


def new_token() -> str:
    """A token that nobody has: 256 bits, and a prefix by which it is found where it does not belong."""
    return f"skillbus_{secrets.token_urlsafe(32)}"


def hash_of(token: str) -> str:
    """As the file holds it, without ``sha256:``."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def line_of(name: str, role: str, token: str, scopes: tuple[str, ...]) -> str:
    """The line for the file."""
    return " ".join([name, role, f"sha256:{hash_of(token)}", *scopes])


def entry_of(line: str) -> Principal:
    """The entry in one line of the file.

    Raises:
        BadSettings: it is none.
    """
    name, role, digest, *scopes = [*line.split(), "", "", ""][: max(3, len(line.split()))]
    if not NAME.fullmatch(name):
        raise BadSettings(f"{name[:80]!r} cannot be the name of a token: use 1 to 64 of A-Z a-z 0-9 . _ -")
    if role not in set(Role):
        raise BadSettings(f"{role[:40]!r} is no role: say one of {', '.join(Role)}")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise BadSettings(f"the token of {name} is given as sha256: and 64 hex digits: skillbus token makes the line")
    for scope in scopes:
        if scope != "fleet" and Fleet("x").of_suffix(f":{scope}") is None:
            raise BadSettings(f"{scope[:80]!r} is no scope: say fleet, group:NAME or pod:ID")
    return Principal(name, Role(role), tuple(scopes), digest.removeprefix("sha256:"))


class Tokens:
    """The entries in force."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self.path = path
        self.trouble = ""
        self._clock = clock
        self._entries: tuple[Principal, ...] = ()
        self._stamp: object = None

    def find(self, token: str) -> Principal | None:
        """Whose token this is. Takes as long whether, and whosesoever, it is."""
        digest, found = hash_of(token[:_TOKEN_LIMIT]), None
        for entry in self._entries:
            if hmac.compare_digest(digest, entry.token_hash):
                found = entry
        return found

    def holds(self, principal: Principal) -> bool:
        """Whether that entry is still in force, word for word."""
        return any(entry == principal for entry in self._entries)

    async def run(self) -> None:
        """Follow the file for ever."""
        while True:
            await self._clock.sleep(_EVERY_S)
            await asyncio.to_thread(self.read)

    def read(self) -> None:
        """Read it again if it has changed. What cannot be used is told once."""
        if self.path is None:
            return
        try:
            files = sorted(_files(self.path))
            stamp = [(name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name in files if (stat := name.stat())]
            if stamp == self._stamp:
                return
            texts = [(name, _text(name)) for name in files]
        except (OSError, UnicodeDecodeError) as error:
            self._tell(f"{self.path} cannot be read ({error}): the tokens stay as they were")
            return
        entries, complaints = _parsed(texts)
        self._stamp, self._entries = stamp, entries
        self._tell("; ".join(complaints))

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            _log.warning("tokens: %s", harmless(trouble, 1000))
        self.trouble = trouble

    def demand(self) -> None:
        """At the start, a file that is given must be there.

        Raises:
            BadSettings: it cannot be read, or a line of it cannot be used.
        """
        self.read()
        if self.trouble:
            raise BadSettings(f"SKILLBUS_CONSOLE_TOKENS: {self.trouble}")


def _files(path: Path) -> Iterator[Path]:
    """The file itself; of a directory, every file that is not hidden (a mounted secret keeps its versions so)."""
    if path.is_dir():
        yield from (file for file in path.iterdir() if not file.name.startswith(".") and file.is_file())
    else:
        yield path


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_FILE_LIMIT).decode()


def _parsed(texts: list[tuple[Path, str]]) -> tuple[tuple[Principal, ...], list[str]]:
    entries, complaints = [], []
    for path, text in texts:
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].strip()
            try:
                entries += [entry_of(words)] if words else []
            except BadSettings as error:
                complaints.append(f"{path.name}, line {number}: {error}")
    return tuple(entries), complaints

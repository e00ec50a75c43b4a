"""What credentials could do to a record: asked of the server, or tried where nothing is and nothing can come of it.

ACL DRYRUN needs a permission that no role of ours has. Without it each command is sent for the record and the epoch of
a pod that does not exist, in a form that changes nothing even where it is allowed: ``SET … XX`` sets no absent key, a
RENAME finds none, RESTORE is given nonsense. What could not be harmless (FLUSHALL, PUBLISH) is not tried.
"""

from __future__ import annotations

import secrets
from typing import Any

from skillbus.bus.connect import Endpoint
from skillbus.bus.probe import Probe, Unseen, endpoint_at
from skillbus.control.facts import Entry, Means, Powers
from skillbus.core.scope import Fleet, Scope

Command = tuple[str | int, ...]


def nobody(fleet: Fleet) -> Scope:
    """The scope of a pod that does not exist."""
    return fleet.pod(f"doctor-{secrets.token_hex(8)}")


def _undoings(scope: Scope) -> dict[str, Command]:
    """Each command that could remove or age a record, or move an epoch; harmless where the keys are absent."""
    record, epoch = scope.killed_key, scope.epoch_key
    return {
        "DEL": ("DEL", record),
        "UNLINK": ("UNLINK", record),
        "GETDEL": ("GETDEL", record),
        "SET": ("SET", record, "x", "XX"),
        "EXPIRE": ("EXPIRE", record, 1),
        "PEXPIRE": ("PEXPIRE", record, 1),
        "EXPIREAT": ("EXPIREAT", record, 1),
        "GETEX": ("GETEX", record, "EX", 1),
        "RENAME": ("RENAME", record, f"{record}-"),
        "RENAMENX": ("RENAMENX", record, f"{record}-"),
        "MOVE": ("MOVE", record, 1),
        "RESTORE": ("RESTORE", record, 0, "x", "REPLACE"),
        "SET epoch": ("SET", epoch, 1, "XX"),
        "DEL epoch": ("DEL", epoch),
        "EXPIRE epoch": ("EXPIRE", epoch, 1),
    }


_WHOLESALE: dict[str, Command] = {
    "FLUSHDB": ("FLUSHDB",),
    "FLUSHALL": ("FLUSHALL",),
    "SWAPDB": ("SWAPDB", 0, 1),
    "CONFIG SET": ("CONFIG", "SET", "maxmemory", 1),
    "REPLICAOF": ("REPLICAOF", "127.0.0.1", 1),
    "SHUTDOWN": ("SHUTDOWN",),
    "ACL SETUSER": ("ACL", "SETUSER", "default", "on"),
    "DEBUG": ("DEBUG", "RELOAD"),
}
"""Only ever asked, never tried."""


async def powers_of(probe: Probe, fleet: Fleet, user: str | Unseen) -> Powers | Unseen:
    """What ``user``, who is us, may do to records."""
    if isinstance(user, str):
        asked = await _asked(probe, fleet, user)
        if asked is not None:
            return asked
    commands = _undoings(nobody(fleet))
    answers = dict(zip(commands, await probe.ask_all(list(commands.values())), strict=True))
    silent = next((one for one in answers.values() if isinstance(one, Unseen) and not _is_verdict(one)), None)
    if silent is not None:
        return silent
    undo = {name: not (isinstance(one, Unseen) and one.denied) for name, one in answers.items()}
    return Powers(Means.TRIED, undo, Unseen("ACL DRYRUN is refused", denied=True))


async def _asked(probe: Probe, fleet: Fleet, user: str) -> Powers | None:
    """By ACL DRYRUN, of the fleet's own record; None if that may not be asked."""
    commands = {**_undoings(fleet.scope), **_WHOLESALE, "PUBLISH": ("PUBLISH", fleet.scope.kill_channel, "x")}
    answers = await probe.ask_all([("ACL", "DRYRUN", user, *words) for words in commands.values()])
    if any(isinstance(one, Unseen) and (one.denied or not one.answered or one.needs_login) for one in answers):
        return None
    if all(isinstance(one, Unseen) for one in answers):  # Redis 6 does not know it
        return None
    allowed = {name: one == b"OK" for name, one in zip(commands, answers, strict=True)}
    return Powers(Means.ASKED, {name: yes for name, yes in allowed.items() if name != "PUBLISH"}, allowed["PUBLISH"])


def _is_verdict(answer: Unseen) -> bool:
    """Whether an error is about the command: refused, or let through and then failed (no such key …)."""
    return answer.answered and not answer.needs_login


# -- the stock user ----------------------------------------------------------------------------------------------------


async def entry_of(endpoint: Endpoint, fleet: Fleet, address: str) -> Entry:
    """Whether somebody without a password gets in there, straight, with some password, or from our login by RESET."""
    async with Probe(endpoint_at(endpoint, address, logged_in=False)) as stranger:
        straight = await _can_delete(stranger, fleet)
        if straight is not None:
            return Entry.STRAIGHT if straight else Entry.UNSURE
        for password in ("", secrets.token_urlsafe(24)):
            if not isinstance(await stranger.ask("AUTH", "default", password), Unseen):
                return Entry.BY_ANY_WORD
    async with Probe(endpoint_at(endpoint, address, logged_in=True)) as ours:
        if isinstance(await ours.ask("RESET"), Unseen):
            return Entry.SHUT
        return Entry.AFTER_RESET if await _can_delete(ours, fleet) else Entry.SHUT


async def _can_delete(probe: Probe, fleet: Fleet) -> bool | None:
    """Whether this connection may delete a record. None: it must log in first, or gets no answer."""
    answer: Any = await probe.ask("DEL", nobody(fleet).killed_key)
    if not isinstance(answer, Unseen):
        return True
    if answer.needs_login or not answer.answered:
        return None
    # A replica refuses the write, not the user. NOPERM and DENIED (protected mode) say nothing of other commands.
    return answer.read_only

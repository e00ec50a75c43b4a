"""Who may do what on Redis: the ACL line of each role of docs/protocol.md §5, and nothing else writes such lines.

One-way by construction: SETNX can set a record and nothing else, so a credential that can stop cannot undo a stop.
Every permission is a selector of Redis 7: a few commands on a few keys or channels. Put in one bag, "EXPIRE, for my own
hash" and "this key, for SETNX" would add up to EXPIRE on the record, which deletes it.

Pure text: it connects to nothing, invents no password and knows none (Redis takes the sha256). What it deliberately
does not do: Redis 6, which has no selectors (docs/acl.md). Commands that only servers newer than 7.0 know are left out
unless asked for, for 7.0 refuses the whole line.

Three traps that the lines avoid, each with its test:
    With ``acl-pubsub-default allchannels`` every user *and every selector* begins with all channels. So each says
    ``resetchannels`` first.
    The channel patterns of one selector do not tell SUBSCRIBE from PUBLISH. So each has a selector of its own, or
    whoever must hear the kill could publish it.
    A command's keys or channels must all lie in one selector. So the scopes of a pod are never spread over two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from skillbus.core.scope import Fleet, Scope, ScopeKind, checked_name
from skillbus.errors import BadSettings

DEFAULT_OFF = "user default off"
"""Belongs to every set. With the stock ``default`` user on, RESET or AUTH walks around all the others."""


class Role(StrEnum):
    """A row of docs/protocol.md §5."""

    POD = "pod"
    TENANT_POD = "tenant-pod"
    BOT = "bot"
    KEEPER = "keeper"
    CONSOLE = "console"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


ABOUT = {
    Role.POD: "hears kills, writes records and its own evidence; undoes nothing, stops by word nobody",
    Role.TENANT_POD: "as pod, but can record the stop of itself alone",
    Role.BOT: "stops any scope; hears nothing, sees records alone, undoes nothing",
    Role.KEEPER: "hears and sees everything, makes kills durable and tells the audit; stops by word nobody",
    Role.CONSOLE: "keeper and operator in one, for skillbus serve with one login; undoes nothing",
    Role.VIEWER: "sees and hears everything, writes nothing",
    Role.OPERATOR: "stops any scope, drills, syncs, sees everything; undoes nothing",
    Role.ADMIN: "an operator who can also reset and arm: a person's, never a program's",
}
"""What each role is for, in words for people."""


@dataclass(frozen=True, slots=True)
class AclUser:
    """One user of a fleet's Redis.

    Attributes:
        name: the ACL user's name. A bot's is also the name of its audit stream.
        password_sha256: of its password, 64 lower-case hex digits.
        pod_id: for pods, the one id it may be; empty: any (one user shared by all). Never empty for a tenant.
        groups: for pods, the groups it may belong to; None: any.
    """

    role: Role
    name: str
    password_sha256: str
    pod_id: str = ""
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        checked_name("user", self.name)
        if self.name == "default":
            raise BadSettings("no role can have the ACL user 'default': it must be off, give another name")
        if not re.fullmatch(r"[0-9a-f]{64}", self.password_sha256):
            raise BadSettings(f"the password of {self.name!r} must be given as its sha256: 64 lower-case hex digits")
        if self.role is Role.TENANT_POD and not self.pod_id:
            raise BadSettings(f"the tenant pod {self.name!r} needs its pod id: a tenant may stop itself alone")
        for kind, names in (("pod", [self.pod_id] if self.pod_id else []), ("group", self.groups or ())):
            for name in names:
                checked_name(kind, name)


def acl_lines(fleet: str, users: Iterable[AclUser], database: int = 0, *, waitaof: bool = False) -> str:
    """The text of an ACL file: ``user default off``, then a line for each user."""
    return "\n".join([DEFAULT_OFF, *(acl_line(fleet, user, database, waitaof=waitaof) for user in users)]) + "\n"


def as_setuser(line: str) -> str:
    """The same as a command, for ``redis-cli`` to read from its standard input."""
    return f"ACL SETUSER {line.removeprefix('user ')}"


def acl_line(fleet: str, user: AclUser, database: int = 0, *, waitaof: bool = False) -> str:
    """One line of an ACL file. Its words after the second are also what ``ACL SETUSER <name>`` takes.

    Args:
        database: the number of the database that the keys live in. Other than 0, SELECT is granted.
        waitaof: whether who may WAIT may also WAITAOF, which is unknown before Redis 7.2.

    Raises:
        BadSettings: the fleet's name cannot be one.
    """
    names = Fleet(fleet)
    commands, selectors = _GRANTS[user.role](names, user)
    newer = ["waitaof"] if waitaof and "wait" in commands else []
    root = [*_EVERYBODY, *commands, *newer, *(["select"] if database else [])]
    rules = ["reset", "on", f"#{user.password_sha256}", "resetchannels", "-@all", *(f"+{name}" for name in root)]
    return " ".join(["user", user.name, *rules, *selectors])


Grant = tuple[Sequence[str], Sequence[str]]
"""Commands without keys and channels; and selectors."""

# AUTH, HELLO, QUIT and RESET need no permission on Redis 7.
_EVERYBODY = ("ping", "time", "role", "client|setname", "unsubscribe")
_TRANSACTION = ("multi", "exec", "discard", "unwatch")
# Two more than reading needs, for doctor: how many connections hear a channel, and who one is.
_LOOK_AROUND = ("info", "scan", "punsubscribe", "pubsub|numsub", "acl|whoami")


def _pod(fleet: Fleet, user: AclUser) -> Grant:
    scopes = _scopes_of(fleet, user)
    return _any_pod(fleet, user, stops=scopes)


def _tenant_pod(fleet: Fleet, user: AclUser) -> Grant:
    return _any_pod(fleet, user, stops=[fleet.pod(user.pod_id)])


def _any_pod(fleet: Fleet, user: AclUser, stops: Sequence[Scope]) -> Grant:
    scopes = _scopes_of(fleet, user)
    own = user.pod_id or "*"
    echo = fleet.echo_channel(own)
    return (*_TRANSACTION, "acl|whoami"), [
        _selector("exists get getrange", reads=_records(scopes)),
        _selector("get watch", reads=_epochs(scopes)),
        _selector("setnx", writes=_records(stops)),
        _selector("hset hdel hlen hgetall expire", owns=[fleet.pod_key(own)]),
        _selector("zadd", writes=[fleet.roster_key]),
        _selector("exists setnx", writes=[fleet.skills_key("*")]),
        _selector("subscribe", channels=[*_kills(scopes), fleet.drill_channel, fleet.sync_channel, echo]),
        _selector("publish", channels=[echo, fleet.events_channel]),
    ]


def _bot(fleet: Fleet, user: AclUser) -> Grant:
    scopes = _all_scopes(fleet)
    return ("wait",), [
        _selector("exists get getrange", reads=_records(scopes)),
        _selector("get", reads=_epochs(scopes)),
        _selector("setnx", writes=_records(scopes)),
        _selector("xadd", writes=[fleet.bot_audit_key(user.name)]),
        _selector("publish", channels=_kills(scopes)),
    ]


def _keeper(fleet: Fleet, user: AclUser) -> Grant:
    scopes = _all_scopes(fleet)
    return (*_TRANSACTION, *_LOOK_AROUND, "wait"), [
        _reads_all(fleet),
        _hears_all(fleet),
        # A pattern is granted by its own text alone: that of everything does not cover it.
        _selector("psubscribe", channels=[fleet.kill_pattern]),
        # The audit, so that of two keepers that hear one message one tells of it.
        _selector("watch", reads=[*_epochs(scopes), fleet.audit_key]),
        _selector("setnx", writes=_records(scopes)),
        _selector("xadd", writes=[fleet.audit_key]),
        _selector("zrem zremrangebyscore", writes=[fleet.roster_key]),
        _selector("publish", channels=[fleet.keeper_echo_channel("*")]),
    ]


def _console(fleet: Fleet, user: AclUser) -> Grant:
    commands, selectors = _keeper(fleet, user)
    return commands, [*selectors, _selector("publish", channels=_spoken(fleet))]


def _viewer(fleet: Fleet, user: AclUser) -> Grant:
    return _LOOK_AROUND, [_reads_all(fleet), _hears_all(fleet)]


def _operator(fleet: Fleet, user: AclUser) -> Grant:
    scopes = _all_scopes(fleet)
    return (*_LOOK_AROUND, "wait"), [
        _reads_all(fleet),
        _hears_all(fleet),
        _selector("setnx", writes=_records(scopes)),
        _selector("xadd", writes=[fleet.audit_key]),
        _selector("publish", channels=_spoken(fleet)),
    ]


def _admin(fleet: Fleet, user: AclUser) -> Grant:
    scopes = _all_scopes(fleet)
    commands, selectors = _operator(fleet, user)
    return (*commands, *_TRANSACTION), [
        *selectors,
        _selector("watch", reads=[*_records(scopes), *_epochs(scopes), fleet.audit_key, f"{fleet.audit_key}:bot:*"]),
        _selector("del", writes=_records(scopes)),
        _selector("set setnx", owns=_epochs(scopes)),
        _selector("zrem zremrangebyscore", writes=[fleet.roster_key]),
    ]


_GRANTS = {
    Role.POD: _pod,
    Role.TENANT_POD: _tenant_pod,
    Role.BOT: _bot,
    Role.KEEPER: _keeper,
    Role.CONSOLE: _console,
    Role.VIEWER: _viewer,
    Role.OPERATOR: _operator,
    Role.ADMIN: _admin,
}


def _spoken(fleet: Fleet) -> list[str]:
    """What an operator says: kills, drills, syncs, and hints."""
    return [*_kills(_all_scopes(fleet)), fleet.drill_channel, fleet.sync_channel, fleet.events_channel]


def _reads_all(fleet: Fleet) -> str:
    commands = (
        "get getrange strlen exists type ttl hgetall hget hlen zrange zrangebyscore zcard zscore xrange xrevrange xlen"
    )
    return _selector(commands, reads=[f"{fleet.roster_key.removesuffix('roster')}*"])


def _hears_all(fleet: Fleet) -> str:
    return _selector("subscribe psubscribe", channels=[f"{fleet.events_channel.removesuffix('events')}*"])


def _selector(
    commands: str,
    *,
    reads: Iterable[str] = (),
    writes: Iterable[str] = (),
    owns: Iterable[str] = (),
    channels: Iterable[str] = (),
) -> str:
    words = [
        "resetchannels",
        *(f"+{name}" for name in commands.split()),
        *(f"%R~{key}" for key in reads),
        *(f"%W~{key}" for key in writes),
        *(f"~{key}" for key in owns),
        *(f"&{channel}" for channel in channels),
    ]
    return f"({' '.join(words)})"


def _all_scopes(fleet: Fleet) -> list[Scope]:
    """Every scope of a fleet, as patterns: ``*`` is no name, so it cannot be mistaken for one."""
    return [fleet.scope, Scope(fleet.name, ScopeKind.GROUP, "*"), Scope(fleet.name, ScopeKind.POD, "*")]


def _scopes_of(fleet: Fleet, user: AclUser) -> list[Scope]:
    everything = _all_scopes(fleet)
    groups = everything[1:2] if user.groups is None else [fleet.group(name) for name in user.groups]
    return [fleet.scope, *groups, fleet.pod(user.pod_id) if user.pod_id else everything[2]]


def _records(scopes: Iterable[Scope]) -> list[str]:
    return [scope.killed_key for scope in scopes]


def _epochs(scopes: Iterable[Scope]) -> list[str]:
    return [scope.epoch_key for scope in scopes]


def _kills(scopes: Iterable[Scope]) -> list[str]:
    return [scope.kill_channel for scope in scopes]

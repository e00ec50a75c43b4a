"""``skillbus acl``: ready ACL lines for Redis 7 and newer. It asks no Redis.

The lines go to stdout and nothing else does, so that they can be piped; what they are for, and passwords that were made
here, go to stderr. A password is never an argument, for arguments can be read by everybody on the machine.
"""

from __future__ import annotations

import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skillbus.cli.options import FleetOption, OutputOption, RedisOption, settings_for
from skillbus.control.acl import ABOUT, DEFAULT_OFF, AclUser, Role, acl_line, as_setuser
from skillbus.core.scope import checked_name
from skillbus.errors import BadSettings, DiskRefused
from skillbus.output import Output, print_json, say, spoken

if TYPE_CHECKING:
    from skillbus.settings import Settings


class Form(StrEnum):
    """How the lines are written: for an ACL file, or for ``redis-cli`` to read from its standard input."""

    FILE = "file"
    SETUSER = "setuser"


def acl(
    role: Annotated[list[Role] | None, typer.Option("--role", help="Only this role. May be repeated.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="The user's name, for one role. Default: the role's.")
    ] = None,
    pod_id: Annotated[
        str | None, typer.Option("--pod-id", help="The one id that the pod may bear. Default: any.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="A group the pod may be in. Default: any.")] = None,
    tenant: Annotated[bool, typer.Option("--tenant", help="The pod is a tenant's: it can stop itself alone.")] = False,
    hash_from_stdin: Annotated[
        bool, typer.Option("--hash-from-stdin", help="Read the passwords from stdin, a line for each user.")
    ] = False,
    hash_from: Annotated[
        Path | None, typer.Option("--hash-from", metavar="FILE", help="Read them from this file instead.")
    ] = None,
    generate: Annotated[bool, typer.Option("--generate", help="Make fresh passwords (the default).")] = False,
    passwords_to: Annotated[
        Path | None,
        typer.Option("--passwords-to", metavar="FILE", help="Write made passwords there (0600), not to stderr."),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="For an ACL file, or for redis-cli.")] = Form.FILE,
    waitaof: Annotated[bool, typer.Option("--waitaof", help="Grant WAITAOF too: Redis 7.2 and newer know it.")] = False,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Print ready ACL lines for Redis 7 and newer, the one that switches the user default off first."""
    with spoken("acl", output):
        settings = settings_for(fleet, redis)
        groups = tuple(group) if group else None
        wanted = _wanted(role, pod_id, tenant)
        names = _names(wanted, user, pod_id)
        if sum((hash_from_stdin, hash_from is not None, generate or passwords_to is not None)) > 1:
            raise BadSettings("passwords are either read (--hash-from-stdin, --hash-from) or made (--generate): choose")
        made = not hash_from_stdin and hash_from is None
        passwords = _made(names) if made else _read(names, hash_from)
        users = [
            AclUser(one, name, _sha256(passwords[name]), pod_id=_pod_id_of(one, pod_id), groups=groups)
            for one, name in zip(wanted, names, strict=True)
        ]
        lines = [_line(settings, one, waitaof) for one in users]
        if made:
            _hand_over(passwords, passwords_to)
        _print(settings, users, lines, form, output)


def _wanted(asked: list[Role] | None, pod_id: str | None, tenant: bool) -> list[Role]:
    """The roles to print, in the order of the table."""
    roles = set(asked or Role)
    if tenant and Role.POD in roles:
        roles = (roles - {Role.POD}) | {Role.TENANT_POD}
    elif not asked and not pod_id:
        roles.discard(Role.TENANT_POD)
        say("skillbus: no line for tenant-pod: it needs --pod-id, the one id that this tenant may bear")
    return [one for one in Role if one in roles]


def _names(roles: list[Role], user: str | None, pod_id: str | None) -> list[str]:
    """The users' names. Pods with an id of their own have it in theirs, or a second pod's line would replace it."""
    if pod_id is not None:
        checked_name("pod", pod_id)
    if user is not None:
        if len(roles) != 1:
            raise BadSettings("--user names one user: give one --role with it")
        return [user]
    return [f"{one}-{pod_id}" if _pod_id_of(one, pod_id) else str(one) for one in roles]


def _pod_id_of(role: Role, pod_id: str | None) -> str:
    return pod_id or "" if role in (Role.POD, Role.TENANT_POD) else ""


def _line(settings: Settings, user: AclUser, waitaof: bool) -> str:
    from skillbus.wiring import endpoint_of

    return acl_line(settings.bus.fleet, user, endpoint_of(settings.bus).database, waitaof=waitaof)


# -- passwords ---------------------------------------------------------------------------------------------------------


def _made(names: list[str]) -> dict[str, str]:
    import secrets

    return {name: secrets.token_urlsafe(32) for name in names}


def _read(names: list[str], path: Path | None) -> dict[str, str]:
    """One line for each user, in the order in which the lines are printed."""
    try:
        text = _typed(names) if path is None else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"the passwords cannot be read ({type(error).__name__}): give one a line, in UTF-8") from None
    given = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(given) != len(names) or not all(given):
        wanted = f"{len(names)} (for {', '.join(names)})"
        raise BadSettings(f"{len(given)} lines of passwords were given and {wanted} are needed, none of them empty")
    return dict(zip(names, given, strict=True))


def _typed(names: list[str]) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.read()
    from getpass import getpass

    return "\n".join(getpass(f"password of {name}: ", stream=sys.stderr) for name in names)


def _sha256(password: str) -> str:
    import hashlib

    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).hexdigest()


def _hand_over(passwords: dict[str, str], path: Path | None) -> None:
    """Once: nobody, this program included, can find them again in the lines."""
    lines = [f"SKILLBUS_{re.sub('[^A-Z0-9]', '_', name.upper())}_PASSWORD={word}" for name, word in passwords.items()]
    if path is None:
        say("\n".join(["passwords, shown this once:", *lines]))
        return
    try:
        # O_EXCL, and the mode from the beginning: there is no moment at which others could open it.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except FileExistsError:
        raise BadSettings(f"{path} exists, and passwords in it may be in use: name another file") from None
    except OSError as error:
        raise DiskRefused(f"{path} cannot be written ({error.strerror}): name another file") from None
    say(f"skillbus: passwords are in {path}, which only you can read")


# -- printing ----------------------------------------------------------------------------------------------------------


def _print(settings: Settings, users: list[AclUser], lines: list[str], form: Form, output: Output) -> None:
    written = [DEFAULT_OFF, *lines] if form is Form.FILE else [as_setuser(line) for line in (DEFAULT_OFF, *lines)]
    say(f"default: off, or RESET and AUTH walk around all the others (fleet '{settings.bus.fleet}', Redis 7 or newer)")
    for one in users:
        say(f"{one.name}: {ABOUT[one.role]}")
    if output is Output.JSON:
        rows = zip(users, written[1:], strict=True)
        told = [{"role": u.role, "user": u.name, "about": ABOUT[u.role], "line": line} for u, line in rows]
        print_json("acl", {"fleet": settings.bus.fleet, "format": form, "default": written[0], "users": told})
        return
    sys.stdout.write("\n".join(written) + "\n")
    sys.stdout.flush()
    if form is Form.SETUSER:
        say(
            "feed all of it to ONE redis-cli (skillbus acl --format setuser | redis-cli …), "
            "then ACL SAVE or CONFIG REWRITE"
        )
    say("users are not replicated: give the same lines to every replica, and let skillbus doctor look")

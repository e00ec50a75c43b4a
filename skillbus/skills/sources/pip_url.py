"""``git+https://host/path.git@ref#subdirectory=dir``: pip's way to write a git remote in one url, taken apart. Pure.

Nothing of it may ever be read as an option by git or ssh, so no part begins with a hyphen, and each is made of letters
that mean nothing to either. There is no way to write a password or a query: an argument is seen by every process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from skillbus.core.text import harmless
from skillbus.errors import BadArchive, BadManifest
from skillbus.skills.rules import checked_path, shown_url

SCHEMES = ("https", "http", "ssh", "file")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?|[0-9a-f:.]*:[0-9a-f:.]*", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_NO_REF = re.compile(r"""[\s~^:?*\[\\'"`$&|;<>()]|\.\.|@\{|//|/\.|/$|\.$|\.lock$|^[-/.]""")
"""What git-check-ref-format(1) forbids, and what a shell would look at."""


@dataclass(frozen=True, slots=True)
class GitUrl:
    """A git remote, what of it is wanted, and how it may be shown.

    Attributes:
        host: empty for a folder.
        remote: as git wants it: ``ssh://git@host/path.git``.
        shown: without the user: ``ssh://host/path.git``.
        ref: a branch, a tag, a commit; empty for the default branch.
        subpath: the folder in it; empty for the top.
    """

    scheme: str
    host: str
    port: int | None
    remote: str
    shown: str
    ref: str
    subpath: str


def git_url(url: str) -> GitUrl:
    """``url`` taken apart.

    Raises:
        BadManifest: it cannot be used; with what to write instead.
    """
    shown = shown_url(url)
    try:
        parts = urlsplit(url[len("git+") :])
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise BadManifest(f"{shown}: it cannot be read as a url") from None
    if parts.scheme not in SCHEMES:
        raise BadManifest(f"{shown}: git urls are git+https://, git+ssh://git@host/path.git, or git+file:///path")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise BadManifest(f"{shown}: write it in ASCII, with %20 for a space")
    if "?" in url:
        raise BadManifest(f"{shown}: a git url may hold no query: for a secret set SKILLBUS_SKILLS_TOKEN")
    user, host = _user(parts, shown), _host(parts, shown)
    path, ref = _path_and_ref(parts.path, shown)
    named = f"[{host}]" if ":" in host else host
    return GitUrl(
        parts.scheme,
        host,
        parts.port,
        f"{parts.scheme}://{user}{named}{port}{path}",
        f"{parts.scheme}://{named}{port}{path}",
        ref,
        subdirectory(parts.fragment, shown),
    )


def subdirectory(fragment: str, shown: str) -> str:
    """The path in ``subdirectory=path``; empty if there is no fragment.

    Raises:
        BadManifest: it is something else.
    """
    if not fragment:
        return ""
    key, _, value = fragment.partition("=")
    subpath = unquote(value).strip("/")
    if key != "subdirectory" or not subpath or "&" in value:
        raise BadManifest(f"{shown}: what follows '#' must be 'subdirectory=path'")
    try:
        return checked_path(subpath)
    except BadArchive as error:
        raise BadManifest(f"{shown}: what follows '#subdirectory=' cannot be used: {error}") from None


def _user(parts: SplitResult, shown: str) -> str:
    if parts.scheme == "ssh" and parts.password is None and parts.username is not None:
        if not _USER.fullmatch(parts.username):
            raise BadManifest(f"{shown}: its user is none that ssh is given: write git+ssh://git@host/path.git")
        return f"{parts.username}@"
    if "@" in parts.netloc:
        raise BadManifest(f"{shown}: it may hold no user or password: set SKILLBUS_SKILLS_TOKEN and _TOKEN_HOSTS")
    return ""


def _host(parts: SplitResult, shown: str) -> str:
    host = parts.hostname or ""
    if parts.scheme == "file":
        if parts.netloc:
            raise BadManifest(f"{shown}: a folder's url has three slashes: git+file:///path/to/repo")
    elif not _HOST.fullmatch(host):
        raise BadManifest(f"{shown}: it names no host that can be asked: write git+https://host/path.git")
    return host


def _path_and_ref(path: str, shown: str) -> tuple[str, str]:
    before, at, ref = path.rpartition("@")
    if not at:
        before, ref = path, ""
    if not before.strip("/") or before.startswith("/-"):
        raise BadManifest(f"{shown}: it names no repository: write git+https://host/path.git@ref")
    if at and (not ref or len(ref) > 200 or _NO_REF.search(ref)):
        raise BadManifest(f"{shown}: {harmless(ref, 60)!r} is no branch, tag or commit: write it behind the @")
    return before, ref

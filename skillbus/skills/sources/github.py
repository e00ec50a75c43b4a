"""Repositories on GitHub and its Enterprise servers, by their pages' urls: ``https://github.com/org/repo/tree/main/a``.

    commits/{ref} (conditional, 40 bytes) -> commit -> git/trees (ids of folders) -> tarball (one for all its skills)

A ref may hold slashes, and a page's url does not say where it ends. The first part is taken for the ref; only if there
is none of that name (422) the next parts are added one by one, at most to three. ``%2F`` in a url ends the guessing:
``tree/feature%2Fx/skills/a``. What was found is carried in the revision's etag, so that the child need not ask again.

A full commit needs no request at all. What GitHub calls ``sha`` in a listing may be the commit that it was asked by,
so the id of the top folder is computed from its entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from skillbus.errors import BadArchive, BadManifest, BadSettings, SourceUnavailable
from skillbus.skills.rules import SKILL_FILE, checked_path
from skillbus.skills.sources.source import Access, Origin, Revision

if TYPE_CHECKING:
    from skillbus.skills.landing import Landing

MAX_REF_PARTS = 3
MAX_LISTING_BYTES = 64 * 1024 * 1024
"""Bytes of a recursive listing. GitHub itself stops at 7 MB; what is bigger is walked folder by folder."""

_HEADERS = {"X-GitHub-Api-Version": "2022-11-28"}
_SHA = "application/vnd.github.sha"
_JSON = "application/vnd.github+json"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
_DOWNLOADS = frozenset({"archive", "raw", "releases", "suites", "tarball", "zipball"})
"""Pages that are files, so archives like any other."""

_NOT_THERE = frozenset({404, 409, 422})
_NEEDS = "is it private? Then a token that may read it is needed (SKILLBUS_SKILLS_TOKEN, or GITHUB_TOKEN)"


class GitHubSource:
    """``https://<host>/<owner>/<repo>[.git][/tree|blob/<ref>[/<folder>]]`` for each host in ``access.github``."""

    general = False

    def accepts(self, url: str, access: Access) -> bool:
        """Whether it is a page of a repository, good or bad, and not one of its downloads."""
        host, parts = _split(url)
        return host in access.github and (len(parts) < 3 or parts[2] not in _DOWNLOADS)

    def origin(self, url: str, access: Access) -> Origin:
        """The url taken apart. ``blob/…/SKILL.md`` means the folder that holds it.

        Raises:
            BadManifest: it names no repository, or a page that is neither a folder nor a SKILL.md.
        """
        host, parts = _split(url)
        if "@" in urlsplit(url).netloc:
            raise BadManifest("a url may hold no user or password: set SKILLBUS_SKILLS_TOKEN")
        if urlsplit(url).fragment.startswith("subdirectory="):
            raise BadManifest("a folder of a repository is named by its page: …/tree/<ref>/<folder>, without '#'")
        if len(parts) < 2 or not all(_NAME.fullmatch(part) for part in parts[:2]):
            raise BadManifest(f"{host}: a repository's url is https://{host}/<owner>/<repo>[/tree/<ref>[/<folder>]]")
        owner, repo = parts[0], parts[1].removesuffix(".git") or parts[1]
        ref, subpath = _ref_and_folder(f"{host}/{owner}/{repo}", parts[2:])
        api = f"{access.github[host].rstrip('/')}/repos/{owner}/{repo}"
        fallback = subpath.rpartition("/")[2] or repo
        return Origin("github", f"{host}/{owner}/{repo}@{ref or 'HEAD'}", api, ref, subpath, fallback)

    async def resolve(self, origin: Origin, known: Revision | None, access: Access) -> Revision:
        """The commit at the ref. Costs no request for a full commit, and usually one, conditional, for anything else.

        Raises:
            BadManifest: there is no such ref.
            RateLimited, SourceUnavailable: GitHub says so, or says nothing.
        """
        if _COMMIT.fullmatch(origin.ref):
            return Revision(origin.ref)
        if known is not None and known.etag:
            found = await self._commit(origin, _ref_of(origin, known), known, access)
            if found is not None:
                return found
        for ref in _candidates(origin):
            found = await self._commit(origin, ref, None, access)
            if found is not None:
                return found
        hint = ""
        if origin.subpath:
            hint = "; if the name holds a slash, write it with %2F, as in tree/feature%2Fx/skills/a"
        raise BadManifest(f"{_shown(origin)} has no branch, tag or commit {origin.ref or 'HEAD'!r}: check it{hint}")

    async def _commit(self, origin: Origin, ref: str, known: Revision | None, access: Access) -> Revision | None:
        """The revision at ``ref``; None if there is no such ref."""
        etag = known.etag.rpartition(" ")[2] if known else ""
        told = await access.web.ask(
            f"{origin.url}/commits/{quote(ref or 'HEAD', safe='')}",
            etag=etag,
            accept=_SHA,
            headers=_HEADERS,
            max_bytes=256,
            allowed=_NOT_THERE,
        )
        if known is not None and not told.changed:
            return known
        if told.status == 422:
            return None
        _check_there(origin, told.status)
        commit = told.body.decode("ascii", "replace").strip()
        if not _COMMIT.fullmatch(commit):
            raise SourceUnavailable(f"{_shown(origin)}: the API's answer is no commit: is it GitHub's API, or a login?")
        # A ref holds no space: so the etag's front can say which it was, where that is not plain.
        longer = f"{ref} " if ref != origin.ref else ""
        return Revision(commit, longer + told.etag.replace(" ", ""))

    def trees(
        self, origin: Origin, revision: Revision, subpaths: Sequence[str], access: Access
    ) -> Mapping[str, str] | None:
        """The tree id of each folder that is there: one listing, or a walk where that would be too long."""
        inside = {_inside(origin, revision, subpath): subpath for subpath in subpaths}
        inside.pop(None, None)
        wanted = frozenset(path for path in inside if path is not None)
        listing = _Listing(origin, access)
        found = listing.at_once(revision.id, wanted)
        if found is None:
            found = listing.walked(revision.id, wanted)
        return None if found is None else {inside[path]: tree_id for path, tree_id in found.items()}

    def fetch(self, origin: Origin, revision: Revision, landings: Mapping[str, Landing], access: Access) -> None:
        """One tarball, of exactly that commit, for all of ``landings``."""
        from skillbus.skills.archive import Top, unpack

        placed: dict[str, Landing] = {}
        for subpath, landing in landings.items():
            path = _inside(origin, revision, subpath)
            if path is None:
                ref = _ref_of(origin, revision)
                text = f"is {subpath!r} a folder of {ref!r}, or of another branch? Write the ref's slashes as %2F"
                landing.refuse(BadManifest(f"{_shown(origin)}: {text}"))
            else:
                placed[path] = landing
        if not placed:
            return
        url = f"{origin.url}/tarball/{revision.id}"
        with access.web.get(url, accept=_JSON, headers=_HEADERS, allowed=_NOT_THERE) as answer:
            _check_there(origin, answer.status)
            unpack(answer.chunks(), placed, access.max_archive_bytes, top=Top.ONE)


SOURCE = GitHubSource()


class _Listing(NamedTuple):
    """A commit's folders, as far as they are wanted. Big answers are read, and little of them is kept."""

    origin: Origin
    access: Access

    def at_once(self, commit: str, wanted: frozenset[str]) -> dict[str, str] | None:
        """The ids by one recursive listing; None if it is not complete."""
        entries = self._entries(f"{commit}?recursive=1", wanted, top="" in wanted)
        if entries is None:
            return None
        found = {path: entries[path][1] for path in wanted if path in entries and entries[path][0] == "40000"}
        return found | ({"": _tree_id(entries)} if "" in wanted else {})

    def walked(self, commit: str, wanted: frozenset[str]) -> dict[str, str] | None:
        """The ids folder by folder, only where something wanted lies; None if even that is not complete."""
        ids = {"": commit}
        found: dict[str, str] = {}
        for folder in sorted({above for path in wanted for above in _above(path)}):
            if folder not in ids:
                continue
            prefix = f"{folder}/" if folder else ""
            names = {p[len(prefix) :].split("/", 1)[0] for p in wanted if p and p.startswith(prefix)}
            entries = self._entries(ids[folder], frozenset(names), top=not folder and "" in wanted)
            if entries is None:
                return None
            ids |= {prefix + name: entries[name][1] for name in names & entries.keys() if entries[name][0] == "40000"}
            if not folder and "" in wanted:
                found[""] = _tree_id(entries)
        return found | {path: ids[path] for path in wanted if path and path in ids}

    def _entries(self, tree: str, wanted: frozenset[str], *, top: bool) -> dict[str, tuple[str, str]] | None:
        """Mode and id by path of what is ``wanted``, and with ``top`` of all at the top; None if cut or too long."""
        import json

        url = f"{self.origin.url}/git/trees/{tree}"
        with self.access.web.get(url, accept=_JSON, headers=_HEADERS, allowed=_NOT_THERE) as answer:
            _check_there(self.origin, answer.status)
            raw = answer.read(MAX_LISTING_BYTES)
        if raw is None:
            return None
        found: dict[str, tuple[str, str]] = {}

        def keep(entry: dict[str, Any]) -> Any:
            path = entry.get("path")
            if not isinstance(path, str):
                return entry
            if path in wanted or (top and "/" not in path):
                mode, tree_id = str(entry.get("mode")).lstrip("0"), str(entry.get("sha"))
                if mode.isdecimal() and _COMMIT.fullmatch(tree_id):
                    found[path] = mode, tree_id
            return None

        try:
            whole = json.loads(raw, object_hook=keep)
        except (ValueError, RecursionError):
            whole = None
        if not isinstance(whole, dict) or "tree" not in whole:
            raise SourceUnavailable(f"{_shown(self.origin)}: the API's listing cannot be understood")
        return None if whole.get("truncated") else found


def _tree_id(entries: Mapping[str, tuple[str, str]]) -> str:
    """The id that git gives to a folder with ``entries`` (mode and id by name)."""
    ordered = sorted((name.encode() + (b"/" if mode == "40000" else b""), name) for name, (mode, _) in entries.items())
    body = b"".join(
        f"{entries[name][0]} {name}".encode() + b"\0" + bytes.fromhex(entries[name][1])
        for _, name in ordered
        if "/" not in name
    )
    return sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def _above(path: str) -> Iterable[str]:
    """Every folder that has to be listed to see ``path``: its parents, and the top for itself."""
    parts = path.split("/")[:-1]
    return ["", *("/".join(parts[: count + 1]) for count in range(len(parts)))]


@lru_cache(maxsize=8)  # asked whether it takes a url, and then for its origin
def _split(url: str) -> tuple[str, list[str]]:
    """Host (with a port that is not https's) and the path's parts, decoded; nothing if it is no url of the web."""
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        return "", []
    if split.scheme not in {"https", "http"} or not split.hostname:
        return "", []
    host = split.hostname.lower().removeprefix("www.") if split.hostname.lower() == "www.github.com" else split.hostname
    default = port in {None, 443 if split.scheme == "https" else 80}
    parts = [unquote(part) for part in split.path.split("/") if part]
    return host.lower() if default else f"{host.lower()}:{port}", parts


def _ref_and_folder(shown: str, page: list[str]) -> tuple[str, str]:
    if not page:
        return "", ""
    if page[0] not in {"tree", "blob"} or len(page) < 2:
        raise BadManifest(f"{shown}/{page[0]} is no folder of a repository: use …/tree/<ref>/<folder>, or its SKILL.md")
    ref, folders = page[1], page[2:]
    if page[0] == "blob" and (not folders or folders.pop() != SKILL_FILE):
        raise BadManifest(f"{shown}: a single file is no skill: name its folder (…/tree/…), or its {SKILL_FILE}")
    if not ref.isprintable() or not ref.isascii() or " " in ref or ".." in ref or len(ref) > 200:
        raise BadManifest(f"{shown}: {ref!r} is no name of a branch or tag")
    try:
        subpath = checked_path("/".join(folders)) if folders else ""
    except BadArchive as error:
        raise BadManifest(f"{shown}: the folder cannot be used: {error}") from None
    return (ref.lower() if re.fullmatch(r"[0-9A-Fa-f]{40}", ref) else ref), subpath


def _candidates(origin: Origin) -> list[str]:
    """What the ref may be: as taken apart, then with more parts. One that holds a slash was written out."""
    if not origin.ref or "/" in origin.ref:
        return [origin.ref]
    parts = [origin.ref, *(part for part in origin.subpath.split("/") if part)]
    return ["/".join(parts[:count]) for count in range(1, min(len(parts), MAX_REF_PARTS) + 1)]


def _ref_of(origin: Origin, revision: Revision) -> str:
    """The ref that the revision was found at."""
    return revision.etag.rpartition(" ")[0] if " " in revision.etag else origin.ref


def _inside(origin: Origin, revision: Revision, subpath: str) -> str | None:
    """``subpath`` less what turned out to be the ref's; None if it does not begin with that."""
    ref = _ref_of(origin, revision)
    extra = ref[len(origin.ref) + 1 :] if ref != origin.ref else ""
    if not extra:
        return subpath
    if subpath == extra:
        return ""
    return subpath[len(extra) + 1 :] if subpath.startswith(f"{extra}/") else None


def _shown(origin: Origin) -> str:
    return origin.place.rpartition("@")[0]


def _check_there(origin: Origin, status: int) -> None:
    """Raise what a status among _NOT_THERE means."""
    if status == 409:
        raise SourceUnavailable(f"{_shown(origin)} is empty: push a commit first")
    if status != 200:
        raise SourceUnavailable(
            f"{_shown(origin)} answered {status}: is the name right, and the commit there? If so, {_NEEDS}"
        )


def github_of(api_url: str | None, server_url: str | None) -> tuple[str, str] | None:
    """The host of the pages and the base of the API of an operator's own GitHub; None if neither url is given.

    One follows from the other: ``https://HOST/api/v3`` is HOST's, ``https://api.X`` is X's.

    Raises:
        BadSettings: one of them is no url of a server.
    """
    for name, url in (("SKILLBUS_GITHUB_API_URL", api_url), ("SKILLBUS_GITHUB_SERVER_URL", server_url)):
        if url and (not _split(url)[0] or "@" in url or "?" in url or "#" in url):
            raise BadSettings(f"{name} is no url of a server: write it as https://HOST/api/v3 or https://HOST")
    if api_url:
        host = _split(server_url or api_url)[0]
        return (host if server_url else host.removeprefix("api.")), api_url.rstrip("/")
    if not server_url:
        return None
    host, scheme = _split(server_url)[0], urlsplit(server_url).scheme
    dotted = host == "github.com" or host.endswith(".ghe.com")
    return host, f"{scheme}://api.{host}" if dotted else f"{scheme}://{host}/api/v3"

"""An archive over https: tar.gz, tar or zip, told apart by its bytes. It is streamed and never stored.

``#subdirectory=path`` picks a skill inside a bigger archive. Whether it changed is told by its ETag or, failing that,
by Last-Modified. The archive's own digest is not looked at: servers repack archives, so what can be pinned is the
digest of the skill's content (the entry's ``sha256``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urlsplit

from skillbus.errors import BadManifest
from skillbus.skills.rules import shown_url
from skillbus.skills.sources.pip_url import subdirectory
from skillbus.skills.sources.source import Access, Origin, Revision

if TYPE_CHECKING:
    from skillbus.skills.landing import Landing

_ENDS = (".tar.gz", ".tgz", ".tar", ".zip")


class ArchiveSource:
    """``https://host/path/name-1.4.tar.gz``, and every other url of the web."""

    general = True

    def accepts(self, url: str, access: Access) -> bool:
        """Whether it is a url of the web."""
        return url.lower().startswith(("http://", "https://"))

    def origin(self, url: str, access: Access) -> Origin:
        """The url taken apart. Two urls that differ in their query alone are two places.

        Raises:
            BadManifest: what follows ``#`` is not understood.
        """
        try:
            plain, fragment = urldefrag(url)
            split = urlsplit(plain)
        except ValueError:
            raise BadManifest(f"{shown_url(url)}: it cannot be read as a url") from None
        subpath = _subpath(fragment, shown_url(plain))
        # The query may be a secret, and two places must not look the same: so a few digits of its digest stand for it.
        mark = f"?{sha256(split.query.encode()).hexdigest()[:8]}" if split.query else ""
        return Origin("archives", shown_url(plain) + mark, plain, "", subpath, _fallback(split.path, subpath))

    async def resolve(self, origin: Origin, known: Revision | None, access: Access) -> Revision:
        """What the server says of the archive, without its body. No id if it says nothing by which to tell.

        Raises:
            SkillbusError: as ``Web.ask``.
        """
        etag = known.etag if known else ""
        modified = known.id if known and not etag else ""
        told = await access.web.ask(origin.url, etag=etag, modified=modified, headers_only=True)
        if known is not None and not told.changed:
            return known
        return Revision(told.etag or told.modified, told.etag)

    def trees(
        self, origin: Origin, revision: Revision, subpaths: Sequence[str], access: Access
    ) -> Mapping[str, str] | None:
        """None: an archive has no tree ids."""
        return None

    def fetch(self, origin: Origin, revision: Revision, landings: Mapping[str, Landing], access: Access) -> bool:
        """One download for all of ``landings``.

        Raises:
            SkillbusError: the server or the archive is at fault.
        """
        from skillbus.skills.archive import Top, unpack

        with access.web.get(origin.url) as answer:
            unpack(answer.chunks(), landings, access.max_archive_bytes, top=Top.EITHER)
            # It changed meanwhile, or the server has another ETag for each answer: then no later try would match.
            return bool(revision.id) and (answer.ref or answer.modified) != revision.id


SOURCE = ArchiveSource()


def _subpath(fragment: str, shown: str) -> str:
    if any(word.lower().startswith(("sha", "md5", "blake")) for word in fragment.split("&")):
        raise BadManifest(
            "a digest behind '#' is not looked at: put the digest of the skill's content in the entry's 'sha256' field"
        )
    return subdirectory(fragment, shown)


def _fallback(path: str, subpath: str) -> str:
    name = PurePosixPath(subpath or unquote(path)).name
    for end in _ENDS:
        name = name.removesuffix(end)
    return name

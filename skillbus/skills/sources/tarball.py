"""A tar.gz over https as a source. The archive is streamed and never stored.

``#subdirectory=path`` picks a skill inside a bigger archive. The archive's own digest is not looked at: servers repack
archives, so what can be pinned is the digest of the skill's content (the entry's ``sha256``).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import parse_qs, urldefrag, urlsplit

from skillbus.errors import BadArchive, BadManifest
from skillbus.skills.archive import unpack
from skillbus.skills.rules import checked_path
from skillbus.skills.sources.source import Access, Fetched


class TarballSource:
    """``https://host/path/name-1.4.tar.gz``, and every other https url."""

    def accepts(self, url: str) -> bool:
        """Whether it is a url of the web."""
        return url.lower().startswith(("http://", "https://"))

    def fetch(self, url: str, access: Access) -> Fetched:
        """The skill inside the archive.

        Raises:
            SkillbusError: the server, the archive or the url is at fault.
        """
        plain, fragment = urldefrag(url)
        subpath = _subpath(fragment)
        with access.web.get(plain) as answer:
            files = unpack(answer.chunks(), subpath, access.max_archive_bytes)
            return Fetched(files, answer.ref, _fallback(plain, subpath))


def _subpath(fragment: str) -> str:
    if not fragment:
        return ""
    words = parse_qs(fragment)
    subpath = words.get("subdirectory", [""])[0].strip("/")
    if not subpath or set(words) != {"subdirectory"}:
        raise BadManifest("what follows '#' must be 'subdirectory=path'")
    try:
        return checked_path(subpath)
    except BadArchive as error:
        raise BadManifest(f"what follows '#subdirectory=' cannot be used: {error}") from None


def _fallback(url: str, subpath: str) -> str:
    name = PurePosixPath(subpath or urlsplit(url).path).name
    for end in (".tar.gz", ".tgz"):
        name = name.removesuffix(end)
    return name

"""Kinds of url that the manifest's format knows and this version does not fetch yet: a clear word for each.

Without it they would fall through to the tar.gz source, which would fail with words about gzip.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from skillbus.errors import BadManifest
from skillbus.skills.sources.source import Access, Fetched

_GITHUB = frozenset({"github.com", "www.github.com"})


class LaterSource:
    """GitHub's pages, git remotes and zip archives."""

    def accepts(self, url: str) -> bool:
        """Whether it is one of them."""
        return bool(_kind(url))

    def fetch(self, url: str, access: Access) -> Fetched:
        """Always refused.

        Raises:
            BadManifest: with what works instead.
        """
        raise BadManifest(f"{_kind(url)} is not supported yet: use a folder, or a tar.gz over https")


def _kind(url: str) -> str:
    if url.startswith("git+"):
        return "a git+ url"
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    path = parts.path.rstrip("/")
    if path.endswith(".zip"):
        return "a zip archive"
    # An archive that GitHub serves is a tar.gz like any other.
    if parts.hostname in _GITHUB and not path.endswith((".tar.gz", ".tgz")) and "/tarball/" not in path:
        return "a github.com url"
    return ""

"""What a source of skills is. Each kind is one file beside this one, and nothing else names it.

Two processes use a source. The pod's asks what a place holds now (``resolve``): a few bytes, asked conditionally, so
that a pass with nothing new starts no child. The child lists and fetches (``trees``, ``fetch``): what is big, and what
has to be parsed. So a source's file imports nothing heavy at its top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from skillbus.skills.landing import Landing
    from skillbus.skills.sources.web import Web


class Origin(NamedTuple):
    """Where a skill's bytes come from: an entry's url, taken apart by its source.

    Attributes:
        source: the source's name, that of its file.
        place: what is resolved and fetched as one (a repository at a ref, an archive, a folder). Entries of one
            source with equal places cost one request. Fit to be shown: no query, no secret.
        url: what the source needs to get there. May hold a query, so it is never shown.
        ref: a branch, a tag or a commit; empty for the place's default, or where there is no such thing.
        subpath: the skill's folder in the place, ``/`` between parts; empty for its top.
        fallback: a name, should the skill itself have none.
    """

    source: str
    place: str
    url: str
    ref: str = ""
    subpath: str = ""
    fallback: str = ""


class Revision(NamedTuple):
    """What a place holds now.

    Attributes:
        id: the commit, the ETag, or the digest of a folder. Equal ids mean equal bytes. Empty if only a fetch can tell.
        etag: with which to ask conditionally the next time; empty if that cannot be.
    """

    id: str
    etag: str = ""


class Access(NamedTuple):
    """What a source may use.

    Attributes:
        web: the HTTP client, with the rules on hosts and tokens built in.
        max_archive_bytes: how much an archive may weigh on the wire; 0 for no cap.
        github: for each host of GitHub pages the base of its API.
    """

    web: Web
    max_archive_bytes: int
    github: Mapping[str, str] = MappingProxyType({})


class Source(Protocol):
    """One kind of place that skills come from. A module here holds one, named ``SOURCE``."""

    general: bool
    """Whether it takes urls that a more special source may want: it is asked last."""

    def accepts(self, url: str, access: Access) -> bool:
        """Whether ``url`` is of this kind. Pure."""
        ...

    def origin(self, url: str, access: Access) -> Origin:
        """``url`` taken apart. Pure.

        Raises:
            BadManifest: it cannot be used; with what to write instead.
        """
        ...

    async def resolve(self, origin: Origin, known: Revision | None, access: Access) -> Revision:
        """What the place holds now. In the pod's process; cancelled when the pod must stop, and ends at once then.

        Args:
            known: what it held when it was last asked, to be asked conditionally: if nothing changed, the answer is
                ``known`` itself.

        Raises:
            RateLimited: it wants to be left alone for a while.
            SkillbusError: with what to do. It never shows a URL's query.
        """
        ...

    def trees(
        self, origin: Origin, revision: Revision, subpaths: Sequence[str], access: Access
    ) -> Mapping[str, str] | None:
        """The git tree id of each of ``subpaths`` that is there; None if the source has no such ids. In the child."""
        ...

    def fetch(self, origin: Origin, revision: Revision, landings: Mapping[str, Landing], access: Access) -> bool | None:
        """Write each wanted folder's files to its landing. In the child, one fetch for all of them.

        What is wrong with one skill is that landing's ``refuse``, and the others go on; what is wrong with the whole
        place is raised.

        Args:
            revision: as ``resolve`` said: exactly that is fetched, or else an error raised, or True returned.
            landings: by subpath.

        Returns:
            True if what came goes by another name than ``revision``, under which it may then not be remembered.

        Raises:
            SkillbusError: with what to do. It never shows a URL's query.
        """
        ...

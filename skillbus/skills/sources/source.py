"""What a source of skills is, and what it is given. Each kind is one file beside this one.

Only the child imports this folder: with it come the HTTP client and the parsers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from skillbus.skills.bundle import Files
from skillbus.skills.sources.web import Web


@dataclass(frozen=True, slots=True)
class Fetched:
    """A skill as its source gave it, not yet judged.

    Attributes:
        files: its files by path.
        ref: the source's own name for what was fetched (an ETag, a commit); empty if it has none.
        fallback: a name, should the skill itself have none.
    """

    files: Files
    ref: str
    fallback: str


@dataclass(frozen=True, slots=True)
class Access:
    """What a source may use.

    Attributes:
        web: the HTTP client, with the rules on hosts and tokens built in.
        max_archive_bytes: how much an archive may weigh on the wire; 0 for no cap.
    """

    web: Web
    max_archive_bytes: int


class Source(Protocol):
    """One kind of place that skills come from."""

    def accepts(self, url: str) -> bool:
        """Whether ``url`` is of this kind. Asked in the order of ``SOURCES``; the first that accepts has it."""
        ...

    def fetch(self, url: str, access: Access) -> Fetched:
        """The skill's files.

        Raises:
            SkillbusError: with what to do. It never shows a URL's query.
        """
        ...

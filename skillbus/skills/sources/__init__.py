"""Every kind of source, in the order in which they are asked. A new kind is a new file and a word in this tuple."""

from skillbus.skills.sources.folder import FolderSource
from skillbus.skills.sources.later import LaterSource
from skillbus.skills.sources.source import Source
from skillbus.skills.sources.tarball import TarballSource

SOURCES: tuple[Source, ...] = (LaterSource(), FolderSource(), TarballSource())

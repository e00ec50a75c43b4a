"""Every error skillbus raises, classed by what follows from it, not by where it happened.

    SkillbusError
    ├── RetryLater            the same call may succeed later, by itself
    │   ├── BusUnreachable    no answer from Redis in time, or no connection
    │   ├── BusNotReady       Redis answers, but cannot serve this now (LOADING, a replica, out of memory …)
    │   └── SourceUnavailable a manifest or skill source did not deliver
    │       └── RateLimited   it asked to be left alone for a while
    ├── NeedsHuman            nothing changes until somebody changes something
    │   ├── BadSettings       a setting or argument that cannot be used
    │   ├── BusDenied         wrong password, missing ACL permission
    │   ├── BadManifest       what the manifest says cannot be used
    │   ├── BadBundle         a skill that breaks the rules of docs/skills.md
    │   ├── BadArchive        a hostile or broken archive
    │   │   ├── HostileName       a name that is not the same on every system
    │   │   │   ├── NameEscapes   … because it is absolute or leaves its folder
    │   │   │   └── NameNotUtf8   … because nobody knows its letters
    │   │   ├── NamesCollide      two names that are one on some system, or twice the same
    │   │   ├── LinkInArchive     a symbolic or hard link
    │   │   ├── DeviceInArchive   a device, a pipe, or a kind that nobody knows
    │   │   ├── SetuidInArchive   a file that would run as somebody else
    │   │   ├── SparseInArchive   a file with holes, which may claim any size
    │   │   ├── TooManyFiles      more files than a skill may have
    │   │   ├── TooBig            more bytes than a skill, or an archive on the wire, may have
    │   │   ├── TooDeep           more folders in folders than a skill may have
    │   │   ├── ArchiveBomb       more members, bytes or time than any archive is given
    │   │   ├── BrokenArchive     cut, damaged, ambiguous, or no archive at all
    │   │   └── UnknownArchive    a kind of archive that is not read: encrypted, xz …
    │   └── DiskRefused       the disk is full, read-only or not ours
    └── PassAborted           a pass must end now: latched, lease over, or forked

An error's text says what happened and what to do next. It never holds a token, a password or a URL's query string.
"""

from __future__ import annotations


class SkillbusError(Exception):
    """The root. ``str(error)`` is one sentence for a person, with the next step."""


class RetryLater(SkillbusError):
    """The same call may succeed later without anybody's help."""


class BusUnreachable(RetryLater):
    """Redis did not answer in time, or no connection could be made."""


class BusNotReady(RetryLater):
    """Redis answered, but not as a server that can serve this: loading, a replica, out of memory, disk full."""


class SourceUnavailable(RetryLater):
    """A manifest or a skill's source did not deliver."""


class RateLimited(SourceUnavailable):
    """A source wants to be left alone.

    Attributes:
        wait_s: seconds until it may be asked again, as it said.
    """

    def __init__(self, text: str, wait_s: float) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class NeedsHuman(SkillbusError):
    """Nothing changes until somebody changes something."""


class BadSettings(NeedsHuman):
    """A setting or an argument that cannot be used. The command line exits 2."""


class BusDenied(NeedsHuman):
    """Redis knows us and refuses: wrong password, or an ACL permission is missing."""


class BadManifest(NeedsHuman):
    """The manifest, or one entry of it, cannot be used."""


class BadBundle(NeedsHuman):
    """A skill that breaks the rules for a bundle."""


class BadArchive(NeedsHuman):
    """An archive with a hostile or broken member. Nothing of it is placed."""


class HostileName(BadArchive):
    """A name that is not the same on every system: reserved, misleading, too long."""


class NameEscapes(HostileName):
    """A name that is absolute or leads out of its folder."""


class NameNotUtf8(HostileName):
    """A name whose bytes are not UTF-8."""


class NamesCollide(BadArchive):
    """Two names that are one on some file system, or one name that is there twice."""


class LinkInArchive(BadArchive):
    """A symbolic or hard link."""


class DeviceInArchive(BadArchive):
    """A device, a pipe, or a kind of file that nobody knows."""


class SetuidInArchive(BadArchive):
    """A setuid or setgid file."""


class SparseInArchive(BadArchive):
    """A sparse file, which may claim any size."""


class TooManyFiles(BadArchive):
    """More files than a skill may have."""


class TooBig(BadArchive):
    """More bytes than a skill may have, or than an archive may weigh on the wire."""


class TooDeep(BadArchive):
    """Folders nested deeper than a skill may have."""


class ArchiveBomb(BadArchive):
    """It takes more members, bytes or time than any archive is given, or lies about its size."""


class BrokenArchive(BadArchive):
    """Cut short, damaged, ambiguous, or no archive at all."""


class UnknownArchive(BadArchive):
    """A kind of archive, or a feature of one, that is not read."""


class DiskRefused(NeedsHuman):
    """The disk is full, read-only, or a path is not what it must be."""


class PassAborted(SkillbusError):
    """The pass must end now. Raised by a checkpoint; a reconciler lets it through."""

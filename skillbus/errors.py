"""Every error skillbus raises, classed by what follows from it, not by where it happened.

    SkillbusError
    ├── RetryLater            the same call may succeed later, by itself
    │   ├── BusUnreachable    no answer from Redis in time, or no connection
    │   ├── BusNotReady       Redis answers, but cannot serve this now (LOADING, a replica, out of memory …)
    │   └── SourceUnavailable a manifest or skill source did not deliver
    ├── NeedsHuman            nothing changes until somebody changes something
    │   ├── BadSettings       a setting or argument that cannot be used
    │   ├── BusDenied         wrong password, missing ACL permission
    │   ├── BadManifest       what the manifest says cannot be used
    │   ├── BadBundle         a skill that breaks the rules of docs/skills.md
    │   ├── BadArchive        a hostile or broken archive
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
    """An archive with a hostile or broken member. Nothing of it is installed."""


class DiskRefused(NeedsHuman):
    """The disk is full, read-only, or a path is not what it must be."""


class PassAborted(SkillbusError):
    """The pass must end now. Raised by a checkpoint; a reconciler lets it through."""

"""Sets of installed skills, named by their content (docs/protocol.md §1, ``skills``).

A thousand pods hold a handful of distinct sets. So a heartbeat says the digest of the pod's set alone, and what the
digest stands for lies once in Redis, under that digest. A reader believes a value only if it has this very digest:
whoever puts another one there is not believed, and nobody has to trust who wrote it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from skillbus.core.scope import NAME

SKILLS_LIMIT = 2_000
"""Names in one set. A pod with more says nothing of its set."""

SET_BYTES_LIMIT = 300_000
"""A set of so many names, each as long as it may be, is shorter. Nobody reads on beyond it."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(text: object) -> bool:
    """Whether that is a sha256: 64 lower-case hexadecimal digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def encoded(skills: Mapping[str, str]) -> bytes:
    """``{"skills":{name: digest, …},"v":1}`` as the one canonical text: keys sorted, no spaces, ASCII."""
    value = {"v": 1, "skills": dict(skills)}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest_of(value: bytes) -> str:
    """By which a set is named and found."""
    return hashlib.sha256(value).hexdigest()


def decoded(digest: str, value: bytes | None) -> Mapping[str, str] | None:
    """The set that ``digest`` stands for; None if there is no value, or it is not the one that was named."""
    if value is None or digest_of(value) != digest:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    skills = found.get("skills") if isinstance(found, dict) else None
    if not isinstance(skills, dict) or not all(NAME.fullmatch(name) and is_digest(skills[name]) for name in skills):
        return None
    return skills

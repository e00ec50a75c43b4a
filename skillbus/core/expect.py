"""Somebody else's list of the pods that should be there: one id a line. Pure.

Redis can only tell of pods that it heard of. A list from elsewhere (an inventory, ``kubectl get pods``) names those too
that never came that far.
"""

from __future__ import annotations

from skillbus.core.scope import NAME
from skillbus.core.text import harmless
from skillbus.errors import BadSettings


def pods_expected(text: str, where: str) -> frozenset[str]:
    """The pod ids in ``text``: one a line; blank lines, and what follows a ``#``, say nothing.

    Args:
        where: what the text was read from, for the error.

    Raises:
        BadSettings: a line cannot be the name of a pod; or there is none at all, which is a mistake and no roster.
    """
    found = set()
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        name = line.partition("#")[0].strip()
        if name and not NAME.fullmatch(name):
            raise BadSettings(
                f"{where}, line {number}: {harmless(name, 80)!r} cannot be the name of a pod: "
                "write one id a line, of 1 to 64 of A-Z a-z 0-9 . _ -"
            )
        if name:
            found.add(name)
    if not found:
        raise BadSettings(f"{where} names no pod: write one id a line")
    return frozenset(found)

"""Receipts for tests."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from skillbus.skills.lock import Receipt
from skillbus.skills.rules import Facts, tree_digest


def receipt_of(facts: Facts, **given: Any) -> Receipt:
    """A receipt for ``facts``, with whatever else it needs."""
    words: dict[str, Any] = {one.name: "" for one in fields(Receipt) if one.type == "str"}
    words |= {"url": "https://h.example/a.tar.gz", "placed_at": "2026-01-01T00:00:00Z"}
    return Receipt(**{**words, "files": facts, "digest": tree_digest(facts), **given})

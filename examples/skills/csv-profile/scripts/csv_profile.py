#!/usr/bin/env python3
"""Say what is in a CSV or TSV file: encoding, delimiter, ragged rows, and for each column its type and gaps.

Standard library only. The file is read once, row by row; distinct values are counted up to a limit. Nothing is written.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

DISTINCT_LIMIT = 10_000
EXAMPLES = 3
NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
INTEGER = re.compile(r"[+-]?\d{1,18}")
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
SLASH_DATE = re.compile(r"(\d{1,2})[/.](\d{1,2})[/.]\d{2,4}")
BOOLEANS = {"true", "false", "yes", "no", "0", "1", "t", "f", "y", "n"}


class Column:
    """What is known of one column so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.filled = self.empty = self.longest = 0
        self.shortest: int | None = None
        self.leading_zeros = self.day_first = self.month_first = False
        self.distinct: set[str] | None = set()
        self.examples: list[str] = []
        self.fits = {"boolean", "integer", "number", "date", "date?"}

    def add(self, cell: str) -> None:
        """Take one more cell in."""
        text = cell.strip()
        if not text:
            self.empty += 1
            return
        self.filled += 1
        self.longest = max(self.longest, len(text))
        self.shortest = len(text) if self.shortest is None else min(self.shortest, len(text))
        if self.distinct is not None:
            if text not in self.distinct and len(self.examples) < EXAMPLES:
                self.examples.append(text[:40])
            self.distinct.add(text)
            if len(self.distinct) > DISTINCT_LIMIT:
                self.distinct = None
        self._narrow(text)

    def _narrow(self, text: str) -> None:
        if text.lower() not in BOOLEANS:
            self.fits.discard("boolean")
        if not INTEGER.fullmatch(text):
            self.fits.discard("integer")
        elif len(text) > 1 and text[0] == "0":
            self.leading_zeros = True
        if not NUMBER.fullmatch(text):
            self.fits.discard("number")
        if not ISO_DATE.fullmatch(text):
            self.fits.discard("date")
        slashed = SLASH_DATE.fullmatch(text)
        if slashed is None:
            self.fits.discard("date?")
        else:
            self.day_first |= int(slashed[1]) > 12
            self.month_first |= int(slashed[2]) > 12

    def summary(self) -> dict[str, object]:
        """The column's part of the report."""
        order = ("boolean", "integer", "number", "date", "date?")
        kind = next((one for one in order if one in self.fits), "text") if self.filled else "empty"
        notes = []
        if kind in {"integer", "boolean", "number"} and self.leading_zeros:
            notes.append("leading zeros: load as text")
        if kind == "date?":
            settled = {(True, False): "day first", (False, True): "month first", (True, True): "mixed orders"}
            notes.append(settled.get((self.day_first, self.month_first), "no value settles day or month first"))
        return {
            "name": self.name,
            "type": kind,
            "filled": self.filled,
            "empty": self.empty,
            "distinct": len(self.distinct) if self.distinct is not None else f"> {DISTINCT_LIMIT}",
            "length": [self.shortest or 0, self.longest],
            "examples": self.examples,
            "notes": notes,
        }


def encoding_of(path: Path) -> str:
    """The first encoding that reads the whole file."""
    for encoding in ("utf-8-sig", "utf-16", "latin-1"):
        try:
            with path.open(encoding=encoding, newline="") as file:
                if encoding == "utf-16" and path.open("rb").read(2) not in (b"\xff\xfe", b"\xfe\xff"):
                    continue
                while file.read(1 << 20):
                    pass
        except UnicodeError:
            continue
        has_mark = path.open("rb").read(3) == b"\xef\xbb\xbf"
        return encoding if encoding != "utf-8-sig" or has_mark else "utf-8"
    return "latin-1"


def delimiter_of(path: Path, encoding: str) -> str:
    """The delimiter that the head of the file speaks for; a comma if nothing does."""
    with path.open(encoding=encoding, newline="") as file:
        head = [line for line, _ in zip(file, range(100))]  # noqa: B905 - the first hundred lines

    def score(delimiter: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(head, delimiter=delimiter) if row]
        if not widths or widths[0] < 2:
            return 0.0, 0
        return widths.count(widths[0]) / len(widths), widths[0]

    # Rows of one width speak for a delimiter; of two that do so equally, the one that makes more columns.
    best = max(NAMES.values(), key=score)
    return best if score(best)[0] else ","


def profile(path: Path, delimiter: str | None, sample: int) -> dict[str, Any]:
    """Everything that the report shows."""
    encoding = encoding_of(path)
    delimiter = delimiter or delimiter_of(path, encoding)
    ragged: list[int] = []
    ragged_count = rows = duplicates = 0
    seen: set[bytes] | None = set()
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader, [])
        columns = [Column(name.strip() or f"column {n}") for n, name in enumerate(header, 1)]
        for row in reader:
            if sample and rows >= sample:
                break
            rows += 1
            if len(row) != len(columns):
                ragged_count += 1
                if len(ragged) < 10:
                    ragged.append(reader.line_num)
            for column, cell in zip(columns, row):  # noqa: B905 - ragged rows are counted above
                column.add(cell)
            if seen is not None:
                digest = hashlib.blake2b("\x1f".join(row).encode("utf-8", "replace"), digest_size=16).digest()
                duplicates += digest in seen
                seen.add(digest)
                if len(seen) > 1_000_000:
                    seen = None
    return {
        "file": str(path),
        "encoding": encoding,
        "delimiter": delimiter,
        "rows": rows,
        "ragged_rows": ragged_count,
        "ragged_at_lines": ragged,
        "duplicate_rows": duplicates,
        "duplicates_complete": seen is not None,
        "columns": [column.summary() for column in columns],
    }


def printed(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['file']}: {report['rows']} rows, encoding {report['encoding']}, delimiter {report['delimiter']!r}",
        f"ragged rows: {report['ragged_rows']} {report['ragged_at_lines'] or ''}",
        f"duplicate rows: {report['duplicate_rows']}{'' if report['duplicates_complete'] else ' or more'}",
        "",
    ]
    for column in report["columns"]:
        share = column["empty"] / max(1, column["empty"] + column["filled"])
        lines.append(
            f"{column['name'][:30]:30} {column['type']:8} empty {share:5.1%}  distinct {column['distinct']!s:>8}  "
            f"length {column['length'][0]}-{column['length'][1]}  e.g. {', '.join(column['examples'])}"
        )
        lines += [f"{'':31}! {note}" for note in column["notes"]]
    return "\n".join(lines)


def main() -> int:
    """0: regular; 1: ragged rows; 2: unreadable."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--delimiter", help="one character, or comma, semicolon, tab, pipe; default: found out")
    parser.add_argument("--sample", type=int, default=0, help="read that many rows only; default: all")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    csv.field_size_limit(1 << 24)
    try:
        report = profile(given.file, NAMES.get(given.delimiter, given.delimiter), given.sample)
    except (OSError, csv.Error, TypeError) as error:
        print(f"{given.file}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2, ensure_ascii=False) if given.json else printed(report))
    return 1 if report["ragged_rows"] else 0


if __name__ == "__main__":
    sys.exit(main())

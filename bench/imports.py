"""What importing costs: `import skillbus` against `import redis.asyncio`; `--help` against an empty Typer."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 11
_FIRST_USE = "import skillbus; skillbus.Pod, skillbus.embed"
_EMPTY_TYPER = """
import typer
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
@app.command("one")
def one() -> None: "One."
@app.command("two")
def two() -> None: "Two."
app()
"""


def _seconds(command: list[str]) -> float:
    began_s = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began_s


def _ratio(ours: list[str], theirs: list[str]) -> float:
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(ROUNDS)]
    return statistics.median(a / b for a, b in pairs)


def run(folder: Path) -> list[tuple[str, float, float]]:
    """``(what, ratio, limit)``."""
    program = folder / "empty.py"
    program.write_text(_EMPTY_TYPER)
    python = sys.executable
    command = str(Path(python).parent / "skillbus")
    print(f"  import skillbus and first use of Pod / import redis.asyncio: {_import_ratio(_FIRST_USE):.2f}x")
    return [
        ("import skillbus / import redis.asyncio", _import_ratio("import skillbus"), 1.3),
        (
            "skillbus --help / an empty Typer program's",
            _ratio([command, "--help"], [python, str(program), "--help"]),
            1.2,
        ),
    ]


def _import_ratio(statement: str) -> float:
    return _ratio([sys.executable, "-c", statement], [sys.executable, "-c", "import redis.asyncio"])

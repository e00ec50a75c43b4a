"""What a process of ours says: results to stdout, the rest to stderr, exit codes as documented (docs/operators.md §1).

0 ok · 1 error · 2 usage · 3 fleet is killed · 4 Redis unreachable or state unknown · 5 waited, and not every pod is
proved stopped · 6 drift or validation failure · 130 interrupted
"""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from skillbus.errors import BadSettings, BusDenied, RetryLater, SkillbusError

SCHEMA_VERSION = 1

T = TypeVar("T")


class Output(StrEnum):
    """How a command prints: for people, or for programs (with a ``schema_version``, on stdout alone)."""

    TABLE = "table"
    JSON = "json"


OK, ERROR, USAGE, KILLED, UNKNOWN, UNPROVED, DRIFT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


def print_json(command: str, fields: dict[str, Any]) -> None:
    """One JSON object on stdout, and nothing else there. In ASCII: what a reason holds cannot move a terminal."""
    import json

    head = {"schema_version": SCHEMA_VERSION, "command": command}
    sys.stdout.write(json.dumps({**head, **fields}, default=str) + "\n")
    sys.stdout.flush()


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on a loop of its own. Imported here, for a help text needs no event loop."""
    import asyncio

    found: list[T] = []

    async def keep() -> None:
        # Not as the task's own result: asyncio lets ``signal`` make a text of that at the end, and the text of a fleet
        # of thousands takes a second.
        found.append(await work)

    asyncio.run(keep())
    return found[0]


def say(text: str) -> None:
    """A line for a person, beside the result: stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def exit_code_of(error: SkillbusError) -> int:
    """The documented exit code for an error."""
    if isinstance(error, BadSettings):
        return USAGE
    if isinstance(error, RetryLater | BusDenied):
        return UNKNOWN
    return int(getattr(error, "exit_code", ERROR))


@contextmanager
def spoken(command: str, output: Output) -> Iterator[None]:
    """Errors become one sentence on stderr (and a JSON object on stdout, if asked for) and the documented exit code."""
    try:
        yield
    except KeyboardInterrupt:
        say("skillbus: interrupted")
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(ERROR) from None
    except SkillbusError as error:
        fail(command, output, str(error), exit_code_of(error))
    except Exception as error:
        if os.environ.get("SKILLBUS_DEBUG"):
            raise
        text = f"{type(error).__name__}: {error} (a defect: please report it; SKILLBUS_DEBUG=1 shows where)"
        fail(command, output, text, ERROR)


def fail(command: str, output: Output, text: str, code: int) -> NoReturn:
    """Say what happened and what to do, and exit."""
    from skillbus.core.text import harmless

    say(f"skillbus: {harmless(text, 2000)}")
    if output is Output.JSON:
        print_json(command, {"error": text, "exit_code": code})
    raise SystemExit(code)

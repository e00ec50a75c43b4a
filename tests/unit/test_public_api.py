"""The public names: what ``import skillbus`` gives, and how little it costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources

import pytest

import skillbus

HEAVY = ["redis", "pydantic", "pydantic_settings", "tenacity", "urllib3", "yaml", "typer", "rich", "asyncio"]


def modules_after(code: str) -> set[str]:
    """The modules of a fresh interpreter that ran ``code``."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout))


def test_importing_costs_next_to_nothing() -> None:
    """No client, no validation library, no event loop: a host that only may use it pays for none."""
    loaded = modules_after("import skillbus")
    assert loaded.isdisjoint(HEAVY)
    assert {name for name in loaded if name.startswith("skillbus")} == {"skillbus"}


def test_a_pod_never_loads_the_command_line() -> None:
    """Neither typer nor rich, nor what only the fetcher child needs."""
    loaded = modules_after("import skillbus; skillbus.embed; skillbus.Pod; skillbus.Settings")
    assert loaded.isdisjoint({"typer", "rich", "click", "urllib3", "yaml", "skillbus.cli"})


@pytest.mark.parametrize("name", skillbus.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """And documented."""
    value = getattr(skillbus, name)
    assert name == "__version__" or value.__doc__
    assert name in dir(skillbus)


def test_a_name_that_is_not_there_says_so() -> None:
    """As any module does."""
    with pytest.raises(AttributeError, match="module 'skillbus' has no attribute 'Manager'"):
        skillbus.Manager  # noqa: B018


def test_there_are_about_a_dozen() -> None:
    """Sorted, and no more than a person can hold."""
    assert skillbus.__all__ == sorted(skillbus.__all__)
    assert len(skillbus.__all__) <= 15


def test_the_package_is_typed() -> None:
    """py.typed is there."""
    assert resources.files("skillbus").joinpath("py.typed").is_file()


def test_the_version_is_one() -> None:
    """Three numbers."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", skillbus.__version__)

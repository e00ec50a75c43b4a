"""Puts the built JupyterLab panel into the wheel, if it was built (``make lab``): a wheel without it has no panel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_BUILT = Path("labextension/dist")


class LabExtension(BuildHookInterface[Any]):
    """Hatch asks it once for each wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Where Jupyter looks for prebuilt extensions."""
        built = Path(self.root, _BUILT)
        if (built / "package.json").is_file():
            build_data["shared_data"][str(built)] = "share/jupyter/labextensions/skillbus"

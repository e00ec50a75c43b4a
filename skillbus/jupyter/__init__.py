"""A pod in every notebook server: Jupyter's server extension, its routes, and what JupyterLab shows of it.

Jupyter finds the extension by the two functions below (``jupyter_server_config.d/skillbus.json`` in the wheel). It does
not decide when a pod may work: that is pod/. Importing this module imports neither Jupyter nor the pod.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """What Jupyter Server asks of an extension's module."""
    from skillbus.jupyter.extension import Skillbus

    return [{"module": "skillbus.jupyter", "app": Skillbus}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """What JupyterLab asks of it: where the built panel lies. None where it was not built."""
    built = Path(__file__).parent / "labextension"
    return [{"src": "labextension", "dest": "skillbus"}] if (built / "package.json").is_file() else []

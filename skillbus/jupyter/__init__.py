"""A pod in every notebook server: Jupyter's server extension, its routes, and what JupyterLab shows of it.

Jupyter finds the extension by the function below (``jupyter_server_config.d/skillbus.json`` in the wheel), and the
panel in ``share/jupyter/labextensions`` (``labextension/`` in the repository). Neither decides when a pod may work:
that is pod/. Importing this module imports neither Jupyter nor the pod.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """What Jupyter Server asks of an extension's module."""
    from skillbus.jupyter.extension import Skillbus

    return [{"module": "skillbus.jupyter", "app": Skillbus}]

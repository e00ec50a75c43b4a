"""The server extension: settings from the environment and from ``c.Skillbus``, a pod as long as the server lives.

The environment wins over Jupyter's configuration, for whoever runs the hub sets the one and a tenant may write the
other. Without a manifest there is nothing to do, and no pod.
"""

from __future__ import annotations

import asyncio
from typing import Any

import traitlets
from jupyter_server.extension.application import ExtensionApp

from skillbus import __version__
from skillbus.jupyter.hosted import HostedPod, Made
from skillbus.jupyter.neighbour import Neighbour
from skillbus.jupyter.routes import ROUTES
from skillbus.settings import BusSettings, PodSettings, Settings, SkillsSettings, env_names, set_by
from skillbus.wiring import skills_options, skills_pod

_GROUPS = (BusSettings, PodSettings, SkillsSettings)


def _traits() -> dict[str, Any]:
    """One configurable trait for each setting of a pod, under the setting's own name."""
    words = "As the environment variable {}, which wins."
    names = {name: env_names(group, name)[0] for group in _GROUPS for name in group.model_fields}
    return {
        name: traitlets.Any(None, allow_none=True, help=words.format(variable)).tag(config=True)
        for name, variable in names.items()
    }


class _Settable(ExtensionApp):
    """The traits, made from the settings so that none is forgotten."""

    locals().update(_traits())


class Skillbus(_Settable):
    """Jupyter's view of us: ``c.Skillbus.skills_manifest = "https://…"``, ``c.Skillbus.fleet = "prod"``, …."""

    name = "skillbus"
    description = "A pod that keeps agents' skills in line with a manifest, and stops on one message."
    version = __version__
    extension_url = "/skillbus/status"
    load_other_extensions = True
    hosted: HostedPod

    def initialize_settings(self) -> None:
        """Before the routes: what they speak of."""
        self.hosted = HostedPod(self._pod)
        self.settings["skillbus_hosted"] = self.hosted

    def initialize_handlers(self) -> None:
        """The routes, and then the pod: it can be stopped from its first moment on."""
        self.handlers.extend(ROUTES)
        self.hosted.start()

    async def stop_extension(self) -> None:
        """The server ends: so does its pod, before the server's process does."""
        await asyncio.to_thread(self.hosted.end)

    def _pod(self) -> Made | None:
        settings = Settings.load(**self._configured())
        if not settings.skills.skills_manifest:
            return None
        options = skills_options(settings, online=False)
        roots = tuple(dict.fromkeys((*options.targets, *options.project_targets)))
        return Made(skills_pod(settings), roots, Neighbour() if settings.skills.guard_nbi else None)

    def _configured(self) -> dict[str, Any]:
        """What Jupyter's configuration says and the environment does not."""
        return {
            name: value
            for group in _GROUPS
            for name in group.model_fields
            if (value := getattr(self, name)) is not None and not set_by(group, name)
        }

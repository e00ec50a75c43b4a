"""What the reconciler is told to do, as plain values. Where they come from (settings, defaults) is not known here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GITHUB_COM = "github.com"
GITHUB_API = "https://api.github.com"


@dataclass(frozen=True, slots=True)
class SkillsOptions:
    """One reconciler's orders.

    Attributes:
        manifests: files (``~`` expands) or URLs, merged in this order.
        targets: skills roots for entries of user scope, resolved (``skillbus.skills.targets``).
        token: sent as a bearer token to ``token_hosts`` and nowhere else. Never shown.
        token_hosts: ``host``, which means its https port 443, or ``host:port``.
        local_hosts: hosts (``host`` or ``host:port``) that may be loopback or link-local, or be spoken to without TLS.
        redirect_hosts: hosts that a download may be redirected to, besides the one that was asked.
        github: for each host of GitHub pages (``github.com``, an Enterprise server) the base of its API.
        max_archive_mb: MiB an archive may weigh on the wire; 0 is no cap.
        strict: whether a skill that breaks a rule of style is refused instead of warned about.
        project_targets: skills roots for entries of project scope. Without one such an entry is an error.
    """

    manifests: tuple[str, ...]
    targets: tuple[Path, ...]
    token: str | None = field(default=None, repr=False)
    token_hosts: tuple[str, ...] = ()
    local_hosts: tuple[str, ...] = ()
    redirect_hosts: tuple[str, ...] = ()
    github: Mapping[str, str] = field(default_factory=lambda: {GITHUB_COM: GITHUB_API})
    max_archive_mb: int = 100
    strict: bool = False
    project_targets: tuple[Path, ...] = ()

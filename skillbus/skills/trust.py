"""Which hosts may see which token, from what the operator set. Read once, when a pod or a plan starts.

A token that was set for skills goes to the hosts that were set for it. One that was found (GitHub's own variables, or
``gh``) is GitHub's, so it goes to GitHub alone, whatever hosts were set: and to the operator's own server alone, if
there is one, for that is where it is from.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any
from urllib.parse import urlsplit

from skillbus.settings import SkillsSettings
from skillbus.skills.options import GITHUB_API, GITHUB_COM
from skillbus.skills.sources.github import github_of

GH_S = 2.0
"""Seconds that ``gh`` may take. It reads a file or a keyring."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def trusted(skills: SkillsSettings, *, find_token: bool) -> dict[str, Any]:
    """The fields of ``SkillsOptions`` that are about hosts and the token.

    Args:
        find_token: run ``gh`` if no token is set.

    Raises:
        BadSettings: the url of a GitHub cannot be used.
    """
    found = github_of(skills.github_api_url, skills.github_server_url)
    host, api = found or (GITHUB_COM, GITHUB_API)
    own = [] if host == GITHUB_COM else _hosts_of(skills, host, api)
    token, found_hosts = _token(skills, host, own, find_token=find_token)
    return {
        "token": token,
        "token_hosts": found_hosts if found_hosts is not None else _joined(skills.skills_token_hosts, own),
        "local_hosts": _joined(skills.skills_local_hosts, [name for name in own if _is_local(name, api)]),
        "redirect_hosts": _joined(skills.skills_redirect_hosts, [f"codeload.{host}"] if own else []),
        "github": {GITHUB_COM: GITHUB_API, host: api},
    }


def _token(
    skills: SkillsSettings, host: str, own: list[str], *, find_token: bool
) -> tuple[str | None, tuple[str, ...] | None]:
    """The token, and the hosts for one that was found and not set for skills."""
    if skills.skills_token:
        return skills.skills_token.get_secret_value(), None
    token = skills.github_token.get_secret_value() if skills.github_token else None
    if token is None and find_token:
        token = gh_token(host)
    if token is None:
        return None, None
    github_hosts = SkillsSettings.model_fields["skills_token_hosts"].default
    return token, tuple(own) or tuple(name for name in skills.skills_token_hosts if name.lower() in github_hosts)


def gh_token(host: str) -> str | None:
    """What ``gh`` uses for ``host``; None if it is not installed, is not logged in, or takes too long."""
    program = shutil.which("gh")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "auth", "token", "--hostname", host],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=GH_S,
            check=False,
            env={**os.environ, "GH_PROMPT_DISABLED": "1"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    token = done.stdout.decode("ascii", "replace").strip()
    good = done.returncode == 0 and token and token.isascii() and token.isprintable() and " " not in token
    return token if good else None


def _hosts_of(skills: SkillsSettings, host: str, api: str) -> list[str]:
    """The operator's own server's hosts, as settings name them: its pages, and its API."""
    pages = skills.github_server_url or f"{urlsplit(api).scheme}://{host}"
    return list(dict.fromkeys(_named(url) for url in (pages, api)))


def _named(url: str) -> str:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return host if port == 443 else f"{host}:{port}"


def _is_local(name: str, api: str) -> bool:
    """Whether the host that the operator named is without TLS, or this machine."""
    return urlsplit(api).scheme == "http" or name.rpartition(":")[0] in _LOOPBACK or name in _LOOPBACK


def _joined(words: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*words, *more)))

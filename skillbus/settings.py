"""What can be set, group by group. Under each field: its unit, its default, and why that default.

Every field is read from ``SKILLBUS_<NAME>`` (other accepted names are listed beside it) and, for a secret, from the
file that ``SKILLBUS_<NAME>_FILE`` names. Nothing here is read later than at start, but the policy (pod/policy.py).
Secrets are never taken from the command line, and never shown.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from skillbus.core.scope import checked_name
from skillbus.errors import BadSettings

POLICY_NAMES = ("SKILLBUS_POLICY", "NBI_SKILLS_MANAGEMENT_POLICY")
"""``force-off`` in any of them stops a pod. Read before each cycle, not once (pod/policy.py)."""

WEBHOOK_SECRET = re.compile("SKILLBUS_WEBHOOK_[A-Z0-9_]+_SECRET(_FILE)?")
"""The settings of webhooks are found by name (console/webhooks/settings.py); these hold secrets."""

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: str | float) -> float:
    """Seconds in ``250ms``, ``2s``, ``5m``, ``24h``, ``7d``, or a bare number of seconds.

    Raises:
        ValueError: it is none of these, or negative.
    """
    if isinstance(text, int | float):
        value = float(text)
    elif not isinstance(text, str):  # from a host's configuration anything may come
        raise ValueError(f"{text!r} is no duration: write it as 250ms, 2s, 5m or 24h")
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", text)
        if match is None:
            raise ValueError(f"{text!r} is no duration: write it as 250ms, 2s, 5m or 24h")
        value = float(match[1]) * _UNITS_S[match[2] or "s"]
    if value < 0:
        raise ValueError(f"{text!r} is negative: a duration is not")
    return value


def _words(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def http_address(text: str) -> tuple[str, int]:
    """``(host, port)`` of ``0.0.0.0:9464``, ``[::1]:9464`` or ``:9464``, which is on loopback.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):(\d{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"{text!r} is no HOST:PORT: write it as 0.0.0.0:9464, [::1]:9464 or :9464")
    return match[1].strip("[]") or "127.0.0.1", int(match[2])


def _http(text: str) -> str:
    if text:
        http_address(text)
    return text


Http = Annotated[str, AfterValidator(_http)]
Seconds = Annotated[float, BeforeValidator(duration_s)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]


class _SecretFiles(PydanticBaseSettingsSource):
    """``SKILLBUS_<NAME>_FILE``: the way in which orchestrators mount secrets. One trailing line end is dropped."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        name = f"SKILLBUS_{field_name.upper()}_FILE"
        path = os.environ.get(name)
        if not path or not _is_secret(field):
            return None, field_name, False
        try:
            return Path(path).expanduser().read_text("utf-8").rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise BadSettings(f"{name} names a file that cannot be read ({path}): {_why(error)}") from error

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def _is_secret(field: Any) -> bool:
    return SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ()))


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"


class _Group(BaseSettings):
    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="SKILLBUS_", frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over secret files."""
        return init_settings, env_settings, _SecretFiles(settings_cls)


class BusSettings(_Group):
    """How Redis is reached."""

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """``redis://``, ``rediss://`` (TLS), ``unix://``, or ``redis+sentinel://host:26379,host2:26379/service/0``. A
    secret, for it can bear a password. Default: this machine."""

    redis_username: str | None = None
    """The ACL user, if the URL names none."""

    redis_password: SecretStr | None = None
    """Its password, if the URL bears none."""

    sentinel_username: str | None = None
    """The ACL user at the Sentinels, if the URL names some and they ask for one."""

    sentinel_password: SecretStr | None = None
    """The password at the Sentinels, which is not that of Redis."""

    fleet: str = "default"
    """The namespace of one fleet on that Redis."""

    command_timeout_s: Annotated[Seconds, Field(ge=0.01)] = 1.0
    """Seconds any one command may take. A stop that waits longer than this for an answer acts on not knowing."""

    @model_validator(mode="after")
    def _names(self) -> BusSettings:
        checked_name("fleet", self.fleet)
        return self


class PodSettings(_Group):
    """One pod: who it is, how often it works, how it proves that it may."""

    pod_id: str = ""
    """Default: the host's name and what makes this pod unique on it, stable over restarts (``default_pod_id``)."""

    groups: Words = ()
    """Comma-separated groups that this pod belongs to. A kill of any of them stops it."""

    state_dir: Path = Field(default_factory=lambda: default_state_dir())  # noqa: PLW0108 (defined below)
    """Where tombstones lie. It must outlive a restart of the pod, so mount it if the pod's disk does not."""

    every_s: Seconds = Field(86400.0, validation_alias=AliasChoices("SKILLBUS_EVERY_S", "SKILLBUS_EVERY"))
    """Seconds from one pass to the next. Default: a day, which is how often a manifest of skills is worth reading."""

    spread_s: Seconds | None = Field(None, validation_alias=AliasChoices("SKILLBUS_SPREAD_S", "SKILLBUS_SPREAD"))
    """Seconds over which the pods of a fleet spread their first passes after a start; with it each interval becomes up
    to a tenth longer or shorter, so that they do not march in step. 0: every time is exact. Default: 30 s, or a tenth
    of the interval if that is less, for skills on a machine that nobody watches; 0 for everything else."""

    heartbeat_s: Seconds = 2.0
    """Seconds between heartbeats, hence the longest a lost kill message goes unnoticed."""

    lease_s: Annotated[Seconds, Field(le=50)] = 6.0
    """Seconds a pod may act after its last good read. Default: three heartbeats. At most 50, for a pod's evidence in
    Redis lasts for 60: a pod that may still act must not have vanished."""

    echo_s: Annotated[Seconds, Field(ge=0.01)] = 2.0
    """Seconds within which a pod must hear its own voice, or count as deaf."""

    stop_grace_s: Seconds = 2.0
    """Seconds between SIGTERM and SIGKILL for a program that must stop. 0 kills at once."""

    require_armed: bool = True
    """Whether a fleet without an epoch holds. ``false`` is for those who prefer to run after a loss of data."""

    http: Http = ""
    """``HOST:PORT`` where this pod answers ``/livez``, ``/readyz`` and ``/metrics``. Without a host it is loopback;
    port 0 is any free one. Default: nowhere, for a port is one more thing to guard."""

    policy_file: Path | None = None
    """A file that stops this pod while it says ``force-off``. Named but unreadable: the pod holds."""

    @model_validator(mode="after")
    def _bounds(self) -> PodSettings:
        if self.pod_id:
            checked_name("pod", self.pod_id)
        for group in self.groups:
            checked_name("group", group)
        if not 0 < self.heartbeat_s < self.lease_s:
            raise ValueError(
                f"a heartbeat every {self.heartbeat_s:g} s cannot keep a lease of {self.lease_s:g} s: "
                "make SKILLBUS_LEASE_S greater than SKILLBUS_HEARTBEAT_S (best: three times)"
            )
        return self


class SkillsSettings(_Group):
    """The built-in skills reconciler."""

    skills_manifest: Words = Field((), validation_alias=AliasChoices("SKILLBUS_SKILLS_MANIFEST", "NBI_SKILLS_MANIFEST"))
    """Comma-separated manifests, merged in order: https URLs or files."""

    skills_targets: Words = ("claude",)
    """Where skills go: ``claude``, ``agents``, ``codex``, or a path."""

    skills_interval_s: Seconds | None = Field(
        None, validation_alias=AliasChoices("SKILLBUS_SKILLS_INTERVAL_S", "NBI_SKILLS_MANIFEST_INTERVAL")
    )
    """Seconds between passes; the name that existing deployments use for ``SKILLBUS_EVERY``."""

    skills_token: SecretStr | None = Field(
        None, validation_alias=AliasChoices("SKILLBUS_SKILLS_TOKEN", "NBI_MANAGED_SKILLS_TOKEN")
    )
    """A bearer token for the hosts below, and no others. Default: the next one, or what ``gh auth token`` says; these
    are GitHub's, and go to GitHub's hosts alone."""

    github_token: SecretStr | None = Field(
        None, validation_alias=AliasChoices("SKILLBUS_GITHUB_TOKEN", "GITHUB_TOKEN", "GH_TOKEN")
    )
    """The token that GitHub's own tools use, if no token for skills is set."""

    skills_token_hosts: Words = ("github.com", "api.github.com", "codeload.github.com", "raw.githubusercontent.com")
    """The hosts that may see the token."""

    skills_redirect_hosts: Words = (
        "codeload.github.com",
        "release-assets.githubusercontent.com",
        "objects.githubusercontent.com",
        "github-releases.githubusercontent.com",
    )
    """Where a download may be redirected to, besides the host that was asked. Default: where GitHub keeps tarballs and
    releases. They never see the token."""

    github_api_url: str | None = Field(None, validation_alias=AliasChoices("SKILLBUS_GITHUB_API_URL", "GITHUB_API_URL"))
    """The API of a GitHub of your own, ``https://HOST/api/v3``. Its hosts are trusted with the token."""

    github_server_url: str | None = Field(
        None, validation_alias=AliasChoices("SKILLBUS_GITHUB_SERVER_URL", "GITHUB_SERVER_URL")
    )
    """Its pages, ``https://HOST``. Default: follows from the API, and the API from this."""

    skills_local_hosts: Words = ()
    """Loopback or link-local hosts, and hosts without TLS, that a manifest may point at. Default: none."""

    skills_max_archive_mb: int = Field(
        100, ge=0, validation_alias=AliasChoices("SKILLBUS_SKILLS_MAX_ARCHIVE_MB", "NBI_SKILL_MAX_ARCHIVE_MB")
    )
    """MiB an archive may weigh on the wire. 0: no cap."""

    guard_nbi: bool = False
    """In a notebook server beside notebook-intelligence: whether a kill also calls ``stop()`` of its reconciler."""

    skills_strict: bool = False
    """Whether a skill that breaks a rule of style (not of safety) is refused instead of warned about."""


def is_hub_service() -> bool:
    """Whether this process is a service of a JupyterHub, which browsers reach; a user's server is none."""
    has_all = all(os.environ.get(f"JUPYTERHUB_{name}") for name in ("SERVICE_NAME", "SERVICE_PREFIX", "API_TOKEN"))
    return has_all and not os.environ.get("JUPYTERHUB_USER")


def _hub_service(name: str) -> str:
    return os.environ.get(f"JUPYTERHUB_SERVICE_{name}", "") if is_hub_service() else ""


class ConsoleSettings(_Group):
    """``skillbus serve``: where the console listens, and whom it lets in."""

    console_listen: Http = Field(
        default_factory=lambda: urlsplit(_hub_service("URL")).netloc or "127.0.0.1:8321", validate_default=True
    )
    """``HOST:PORT``; port 0 is any free one. Default: this machine alone; as a service of a JupyterHub, what that says
    in ``JUPYTERHUB_SERVICE_URL``. Beyond this machine a file of tokens is required, or the hub."""

    console_tokens: Path | None = None
    """A file of tokens, or a directory of such files (a mounted secret): ``skillbus token`` makes their lines. Read
    again when it changes. Default: none, so that on loopback everybody may look and nobody may order."""

    console_root_path: str = Field(default_factory=lambda: _hub_service("PREFIX"))
    """The path under which a proxy shows the console, ``/services/skillbus``. Default: none, or what a trusted proxy
    says in ``X-Forwarded-Prefix``; as a service of a JupyterHub, ``JUPYTERHUB_SERVICE_PREFIX``."""

    console_trusted_proxies: Words = ()
    """Addresses or networks whose ``X-Forwarded-For``, ``-Proto`` and ``-Prefix`` are believed. Default: none."""

    console_admin_redis_url: SecretStr | None = None
    """Redis credentials for resets alone, so that those of the console can undo nothing. Default: the same as for
    everything else, and what Redis lets them do."""

    console_session_s: Seconds = 12 * 3600.0
    """Seconds until a browser must log in again. Default: a shift."""

    console_certfile: Path | None = None
    """The certificate chain for TLS, PEM. Default: plain HTTP, for a proxy in front."""

    console_keyfile: Path | None = None
    """Its key, PEM, if the certificate's file does not hold it."""

    @model_validator(mode="after")
    def _paths(self) -> ConsoleSettings:
        path = self.console_root_path
        if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", path):
            raise ValueError(f"{path!r} is no path under which a proxy shows pages: write it as /services/skillbus")
        if self.console_keyfile is not None and self.console_certfile is None:
            raise ValueError("a key without a certificate: give SKILLBUS_CONSOLE_CERTFILE too")
        for text in self.console_trusted_proxies:
            try:
                ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text!r} is no address or network: write it as 10.0.0.7 or 10.0.0.0/8") from None
        return self


class Settings:
    """All groups, loaded once."""

    def __init__(self, bus: BusSettings, pod: PodSettings, skills: SkillsSettings, console: ConsoleSettings) -> None:
        self.bus = bus
        self.pod = pod
        self.skills = skills
        self.console = console

    def with_pod(self, **update: Any) -> Settings:
        """The same, with other settings of the pod."""
        return Settings(self.bus, self.pod.model_copy(update=update), self.skills, self.console)

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """The settings in force: ``given`` (what is not None of it), then the environment, then the defaults.

        Raises:
            BadSettings: a value cannot be used; the text names the variable and what it should be.
        """
        wanted = {name: value for name, value in given.items() if value is not None}
        groups = [_load(group, wanted) for group in GROUPS]
        unknown = set(wanted) - {name for group in GROUPS for name in group.model_fields}
        if unknown:
            raise BadSettings(f"there is no setting {sorted(unknown)[0]!r}; see: skillbus config")
        return cls(*groups)


GROUPS: tuple[type[_Group], ...] = (BusSettings, PodSettings, SkillsSettings, ConsoleSettings)


def _load(group: type[_Group], given: dict[str, Any]) -> Any:
    try:
        return group(**{name: value for name, value in given.items() if name in group.model_fields})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = env_names(group, str(first["loc"][0]))[0] if first["loc"] else ""
        text = str(first["msg"]).removeprefix("Value error, ")
        raise BadSettings(f"{name}: {text}" if name else text) from None


def env_names(group: type[_Group], field_name: str) -> list[str]:
    """The environment variables that set ``field_name``, the preferred one first."""
    if field_name.startswith(("SKILLBUS_", "NBI_")):
        return [field_name]
    alias = group.model_fields[field_name].validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [f"SKILLBUS_{field_name.upper()}"]


def set_by(group: type[_Group], field_name: str) -> str:
    """The environment variable that sets ``field_name`` now, a secret's file included; empty if none does."""
    names = env_names(group, field_name)
    if _is_secret(group.model_fields[field_name]):
        names.append(f"SKILLBUS_{field_name.upper()}_FILE")
    return next((name for name in names if os.environ.get(name)), "")


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` less what names a secret of ours: what a pod's program has no business to know."""
    secret = set()
    for group in GROUPS:
        for name, field in group.model_fields.items():
            if _is_secret(field):
                secret |= {*env_names(group, name), f"SKILLBUS_{name.upper()}_FILE"}
    secret |= {name for name in environ if WEBHOOK_SECRET.fullmatch(name)}
    return {name: value for name, value in environ.items() if name not in secret}


def origins(settings: Settings, given: frozenset[str]) -> list[tuple[str, str, str]]:
    """``(variable, value as shown, where from)`` for every setting, secrets masked."""
    rows = []
    for group, values in zip(GROUPS, (settings.bus, settings.pod, settings.skills, settings.console), strict=True):
        for name in group.model_fields:
            source = "given" if name in given else set_by(group, name)
            shown = _shown(name, getattr(values, name))
            if name == "pod_id" and not shown:
                shown = "(the host's name and a digest of what the pod does)"
            rows.append((env_names(group, name)[0], shown, source or "default"))
    for name in sorted(name for name in os.environ if name.startswith("SKILLBUS_WEBHOOK_")):
        is_secret = WEBHOOK_SECRET.fullmatch(name) and not name.endswith("_FILE")
        rows.append((name, "********" if is_secret else os.environ[name], name))
    for name in POLICY_NAMES:
        rows.append((name, os.environ.get(name, ""), name if os.environ.get(name) else "default"))
    return rows


def _shown(name: str, value: Any) -> str:
    if isinstance(value, SecretStr):
        return shown_url(value.get_secret_value()) if name.endswith("redis_url") else "********"
    if isinstance(value, tuple):
        return ",".join(shown_url(word) for word in value)
    return f"{value:g}" if isinstance(value, float) else ("" if value is None else str(value))


def shown_url(url: str) -> str:
    """A URL without user, password and query: ``redis://host:6379/0``. What is no URL stays as it is."""
    return re.sub(r"//[^/]*@", "//", url.split("?", 1)[0]) if "://" in url else url


def default_state_dir() -> Path:
    """The platform's state folder: ``$XDG_STATE_HOME/skillbus``, or ``~/.local/state/skillbus``."""
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/skillbus").expanduser()
    return Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()) / "skillbus"


def default_pod_id(work: str) -> str:
    """The host's name, and a digest of what makes a pod unique on it: the user and ``work``, what the pod does there.

    Stable over restarts, so that a kill of one pod holds it after a restart. Two pods that do the same on one host
    under one user share it, and are shown as twins.
    """
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:50] or "pod"
    unique = hashlib.sha256(f"{os.getuid()}\0{work}".encode()).hexdigest()[:8]
    return f"{host}-{unique}"


def user_at_host() -> str:
    """Who works here and where, for the audit: ``user@host``."""
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"

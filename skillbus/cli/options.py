"""Options that every command has, and the settings they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.output import Output

if TYPE_CHECKING:
    from skillbus.core.scope import Scope
    from skillbus.settings import Settings
    from skillbus.skills.options import SkillsOptions


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print: table or json.")]
FleetOption = Annotated[str | None, typer.Option("--fleet", help="The fleet. [env: SKILLBUS_FLEET]")]
RedisOption = Annotated[
    str | None,
    typer.Option("--redis", help="Where Redis is, without a password. [env: SKILLBUS_REDIS_URL]"),
]
GroupOption = Annotated[str | None, typer.Option("--group", help="Only this group of the fleet.")]
PodOption = Annotated[str | None, typer.Option("--pod", help="Only this pod.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who says so. Default: you, on this machine.")]

ManifestOption = Annotated[
    list[str] | None, typer.Option("--manifest", help="A manifest: file or URL. [env: SKILLBUS_SKILLS_MANIFEST]")
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", help="claude, agents, codex, or a path. [env: SKILLBUS_SKILLS_TARGETS]"),
]


def settings_for(fleet: str | None, redis: str | None, **given: Any) -> Settings:
    """The settings in force, options first."""
    from skillbus.settings import Settings

    refuse_password(redis)
    return Settings.load(fleet=fleet, redis_url=redis, **given)


def skills_options_for(manifest: list[str] | None = None, target: list[str] | None = None) -> SkillsOptions:
    """What a pass of skills would be told here, options first."""
    from skillbus.wiring import skills_options

    return skills_options(settings_for(None, None, skills_manifest=manifest or None, skills_targets=target or None))


def refuse_password(redis: str | None) -> None:
    """A password on the command line is refused: others can read it there."""
    from skillbus.errors import BadSettings

    if redis is not None and _bears_password(redis):
        raise BadSettings(
            "--redis bears a password, which everybody on this machine can read: "
            "put it into SKILLBUS_REDIS_PASSWORD, or the URL into SKILLBUS_REDIS_URL"
        )


def _bears_password(url: str) -> bool:
    address, _, query = url.partition("?")
    login, at, _ = address.split("//", 1)[-1].rpartition("@")
    return bool(at and ":" in login) or "password=" in query


def scope_for(settings: Settings, group: str | None, pod: str | None) -> Scope:
    """The scope that ``--group`` and ``--pod`` name."""
    from skillbus.core.scope import Fleet
    from skillbus.errors import BadSettings

    if group is not None and pod is not None:
        raise BadSettings("--group and --pod exclude each other: give one order for each")
    fleet = Fleet(settings.bus.fleet)
    if group is not None:
        return fleet.group(group)
    return fleet.scope if pod is None else fleet.pod(pod)


def words(text: str) -> str:
    """What was typed, as text that can be sent: bytes of another encoding are replaced. No reason cannot be given."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def seconds_of(option: str, text: str) -> float:
    """Seconds in the duration that ``option`` was given.

    Raises:
        BadSettings: it is none.
    """
    from skillbus.errors import BadSettings
    from skillbus.settings import duration_s

    try:
        return duration_s(text)
    except ValueError as error:
        raise BadSettings(f"{option}: {error}") from None


def whoami() -> str:
    """``user@host``."""
    from skillbus.settings import user_at_host

    return user_at_host()

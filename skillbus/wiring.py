"""The one composition root: settings -> bus, clock, reconciler -> pod and control. Nothing else knows all the rooms."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillbus.bus.connect import Endpoint
from skillbus.clock import BootClock
from skillbus.core.scope import Fleet
from skillbus.settings import BusSettings, Settings, default_pod_id, is_hub_service, without_secrets

if TYPE_CHECKING:  # An operator's verb loads no pod, and a pod no operator's bus.
    from skillbus.bus.operator_bus import OperatorBus
    from skillbus.console.console import Console
    from skillbus.core.ports import Bus, Reconciler
    from skillbus.pod.identity import Identity
    from skillbus.pod.pod import Pod
    from skillbus.skills.options import SkillsOptions


_SPREAD_S = 30.0
"""Long enough to thin out a thousand starts, short enough that nobody wonders why nothing happens."""


def endpoint_of(bus: BusSettings) -> Endpoint:
    """Where Redis is and who we are there."""
    return Endpoint(
        url=bus.redis_url.get_secret_value(),
        username=bus.redis_username,
        password=bus.redis_password.get_secret_value() if bus.redis_password else None,
        timeout_s=bus.command_timeout_s,
        sentinel_username=bus.sentinel_username,
        sentinel_password=bus.sentinel_password.get_secret_value() if bus.sentinel_password else None,
    )


def embed(
    function: Callable[..., Any], *, every: str | float | None = None, settings: Settings | None = None, **given: Any
) -> Pod:
    """A pod around ``function``, ready to ``start``: ``with skillbus.embed(work, every="5m"): …``.

    Args:
        function: what to do in each pass, sync or async, with no argument or with the checkpoint. It runs in a thread
            of its own. Call ``checkpoint()`` before every change: it raises ``PassAborted`` when the pod must stop.
        every: from one pass to the next: seconds, or ``"5m"``. Default: ``SKILLBUS_EVERY``, a day.
        settings: loaded settings; default: ``Settings.load(**given)``, from the environment.
        given: single settings by name, for example ``fleet="prod"``, ``redis_url="redis://…"``, ``pod_id="web-1"``.

    Raises:
        BadSettings: a setting cannot be used.
    """
    from skillbus.reconcilers.callback import CallbackReconciler

    loaded = settings or Settings.load(**({"every_s": every} | given if every is not None else given))
    work = f"{Path.cwd()}\0{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    return pod_of(loaded, CallbackReconciler(function), work=work)


def command_pod(settings: Settings, argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Pod:
    """A pod around a program, under its guard. The program is not told our secrets."""
    from skillbus.reconcilers.command import CommandReconciler

    reconciler = CommandReconciler(argv, settings.pod.stop_grace_s, BootClock(), without_secrets(environ))
    return pod_of(settings, reconciler, work=f"{Path.cwd()}\0{' '.join(argv)}")


def _nobody(text: str) -> None:
    """Where progress goes that nobody watches."""


def skills_pod(settings: Settings, *, tell: Callable[[str], None] = _nobody) -> Pod:
    """A pod with the built-in skills reconciler.

    Args:
        tell: called with what a pass is at, in short plain sentences, from any thread.
    """
    from skillbus.skills.reconciler import SkillsReconciler

    options = skills_options(settings)
    roots = " ".join(str(root) for root in options.targets)
    return pod_of(_spread(_with_interval(settings)), SkillsReconciler(options, BootClock(), tell=tell), work=roots)


def rollback_pod(settings: Settings, name: str, digest: str, *, tell: Callable[[str], None] = _nobody) -> Pod:
    """A pod whose passes restore one kept version of a skill. It has the id of the skills pod of these roots.

    So whatever stops that one stops this one, too.
    """
    from skillbus.skills.rollback import Rollback

    options = skills_options(settings)
    roots = " ".join(str(root) for root in options.targets)
    return pod_of(settings, Rollback(options, BootClock(), name, digest, tell), work=roots)


def skills_options(settings: Settings, *, online: bool = True) -> SkillsOptions:
    """What the skills reconciler is to do.

    Args:
        online: whether anything will be asked of the web. Then, if no token is set, ``gh`` is run to find one.
    """
    from skillbus.skills.options import SkillsOptions
    from skillbus.skills.targets import resolve_targets
    from skillbus.skills.trust import trusted

    skills = settings.skills
    targets = resolve_targets(skills.skills_targets, os.environ, Path.home(), Path.cwd())
    return SkillsOptions(
        manifests=skills.skills_manifest,
        targets=tuple(dict.fromkeys(target.user_root for target in targets)),
        project_targets=tuple(dict.fromkeys(target.project_root for target in targets)),
        **trusted(skills, find_token=online),
        max_archive_mb=skills.skills_max_archive_mb,
        strict=skills.skills_strict,
    )


def _with_interval(settings: Settings) -> Settings:
    """The interval by the name that existing deployments use, unless the pod's own was set."""
    interval_s = settings.skills.skills_interval_s
    if interval_s is None or "every_s" in settings.pod.model_fields_set:
        return settings
    return settings.with_pod(every_s=interval_s)


def _spread(settings: Settings) -> Settings:
    """A fleet of skills pods spreads its passes: a manifest is asked by all of them, and restarts come in waves."""
    if settings.pod.spread_s is not None:
        return settings
    spread_s = min(_SPREAD_S, settings.pod.every_s / 10)
    return settings.with_pod(spread_s=spread_s)


def pod_of(settings: Settings, reconciler: Reconciler, *, work: str) -> Pod:
    """A pod around any reconciler. ``work`` says what it does, to tell pods on one host apart."""
    from skillbus.pod.identity import Identity
    from skillbus.pod.pod import Pod

    identity = Identity(
        fleet=Fleet(settings.bus.fleet),
        pod_id=settings.pod.pod_id or default_pod_id(work),
        groups=settings.pod.groups,
        incarnation=uuid.uuid4().hex,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    endpoint = endpoint_of(settings.bus)
    return Pod(identity, reconciler, settings.pod, lambda: _bus(identity, endpoint))


def _bus(identity: Identity, endpoint: Endpoint) -> Bus:
    from skillbus.bus.redis_bus import RedisBus

    return RedisBus(identity.fleet, endpoint, f"skillbus-pod-{identity.pod_id}")


def operator_bus(settings: Settings) -> OperatorBus:
    """A connection with an operator's credentials."""
    from skillbus.bus.operator_bus import OperatorBus

    return OperatorBus(Fleet(settings.bus.fleet), endpoint_of(settings.bus))


def console_of(settings: Settings) -> Console:
    """The console of one fleet, with everything it needs; it looks and keeps once its app runs.

    Raises:
        BadSettings: a setting cannot be used, or the file of tokens cannot be read.
    """
    from dataclasses import replace

    from skillbus.bus.operator_bus import OperatorBus
    from skillbus.console.console import Access, Console
    from skillbus.console.eye import Eye
    from skillbus.console.hub import hub_logins
    from skillbus.console.keeper import keeper_of
    from skillbus.console.kills import Kills
    from skillbus.console.limits import Failures
    from skillbus.console.refusals import Refusals
    from skillbus.console.sessions import Sessions
    from skillbus.console.tokens import Tokens

    fleet, endpoint, clock = Fleet(settings.bus.fleet), endpoint_of(settings.bus), BootClock()
    admin_url = settings.console.console_admin_redis_url
    tokens = Tokens(settings.console.console_tokens, clock)
    tokens.demand()
    session_s = settings.console.console_session_s
    hub = hub_logins(clock, session_s) if is_hub_service() else None

    def bus() -> OperatorBus:
        return OperatorBus(fleet, endpoint)

    return Console(
        settings=settings.console,
        fleet=fleet,
        endpoint=endpoint,
        admin_endpoint=endpoint if admin_url is None else replace(endpoint, url=admin_url.get_secret_value()),
        clock=clock,
        heartbeat_s=settings.pod.heartbeat_s,
        eye=Eye(bus, clock),
        keeper=keeper_of(fleet, endpoint, settings.pod.state_dir, clock=clock),
        kills=Kills(bus),
        access=Access(
            tokens,
            Sessions(lambda who: tokens.holds(who) or (hub is not None and hub.holds(who)), clock, session_s),
            Failures(clock),
            Refusals(bus, clock),
            hub,
        ),
    )

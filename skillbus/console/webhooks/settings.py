"""Which webhooks are on: each whose secret is given. Found by name, so that a new kind needs no setting elsewhere.

    SKILLBUS_WEBHOOK_<NAME>_SECRET       one secret, or several separated by white space while they are rotated
    SKILLBUS_WEBHOOK_<NAME>_SECRET_FILE  a file of them, read again when it changes: rotated without a restart
    SKILLBUS_WEBHOOK_<NAME>_SCOPE        the most that it may stop: fleet (default), group:NAME, pod:ID, or several
    SKILLBUS_WEBHOOK_<NAME>_<OPTION>     what that kind has further (its file says which)

Whatever else begins like these is an error: a webhook that is off because of a typing error is found out too late.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skillbus.console.webhooks.webhook import Webhook
from skillbus.core.scope import Fleet, Scope
from skillbus.errors import BadSettings

_log = logging.getLogger(__name__)

_PREFIX = "SKILLBUS_WEBHOOK_"
_FILE_LIMIT = 64 * 1024

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """One webhook that is on.

    Attributes:
        secrets: those in force now.
        scopes: the most that it may stop; also what an order means that names no scope.
        options: its further settings, as words.
    """

    name: str
    webhook: Webhook
    secrets: Callable[[], tuple[str, ...]]
    scopes: tuple[Scope, ...]
    options: Mapping[str, tuple[str, ...]]


def webhooks_given(
    environ: Mapping[str, str], fleet: Fleet, kinds: frozenset[str], load: Callable[[str], Webhook]
) -> list[WebhookSettings]:
    """Every webhook whose secret is given.

    Args:
        kinds: the names of all that there are.
        load: the webhook of that name. Only those that are on are loaded.

    Raises:
        BadSettings: a setting of a webhook cannot be used.
    """
    found: dict[str, dict[str, str]] = {}
    for variable, value in sorted(environ.items()):
        if variable.startswith(_PREFIX) and value.strip():
            name = variable.removeprefix(_PREFIX).lower()
            kind = max((kind for kind in kinds if name.startswith(f"{kind}_")), key=len, default=None)
            if kind is None:
                raise BadSettings(f"{variable} is of no webhook; there are: {', '.join(sorted(kinds))}")
            found.setdefault(kind, {})[name.removeprefix(f"{kind}_")] = value.strip()
    return [_one(kind, given, fleet, load(kind)) for kind, given in found.items()]


def _one(kind: str, given: dict[str, str], fleet: Fleet, webhook: Webhook) -> WebhookSettings:
    prefix = f"{_PREFIX}{kind.upper()}_"
    known = {"secret", "secret_file", "scope", *webhook.options}
    for rest in sorted(given.keys() - known):
        there_are = ", ".join(sorted(known))
        raise BadSettings(f"{prefix}{rest.upper()} is no setting of this webhook; there are: {there_are}")
    secrets = _secrets(given, webhook, prefix)
    return WebhookSettings(kind, webhook, secrets, _scopes(given, fleet, prefix), _options(given, webhook))


def _secrets(given: Mapping[str, str], webhook: Webhook, prefix: str) -> Callable[[], tuple[str, ...]]:
    if "secret" in given:
        secrets = _checked(given["secret"].split(), webhook, f"{prefix}SECRET")
        return lambda: secrets
    if "secret_file" not in given:
        raise BadSettings(f"{prefix}SECRET is missing: this webhook has other settings, and is off without a secret")
    return SecretFile(Path(given["secret_file"]).expanduser(), webhook, f"{prefix}SECRET_FILE").secrets


def _options(given: Mapping[str, str], webhook: Webhook) -> dict[str, tuple[str, ...]]:
    return {name: tuple(re.split(r"[\s,]+", given[name])) for name in webhook.options if name in given}


def _scopes(given: Mapping[str, str], fleet: Fleet, prefix: str) -> tuple[Scope, ...]:
    labels = re.split(r"[\s,]+", given.get("scope", "fleet"))
    scopes = [scope_of(label, fleet) for label in labels]
    for label, scope in zip(labels, scopes, strict=True):
        if scope is None:
            raise BadSettings(f"{prefix}SCOPE: {label[:80]!r} is no scope: use fleet, group:NAME or pod:ID")
    return tuple(dict.fromkeys(scope for scope in scopes if scope is not None))


def scope_of(label: str, fleet: Fleet) -> Scope | None:
    """The scope that ``label`` names; None if it names none."""
    return fleet.scope if label == "fleet" else (fleet.of_suffix(f":{label}") if label else None)


def _checked(secrets: list[str], webhook: Webhook, variable: str) -> tuple[str, ...]:
    if not secrets:
        raise BadSettings(f"{variable} holds no secret")
    for secret in secrets:
        try:
            webhook.check_secret(secret)
        except ValueError as error:
            raise BadSettings(f"{variable} cannot be used: {error}") from None
    return tuple(secrets)


@dataclass(slots=True)
class SecretFile:
    """A file of secrets. Looked at for each delivery, and read again if it is another one.

    What cannot be read later, or used, changes nothing: the secrets that were in force stay, and the log says why.
    """

    path: Path
    webhook: Webhook
    variable: str
    _stamp: _Stamp = field(init=False)
    _secrets: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._stamp, self._secrets = self._seen(), self._read()
        except OSError as error:
            why = error.strerror or str(error)
            raise BadSettings(f"{self.variable} names a file that cannot be read ({self.path}): {why}") from error

    def secrets(self) -> tuple[str, ...]:
        """Those in force now."""
        try:
            stamp = self._seen()
            if stamp != self._stamp:
                self._secrets, self._stamp = self._read(), stamp
        except (OSError, BadSettings) as error:
            _log.warning("webhook secrets kept", extra={"variable": self.variable, "why": str(error)})
        return self._secrets

    def _seen(self) -> _Stamp:
        found = os.stat(self.path)  # noqa: PTH116 (one call, as cheap as can be)
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[str, ...]:
        with self.path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
        try:
            words = raw.decode().split() if len(raw) <= _FILE_LIMIT else []
        except UnicodeDecodeError:
            words = []
        return _checked(words, self.webhook, self.variable)

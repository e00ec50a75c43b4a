"""Logins through the JupyterHub whose service this console is: whose they are, what they may, whether they still may.

The hub is asked by its own client, HubOAuth, which no other module imports. What somebody may is what the hub's roles
give the token of this one login: to come in, ``access:services``; to stop, ``custom:skillbus:operate``; to permit a
restart, ``custom:skillbus:reset``, and then with the console's own Redis credentials for it, as ever.

Every login is asked for again each 30 s: a right that the hub takes away is gone within that. While the hub does not
answer, what it last said stands for 5 minutes, so that its restart takes the kill from nobody; then the login ends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from skillbus.clock import Clock
from skillbus.console.problems import Refused
from skillbus.console.tokens import Principal, Role, hash_of
from skillbus.core.text import harmless
from skillbus.errors import BadSettings, RetryLater

_ROLES = {"custom:skillbus:reset": Role.ADMIN, "custom:skillbus:operate": Role.OPERATOR}
"""What a custom scope of the hub gives, the most first."""

_EVERY_S = 30.0
_STANDS_S = 300.0
"""Seconds that the hub's last answer stands while it gives no other."""

_ANSWER_S = 10.0
_EACH_LIMIT = 10
"""Logins of one user at once; one more ends the oldest."""


class HubSilent(RetryLater):
    """The hub does not answer."""


@dataclass(frozen=True, slots=True)
class _Login:
    principal: Principal
    token: str
    since_s: float
    seen_s: float


def hub_logins(clock: Clock, lasts_s: float) -> HubLogins:
    """What this process' environment says of its hub.

    Raises:
        BadSettings: the hub's client is not installed, or the hub does not let this service log anybody in.
    """
    try:
        from jupyterhub.services.auth import HubOAuth
    except ImportError as error:
        raise BadSettings(
            f"this console is started as a service of a JupyterHub, and its client is missing ({error}): "
            "pip install 'skillbus[hub]'"
        ) from None
    if not os.environ.get("JUPYTERHUB_CLIENT_ID"):
        raise BadSettings("the hub gives this service no JUPYTERHUB_CLIENT_ID: give the service a url in its settings")
    return HubLogins(HubOAuth(), os.environ["JUPYTERHUB_SERVICE_NAME"], clock, lasts_s)


class HubLogins:
    """Those that hold.

    Args:
        auth: a HubOAuth, or what answers like one.
        service: this console's name at the hub.
        lasts_s: seconds until somebody must log in again in any case.
    """

    def __init__(self, auth: Any, service: str, clock: Clock, lasts_s: float) -> None:
        self._auth = auth
        self._service = service
        self._clock = clock
        self._lasts_s = lasts_s
        self._logins: dict[str, _Login] = {}

    def address(self, state: str) -> str:
        """Where a browser logs in at the hub; it comes back to ``oauth_callback`` with ``state``."""
        given = {
            "client_id": self._auth.oauth_client_id,
            "redirect_uri": self._auth.oauth_redirect_uri,
            "response_type": "code",
            "state": state,
        }
        return f"{self._auth.oauth_authorization_url}?{urlencode(given)}"

    async def admit(self, code: str) -> Principal:
        """Who came back from the hub with this code.

        Raises:
            Refused: 403, the hub knows no such login, or gives no right to come in.
            HubSilent: it does not answer.
        """
        token = await self._asked(self._auth.token_for_code(code, sync=False))
        principal = await self._principal(token) if token else None
        if principal is None:
            scope = f"access:services!service={self._service}"
            raise Refused(403, f"the hub does not let you in here: ask its admin for a role with {scope}")
        now_s = self._clock.now_s()
        own = [key for key, login in self._logins.items() if login.principal.name == principal.name]
        for key in own[: 1 - _EACH_LIMIT]:
            del self._logins[key]
        self._logins[principal.token_hash] = _Login(principal, token, now_s, now_s)
        return principal

    def holds(self, principal: Principal) -> bool:
        """Whether that login still stands, with the very role it had."""
        login = self._logins.get(principal.token_hash)
        return login is not None and login.principal == principal and self._clock.now_s() - login.seen_s < _STANDS_S

    def forget(self, principal: Principal) -> None:
        """Somebody has logged out."""
        self._logins.pop(principal.token_hash, None)

    async def run(self) -> None:
        """Ask again, for ever."""
        while True:
            await self._clock.sleep(_EVERY_S)
            await self.ask_again()

    async def ask_again(self) -> None:
        """Ask the hub for every login once. Who may something else than before must log in anew."""
        for key, login in list(self._logins.items()):
            now_s = self._clock.now_s()
            try:
                found = await self._principal(login.token)
            except HubSilent:
                found = login.principal if now_s - login.seen_s < _STANDS_S else None
                now_s = login.seen_s
            if found != login.principal or now_s - login.since_s >= self._lasts_s:
                self._logins.pop(key, None)
            elif key in self._logins:
                self._logins[key] = _Login(found, login.token, login.since_s, now_s)

    async def _principal(self, token: str) -> Principal | None:
        """Whose token this is, and what it gives; None: nothing."""
        user = await self._asked(self._auth.user_for_token(token, use_cache=False, sync=False))
        role = None if user is None else self._role(user)
        return Principal(f"hub:{harmless(str(user['name']), 80)}", role, (), hash_of(token)) if role else None

    def _role(self, user: Mapping[str, Any]) -> Role | None:
        if not self._auth.check_scopes(self._auth.access_scopes, user):
            return None
        given = (role for scope, role in _ROLES.items() if self._has(scope, user))
        return next(given, Role.VIEWER)

    def _has(self, scope: str, user: Mapping[str, Any]) -> bool:
        """Everywhere, or for this service alone: a hub may have a console for each fleet."""
        return bool(self._auth.check_scopes({f"{scope}!service={self._service}"}, user))

    async def _asked(self, question: Any) -> Any:
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await question
        except Exception as error:  # tornado's HTTPError, whatever went wrong; and the client's own
            why = getattr(error, "log_message", None) or type(error).__name__
            raise HubSilent(f"the hub does not confirm who you are ({harmless(str(why), 200)})") from None

"""Logins through the hub on a still clock: what its scopes give, how long they stand, and when they end.

The hub's client is a stand-in that answers like HubOAuth; the real one, and a real hub, are in tests/jupyter.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from skillbus.console.hub import HubLogins, HubSilent
from skillbus.console.problems import Refused
from skillbus.console.tokens import Principal, Role
from tests.fakes.clock import FakeClock

ACCESS, OPERATE, RESET = "access:services!service=switch", "custom:skillbus:operate", "custom:skillbus:reset"
HOUR_S = 3600.0


def turning(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that runs on a loop of its own."""

    @functools.wraps(test)
    def run(*words: Any, **more: Any) -> None:
        async def alone() -> None:
            await test(*words, **more)

        asyncio.run(alone())

    return run


@dataclass
class StandInAuth:
    """What the hub's client answers: a code is the name of a user, and so is the token for it."""

    scopes: dict[str, set[str]] = field(default_factory=dict)
    silent: bool = False
    access_scopes: frozenset[str] = frozenset({ACCESS})
    count: int = 0

    async def token_for_code(self, code: str, *, sync: bool) -> str:
        self.count += 1
        return f"{code} {self.count}"

    async def user_for_token(self, token: str, *, use_cache: bool, sync: bool) -> dict[str, Any] | None:
        if self.silent:
            raise OSError("nobody there, and no token in here")
        name = token.split()[0]
        return {"name": name, "scopes": self.scopes[name]} if name in self.scopes else None

    def check_scopes(self, required: Iterable[str], user: dict[str, Any]) -> set[str]:
        return {one for one in required if one in user["scopes"] or one.partition("!")[0] in user["scopes"]}


@dataclass
class Door:
    auth: StandInAuth = field(default_factory=StandInAuth)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.logins = HubLogins(self.auth, "switch", self.clock, 12 * HOUR_S)

    async def come(self, *scopes: str, name: str = "ada") -> Principal:
        self.auth.scopes[name] = set(scopes)
        return await self.logins.admit(name)


@pytest.mark.parametrize(
    ("scopes", "role"),
    [
        ({ACCESS}, Role.VIEWER),
        ({ACCESS, "custom:skillbus:else"}, Role.VIEWER),
        ({ACCESS, OPERATE}, Role.OPERATOR),
        ({ACCESS, OPERATE + "!service=switch"}, Role.OPERATOR),
        ({ACCESS, OPERATE + "!service=other"}, Role.VIEWER),
        ({ACCESS, RESET}, Role.ADMIN),
        ({ACCESS, OPERATE, RESET}, Role.ADMIN),
    ],
)
@turning
async def test_scopes_give_a_role(scopes: set[str], role: Role) -> None:
    """The most that they give; a scope for another service gives nothing here."""
    who = await Door().come(*scopes)
    assert (who.name, who.role) == ("hub:ada", role)


@pytest.mark.parametrize("scopes", [set(), {OPERATE, RESET}, {"access:services!service=other"}])
@turning
async def test_nobody_else_comes_in(scopes: set[str]) -> None:
    """Who may not come in may nothing, whatever else they have."""
    with pytest.raises(Refused, match="does not let you in"):
        await Door().come(*scopes)


@pytest.mark.parametrize("now", [None, {ACCESS}, {ACCESS, OPERATE, RESET}, {OPERATE}])
@turning
async def test_a_login_ends_with_what_it_rests_on(now: set[str] | None) -> None:
    """The token is gone, or gives less or more than it did: log in anew."""
    door = Door()
    who = await door.come(ACCESS, OPERATE)
    await door.logins.ask_again()
    assert door.logins.holds(who)
    if now is None:
        del door.auth.scopes["ada"]
    else:
        door.auth.scopes["ada"] = now
    await door.logins.ask_again()
    assert not door.logins.holds(who)


@turning
async def test_a_silent_hub_takes_the_kill_from_nobody_for_five_minutes() -> None:
    """Counted from its last answer; then nobody is in whom it does not confirm. A new login gets a sentence."""
    door = Door()
    who = await door.come(ACCESS, OPERATE)
    door.auth.silent = True
    with pytest.raises(HubSilent, match="the hub does not confirm who you are"):
        await door.come(ACCESS, name="bob")
    for _ in range(9):
        await door.clock.advance(30)
        await door.logins.ask_again()
        assert door.logins.holds(who)
    await door.clock.advance(31)
    assert not door.logins.holds(who), "also between two questions"
    await door.logins.ask_again()
    door.auth.silent = False
    await door.logins.ask_again()
    assert not door.logins.holds(who), "what has ended stays ended"


@turning
async def test_a_login_ends_with_the_session_and_with_a_logout() -> None:
    """Nothing is kept, and no hub asked, for a session that is over."""
    door = Door()
    first, second = await door.come(ACCESS), await door.come(ACCESS)
    door.logins.forget(first)
    assert [door.logins.holds(who) for who in (first, second)] == [False, True]
    await door.clock.advance(12 * HOUR_S)
    await door.logins.ask_again()
    assert not door.logins.holds(second)


@turning
async def test_one_user_cannot_fill_the_house() -> None:
    """Ten logins each, on ten machines: one more ends the oldest, and nobody else's."""
    door = Door()
    bob = await door.come(ACCESS, name="bob")
    own = [await door.come(ACCESS) for _ in range(12)]
    assert [door.logins.holds(who) for who in own] == [False] * 2 + [True] * 10
    assert door.logins.holds(bob)


@turning
async def test_nobody_becomes_another_by_a_name() -> None:
    """A hub's user is marked as one, so that he is never taken for a token's entry; and shown harmless."""
    assert (await Door().come(ACCESS, name="on\u202ecall")).name == "hub:on call"

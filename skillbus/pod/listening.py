"""A subscriber connection kept alive: subscribe, confirm, read, then listen; hear one's own voice, or count as deaf.

The order is the protocol's (docs/protocol.md §3.1), at start and after every lost connection: every channel's
confirmation is counted, and only then is the record read, so that there is no gap in which a kill is missed. No payload
and no error ends the listener: what breaks is dropped and subscribed anew. What a message means is its owner's
business: a pod's (pod/watch.py), or a keeper's (console/keeper.py).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Protocol

from skillbus.clock import Clock
from skillbus.core.ports import Message, Subscription
from skillbus.core.text import harmless
from skillbus.errors import BusUnreachable, SkillbusError
from skillbus.pod.retry import endless

log = logging.getLogger(__name__)

_NAME_LENGTH = 32
"""An echo begins with its incarnation, 32 hexadecimal digits; behind a colon its number follows, 1 for the first."""


class Ears:
    """Whether, and since when, a listener hears: what it learns itself, and what its heartbeat reports.

    Attributes:
        hears: the channels confirmed on the present connection.
        heard_at_s: boot-time clock, seconds: the last echo on it; None if there was none yet.
        last_heard_at_s: the last echo on any connection.
        hears_since_s: the first echo on the present connection; None while it has brought none.
        unheard_since_s: since when no connection has brought an echo; None while the present one has.
        ever_opened: whether there was a connection with every channel confirmed. Before that no pod runs (§3.1).
        echo_s: seconds within which an echo must come back.
        deaf_since_s: since when not every kill channel is confirmed, or an echo is overdue; None while hearing.
        server: the address that the present connection leads to, if that is known; empty: it is not.
    """

    def __init__(self, clock: Clock, echo_s: float) -> None:
        self._clock = clock
        self.echo_s = echo_s
        self._spoken: bytes | None = None
        self._due_at_s: float | None = None
        self._said = self._heard = 0
        self._proves_from = 0
        self.hears: frozenset[str] = frozenset()
        self.server = ""
        self.ever_opened = False
        self.heard_at_s: float | None = None
        self.last_heard_at_s: float | None = None
        self.hears_since_s: float | None = None
        self.unheard_since_s: float | None = clock.now_s()
        self.deaf_since_s: float | None = clock.now_s()

    @property
    def armed(self) -> bool:
        """Every kill channel was confirmed on the very connection that echoes (docs/protocol.md §3.5)."""
        return self.deaf_since_s is None and self.heard_at_s is not None

    def speak(self, echo: bytes) -> None:
        """The listener is about to say ``echo``. It may come back before the answer to its sending does."""
        self._said = _number_of(echo)
        if self._spoken is None:
            self._spoken = echo

    def spoke(self, *, sent: bool) -> None:
        """The server took the echo, which must come back from now on; or nobody knows, and nothing is expected."""
        if not sent:
            self.doubt(self._said + 1)
            self._spoken = self._due_at_s = None
        elif self._spoken is not None and self._due_at_s is None:
            self._due_at_s = self._clock.now_s() + self.echo_s

    def echoed(self, echo: bytes) -> bool:
        """A voice came back: whether it is ours. A twin's proves nothing about us."""
        if self._spoken is None or echo[:_NAME_LENGTH] != self._spoken[:_NAME_LENGTH]:
            return False
        if _number_of(echo) < self._proves_from:  # Of before the doubt: a frozen server woke, and did as it was asked.
            return False
        self._heard = _number_of(echo)
        self._spoken = self._due_at_s = None
        self.heard_at_s = self.last_heard_at_s = self._clock.now_s()
        if self.hears_since_s is None:
            self.hears_since_s = self.heard_at_s
        self.unheard_since_s = None
        return True

    @property
    def overdue(self) -> bool:
        """Whether an echo should have come back by now."""
        return self._due_at_s is not None and self._clock.now_s() > self._due_at_s

    def doubt(self, from_number: int) -> None:
        """Whom we ask may not be whom we listen to. Only an echo of that number, or of a later one, disproves it."""
        self._proves_from = from_number

    def moved(self) -> None:
        """The last echo was given to another server than the ones before."""
        self.doubt(self._said)

    @property
    def in_doubt(self) -> bool:
        """Whether what we say must come back before it is known that we listen where we ask."""
        return self._heard < self._proves_from

    def opened(self, confirmed: frozenset[str], server: str = "") -> None:
        """A new connection, on which every channel is confirmed."""
        self.hears = confirmed
        self.server = server
        self.ever_opened = True
        self.deaf_since_s = None
        self._spoken = self._due_at_s = None

    def lost(self) -> None:
        """The connection is gone."""
        self.hears = frozenset()
        self.heard_at_s = self.hears_since_s = None
        if self.unheard_since_s is None:
            self.unheard_since_s = self._clock.now_s()
        self._spoken = self._due_at_s = None
        if self.deaf_since_s is None:
            self.deaf_since_s = self._clock.now_s()


def _number_of(echo: bytes) -> int:
    number = echo[_NAME_LENGTH + 1 :]
    return int(number) if number.isdigit() and len(number) < 20 else 0


class Listens(Protocol):
    """Whoever owns a listener: a pod's watch, a keeper."""

    @property
    def awaited(self) -> frozenset[str]:
        """The channels and patterns that must be confirmed."""
        ...

    async def subscribe(self) -> Subscription:
        """Open a subscriber connection and ask for what is ``awaited``."""
        ...

    def heed(self, message: Message, confirmed: frozenset[str]) -> None:
        """A message came, on a connection on which these were confirmed. It never raises."""
        ...

    async def catch_up(self) -> None:
        """Everything is confirmed: read what was decided before.

        Raises:
            SkillbusError: it cannot be read. The connection is dropped, and all is tried anew.
        """
        ...

    def hearing(self) -> None:
        """Subscribed, confirmed and read."""
        ...

    def unheard(self, error: SkillbusError) -> None:
        """An attempt to get there failed."""
        ...

    def deaf(self) -> None:
        """The own voice did not come back in time."""
        ...


class Listener:
    """One subscriber connection, made anew whenever it breaks."""

    def __init__(self, owner: Listens, ears: Ears, clock: Clock) -> None:
        self._owner = owner
        self._ears = ears
        self._clock = clock

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            subscription = await self._established()
            try:
                await self._listen(subscription)
            except SkillbusError as error:
                log.warning("subscription lost error=%s", harmless(str(error)))
            finally:
                self._ears.lost()
                await self._drop(subscription)

    async def _drop(self, subscription: Subscription) -> None:
        """Close it, once what has arrived is heard: nobody else may have been handed that."""
        try:
            with suppress(SkillbusError):
                for _ in self._owner.awaited:  # A confirmation is no message, either.
                    while (message := await subscription.get(0)) is not None:
                        self._owner.heed(message, subscription.confirmed)
        finally:
            await subscription.close()

    async def _established(self) -> Subscription:
        async for attempt in endless(self._clock, 0.1):
            with attempt:
                return await self._establish()
        raise AssertionError("unreachable: the retries have no end")

    async def _establish(self) -> Subscription:
        try:
            subscription = await self._owner.subscribe()
            try:
                await self._confirm(subscription)
                await self._owner.catch_up()
            except BaseException:
                await self._drop(subscription)
                raise
        except SkillbusError as error:
            self._owner.unheard(error)
            raise
        self._ears.opened(subscription.confirmed, subscription.server)
        self._owner.hearing()
        return subscription

    async def _confirm(self, subscription: Subscription) -> None:
        """Wait for the confirmation of every channel. A kill that comes in between is obeyed at once."""
        awaited = self._owner.awaited
        deadline_s = self._clock.now_s() + self._ears.echo_s
        while not subscription.confirmed.issuperset(awaited):
            remaining_s = deadline_s - self._clock.now_s()
            if remaining_s <= 0:
                missing = sorted(awaited - subscription.confirmed)
                raise BusUnreachable(f"no confirmation of {', '.join(missing)}: is the channel granted by the ACL?")
            message = await subscription.get(remaining_s)
            if message is not None:
                self._owner.heed(message, subscription.confirmed)

    async def _listen(self, subscription: Subscription) -> None:
        while True:
            message = await subscription.get(self._ears.echo_s / 8)
            if message is not None:  # Whatever is late: nothing that has arrived is thrown away with the connection.
                self._owner.heed(message, subscription.confirmed)
            elif self._ears.overdue:
                break
        self._ears.lost()
        self._owner.deaf()
        raise BusUnreachable("the listener's own echo did not come back in time")

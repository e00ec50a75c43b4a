"""The keeper: always subscribed to every kill channel of a fleet, so that a raw PUBLISH lasts even when no pod is up.

``redis-cli PUBLISH skillbus:prod:kill "leaked"`` is a whole kill (docs/protocol.md §2), but somebody must hear it. The
keeper writes its record within milliseconds, keeps a tombstone of every kill that stands, writes back what Redis lost,
and tells the audit. Several side by side do no harm: the first writer wins, and each thing is told once.

It has an event loop and a thread of its own, as a pod has: a web server that is busy with ten thousand rows must not
delay a record. It stops nobody, resets nothing, and no part of a kill that is given by our tools depends on it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from skillbus.bus.connect import Endpoint
from skillbus.bus.keeper_bus import RedisKeeperBus
from skillbus.clock import BootClock, Clock, wall_ms
from skillbus.console.accounts import Accounts
from skillbus.console.kept import Kept
from skillbus.core.orders import KillOrder
from skillbus.core.ports import KeeperBus, Message, Subscription, Write, WriteAnswer
from skillbus.core.scope import Fleet, Scope
from skillbus.core.text import harmless
from skillbus.errors import DiskRefused, SkillbusError
from skillbus.pod.listening import Ears, Listener
from skillbus.pod.pod import root_cause
from skillbus.pod.recorder import Recorder
from skillbus.pod.server_time import ServerTime
from skillbus.pod.tombstone import Tombstones
from skillbus.reconcilers.own_thread import see_out
from skillbus.settings import default_pod_id

log = logging.getLogger(__name__)

BEAT_S = 1.0
"""Seconds between reads of what is kept, each with an echo. A keeper that went blind knows it within two."""

ECHO_S = 1.0
"""Seconds within which a keeper must hear its own voice."""

SURVEY_S = 30.0
"""Seconds between searches for records of kills that it did not hear (SCAN)."""

TIDY_S = 3600.0
"""Seconds between clean-ups of the roster."""

SILENT_S = 7 * 86400.0
"""A pod that was silent for so long leaves the roster (docs/protocol.md §1)."""

_RISE_S = 1.0
"""Seconds after which a keeper that broke begins anew."""


@dataclass(frozen=True, slots=True)
class KeeperStanding:
    """Where a keeper stands, as of one moment. Instants are of the server's clock, in ms; 0: never.

    Attributes:
        name: as records and the audit name it.
        hears: every kill channel is heard, and Redis answered the last time that it was asked.
        hears_since_ms: 0 while it does not.
        deaf_since_ms: since when it does not; 0 while it does. Of this machine's clock, if no server ever told its own.
        why: in a sentence, what is wrong; empty: nothing.
        persisted_count: records that it was the first to write.
        restored_count: records that it wrote back.
        last_persisted_at_ms: when it wrote the last of either.
        unrecorded: labels of the scopes whose kill it knows and cannot find in, or write to, Redis.
        remembers: whether every kill that it keeps is on its disk, too.
    """

    name: str
    hears: bool = False
    hears_since_ms: int = 0
    deaf_since_ms: int = 0
    why: str = "not started"
    persisted_count: int = 0
    restored_count: int = 0
    last_persisted_at_ms: int = 0
    unrecorded: tuple[str, ...] = ()
    remembers: bool = True


def keeper_of(fleet: Fleet, endpoint: Endpoint, state_dir: Path, *, clock: Clock | None = None) -> Keeper:
    """A keeper of ``fleet``, named for this machine.

    Args:
        state_dir: where its tombstones lie, in a folder of their own; it must outlive a restart, or what Redis loses
            meanwhile is lost.
    """
    name = default_pod_id(f"keeper\0{state_dir}")
    return Keeper(fleet, name, RedisKeeperBus(fleet, endpoint, name), state_dir, clock or BootClock())


class Keeper:
    """One keeper of one fleet. ``run`` it once, for as long as the console lives."""

    def __init__(self, fleet: Fleet, name: str, bus: KeeperBus, state_dir: Path, clock: Clock) -> None:
        self.fleet = fleet
        self.name = f"keeper:{name}"
        self._bus = bus
        self._clock = clock
        self._echo_channel = fleet.keeper_echo_channel(name)
        self._echoes_count = 0
        self._incarnation = uuid.uuid4().hex
        self._time = ServerTime(clock)
        self._kept = Kept()
        self._ears = Ears(clock, ECHO_S)
        # Not by its name: that follows the host's, and a keeper that comes back elsewhere must find what it left.
        self._tombstones = Tombstones(state_dir / "keeper", "keeper")
        self._recorder = Recorder(self._kept, bus, self._tombstones, clock, has_beats=False)
        self._recorder.on_answer = self._answered
        self._accounts = Accounts(self.name, clock, self._time)
        self._beat_soon, self._survey_soon = asyncio.Event(), asyncio.Event()
        self._not_heard = "not subscribed yet"
        self._not_seen = self._disk = ""
        self._since_ms = self._now_ms()
        self._standing = KeeperStanding(self.name, deaf_since_ms=self._since_ms)

    @property
    def standing(self) -> KeeperStanding:
        """Where it stands now. From any thread."""
        return self._standing

    # -- its life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep, in a thread of its own, until cancelled; then what is on its way is finished."""
        loop = asyncio.new_event_loop()
        life = loop.create_task(self.keep(), name="skillbus-keeper")

        def end() -> None:
            with suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(life.cancel)

        def work() -> None:
            try:
                loop.run_until_complete(life)
            finally:
                loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()

        await see_out(work, end, "skillbus-keeper")

    async def keep(self) -> None:
        """The same on the running loop. What breaks is said, logged, and begun anew."""
        try:
            while True:
                try:
                    await self._live()
                except Exception as error:
                    log.exception("the keeper broke and begins anew")
                    self._ears.lost()
                    self._not_heard = f"the keeper broke and begins anew: {_root(error)}"
                    self._weigh()
                    await self._clock.sleep(_RISE_S)
        finally:
            await asyncio.shield(self._farewell())

    async def _live(self) -> None:
        await self._wake()
        self._weigh()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run())
            group.create_task(self._show())
            group.create_task(Listener(self, self._ears, self._clock).run())
            group.create_task(self._beat())
            group.create_task(self._survey())
            group.create_task(self._tidy())
            group.create_task(self._accounts.run(self._bus))

    async def _wake(self) -> None:
        """Read the tombstones. A disk that takes none makes a keeper forgetful, and no worse at hearing."""
        try:
            await asyncio.to_thread(self._tombstones.prepare)
            found = await asyncio.to_thread(self._tombstones.load_all, self.fleet)
            self._disk = ""
        except (DiskRefused, OSError) as error:
            log.error("tombstones cannot be kept error=%s", harmless(str(error)))
            found, self._disk = [], str(error)
        self._kept.wake(found)

    async def _farewell(self) -> None:
        """What is not recorded is tried once more; its tombstone remembers it anyway."""
        try:
            await self._recorder.try_once()
            await self._recorder.finish()
        finally:
            await self._bus.close()

    # -- what it hears ----------------------------------------------------------------------------------------------

    @property
    def awaited(self) -> frozenset[str]:
        """The fleet's kill channel, those of all groups and pods by their pattern, and its own voice."""
        return frozenset((self.fleet.scope.kill_channel, self._echo_channel, self.fleet.kill_pattern))

    async def subscribe(self) -> Subscription:
        """Ask for them."""
        return await self._bus.subscribe([self.fleet.scope.kill_channel, self._echo_channel], [self.fleet.kill_pattern])

    def heed(self, message: Message, confirmed: frozenset[str]) -> None:
        """Any payload on a kill channel is an order (docs/protocol.md §2)."""
        if message.channel == self._echo_channel:
            if self._ears.echoed(message.payload):
                self._weigh()
            return
        scope = self.fleet.of_kill_channel(message.channel)
        if scope is None:
            return
        order = KillOrder.parse(message.payload)
        record = order.record(fallback_id=uuid.uuid4().hex, now_ms=self._now_ms(), heard_by=self.name)
        if scope not in self._kept.scopes:  # Further ones are the audit's: a flood must not fill the log.
            log.warning("kill heard scope=%s record=%s", scope, harmless(record.id))
        if self._kept.hear(scope, record):
            self._accounts.heard(scope, record, message.payload, named=bool(order.id))

    async def catch_up(self) -> None:
        """Read what is kept, and have the rest searched for: of a kill that was missed there is a record at most."""
        await self._look()
        self._survey_soon.set()

    def hearing(self) -> None:
        """Subscribed, confirmed and read; its own voice will tell whether that is so."""
        self._not_heard = "waiting for its own voice"
        self._weigh()
        self._beat_soon.set()

    def unheard(self, error: SkillbusError) -> None:
        """It could not subscribe."""
        self._not_heard = f"not subscribed: {error}"
        self._weigh()

    def deaf(self) -> None:
        """Its own voice did not come back."""
        self._not_heard = "deaf: it does not hear its own voice; subscribing again"
        self._weigh()

    # -- what it sees -----------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Read what is kept, and speak, once a second: a lost record is written back, a hung server is noticed."""
        while True:
            self._beat_soon.clear()
            began_at_s = self._clock.now_s()
            self._echoes_count += 1
            echo = f"{self._incarnation}:{self._echoes_count}".encode()
            self._ears.speak(echo)
            try:
                await self._look(echo)
                self._ears.spoke(sent=True)
                self._not_seen = ""
            except SkillbusError as error:
                self._ears.spoke(sent=False)
                self._not_seen = str(error)
            self._weigh()
            await self._clock.wait(self._beat_soon, began_at_s + BEAT_S - self._clock.now_s())

    async def _look(self, echo: bytes = b"", more: Iterable[Scope] = ()) -> None:
        """Read every kept scope, and ``more``, and weigh what they say."""
        before = self._kept.memory.obeyed
        scopes = [self.fleet.scope, *sorted({*self._kept.scopes, *more} - {self.fleet.scope})]
        sent_at_s = self._clock.now_s()
        speaking = self._bus.speak(scopes, self._echo_channel, echo) if echo else self._bus.read(scopes)
        reading = await speaking
        self._time.note_server_ms(reading.server_ms, sent_at_s)
        now = self._kept.memory.obeyed
        # Of a kill that was heard or settled meanwhile this reading may say what was before.
        self._kept.fold({scope: one for scope, one in reading.scopes.items() if now.get(scope) is before.get(scope)})

    async def _survey(self) -> None:
        """Look for records of kills that it did not hear, so that their loss will be noticed."""
        while True:
            await self._clock.wait(self._survey_soon, SURVEY_S)
            self._survey_soon.clear()
            try:
                await self._look(more=await self._bus.killed_scopes())
            except SkillbusError as error:
                log.info("records were not searched for error=%s", harmless(str(error)))
            self._weigh()

    async def _tidy(self) -> None:
        while True:
            await self._clock.sleep(TIDY_S)
            try:
                count = await self._bus.tidy_roster(SILENT_S)
            except SkillbusError as error:
                log.info("the roster was not tidied error=%s", harmless(str(error)))
                continue
            if count:
                self._accounts.tidied(count)

    # -- what it did ------------------------------------------------------------------------------------------------

    def _answered(self, scope: Scope, answer: WriteAnswer) -> None:
        """An attempt to write a record answered."""
        obeyed = self._kept.memory.obeyed.get(scope)
        is_ours = obeyed is not None and obeyed.record.id == answer.record.id
        lost = scope in self._kept.lost and is_ours
        if answer.write is Write.WRITTEN:
            told = self._standing
            self._standing = replace(
                told,
                persisted_count=told.persisted_count + (not lost),
                restored_count=told.restored_count + lost,
                last_persisted_at_ms=self._now_ms(),
            )
        self._accounts.answered(scope, answer, lost=lost)

    def _now_ms(self) -> int:
        """The server's clock; this machine's, to be shown, while no server ever told its own."""
        return self._time.now_ms() or wall_ms()

    async def _show(self) -> None:
        """What is kept changed: the standing follows at once."""
        changed = self._kept.listen()
        while True:
            await changed.wait()
            changed.clear()
            self._weigh()

    def _weigh(self) -> None:
        """What is wrong, and since when."""
        hears = self._ears.armed and not self._not_seen
        if hears is not self._standing.hears:
            self._since_ms = self._now_ms()
        unrecorded = tuple(scope.label for scope in self._kept.unrecorded)
        self._standing = replace(
            self._standing,
            hears=hears,
            hears_since_ms=self._since_ms if hears else 0,
            deaf_since_ms=0 if hears else self._since_ms,
            why=self._why(unrecorded),
            unrecorded=unrecorded,
            remembers=not self._disk and self._recorder.latch_durable,
        )

    def _why(self, unrecorded: tuple[str, ...]) -> str:
        reasons = [self._not_seen, "" if self._ears.armed else self._not_heard]
        if unrecorded:
            reasons.append(f"killed, and not recorded yet: {', '.join(unrecorded[:5])}")
        if self._accounts.refusal:
            reasons.append(f"the audit is not told: {self._accounts.refusal}")
        if self._disk or not self._recorder.latch_durable:
            reasons.append(self._disk or "its tombstones do not reach the disk")
        return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def _root(error: BaseException) -> str:
    cause = root_cause(error)
    return str(cause) or type(cause).__name__

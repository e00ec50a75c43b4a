"""One suite for every bus: what a pod may rely on, in memory, on fakeredis, and on each real server of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import skillbus.bus.redis_bus as redis_bus_module
from skillbus.bus.connect import Endpoint
from skillbus.bus.redis_bus import HASH_TTL_S, LASTING_TTL_S, RedisBus
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import ScopeReading, State, superseded
from skillbus.core.orders import KillRecord
from skillbus.core.ports import Bus, Message, Reading, Subscription, Write, WriteAnswer
from skillbus.core.scope import Scope
from skillbus.core.skillset import SKILLS_LIMIT, digest_of, encoded
from skillbus.errors import BusDenied, BusNotReady, BusUnreachable
from tests import profiles
from tests.contract.grounds import POD, PROD, FakeGround, Ground, MemoryGround, RealGround, demand
from tests.servers import RealServer, server_binary, server_names

assert profiles

FLEET, GROUP, OWN = PROD.scope, PROD.group("batch"), PROD.pod(POD)
SCOPES = (FLEET, GROUP, OWN)
CHANNELS = [*(scope.kill_channel for scope in SCOPES), PROD.echo_channel(POD), PROD.events_channel]
RECORD = KillRecord(id="ours", at="2026-01-31T14:02:11.123Z", by="web-1", via="pubsub", reason="grüße", heard_by=POD)
THEIRS = b'{"v": 1, "id": "theirs", "reason": "first", "severity": 9}'
HOSTILE = [
    b"",
    b"\x00",
    b"\xff\xfe\xfd",
    b'{"id": "trunc',
    b"+OK\r\n$-1\r\n*0\r\n",
    b"message",
    b"1",
    "Grüße \u202e".encode(),
    bytes(range(256)),
    b"x" * (1024 * 1024),
]
PATIENCE_S = 5.0

T = TypeVar("T")


@pytest.fixture(scope="module", params=["memory", "fakeredis", *server_names()])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Each kind of server in turn, started once."""
    if request.param == "memory":
        yield MemoryGround()
    elif request.param == "fakeredis":
        yield FakeGround()
    else:
        with RealServer(server_binary(request.param), tmp_path_factory.mktemp("contract")) as server:
            yield RealGround(server)


@pytest.fixture
def ground(place: Ground) -> Ground:
    """The server, empty."""
    place.clear()
    return place


def on(ground: Ground, test: Callable[[Bus], Awaitable[T]]) -> T:
    """Run ``test`` with a bus on ``ground``."""

    async def main() -> T:
        bus = ground.bus()
        try:
            return await test(bus)
        finally:
            await bus.close()

    return asyncio.run(main())


async def confirmed(bus: Bus, channels: Sequence[str] = CHANNELS) -> Subscription:
    """A subscription on which every channel is confirmed."""
    subscription = await bus.subscribe(channels)
    async with asyncio.timeout(PATIENCE_S):
        while not subscription.confirmed.issuperset(channels):
            assert await subscription.get(0.5) is None
    return subscription


async def messages(subscription: Subscription, count: int) -> list[Message]:
    """The next ``count`` messages."""
    got: list[Message] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(got) < count:
            message = await subscription.get(0.5)
            got += [message] if message is not None else []
    return got


def beat_of(incarnation: str = "i1", beat_at_ms: int = 1_700_000_000_123) -> Heartbeat:
    """Some evidence."""
    return Heartbeat(incarnation=incarnation, state=State.RUNNING, beat_at_ms=beat_at_ms, why="grüße")


# -- subscribe ----------------------------------------------------------------------------------------------------


def test_a_subscription_confirms_each_channel_itself(ground: Ground) -> None:
    """Nothing counts as confirmed before its confirmation was got; then every channel does, and nothing else."""

    async def test(bus: Bus) -> None:
        subscription = await bus.subscribe(CHANNELS)
        assert subscription.confirmed == frozenset()
        counts = []
        while len(subscription.confirmed) < len(CHANNELS):
            assert await subscription.get(1.0) is None
            counts.append(len(subscription.confirmed))
        assert counts == list(range(1, len(CHANNELS) + 1))
        assert subscription.confirmed == frozenset(CHANNELS)
        await subscription.close()

    on(ground, test)


def test_messages_arrive_in_order(ground: Ground) -> None:
    """What was published first is got first, over all channels of a connection."""

    async def test(bus: Bus) -> None:
        subscription = await confirmed(bus)
        sent = [Message(CHANNELS[number % 3], str(number).encode()) for number in range(40)]
        for message in sent:
            assert ground.publish(message.channel, message.payload) == 1
        assert await messages(subscription, len(sent)) == sent
        await subscription.close()

    on(ground, test)


def test_a_message_between_the_confirmations_is_not_lost(ground: Ground) -> None:
    """A kill that is published while confirmations are still unread is got behind them."""

    async def test(bus: Bus) -> None:
        subscription = await bus.subscribe(CHANNELS)
        while FLEET.kill_channel not in subscription.confirmed:
            await subscription.get(1.0)
        ground.publish(FLEET.kill_channel, b"now")
        assert await messages(subscription, 1) == [Message(FLEET.kill_channel, b"now")]
        assert subscription.confirmed == frozenset(CHANNELS)
        await subscription.close()

    on(ground, test)


def test_no_message_is_none(ground: Ground) -> None:
    """``get`` gives None when nothing comes in time, and messages of other channels are nothing."""

    async def test(bus: Bus) -> None:
        subscription = await confirmed(bus)
        assert ground.publish("skillbus:other:kill", b"theirs") == 0
        assert await subscription.get(0.02) is None
        await subscription.close()

    on(ground, test)


@pytest.mark.parametrize("payload", HOSTILE, ids=lambda payload: f"{payload[:8]!r}x{len(payload)}")
def test_hostile_payloads_arrive_unchanged(ground: Ground, payload: bytes) -> None:
    """No payload is decoded, cut or swallowed on its way, and the next message still comes."""
    _arrive(ground, [payload, b"next"])


@given(payloads=st.lists(st.binary(max_size=100), min_size=1, max_size=8))
@settings(max_examples=10)
def test_any_payload_arrives_unchanged(place: Ground, payloads: list[bytes]) -> None:
    """Any bytes at all arrive as they were sent."""
    _arrive(place, payloads)


def _arrive(ground: Ground, payloads: list[bytes]) -> None:
    async def test(bus: Bus) -> None:
        subscription = await confirmed(bus)
        for payload in payloads:
            ground.publish(FLEET.kill_channel, payload)
        got = await messages(subscription, len(payloads))
        assert [message.payload for message in got] == payloads
        await subscription.close()

    on(ground, test)


def test_a_cut_subscription_never_heals_by_itself(ground: Ground) -> None:
    """A connection that broke says so: it never goes on as if nothing had been missed."""
    demand(ground, "cut_subscriptions")

    async def test(bus: Bus) -> None:
        subscription = await confirmed(bus)
        ground.cut_subscriptions()
        with pytest.raises(BusUnreachable):
            await messages(subscription, 1)
        await subscription.close()

    on(ground, test)


def test_a_cut_subscription_is_not_taken_up_again(ground: Ground) -> None:
    """Asked again after its error, a client that re-subscribed by itself is found out before it delivers anything."""
    demand(ground, "cut_subscriptions")

    async def test(bus: Bus) -> None:
        subscription = await confirmed(bus)
        ground.cut_subscriptions()
        for _ in range(2):
            with pytest.raises(BusUnreachable):
                await messages(subscription, 1)
            ground.publish(FLEET.kill_channel, b"in the gap")
        await subscription.close()

    on(ground, test)


# -- read ---------------------------------------------------------------------------------------------------------


def test_an_empty_store_is_not_armed(ground: Ground) -> None:
    """Absent epochs and records read as None, and the fleet as not armed."""
    reading = on(ground, lambda bus: bus.read(SCOPES))
    assert reading.scopes == {scope: ScopeReading(None, None) for scope in SCOPES}
    assert not reading.armed
    assert reading.server_ms > 1_600_000_000_000


def test_epochs_and_records_are_read_by_scope(ground: Ground) -> None:
    """Each scope has its own epoch and record; a record's bytes come as they are."""
    ground.put(FLEET.epoch_key, b"0")
    ground.put(OWN.epoch_key, b"1700000000123")
    ground.put(GROUP.killed_key, THEIRS)
    ground.put(OWN.killed_key, b"\xff\x00")
    reading = on(ground, lambda bus: bus.read(SCOPES))
    assert reading.scopes == {
        FLEET: ScopeReading(0, None),
        GROUP: ScopeReading(None, THEIRS),
        OWN: ScopeReading(1700000000123, b"\xff\x00"),
    }
    assert reading.armed


def test_only_the_fleets_epoch_arms(ground: Ground) -> None:
    """A group's or a pod's epoch does not arm the fleet."""
    ground.put(GROUP.epoch_key, b"5")
    ground.put(OWN.epoch_key, b"5")
    assert not on(ground, lambda bus: bus.read(SCOPES)).armed


def test_a_record_of_another_type_kills(ground: Ground) -> None:
    """If the key exists, of whatever type, the scope is killed: the record reads as empty bytes."""
    ground.put_list(FLEET.killed_key)
    assert on(ground, lambda bus: bus.read(SCOPES)).scopes[FLEET].record == b""


def test_an_empty_record_kills(ground: Ground) -> None:
    """An empty string is there, too."""
    ground.put(FLEET.killed_key, b"")
    assert on(ground, lambda bus: bus.read(SCOPES)).scopes[FLEET].record == b""


def test_a_record_of_50_mb_is_read_in_1_kib(ground: Ground) -> None:
    """Nobody is kept from stopping by a huge record: one KiB of it is read, in time."""
    ground.put(FLEET.killed_key, b"r" * 50_000_000)
    assert on(ground, lambda bus: bus.read(SCOPES)).scopes[FLEET].record == b"r" * 1024
    answer = on(ground, lambda bus: bus.write_record(FLEET, RECORD, None))
    assert answer.write is Write.ADOPTED
    assert answer.record.reason == "r" * 1024


VERBS: dict[str, Callable[[Bus], Awaitable[Reading | WriteAnswer]]] = {
    "read": lambda bus: bus.read(SCOPES),
    "beat": lambda bus: bus.beat(SCOPES, POD, beat_of(), b"echo", hint=False),
    "write_record": lambda bus: bus.write_record(GROUP, RECORD, None),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("garbage", [b"", b"soon", b"1.5", b"\xff", b"9" * 5000], ids=range(5))
def test_a_garbage_epoch_is_no_good_read(ground: Ground, verb: str, garbage: bytes) -> None:
    """An epoch that is no number is neither 0 nor anything else: nothing can be known."""
    ground.put(GROUP.epoch_key, garbage)
    with pytest.raises(BusNotReady, match="epoch"):
        on(ground, VERBS[verb])


@pytest.mark.parametrize("verb", VERBS)
def test_an_epoch_of_another_type_is_no_good_read(ground: Ground, verb: str) -> None:
    """As with garbage."""
    ground.put_list(GROUP.epoch_key)
    with pytest.raises(BusNotReady, match="epoch"):
        on(ground, VERBS[verb])


@pytest.mark.parametrize("verb", VERBS)
def test_a_replica_is_refused(ground: Ground, verb: str) -> None:
    """A server that is no master, or was demoted, gives no good read: ROLE says so, or READONLY does."""
    demand(ground, "demote")
    with ground.demote(), pytest.raises(BusNotReady, match=r"(?i)master|read.?only"):
        on(ground, VERBS[verb])


# -- beat ---------------------------------------------------------------------------------------------------------


def test_a_beat_reads_and_leaves_evidence(ground: Ground) -> None:
    """One beat: the reading, the hash, the place in the roster, the echo; and a hint only if asked for."""
    ground.put(FLEET.epoch_key, b"3")
    ground.put(OWN.killed_key, THEIRS)

    async def test(bus: Bus) -> None:
        subscription = await confirmed(bus)
        first = await bus.beat(SCOPES, POD, beat_of(), b"i1:1", hint=False)
        second = await bus.beat(SCOPES, POD, beat_of("i2", 1_700_000_000_999), b"\xffi2:1", hint=True)
        assert first.scopes == {
            FLEET: ScopeReading(3, None),
            GROUP: ScopeReading(None, None),
            OWN: ScopeReading(None, THEIRS),
        }
        assert (first.armed, first.refusal) == (True, "")
        assert (first.incarnations_count, second.incarnations_count) == (1, 2)
        assert await messages(subscription, 3) == [
            Message(PROD.echo_channel(POD), b"i1:1"),
            Message(PROD.echo_channel(POD), b"\xffi2:1"),
            Message(PROD.events_channel, POD.encode()),
        ]
        await subscription.close()

    on(ground, test)
    assert ground.roster() == {POD: 1_700_000_000_999}
    evidence = {name: Heartbeat.parse(raw) for name, raw in ground.evidence(POD).items()}
    assert evidence == {"i1": beat_of(), "i2": beat_of("i2", 1_700_000_000_999)}


def test_a_full_server_spoils_the_writes_and_not_the_read(ground: Ground) -> None:
    """Out of memory: the beat is a good read all the same, says what was refused, and the echo comes."""
    demand(ground, "refuse_writes")
    ground.put(FLEET.epoch_key, b"0")
    ground.put(GROUP.killed_key, THEIRS)

    async def test(bus: Bus) -> Reading:
        subscription = await confirmed(bus)
        with ground.refuse_writes():
            reading = await bus.beat(SCOPES, POD, beat_of(), b"echo", hint=False)
        assert await messages(subscription, 1) == [Message(PROD.echo_channel(POD), b"echo")]
        await subscription.close()
        return reading

    reading = on(ground, test)
    assert reading.scopes[GROUP].record == THEIRS
    assert "memory" in reading.refusal
    assert ground.evidence(POD) == {}


def test_incarnations_are_listed_and_forgotten(ground: Ground) -> None:
    """A pod reads its own hash by incarnation, and forgets those it names and no others."""

    async def test(bus: Bus) -> tuple[dict[str, bytes], dict[str, bytes]]:
        for name in ("i1", "i2", "i3"):
            await bus.beat(SCOPES, POD, beat_of(name), b"", hint=False)
        await bus.beat(SCOPES, "web-2", beat_of("other"), b"", hint=False)
        before = await bus.incarnations(POD)
        await bus.forget(POD, ["i1", "i3", "never"])
        return before, await bus.incarnations(POD)

    before, after = on(ground, test)
    assert before == {name: beat_of(name).to_bytes() for name in ("i1", "i2", "i3")}
    assert after == {"i2": beat_of("i2").to_bytes()}
    assert set(ground.evidence("web-2")) == {"other"}


def test_nobody_has_no_incarnations(ground: Ground) -> None:
    """A pod without a hash has none."""
    assert on(ground, lambda bus: bus.incarnations(POD)) == {}


# -- tell_skills --------------------------------------------------------------------------------------------------


SKILLS = encoded({"pdf": "a" * 64})
DIGEST = digest_of(SKILLS)


def test_a_set_is_told_under_its_digest(ground: Ground) -> None:
    """Byte for byte, under the name that the protocol gives it; told again, it stays."""

    async def test(bus: Bus) -> None:
        await bus.tell_skills(DIGEST, SKILLS)
        await bus.tell_skills(DIGEST, SKILLS)

    on(ground, test)
    assert ground.get(PROD.skills_key(DIGEST)) == SKILLS


def test_the_first_word_on_a_digest_stands(ground: Ground) -> None:
    """What lies there is never overwritten, whoever put it there: a reader judges by its digest."""
    ground.put(PROD.skills_key(DIGEST), b"forged")
    on(ground, lambda bus: bus.tell_skills(DIGEST, SKILLS))
    assert ground.get(PROD.skills_key(DIGEST)) == b"forged"


def test_the_largest_set_is_told(ground: Ground) -> None:
    """Within the command timeout."""
    value = encoded({f"{n:064d}": "a" * 64 for n in range(SKILLS_LIMIT)})
    on(ground, lambda bus: bus.tell_skills(digest_of(value), value))
    assert ground.get(PROD.skills_key(digest_of(value))) == value


def test_a_full_server_takes_no_set_and_says_so(ground: Ground) -> None:
    """An error to be tried again, and nothing is there."""
    demand(ground, "refuse_writes")
    with ground.refuse_writes(), pytest.raises(BusNotReady, match="memory"):
        on(ground, lambda bus: bus.tell_skills(DIGEST, SKILLS))
    assert ground.get(PROD.skills_key(DIGEST)) is None


# -- write_record -------------------------------------------------------------------------------------------------


def put_epoch(ground: Ground, scope: Scope, epoch: int | None) -> None:
    """Store an epoch, or leave it absent."""
    if epoch is not None:
        ground.put(scope.epoch_key, str(epoch).encode())


@pytest.mark.parametrize(("stored", "latch"), [(None, None), (None, 0), (0, 0), (7, None), (7, 7), (7, 8), (None, 9)])
def test_a_record_is_written_under_the_epoch_rule(ground: Ground, stored: int | None, latch: int | None) -> None:
    """No record there, and no newer epoch: it is written, and the answer bears the stored epoch (absent: 0)."""
    put_epoch(ground, GROUP, stored)
    answer = on(ground, lambda bus: bus.write_record(GROUP, RECORD, latch))
    assert answer == WriteAnswer(Write.WRITTEN, stored or 0, RECORD)
    assert ground.get(GROUP.killed_key) == RECORD.to_bytes()
    assert ground.get(FLEET.killed_key) is None


@pytest.mark.parametrize(("stored", "latch"), [(None, None), (7, 7), (7, 5), (7, None)])
def test_the_first_record_is_adopted(ground: Ground, stored: int | None, latch: int | None) -> None:
    """A record that is there stays, word for word, whatever the epochs; the answer bears it."""
    put_epoch(ground, GROUP, stored)
    ground.put(GROUP.killed_key, THEIRS)
    answer = on(ground, lambda bus: bus.write_record(GROUP, RECORD, latch))
    assert answer == WriteAnswer(Write.ADOPTED, stored or 0, KillRecord.parse(THEIRS))
    assert ground.get(GROUP.killed_key) == THEIRS


@pytest.mark.parametrize(("stored", "latch"), [(1, 0), (7, 6), (1_700_000_000_000, 7)])
def test_a_newer_epoch_ends_the_retries(ground: Ground, stored: int, latch: int) -> None:
    """A reset came after the latch: nothing is written."""
    put_epoch(ground, GROUP, stored)
    answer = on(ground, lambda bus: bus.write_record(GROUP, RECORD, latch))
    assert (answer.write, answer.epoch) == (Write.SUPERSEDED, stored)
    assert ground.get(GROUP.killed_key) is None


def test_a_record_of_another_type_is_adopted_without_words(ground: Ground) -> None:
    """Whatever is there kills; it has no words to show."""
    ground.put_list(GROUP.killed_key)
    answer = on(ground, lambda bus: bus.write_record(GROUP, RECORD, None))
    assert answer == WriteAnswer(Write.ADOPTED, 0, KillRecord.parse(b""))


@pytest.mark.parametrize("stored", [None, 7])
def test_a_refused_write_still_tells_the_epoch(ground: Ground, stored: int | None) -> None:
    """Out of memory: the record is not there, the answer says why, and the epoch it bears is good."""
    demand(ground, "refuse_writes")
    put_epoch(ground, GROUP, stored)
    with ground.refuse_writes():
        answer = on(ground, lambda bus: bus.write_record(GROUP, RECORD, None))
    assert (answer.write, answer.epoch, answer.record) == (Write.REFUSED, stored or 0, RECORD)
    assert "memory" in answer.refusal
    assert ground.get(GROUP.killed_key) is None


def test_a_full_server_still_ends_the_retries(ground: Ground) -> None:
    """Out of memory hides no reset."""
    demand(ground, "refuse_writes")
    put_epoch(ground, GROUP, 7)
    with ground.refuse_writes():
        assert on(ground, lambda bus: bus.write_record(GROUP, RECORD, 6)).write is Write.SUPERSEDED


def test_a_reset_in_the_midst_of_a_write_wins(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """WATCH: the epoch moves between its reading and EXEC. Nothing is written, and the older epoch is told."""
    demand(ground, "between")
    put_epoch(ground, GROUP, 7)

    def reset_now(latch_epoch: int | None, stored_epoch: int | None) -> bool:
        put_epoch(ground, GROUP, 8)
        return superseded(latch_epoch, stored_epoch)

    with monkeypatch.context() as patch:
        patch.setattr(redis_bus_module, "superseded", reset_now)
        answer = on(ground, lambda bus: bus.write_record(GROUP, RECORD, 7))
    assert (answer.write, answer.epoch) == (Write.REFUSED, 7)
    assert ground.get(GROUP.killed_key) is None
    assert on(ground, lambda bus: bus.write_record(GROUP, RECORD, 7)).write is Write.SUPERSEDED


def test_two_writers_agree_on_one_record(ground: Ground) -> None:
    """The first writer wins, and the other is told the winner's record."""
    second = KillRecord(id="second")

    async def test(bus: Bus) -> list[WriteAnswer]:
        other = ground.bus()
        try:
            both = asyncio.gather(bus.write_record(FLEET, RECORD, None), other.write_record(FLEET, second, None))
            return list(await both)
        finally:
            await other.close()

    answers = on(ground, test)
    assert sorted(answer.write for answer in answers) == [Write.ADOPTED, Write.WRITTEN]
    assert answers[0].record == answers[1].record
    assert ground.get(FLEET.killed_key) == answers[0].record.to_bytes()


# -- what only a real server can show -----------------------------------------------------------------------------


def test_only_the_pods_hash_expires(place: Ground) -> None:
    """No key but the pod's hash carries a TTL, and each beat renews it."""
    if not isinstance(place, RealGround):
        pytest.skip("a stand-in's keys do not expire")
    place.clear()

    async def test(bus: Bus) -> None:
        await bus.beat(SCOPES, POD, beat_of(), b"", hint=True)
        place.server.cli("EXPIRE", PROD.pod_key(POD), 5)
        await bus.beat(SCOPES, POD, beat_of(), b"", hint=True)
        await bus.write_record(FLEET, RECORD, None)
        await bus.tell_skills(DIGEST, SKILLS)

    on(place, test)
    keys = place.server.cli("KEYS", "*")
    assert isinstance(keys, list)
    ttls = {key: place.server.cli("TTL", key) for key in keys if isinstance(key, bytes)}
    own = ttls.pop(PROD.pod_key(POD).encode())
    assert isinstance(own, int)
    assert HASH_TTL_S - 2 <= own <= HASH_TTL_S
    lasting = (PROD.roster_key, FLEET.killed_key, PROD.skills_key(DIGEST))
    assert ttls == {key.encode(): -1 for key in lasting}


@pytest.mark.parametrize(("lasting", "ttl_s"), [(False, HASH_TTL_S), (True, LASTING_TTL_S)])
def test_a_hash_lasts_as_long_as_it_must(ground: Ground, lasting: bool, ttl_s: int) -> None:
    """A minute; or as long as the roster remembers its pod, if somebody in it could not vouch."""
    on(ground, lambda bus: bus.beat(SCOPES, POD, beat_of(), b"", hint=False, lasting=lasting))
    assert ttl_s - 2 <= ground.ttl_s(POD) <= ttl_s


def test_a_dead_server_is_unreachable(real_server: RealServer) -> None:
    """Nothing listens there: every verb says so, as an error of ours."""
    real_server.kill()
    for verb in (*VERBS, "subscribe"):
        with pytest.raises(BusUnreachable):
            asyncio.run(_verb(verb, Endpoint(real_server.url)))


def test_a_frozen_server_is_unreachable_within_the_command_timeout(redis_server: RealServer) -> None:
    """A server that accepts and never answers: every verb but subscribe ends after its timeout, as unreachable."""
    redis_server.freeze()
    try:
        for verb in VERBS:
            with pytest.raises(BusUnreachable, match=r"0\.1 s"):
                asyncio.run(_verb(verb, Endpoint(redis_server.url, timeout_s=0.1)))
    finally:
        redis_server.thaw()


@pytest.mark.parametrize("verb", [*VERBS, "subscribe"])
def test_a_wrong_password_is_denied(verb: str, redis_server: RealServer) -> None:
    """Redis refuses us: that is for a human to change, and the text shows no password."""
    endpoint = Endpoint(redis_server.url, username="nobody", password="hunter2")
    with pytest.raises(BusDenied) as raised:
        asyncio.run(_verb(verb, endpoint))
    assert "hunter2" not in f"{raised.value} {endpoint!r}"


async def _verb(verb: str, endpoint: Endpoint) -> None:
    bus = RedisBus(PROD, endpoint, "contract")
    try:
        if verb == "subscribe":
            await (await bus.subscribe(CHANNELS)).close()
        else:
            await VERBS[verb](bus)
    finally:
        await bus.close()

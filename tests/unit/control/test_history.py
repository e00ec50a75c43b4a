"""The audit read again: merged by time, filtered, in pages; and the orders that no stream tells of."""

from __future__ import annotations

import pytest

from skillbus.bus.audit_streams import PAGE_COUNT, AuditRow
from skillbus.bus.operator_bus import OperatorBus
from skillbus.control.audit import Entry, since_reset
from skillbus.control.history import KillStory, NoSuchKill, Wanted, history, newest, story
from skillbus.control.kill import Kill
from skillbus.core.heartbeat import RAW, CauseLine, FurtherLine
from skillbus.core.latch import State
from skillbus.core.orders import KillOrder, KillRecord, iso, payload_digest
from tests.unit.control.operators import FLEET, GROUP, PROD, Redis

BOT = PROD.bot_audit_key("slack")


async def every(bus: OperatorBus, wanted: Wanted) -> list[Entry]:
    """All that is wanted."""
    return [entry async for entry in history(bus, wanted)]


def told(entries: list[Entry]) -> list[str]:
    """The names of kills."""
    return [entry.fields["record"] for entry in entries]


def filled() -> Redis:
    """Two streams, whose entries lie between one another's."""
    redis = Redis()
    for number in range(3 * PAGE_COUNT):
        key = BOT if number % 3 else PROD.audit_key
        by = "carol@pager" if number % 2 else "Bob"
        scope = "group:eu" if number % 5 else "fleet"
        redis.hand.xadd(
            key, {"kind": "kill", "scope": scope, "record": f"r{number}", "by": by}, id=f"{1000 + number}-0"
        )
    return redis


def test_all_streams_are_told_in_one_order_of_time() -> None:
    """Forward and from the end, over many pages, nothing twice and nothing left out."""
    redis = filled()
    names = [f"r{number}" for number in range(3 * PAGE_COUNT)]
    assert told(redis.run(lambda bus: every(bus, Wanted()))) == names
    assert told(redis.run(lambda bus: newest(bus, Wanted(), 10_000))) == names
    last = redis.run(lambda bus: newest(bus, Wanted(), 7))
    assert told(last) == names[-7:]
    assert {entry.source for entry in last} == {"control", "bot:slack"}


def test_filters_add_up() -> None:
    """By age, kind, scope, and part of a name in any case."""
    redis = filled()
    redis.hand.xadd(PROD.audit_key, {"kind": "arm", "scope": "fleet", "by": "bob"}, id="5000-0")
    wanted = Wanted(since_ms=1100, kinds=frozenset({"kill"}), scope="fleet", by="BOB")
    names = told(redis.run(lambda bus: every(bus, wanted)))
    assert names == [f"r{number}" for number in range(100, 300) if number % 5 == 0 and number % 2 == 0]
    assert told(redis.run(lambda bus: newest(bus, wanted, 2))) == names[-2:]


def test_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader holds does not grow with the stream: no more than it needs is read."""
    redis = filled()
    asked: list[str] = []

    async def test(bus: OperatorBus) -> list[Entry]:
        read = bus.streams.older

        async def counted(key: str, before: str = "+", since_ms: int = 0) -> list[AuditRow]:
            asked.append(key)
            return await read(key, before, since_ms)

        monkeypatch.setattr(bus.streams, "older", counted)
        return await newest(bus, Wanted(kinds=frozenset({"kill"})), 3)

    redis.run(test)
    assert sorted(asked) == [PROD.audit_key, BOT]


def test_an_order_that_nobody_audited_is_told_by_what_it_left() -> None:
    """A raw PUBLISH: from the record, and from the pods that obey it. What is audited is not told twice."""
    redis = Redis()
    raw = KillRecord(id="raw1", reason="by hand", via="pubsub", heard_by="a", at=iso(redis.now_ms))
    redis.hand.set(GROUP.killed_key, raw.to_bytes())
    redis.hand.xadd(PROD.audit_key, {"kind": "kill", "scope": "fleet", "record": "k1"}, id="1-0")
    heard = {"kind": "order", "at": iso(redis.now_ms - 50)}
    causes = (
        CauseLine(scope="group:eu", record_id="raw1", **heard),
        CauseLine(scope="fleet", record_id="k1", **heard),
        CauseLine(scope="pod:a", record_id="raw2", reason="only I", **heard),
    )
    redis.pod("a", State.STOPPED, causes=causes)
    redis.pod("b", State.STOPPED, causes=causes[:2])
    entries = redis.run(lambda bus: every(bus, Wanted()))
    assert [(entry.source, entry.fields["scope"], entry.fields["record"]) for entry in entries] == [
        ("control", "fleet", "k1"),
        ("pods", "pod:a", "raw2"),
        ("record", "group:eu", "raw1"),
    ]
    assert entries[1].fields["pods"] == "a"
    assert (entries[2].fields["pods"], entries[2].fields["heard_by"]) == ("a, b", "a")


@pytest.mark.parametrize(("ago_ms", "sources"), [(500, ["control"]), (60_000, ["control", "pods"])])
def test_a_raw_order_that_a_keeper_told_of_is_told_once(ago_ms: int, sources: list[str]) -> None:
    """The keeper gave it an id of its own; it is known by its payload. Heard again long after, it is another order."""
    redis = Redis()
    at_ms = redis.now_ms - 100
    told = {"kind": "kill", "scope": "fleet", "record": "k9", "payload": payload_digest(b"again")}
    redis.hand.xadd(PROD.audit_key, told, id=f"{at_ms - ago_ms}-0")
    line = FurtherLine(scope="fleet", id=RAW + payload_digest(b"again"), reason="again", at_ms=at_ms)
    redis.pod("a", State.STOPPED, further=(line,))
    entries = redis.run(lambda bus: every(bus, Wanted()))
    assert [entry.source for entry in entries] == sources
    since = redis.run(lambda bus: since_reset(bus, FLEET, 0))
    assert [entry.source for entry in since.orders] == sources


def test_an_old_order_is_not_told_of_a_young_history() -> None:
    """--since counts for what no stream tells, too."""
    redis = Redis()
    old = KillRecord(id="raw1", at=iso(redis.now_ms - 100_000))
    redis.hand.set(FLEET.killed_key, old.to_bytes())
    for since_ms, count in ((redis.now_ms - 50_000, 0), (redis.now_ms - 150_000, 1)):
        wanted = Wanted(since_ms=since_ms)
        assert len(redis.run(lambda bus: every(bus, wanted))) == count  # noqa: B023
        assert len(redis.run(lambda bus: newest(bus, wanted, 5))) == count  # noqa: B023


def test_a_claimed_time_is_never_later_than_now() -> None:
    """An order says of itself what it likes; what it says is no reason to break, or to come last for ever."""
    redis = Redis()
    redis.hand.set(FLEET.killed_key, KillRecord(id="x", at="9999-12-31T23:59:59Z").to_bytes())
    redis.hand.set(GROUP.killed_key, KillRecord(id="y", at="yesterday").to_bytes())
    entries = redis.run(lambda bus: every(bus, Wanted()))
    assert all(0 < entry.at_ms <= redis.now_ms for entry in entries)
    assert len(entries) == 2


# -- one kill -----------------------------------------------------------------------------------------------------


def given_kill(redis: Redis, name: str = "abcdef-1") -> None:
    """A kill that was followed to its certificate."""
    order = KillOrder(id=name, by="oncall", via="cli", reason="why")
    redis.run(lambda bus: Kill(bus, FLEET, order, timeout_s=0.0).give())


def test_a_kill_is_told_with_its_certificate_and_its_reset() -> None:
    """By its id or the beginning of it; other kills are not mixed in."""
    redis = Redis()
    redis.pod("a", State.STOPPED, obeys="abcdef-1", quiet=True, quiet_at_ms=redis.now_ms)
    given_kill(redis)
    redis.hand.xadd(PROD.audit_key, {"kind": "reset", "scope": "fleet", "lifted": "zzz,abcdef-1"})
    redis.hand.xadd(PROD.audit_key, {"kind": "kill", "scope": "fleet", "record": "zzz"})

    def found(name: str) -> KillStory:
        return redis.run(lambda bus: story(bus, name))

    for name in ("abcdef-1", "abcdef"):
        one = found(name)
        assert one.record_id == "abcdef-1"
        assert [entry.fields["kind"] for entry in one.entries] == ["kill", "certificate", "reset"]
        ((_, certificate),) = one.certificates
        assert certificate.sentence.startswith("1 of 1 stopped")


def test_a_further_kill_is_found_by_its_own_id_and_shows_the_record_that_stood() -> None:
    """Its certificate is about the record that pods obey."""
    redis = Redis()
    given_kill(redis, "first-1")
    given_kill(redis, "second-2")
    found = redis.run(lambda bus: story(bus, "second-2"))
    assert found.record_id == "first-1"
    assert [entry.fields["kind"] for entry in found.entries] == ["kill", "certificate"]


@pytest.mark.parametrize("name", ["nobody", "abc", "abcdef-"])
def test_an_id_that_names_none_or_several_is_refused(name: str) -> None:
    """With the next step."""
    redis = Redis()
    given_kill(redis, "abcdef-1")
    redis.hand.xadd(PROD.audit_key, {"kind": "kill", "scope": "fleet", "record": "abcdef-2"})
    with pytest.raises(NoSuchKill, match=r"see skillbus history|begins the ids of 2 kills"):
        redis.run(lambda bus: story(bus, name))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v":1}', '{"order_ms":1e999}', "[" * 100_000])
def test_a_certificate_that_cannot_be_read_breaks_no_history(text: str) -> None:
    """It is an entry like any other."""
    redis = Redis()
    redis.hand.xadd(PROD.audit_key, {"kind": "certificate", "record": "abcdef-1", "certificate": text})
    found = redis.run(lambda bus: story(bus, "abcdef-1"))
    assert (len(found.entries), found.certificates) == (1, ())

"""A kill from the order to its proof: each answer by itself, and nothing claimed that was not observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from skillbus.bus.operator_bus import OperatorBus, OrderAnswers, _time_ms
from skillbus.control.kill import Kill, KillReport, OrderUnconfirmed, preview
from skillbus.control.status import status
from skillbus.core.audit import Told, unpacked
from skillbus.core.certificate import Certificate, Proof
from skillbus.core.heartbeat import Heartbeat
from skillbus.core.latch import State
from skillbus.core.orders import KillOrder, KillRecord
from skillbus.core.scope import Scope
from skillbus.errors import BusDenied, BusNotReady, BusUnreachable, SkillbusError
from tests.unit.control.operators import FLEET, GROUP, PROD, Redis

ORDER = KillOrder(id="k1", by="oncall", via="cli", reason="why")


def kill(bus: OperatorBus, scope: Scope = FLEET, *, wait: bool = False) -> Kill:
    """An order of ours; with ``wait`` it looks once who has obeyed."""
    return Kill(bus, scope, ORDER, timeout_s=0.0 if wait else 5.0, wait=wait)


def test_recorded_published_audited_and_read_back() -> None:
    """In one round trip; what it says stands was read from the record."""
    redis = Redis()
    ear = redis.hand.pubsub()
    ear.subscribe(FLEET.kill_channel)
    ear.get_message(timeout=1)
    report = redis.run(lambda bus: kill(bus).give())
    assert (report.stands, report.first, report.answers.recorded, report.answers.receivers) == (True, True, True, 1)
    assert report.record.reason == "why"
    assert KillRecord.parse(redis.hand.get(FLEET.killed_key)) == report.record
    heard = ear.get_message(timeout=1)
    assert KillOrder.parse(heard["data"]).id == report.record.id
    assert [(entry["kind"], entry["record"]) for entry in redis.audit()] == [("kill", report.record.id)]
    ear.close()


def test_a_second_kill_succeeds_and_shows_the_first_record() -> None:
    """It is published and audited all the same."""
    redis = Redis()
    first = KillRecord(id="k0", reason="first")
    redis.hand.set(GROUP.killed_key, first.to_bytes())
    report = redis.run(lambda bus: kill(bus, GROUP).give())
    assert (report.stands, report.first, report.answers.recorded) == (True, False, False)
    assert report.record == first
    assert [entry["scope"] for entry in redis.audit()] == ["group:eu"]


def test_a_kill_that_cannot_be_audited_is_a_kill() -> None:
    """Each answer by itself."""
    redis = Redis()
    redis.hand.set(PROD.audit_key, "no stream")
    report = redis.run(lambda bus: kill(bus).give())
    assert report.stands
    assert isinstance(report.answers.audited, SkillbusError)


def test_the_proof_is_the_pods_own_evidence() -> None:
    """Stopped for this kill, or still missing by name; what PUBLISH printed counts for nothing."""
    redis = Redis()
    redis.hand.set(FLEET.killed_key, KillRecord(id="k1").to_bytes())
    redis.pod("a", State.STOPPED, obeys="k1", quiet=True, quiet_at_ms=redis.now_ms)
    redis.pod("b", State.STOPPED, obeys="another", quiet=True)
    redis.pod("c", State.RUNNING)
    seen: list[Certificate] = []

    async def test(bus: OperatorBus) -> Certificate | None:
        order = kill(bus, wait=True)
        order.on_progress = seen.append
        return (await order.give()).certificate

    certificate = redis.run(test)
    assert certificate is not None
    assert {line.pod_id: line.proof for line in certificate.lines} == {
        "a": Proof.STOPPED,
        "b": Proof.UNCONFIRMED,
        "c": Proof.UNCONFIRMED,
    }
    assert seen[-1] == certificate
    assert not certificate.complete


def test_a_fleet_without_pods_names_the_others() -> None:
    """A person who named the wrong one sees which there are."""
    redis = Redis()
    redis.hand.set(Scope("staging").epoch_key, 0)
    report = redis.run(lambda bus: kill(bus, wait=True).give())
    assert report.fleets == (("staging", 0),)


def test_a_preview_kills_nobody() -> None:
    """The record that stands, and who would have to answer."""
    redis = Redis()
    redis.pod("a")
    redis.pod("b", age_ms=60_000)
    assert redis.run(lambda bus: preview(bus, FLEET)) == (None, frozenset({("a", "i1")}))
    assert redis.hand.get(FLEET.killed_key) is None


def test_status_tells_every_kill_and_every_pod() -> None:
    """Stragglers first; scopes of every pod and group of the roster; whether it is armed."""
    redis = Redis()
    redis.pod("a", State.STOPPED, groups=("eu",))
    redis.pod("b", State.RUNNING)
    redis.pod("c", age_ms=60_000)
    redis.hand.set(GROUP.killed_key, b"by hand")
    redis.hand.set(PROD.pod("b").killed_key, b"")
    seen = redis.run(status)
    assert [scope for scope, _ in seen.kills] == [GROUP, PROD.pod("b")]
    assert [(pod.pod_id, pod.word) for pod in seen.pods] == [("b", "running"), ("c", "fenced"), ("a", "stopped")]
    assert not seen.armed
    assert seen.fleet_record is None
    assert seen.counts() == {"running": 1, "fenced": 1, "stopped": 1}


@pytest.mark.parametrize("raw", [b"", b"\xff", b"{}", b'{"state": "x"}', b'{"lease_s": 1e400}', b"[" * 10_000])
def test_garbage_in_a_hash_breaks_no_status(raw: bytes) -> None:
    """One pod's nonsense costs that pod's evidence, and nobody else's."""
    redis = Redis()
    redis.pod("a")
    redis.hand.hset(PROD.pod_key("b"), "i1", raw)
    redis.hand.zadd(PROD.roster_key, {"b": 1, "not a name": 1})
    redis.hand.set(PROD.pod_key("c"), "no hash")
    redis.hand.zadd(PROD.roster_key, {"c": 1})
    seen = redis.run(status)
    assert {pod.pod_id: pod.word for pod in seen.pods} == {"a": "running", "b": "lost", "c": "lost"}


# -- after the order was given ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [BusDenied("NOPERM"), BusNotReady("is no master"), BusUnreachable("gone")])
@pytest.mark.parametrize("verb", ["read", "roster", "heartbeats"])
def test_an_error_after_the_order_is_told_in_the_report(
    monkeypatch: pytest.MonkeyPatch, verb: str, error: SkillbusError
) -> None:
    """Recorded and published: whatever fails then, the report says what was done, and what could not be read."""
    redis = Redis()
    redis.pod("a")

    async def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(OperatorBus, verb, refuse)
    if verb == "read":
        monkeypatch.setattr(OperatorBus, "_reading", lambda *_: _raise(error))
    report = redis.run(lambda bus: kill(bus, wait=True).give())
    assert (report.answers.recorded, report.first) == (True, True)
    if verb == "read":
        assert (report.stands, report.not_read, report.not_seen) == (False, error, None)
    else:
        assert (report.stands, report.not_read, report.not_seen) == (True, None, error)
        assert report.certificate is None, "nothing was seen, so nothing is claimed: also not that nobody is there"


def _raise(error: Exception) -> None:
    raise error


def test_what_could_not_be_read_with_the_order_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands was read from the record, with the order or behind it: never taken from the order itself."""
    redis = Redis()
    redis.hand.set(FLEET.killed_key, KillRecord(id="k0", reason="first").to_bytes())
    for way in ("with the order", "behind it"):
        report = redis.run(lambda bus: kill(bus).give())
        assert (report.stands, report.record.reason) == (True, "first"), way
        monkeypatch.setattr(OperatorBus, "_read_back", lambda *_: None)


def test_a_fleet_is_read_as_it_answers_and_counted_by_its_own_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is proved ahead is not read again. Whom the roster hides, and who spoke before he had stopped, is."""
    redis = Redis()
    proved, hidden, early, silent = [f"p{n:03}" for n in range(120)], "hidden", "early", "silent"
    given: list[KillReport] = []
    reads: list[list[str]] = []
    heartbeats = OperatorBus.heartbeats

    def answer(report: KillReport) -> None:
        given.append(report)
        for pod_id in (*proved, hidden):
            redis.pod(pod_id, State.STOPPED, obeys="k1", quiet=True, quiet_at_ms=redis.now_ms)
        redis.pod(early)
        redis.hand.zadd(PROD.roster_key, {hidden: 1, "a name that is none": redis.now_ms})

    async def noted(bus: OperatorBus, ids: Sequence[str]) -> tuple[int, dict[str, list[Heartbeat]]]:
        reads.append(list(ids))
        found = await heartbeats(bus, ids)
        if early in ids:  # Only now it has stopped.
            redis.pod(early, State.STOPPED, obeys="k1", quiet=True, quiet_at_ms=redis.now_ms)
        return found

    for pod_id in (*proved, hidden, early, silent):
        redis.pod(pod_id)
    redis.hand.zadd(PROD.roster_key, {silent: 1})
    redis.hand.delete(PROD.pod_key(silent))
    monkeypatch.setattr(OperatorBus, "heartbeats", noted)
    monkeypatch.setattr("skillbus.control.following._ANSWER_S", 0.01)  # the patience of a larger fleet
    report = redis.run(lambda bus: Kill(bus, FLEET, ORDER, timeout_s=10.0, on_given=answer).give())
    assert report.certificate is not None
    assert report.certificate.complete, report.certificate.sentence()
    assert {line.pod_id for line in report.certificate.lines} == {*proved, hidden, early}
    assert [sorted(ids) for ids in reads] == [sorted([*proved, early]), sorted([hidden, early, silent])]


def test_answers_that_come_in_waves_are_read_in_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second half that answers while the first is read is found by the roster, and nobody is read twice."""
    redis = Redis()
    first, second = [f"a{n:03}" for n in range(120)], [f"b{n:03}" for n in range(120)]
    reads: list[list[str]] = []
    heartbeats = OperatorBus.heartbeats

    def answer(ids: Sequence[str]) -> None:
        for pod_id in ids:
            redis.pod(pod_id, State.STOPPED, obeys="k1", quiet=True, quiet_at_ms=redis.now_ms)

    async def noted(bus: OperatorBus, ids: Sequence[str]) -> tuple[int, dict[str, list[Heartbeat]]]:
        reads.append(sorted(ids))
        if len(reads) == 1:
            answer(second)
        return await heartbeats(bus, ids)

    for pod_id in (*first, *second):
        redis.pod(pod_id)
        redis.hand.zadd(PROD.roster_key, {pod_id: redis.now_ms - 5_000})
    monkeypatch.setattr(OperatorBus, "heartbeats", noted)
    monkeypatch.setattr("skillbus.control.following._ANSWER_S", 0.01)  # the patience of a larger fleet
    report = redis.run(lambda bus: Kill(bus, FLEET, ORDER, timeout_s=10.0, on_given=lambda _: answer(first)).give())
    assert report.certificate is not None
    assert (report.certificate.complete, len(report.certificate.lines)) == (True, 240), report.certificate.sentence()
    assert reads == [first, second, []]


@pytest.mark.parametrize("error", [BusUnreachable("gone"), BusDenied("no permission")])
def test_who_cannot_be_told_to_have_answered_is_looked_at(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The roster's scores are a hint: without them everybody is read once it is time, and the proof is the same."""
    redis = Redis()
    ids = [f"p{n:03}" for n in range(240)]
    asked: list[int] = []

    def answer(some: Sequence[str]) -> None:
        for pod_id in some:
            redis.pod(pod_id, State.STOPPED, obeys="k1", quiet=True, quiet_at_ms=redis.now_ms)

    async def refuse(_: OperatorBus, since_ms: int) -> None:
        asked.append(since_ms)
        answer(ids[120:])
        raise error

    for pod_id in ids:
        redis.pod(pod_id)
        redis.hand.zadd(PROD.roster_key, {pod_id: redis.now_ms - 5_000})
    monkeypatch.setattr(OperatorBus, "beaten_since", refuse)
    monkeypatch.setattr("skillbus.control.following._ANSWER_S", 0.01)  # the patience of a larger fleet
    report = redis.run(lambda bus: Kill(bus, FLEET, ORDER, timeout_s=10.0, on_given=lambda _: answer(ids[:120])).give())
    assert report.certificate is not None
    assert (report.certificate.complete, len(report.certificate.lines)) == (True, 240), report.certificate.sentence()
    assert (len(asked), report.not_seen) == (1, None)


def test_a_failed_last_look_does_not_wipe_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate of the look before, and why there is none behind it."""
    redis = Redis()
    redis.pod("a", State.STOPPED, obeys="k1", quiet=True, quiet_at_ms=redis.now_ms)
    redis.pod("b")
    heartbeats, gone = OperatorBus.heartbeats, BusUnreachable("gone")
    looks = []

    async def once(bus: OperatorBus, ids: Sequence[str]) -> tuple[int, dict[str, list[Heartbeat]]]:
        looks.append(ids)
        if len(looks) > 1:
            raise gone
        return await heartbeats(bus, ids)

    monkeypatch.setattr(OperatorBus, "heartbeats", once)
    report = redis.run(lambda bus: Kill(bus, FLEET, ORDER, timeout_s=0.2).give())
    assert report.certificate is not None
    assert [line.pod_id for line in report.certificate.unconfirmed] == ["b"]
    assert report.certificate.count(Proof.STOPPED) == 1
    assert report.not_seen is gone


def test_an_order_without_an_answer_is_not_called_unstored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent, and no answer: it may be stored. Never sent: it is not. A server without WAIT: none are counted."""
    redis = Redis()
    broken = BusUnreachable("no connection")

    async def fail(*_: object) -> None:
        raise broken

    monkeypatch.setattr(OperatorBus, "order", fail)

    async def give(bus: OperatorBus, *, sent: bool) -> None:
        bus.unanswered = sent
        await kill(bus, wait=True).give()

    with pytest.raises(OrderUnconfirmed):
        redis.run(lambda bus: give(bus, sent=True))
    with pytest.raises(BusUnreachable):
        redis.run(lambda bus: give(bus, sent=False))
    monkeypatch.undo()
    assert redis.run(lambda bus: kill(bus).give()).held.replicas is None


# -- what is kept -------------------------------------------------------------------------------------------------


def certificates(redis: Redis) -> list[tuple[dict[str, str], Told]]:
    """The certificates in the audit, with their entries."""
    entries = [entry for entry in redis.audit() if entry["kind"] == "certificate"]
    read = [(entry, unpacked(entry["certificate"])) for entry in entries]
    return [(entry, told) for entry, told in read if told is not None]


def test_the_certificate_is_kept_in_the_audit() -> None:
    """As it was told: the record that stands, who ordered, each pod's line, the sentence."""
    redis = Redis()
    redis.hand.set(FLEET.killed_key, KillRecord(id="k0").to_bytes())
    redis.pod("a", State.STOPPED, obeys="k0", quiet=True, quiet_at_ms=redis.now_ms)
    redis.pod("b")
    report = redis.run(lambda bus: kill(bus, wait=True).give())
    ((entry, told),) = certificates(redis)
    assert report.certificate is not None
    assert isinstance(report.stored, str)
    assert (entry["record"], entry["order"], entry["by"], entry["complete"]) == ("k0", "k1", "oncall", "0")
    assert entry["sentence"] == told.sentence == report.certificate.sentence()
    assert "@" in entry["from"]
    assert [(line.pod_id, line.proof) for line in told.lines] == [("a", Proof.STOPPED), ("b", Proof.UNCONFIRMED)]


def test_whose_waiting_is_interrupted_is_told_what_is_proved_so_far() -> None:
    """At once, kept, and never as complete: also if all that is known so far is proved."""
    redis = Redis()
    redis.pod("a", State.STOPPED, obeys="k1", quiet=True, quiet_at_ms=redis.now_ms)
    redis.pod("b")

    async def test(bus: OperatorBus) -> KillReport:
        order = Kill(bus, FLEET, ORDER, timeout_s=3600.0)
        order.on_progress = lambda _: order.enough.set()
        return await order.give()

    report = redis.run(test)
    assert report.interrupted
    assert report.certificate is not None
    assert [line.pod_id for line in report.certificate.unconfirmed] == ["b"]
    ((entry, told),) = certificates(redis)
    assert (entry["complete"], entry["interrupted"], told.complete, told.interrupted) == ("0", "1", False, True)


def test_who_is_expected_by_a_list_and_unknown_to_redis_is_not_proved() -> None:
    """Nobody waits for it, it has a line of its own, and the certificate is not complete."""
    redis = Redis()
    redis.pod("a", State.STOPPED, obeys="k1", quiet=True, quiet_at_ms=redis.now_ms)
    names = frozenset({"a", "ghost"})
    report = redis.run(lambda bus: Kill(bus, FLEET, ORDER, timeout_s=3600.0, expect=names).give())
    assert report.certificate is not None
    assert [(line.pod_id, line.proof) for line in report.certificate.lines] == [
        ("a", Proof.STOPPED),
        ("ghost", Proof.UNKNOWN),
    ]
    assert not report.certificate.complete
    assert report.certificate.sentence().endswith("1 unknown: ghost")


@pytest.mark.parametrize(("is_audited", "is_read"), [(True, True), (False, True), (False, False)])
def test_a_server_that_does_not_tell_the_time_hides_nobody(
    monkeypatch: pytest.MonkeyPatch, is_audited: bool, is_read: bool
) -> None:
    """The stamp of the audit's entry is its time too. Without one the first read tells who is expected, and no time
    from order to quiet is claimed."""
    redis = Redis()
    order = OperatorBus.order

    async def timeless(bus: OperatorBus, *words: Any) -> OrderAnswers:
        real = await order(bus, *words)
        assert isinstance(real.audited, str)
        stamp = _time_ms(RuntimeError("no TIME"), real.audited)
        assert stamp == int(real.audited.split("-")[0])
        redis.pod("b", State.STOPPED, obeys="k1", quiet=True, quiet_at_ms=stamp + 40)
        return replace(real, server_ms=stamp if is_audited else 0)

    async def unread(*_: object) -> None:
        raise BusUnreachable("gone")

    monkeypatch.setattr(OperatorBus, "order", timeless)
    if not is_read:
        monkeypatch.setattr(OperatorBus, "read", unread)
    redis.pod("a")
    report = redis.run(lambda bus: kill(bus, wait=True).give())
    assert report.certificate is not None
    assert [(line.pod_id, line.proof) for line in report.certificate.lines] == [
        ("a", Proof.UNCONFIRMED),
        ("b", Proof.STOPPED),
    ]
    assert report.certificate.percentile_s(100) == (0.04 if is_audited else None)
    assert ("in 40 ms" in report.certificate.sentence()) is is_audited


def test_a_kill_whose_record_was_refused_is_audited_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks later sees that somebody tried, and what the server said."""
    redis = Redis()
    order = OperatorBus.order

    async def refused(bus: OperatorBus, *words: Any) -> OrderAnswers:
        return replace(await order(bus, *words), recorded=BusNotReady("no room"))

    monkeypatch.setattr(OperatorBus, "order", refused)
    redis.run(lambda bus: kill(bus).give())
    last = redis.audit()[-1]
    assert (last["kind"], last["what"], last["record"], last["by"]) == ("refused", "kill", "k1", "oncall")
    assert (last["reason"], last["why"]) == ("why", "no room")

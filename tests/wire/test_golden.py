"""Golden bytes of version 1: what any release ever wrote must be read by every later one, as literally as here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skillbus.core.heartbeat import CauseLine, DrillLine, Heartbeat, PassLine
from skillbus.core.latch import CauseKind, Obeyed, State
from skillbus.core.orders import DrillOrder, KillOrder, KillRecord, payload_digest
from skillbus.core.scope import Fleet
from skillbus.core.skillset import decoded, digest_of, encoded
from skillbus.pod.tombstone import Tombstones

RECORD = (
    b'{"v": 1, "id": "8c6a1f0e", "at": "2026-01-31T14:02:11.123Z", "by": "oncall", "via": "cli", '
    b'"reason": "manifest compromised \xc3\xa4", "incident": "INC-7", "heard_by": ""}'
)
RAW_RECORD = (
    b'{"v": 1, "id": "5f0c", "at": "2026-01-31T14:02:11.123Z", "by": "", "via": "pubsub", '
    b'"reason": "stop", "incident": "", "heard_by": "web-1"}'
)
NEWER_RECORD = b'{"v":2,"id":"n1","reason":"r","severity":9,"signed":{"by":"k","sig":"AA=="}}'
ORDER = (
    b'{"v": 1, "id": "8c6a", "at": "2026-01-31T14:02:11.123Z", "by": "oncall", "via": "cli", "reason": "r", '
    b'"incident": ""}'
)
HEARTBEAT = (
    b'{"v":1,"incarnation":"0123456789abcdef0123456789abcdef","state":"stopped","why":"fleet \'prod\' killed",'
    b'"causes":[{"kind":"record","scope":"fleet","record_id":"8c6a1f0e","reason":"manifest compromised","by":"oncall",'
    b'"at":"2026-01-31T14:02:11.123Z","lifted":false,"recorded":true},{"kind":"policy","scope":"","record_id":"",'
    b'"reason":"SKILLBUS_POLICY is force-off","by":"","at":"","lifted":false,"recorded":true}],'
    b'"beat_at_ms":1769868131123,"started_at_ms":1769868000000,"lease_s":6.0,"armed":true,"heard_at_ms":1769868131000,'
    b'"hears":["skillbus:prod:kill"],"quiet":true,"quiet_at_ms":1769868131100,"tripped_at_ms":1769868131050,'
    b'"vouched":true,"latch_durable":true,"passes_count":3,"last_pass":{"id":"a1","outcome":"aborted",'
    b'"trigger":"cycle","began_at_ms":1769868130000,"took_s":1.1,"counts":{"added":2},"errors":["no"],'
    b'"reverted":["skill-a"]},"groups":["eu"],"host":"h","pid":7,"version":"0.1.0","ended_at_ms":0}'
)
HEARTBEAT_2 = (
    b'{"v":1,"incarnation":"0123456789abcdef0123456789abcdef","state":"running","beat_at_ms":1769868131123,'
    b'"skills":"96ae02feaa8cc07a7fb03b7a0f12e0df9a1d7a8b5ad0a3e2a16cf7bfce41c8b9","rests_until_ms":1769868191123}'
)
"""With what came later: the set of skills, and until when a source is left alone."""
DRILL = b'{"v": 1, "id": "5f0c8c6a", "by": "oncall", "timeout_s": 10.0, "scope": "fleet"}'
HEARTBEAT_3 = (
    b'{"v":1,"incarnation":"0123456789abcdef0123456789abcdef","state":"running","beat_at_ms":1769868131123,'
    b'"drill":{"id":"5f0c8c6a","heard_at_ms":1769868131100,"gate_at_ms":1769868131101,"loop_at_ms":1769868131102,'
    b'"answered_at_ms":1769868131103,"trips":true,"lease":true,'
    b'"channels":["skillbus:prod:kill","skillbus:prod:kill:pod:web-1"]},'
    b'"drills_before":[{"id":"d0","heard_at_ms":1769868130000,"gate_at_ms":0,"loop_at_ms":0,"answered_at_ms":0,'
    b'"trips":false,"lease":false,"channels":[]}]}'
)
"""With the answers to drills."""
HEARTBEAT_4 = (
    b'{"v":1,"incarnation":"0123456789abcdef0123456789abcdef","state":"running","beat_at_ms":1769868131123,'
    b'"doing":"fetches github.com/o/r: 2 skills, 3.1 MiB"}'
)
"""With what its pass is at."""
HEARTBEAT_5 = (
    b'{"v":1,"incarnation":"0123456789abcdef0123456789abcdef","state":"stopped","beat_at_ms":1769868131123,'
    b'"further":[{"scope":"fleet","id":"raw-b4c9e14061c2fd453b36700e3b0da008","by":"","via":"pubsub","reason":"again",'
    b'"at_ms":1769868131000,"times":3}],"further_left_out_count":7,"user":"pod-web-1"}'
)
"""With further orders, and as whom it writes."""
SKILLS = (
    b'{"skills":{"data-eda":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",'
    b'"pdf":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"},"v":1}'
)
SKILLS_DIGEST = "b6a73410e669ac5620f03b2db53332203856107b0947efca8913b923a5f4246a"
TOMBSTONE = (
    b'{"fleet": "prod", "scope": "group:eu", "epoch": 1769868000000, "record": "{\\"v\\": 1, \\"id\\": \\"k1\\", '
    b'\\"at\\": \\"\\", \\"by\\": \\"oncall\\", \\"via\\": \\"cli\\", \\"reason\\": \\"r\\", \\"incident\\": \\"\\", '
    b'\\"heard_by\\": \\"\\"}"}'
)


def test_a_record_of_an_operator_is_read() -> None:
    """Field by field, and written back as it was."""
    record = KillRecord.parse(RECORD)
    assert record == KillRecord(
        v=1,
        id="8c6a1f0e",
        at="2026-01-31T14:02:11.123Z",
        by="oncall",
        via="cli",
        reason="manifest compromised ä",
        incident="INC-7",
    )
    assert record.to_bytes() == RECORD


def test_a_record_of_a_raw_message_is_read_and_written() -> None:
    """Who heard it is in it."""
    record = KillOrder(reason="stop").record(fallback_id="5f0c", now_ms=1769868131123, heard_by="web-1")
    assert record.to_bytes() == RAW_RECORD
    assert KillRecord.parse(RAW_RECORD) == record


def test_a_newer_record_is_read_and_kept() -> None:
    """Unknown fields survive being written back."""
    record = KillRecord.parse(NEWER_RECORD)
    assert (record.v, record.id, record.reason) == (2, "n1", "r")
    kept = json.loads(record.to_bytes())
    assert (kept["severity"], kept["signed"]) == (9, {"by": "k", "sig": "AA=="})


def test_an_order_is_read_and_written() -> None:
    """As the command line publishes it."""
    order = KillOrder(id="8c6a", at="2026-01-31T14:02:11.123Z", by="oncall", via="cli", reason="r")
    assert KillOrder.parse(ORDER) == order
    assert order.to_bytes() == ORDER


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"manifest compromised", "manifest compromised"), (b"", ""), (b"\xff", "\ufffd"), (b'{"id": 1', '{"id": 1')],
)
def test_a_raw_order_is_read(payload: bytes, reason: str) -> None:
    """What ``redis-cli PUBLISH`` sends."""
    assert KillOrder.parse(payload) == KillOrder(reason=reason, via="pubsub")


def test_a_heartbeat_is_read() -> None:
    """Field by field."""
    assert Heartbeat.parse(HEARTBEAT) == Heartbeat(
        incarnation="0123456789abcdef0123456789abcdef",
        state=State.STOPPED,
        why="fleet 'prod' killed",
        causes=(
            CauseLine(
                kind=CauseKind.RECORD,
                scope="fleet",
                record_id="8c6a1f0e",
                reason="manifest compromised",
                by="oncall",
                at="2026-01-31T14:02:11.123Z",
            ),
            CauseLine(kind=CauseKind.POLICY, reason="SKILLBUS_POLICY is force-off"),
        ),
        beat_at_ms=1769868131123,
        started_at_ms=1769868000000,
        armed=True,
        heard_at_ms=1769868131000,
        hears=("skillbus:prod:kill",),
        quiet=True,
        quiet_at_ms=1769868131100,
        tripped_at_ms=1769868131050,
        passes_count=3,
        last_pass=PassLine(
            id="a1",
            outcome="aborted",
            began_at_ms=1769868130000,
            took_s=1.1,
            counts={"added": 2},
            errors=("no",),
            reverted=("skill-a",),
        ),
        groups=("eu",),
        host="h",
        pid=7,
        version="0.1.0",
    )


def test_a_heartbeat_still_says_all_that_it_said() -> None:
    """Fields may be added; none of version 1 goes or changes its value."""
    heartbeat = Heartbeat.parse(HEARTBEAT)
    assert heartbeat is not None
    written = json.loads(heartbeat.to_bytes())
    golden = json.loads(HEARTBEAT)
    assert {name: written[name] for name in golden} == golden


def test_a_heartbeat_with_skills_is_read() -> None:
    """Field by field; without them it says that it holds none and rests for nobody."""
    newer, older = Heartbeat.parse(HEARTBEAT_2), Heartbeat.parse(HEARTBEAT)
    assert newer is not None
    assert older is not None
    assert newer.skills == "96ae02feaa8cc07a7fb03b7a0f12e0df9a1d7a8b5ad0a3e2a16cf7bfce41c8b9"
    assert newer.rests_until_ms == 1769868191123
    assert (older.skills, older.rests_until_ms) == ("", 0)
    written = json.loads(newer.to_bytes())
    assert {name: written[name] for name in json.loads(HEARTBEAT_2)} == json.loads(HEARTBEAT_2)


def test_a_drill_is_read_and_written() -> None:
    """As the command line publishes it."""
    assert DrillOrder.parse(DRILL) == DrillOrder("5f0c8c6a", "oncall", 10.0, "fleet")
    assert DrillOrder("5f0c8c6a", "oncall", 10.0, "fleet").to_bytes() == DRILL


def test_a_heartbeat_with_drills_is_read() -> None:
    """Field by field. One of an older version has no such field at all, by which its silence is explained."""
    newer, older = Heartbeat.parse(HEARTBEAT_3), Heartbeat.parse(HEARTBEAT_2)
    assert newer is not None
    assert older is not None
    assert newer.drill == DrillLine(
        id="5f0c8c6a",
        heard_at_ms=1769868131100,
        gate_at_ms=1769868131101,
        loop_at_ms=1769868131102,
        answered_at_ms=1769868131103,
        trips=True,
        lease=True,
        channels=("skillbus:prod:kill", "skillbus:prod:kill:pod:web-1"),
    )
    assert newer.drills_before == (DrillLine(id="d0", heard_at_ms=1769868130000),)
    assert (older.drill, "drill" in older.model_fields_set) == (None, False)
    written = json.loads(newer.to_bytes())
    assert {name: written[name] for name in json.loads(HEARTBEAT_3)} == json.loads(HEARTBEAT_3)
    assert b'"drill":null' in Heartbeat.model_validate_json(HEARTBEAT_2).to_bytes()


def test_a_heartbeat_with_what_its_pass_is_at_is_read() -> None:
    """An older one says nothing of it, which a newer reader takes for nothing said."""
    newer, older = Heartbeat.parse(HEARTBEAT_4), Heartbeat.parse(HEARTBEAT_3)
    assert newer is not None
    assert older is not None
    assert (newer.doing, older.doing) == ("fetches github.com/o/r: 2 skills, 3.1 MiB", "")
    written = json.loads(newer.to_bytes())
    assert {name: written[name] for name in json.loads(HEARTBEAT_4)} == json.loads(HEARTBEAT_4)


def test_further_orders_and_the_user_are_read_and_written() -> None:
    """Field by field; an older heartbeat heard none and named nobody. A raw order's id is its payload's digest."""
    newer, older = Heartbeat.parse(HEARTBEAT_5), Heartbeat.parse(HEARTBEAT_4)
    assert newer is not None
    assert older is not None
    assert (older.further, older.further_left_out_count, older.user) == ((), 0, "")
    assert (newer.further[0].reason, newer.further[0].times, newer.user) == ("again", 3, "pod-web-1")
    written = json.loads(newer.to_bytes())
    assert {name: written[name] for name in json.loads(HEARTBEAT_5)} == json.loads(HEARTBEAT_5)
    assert payload_digest(b"again") == "b4c9e14061c2fd453b36700e3b0da008"


def test_a_set_of_skills_is_read_and_written() -> None:
    """One text for one set, on every machine: its digest is its name."""
    skills = {"pdf": "b" * 64, "data-eda": "a" * 64}
    assert encoded(skills) == SKILLS
    assert digest_of(SKILLS) == SKILLS_DIGEST
    assert decoded(SKILLS_DIGEST, SKILLS) == skills


def test_the_words_of_the_wire() -> None:
    """States and kinds of cause, as they stand in every hash."""
    assert [str(state) for state in State] == ["starting", "running", "holding", "stopping", "stopped"]
    assert {str(kind) for kind in CauseKind} >= {
        "order",
        "record",
        "missed",
        "policy",
        "policy_file",
        "http",
        "local",
        "fork",
    }


def test_a_tombstone_is_read(tmp_path: Path) -> None:
    """What an earlier release left on a pod's disk holds the next one."""
    folder = tmp_path
    (folder / "tombstones").mkdir()
    (folder / "tombstones" / "prod~web-1~group~eu.json").write_bytes(TOMBSTONE)
    scope = Fleet("prod").group("eu")
    record = KillRecord(id="k1", by="oncall", via="cli", reason="r")
    assert Tombstones(folder, "web-1").load((scope,)) == [Obeyed(scope, record, 1769868000000, recorded=False)]

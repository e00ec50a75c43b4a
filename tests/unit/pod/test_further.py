"""Further orders are kept: one line for each, the youngest eight, and none for the order that is obeyed."""

from __future__ import annotations

from skillbus.core.latch import Obeyed
from skillbus.core.orders import KillOrder, KillRecord, iso
from skillbus.core.scope import Fleet
from skillbus.pod.further import LIMIT, FurtherOrders

SCOPE = Fleet("prod").scope
NOW_MS = 1_769_868_131_123
OBEYED = Obeyed(SCOPE, KillRecord(id="k1", at=iso(NOW_MS), reason="leaked", heard_by="web-1"), epoch=0)


def raw(text: str) -> tuple[KillOrder, bytes]:
    """A message as redis-cli sends it."""
    return KillOrder.parse(text.encode()), text.encode()


def named(order: KillOrder) -> tuple[KillOrder, bytes]:
    """A message as our tools send it."""
    return order, order.to_bytes()


def test_the_first_order_is_no_further_one() -> None:
    """Nor the order that is obeyed, by its id, or by its words within moments of the record that another pod wrote."""
    further = FurtherOrders()
    further.heard(None, *raw("leaked"), NOW_MS)
    further.heard(OBEYED, *named(KillOrder(id="k1", reason="leaked")), NOW_MS)
    further.heard(OBEYED, *raw("leaked"), NOW_MS + 1999)
    assert further.lines == ()


def test_a_further_order_is_kept() -> None:
    """Also one in the same words, once it cannot be the same message; with when it was heard."""
    further = FurtherOrders()
    further.heard(OBEYED, *raw("leaked"), NOW_MS + 2000)
    further.heard(OBEYED, *named(KillOrder(id="k2", by="ada", via="http", reason="still bad")), NOW_MS + 3000)
    assert [(line.reason, line.by, line.at_ms, line.times) for line in further.lines] == [
        ("leaked", "", NOW_MS + 2000, 1),
        ("still bad", "ada", NOW_MS + 3000, 1),
    ]
    assert further.lines[1].id == "k2"


def test_every_pod_gives_a_raw_order_the_same_id() -> None:
    """So that a reset counts it once, and not once for each of its hearers."""
    one, other = FurtherOrders(), FurtherOrders()
    one.heard(OBEYED, *raw("again"), NOW_MS + 5000)
    other.heard(OBEYED, *raw("again"), NOW_MS + 5007)
    assert one.lines[0].id == other.lines[0].id


def test_what_was_reset_has_no_further_orders() -> None:
    """An order behind a reset is a kill of its own."""
    further = FurtherOrders()
    further.heard(Obeyed(SCOPE, OBEYED.record, 0, lifted=True), *raw("again"), NOW_MS + 5000)
    assert further.lines == ()


def test_a_flood_fills_a_few_lines() -> None:
    """The same words are one line; of different ones the youngest stay, and the others are counted."""
    further = FurtherOrders()
    for count in range(10_000):
        further.heard(OBEYED, *raw("again"), NOW_MS + 5000 + count)
    assert [(line.times, line.at_ms) for line in further.lines] == [(10_000, NOW_MS + 14_999)]
    for count in range(10_000):
        further.heard(OBEYED, *raw(f"no {count}"), NOW_MS + 20_000 + count)
    assert [line.reason for line in further.lines] == [f"no {count}" for count in range(10_000 - LIMIT, 10_000)]
    assert further.left_out_count == 10_000 + 10_000 - LIMIT

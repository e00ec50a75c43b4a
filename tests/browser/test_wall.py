"""The wall as a picture: what is drawn stroke by stroke."""

from __future__ import annotations

import pytest

from skillbus.core.latch import State
from tests.browser.visits import Desk, Visits
from tests.browser.written_fleet import WrittenFleet

_SHOWS = "count => document.querySelector('#legend [data-word=holding] + b')?.textContent === count"
_PICTURE = """async () => {
    for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
    return document.getElementById("wall").toDataURL();
}"""
_ANEW = "() => dispatchEvent(new Event('skillbus-theme'))"


@pytest.mark.parametrize("scale", [1, 1.25, 3])
def test_a_wall_kept_up_to_date_is_the_wall_drawn_anew(visits: Visits, desk: Desk, scale: float) -> None:
    """Whatever the screen's scale: a single tile, neighbours over the end of a line, and every second one."""
    with WrittenFleet(desk.server, "prod", 300) as fleet:
        page = visits.enter(desk, "viewer", device_scale_factor=scale)
        seen, holding = [page.evaluate(_PICTURE)], 0
        for changed in (fleet.ids[7:8], fleet.ids[30:150], fleet.ids[200:300:2]):
            fleet.change(changed, state=State.HOLDING)
            holding += len(changed)
            page.wait_for_function(_SHOWS, arg=str(holding))
            seen.append(page.evaluate(_PICTURE))
            page.evaluate(_ANEW)
            assert page.evaluate(_PICTURE) == seen[-1]
        assert len(set(seen)) == len(seen)


def test_each_tile_says_whose_it_is(visits: Visits, desk: Desk) -> None:
    """Pointed at in its middle, first and last of a line included, whatever the screen's scale."""
    with WrittenFleet(desk.server, "prod", 300) as fleet:
        page = visits.enter(desk, "viewer", device_scale_factor=1.25)
        page.wait_for_function(
            "() => document.getElementById('wall').width > 300 && performance.getEntriesByName('wall-drawn').length"
        )
        box = page.locator("#wall").bounding_box()
        assert box is not None
        pixels = page.locator("#wall").evaluate("one => [one.width, one.height]")
        pitch = 25 / 1.25  # a tile's largest, in whole pixels of the screen
        across, lines = int(box["width"] / pitch), pixels[1] / 25
        assert lines == -(-300 // across)
        for place in (0, 1, across - 1, across, 2 * across - 1, 299):
            line, column = divmod(place, across)
            page.mouse.move(box["x"] + (column + 0.5) * pitch, box["y"] + (line + 0.5) * pitch)
            assert (page.locator("#wall-tip").text_content() or "").startswith(f"{fleet.ids[place]} ·")

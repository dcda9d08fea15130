"""Who reads a pack from front to back gets the next windows before he asks."""

from __future__ import annotations

import random

from imagefs.region.index import WINDOW
from imagefs.region.readahead import AHEAD, FIRST, ReadAhead
from tests.seed import SEED


def test_from_the_second_window_in_a_row_on() -> None:
    ahead = ReadAhead()
    place = 24 + 5 * WINDOW
    assert ahead.seen(1, place, WINDOW) is None
    assert ahead.seen(1, place, WINDOW) is None
    start = place + 2 * WINDOW
    assert ahead.seen(1, place + WINDOW, WINDOW) == (start, start + FIRST)


def test_every_byte_is_asked_for_once_and_early() -> None:
    ahead = ReadAhead()
    asked = end = 24 + 2 * WINDOW
    longest = 0
    for number in range(200):
        offset = 24 + number * WINDOW
        wanted = ahead.seen(7, offset, WINDOW)
        if wanted is not None:
            assert wanted[0] == asked
            longest = max(longest, wanted[1] - asked)
            asked = wanted[1]
        end = offset + WINDOW
        if number > 0:
            assert asked > end
    assert longest == AHEAD
    assert asked <= end + 2 * AHEAD


def test_packs_do_not_disturb_each_other() -> None:
    ahead = ReadAhead()
    for pack in (1, 2, 3):
        assert ahead.seen(pack, 99, WINDOW) is None
    for pack in (1, 2, 3):
        assert ahead.seen(pack, 99 + WINDOW, WINDOW) is not None


def test_who_jumps_about_is_not_helped() -> None:
    ahead = ReadAhead()
    rng = random.Random(SEED)
    places = rng.sample(range(0, 100_000, 3), 1000)
    asked = [ahead.seen(1, place * WINDOW, WINDOW) for place in places]
    assert asked.count(None) > 990

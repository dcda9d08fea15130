"""Single flight: the same work is done once at a time, and its answer is everybody's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from imagefs.errors import IOFailure
from imagefs.store.flights import Flights

WAIT = 30.0


def test_who_comes_while_work_is_done_waits_for_it() -> None:
    flights: Flights[str, int] = Flights()
    started, go_on = threading.Event(), threading.Event()
    calls = 0

    def work() -> int:
        nonlocal calls
        calls += 1
        started.set()
        assert go_on.wait(WAIT)
        return calls

    with ThreadPoolExecutor(5) as threads:
        first = threads.submit(flights.get, "key", work)
        assert started.wait(WAIT)
        assert "key" in flights
        others = [threads.submit(flights.get, "key", work) for _ in range(4)]
        assert flights.get("another", lambda: 7) == 7
        go_on.set()
        results = [job.result(WAIT) for job in (first, *others)]
    # Who came too late did it again, but never two at once.
    assert results[0] == 1
    assert calls == max(results)
    assert len(flights) == 0


def test_nothing_is_kept_when_it_is_over() -> None:
    flights: Flights[str, int] = Flights()
    assert [flights.get("key", partial(int, number)) for number in range(3)] == [0, 1, 2]


def test_a_failure_is_raised_to_all_and_the_next_one_tries_anew() -> None:
    flights: Flights[str, int] = Flights()
    barrier = threading.Barrier(3)

    def fail() -> int:
        raise IOFailure("The disk failed")

    def get() -> int:
        barrier.wait(WAIT)
        return flights.get("key", fail)

    with ThreadPoolExecutor(3) as threads:
        jobs = [threads.submit(get) for _ in range(3)]
        for job in jobs:
            with pytest.raises(IOFailure):
                job.result(WAIT)
    assert flights.get("key", lambda: 1) == 1

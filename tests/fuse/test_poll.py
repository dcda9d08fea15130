"""Short polling: waiting, sleeping, yielding, learning. Counts, no stopwatch."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyfuse3
import pytest
import trio
import trio.testing

from imagefs.fuse import poll
from imagefs.fuse.poll import MAX_SCORE, ReadLock, ShortPolling

LONG = 10**12
"""A window in ns that no test outlasts."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


async def test_what_is_readable_is_found_by_one_poll(pipe: tuple[int, int]) -> None:
    polling = ShortPolling()
    os.write(pipe[1], b"x")
    for expected in (1, 2, 3):
        await polling.wait_readable(pipe[0])
        assert (polling.polls, polling.sleeps) == (expected, 0)


async def test_what_comes_inside_the_window_is_met_without_sleeping(
    pipe: tuple[int, int], nursery: trio.Nursery
) -> None:
    polling = ShortPolling(window_ns=LONG)
    # It runs when the polling loop lets others run: that it does is part of the test.
    nursery.start_soon(trio.to_thread.run_sync, os.write, pipe[1], b"x")
    await polling.wait_readable(pipe[0])
    assert polling.sleeps == 0
    assert polling.polls > 1


async def test_an_idle_loop_makes_no_polls(pipe: tuple[int, int], nursery: trio.Nursery) -> None:
    polling = ShortPolling()
    nursery.start_soon(polling.wait_readable, pipe[0])
    await trio.testing.wait_all_tasks_blocked()
    polls = polling.polls
    assert polling.sleeps == 1
    for _ in range(10):
        await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(0.02)
    assert (polling.polls, polling.sleeps) == (polls, 1)
    os.write(pipe[1], b"x")


async def test_polling_stops_when_it_does_not_pay_and_starts_when_it_would(
    pipe: tuple[int, int], nursery: trio.Nursery
) -> None:
    polling = ShortPolling(window_ns=1)
    for _ in range(MAX_SCORE):
        nursery.start_soon(polling.wait_readable, pipe[0])
        await trio.testing.wait_all_tasks_blocked()
        os.write(pipe[1], b"x")
        await trio.testing.wait_all_tasks_blocked()
        os.read(pipe[0], 1)
    before = polling.polls
    nursery.start_soon(polling.wait_readable, pipe[0])
    await trio.testing.wait_all_tasks_blocked()
    assert polling.polls == before + 1, "the first look only"
    assert "score 0" in repr(polling)

    # Requests that come sooner than the window is long make it poll again.
    polling._window = LONG
    os.write(pipe[1], b"x")
    await trio.testing.wait_all_tasks_blocked()
    os.read(pipe[0], 1)
    nursery.start_soon(polling.wait_readable, pipe[0])
    await trio.testing.wait_all_tasks_blocked()
    os.write(pipe[1], b"x")
    await trio.testing.wait_all_tasks_blocked()
    assert "score 1" in repr(polling)


async def test_others_run_while_requests_keep_coming(
    pipe: tuple[int, int], nursery: trio.Nursery
) -> None:
    polling = ShortPolling()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    os.write(pipe[1], b"x")
    while turns < 20:
        await polling.wait_readable(pipe[0])
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("window", [1, LONG])
async def test_closing_ends_polling_and_sleeping(
    pipe: tuple[int, int], nursery: trio.Nursery, window: int
) -> None:
    polling = ShortPolling(window_ns=window)

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await polling.wait_readable(pipe[0])

    nursery.start_soon(wait)
    await trio.sleep(0.001)
    polling.notify_closing(pipe[0])


async def test_cancelling_ends_polling(pipe: tuple[int, int]) -> None:
    polling = ShortPolling(window_ns=LONG)
    with trio.move_on_after(0.001) as scope:
        await polling.wait_readable(pipe[0])
    assert scope.cancelled_caught


async def test_the_lock_lets_one_task_wait_and_stays_with_it(nursery: trio.Nursery) -> None:
    lock = ReadLock()
    order: list[str] = []

    async def second() -> None:
        async with lock:
            order.append("second")

    async with lock:
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        order.append("first")
    async with lock:
        order.append("first again")
    await trio.testing.wait_all_tasks_blocked()
    assert order == ["first", "first again", "second"]


async def test_a_task_that_is_cancelled_in_the_queue_takes_nothing_along(
    nursery: trio.Nursery,
) -> None:
    lock = ReadLock()
    got = trio.Event()

    async def cancelled(scope: trio.CancelScope) -> None:
        with scope:
            async with lock:
                raise AssertionError("the lock is taken")

    async def patient() -> None:
        async with lock:
            got.set()

    scope = trio.CancelScope()
    async with lock:
        nursery.start_soon(cancelled, scope)
        nursery.start_soon(patient)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
    await got.wait()


async def test_everybody_in_the_queue_gets_a_turn(nursery: trio.Nursery) -> None:
    lock = ReadLock()
    turns = dict.fromkeys(range(5), 0)

    async def worker(number: int) -> None:
        for _ in range(10):
            async with lock:
                await trio.lowlevel.checkpoint()
            turns[number] += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as workers:
        for number in turns:
            workers.start_soon(worker, number)
    assert set(turns.values()) == {10}


async def test_on_one_core_waiting_looks_once(
    pipe: tuple[int, int], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5})
    assert poll.best_window() > 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    polling = ShortPolling(poll.best_window())
    for polls in (1, 2, 3):
        nursery.start_soon(polling.wait_readable, pipe[0])
        await trio.testing.wait_all_tasks_blocked()
        assert polling.polls == polls
        os.write(pipe[1], b"x")
        await trio.testing.wait_all_tasks_blocked()
        os.read(pipe[0], 1)


def test_installing_is_undone() -> None:
    polling = ShortPolling()
    poll.install(polling)
    try:
        assert vars(pyfuse3)["trio"] is polling
    finally:
        poll.uninstall()
    assert vars(pyfuse3)["trio"] is trio

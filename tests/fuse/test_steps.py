"""Steps that are not ready: one piece of work per key, its answer for all who wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from imagefs.errors import Busy, Corrupt, NotReady
from imagefs.fuse.steps import LASTING_WORKERS, RELEASE_PATIENCE, Steps


class Value:
    """Something that is loaded once and then there."""

    def __init__(self, load: Callable[[], str] = lambda: "loaded", *, remote: bool = False) -> None:
        self.remote = remote
        self.value: str | None = None
        self.loads = 0
        self.ended = threading.Event()
        self._load = load

    def step(self) -> str:
        if self.value is None:
            raise NotReady("value", self._work, self._finish, remote=self.remote)
        return self.value

    def _work(self) -> str:
        assert threading.current_thread() is not threading.main_thread()
        self.loads += 1
        return self._load()

    def _finish(self, value: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.value = value
        self.ended.set()


async def test_a_step_that_is_ready_is_simply_taken() -> None:
    steps = Steps()
    assert await steps.run(lambda a, b: a + b, 1, 2) == 3
    assert steps.statistics().run == 0


async def test_work_is_done_once_however_many_wait(nursery: trio.Nursery) -> None:
    steps, gate = Steps(), threading.Event()

    def load() -> str:
        gate.wait()
        return "loaded"

    value = Value(load)
    results: list[str] = []

    async def take() -> None:
        results.append(await steps.run(value.step))

    for _ in range(10):
        nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()
    assert steps.statistics().running == 1
    gate.set()
    await trio.to_thread.run_sync(value.ended.wait)
    await trio.testing.wait_all_tasks_blocked()
    assert value.loads == 1
    assert results == ["loaded"] * 10
    figures = steps.statistics()
    assert (figures.running, figures.run, figures.shared) == (0, 1, 9)


@pytest.mark.parametrize("where", ["work", "finish"])
async def test_a_failure_is_the_answer_to_all_who_wait(where: str) -> None:
    steps, gate = Steps(), threading.Event()

    def fail(_: Any = None) -> None:
        gate.wait()
        raise Corrupt("Object is gone")

    def step() -> None:
        raise NotReady("key", *((fail, None) if where == "work" else (lambda: None, fail)))

    failures: list[Exception] = []

    async def take() -> None:
        with pytest.raises(Corrupt) as caught:
            await steps.run(step)
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(take)
        if where == "work":
            await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert len(failures) == 3
    assert steps.statistics().running == 0
    # The next step tries anew.
    with pytest.raises(Corrupt):
        await steps.run(step)


async def test_work_goes_on_when_who_asked_for_it_is_cancelled(nursery: trio.Nursery) -> None:
    steps, gate, started = Steps(), threading.Event(), threading.Event()

    def load() -> str:
        started.set()
        gate.wait()
        return "loaded"

    value = Value(load)
    scope = trio.CancelScope()
    done = trio.Event()

    async def first() -> None:
        with scope:
            await steps.run(value.step)

    async def second() -> None:
        assert await steps.run(value.step) == "loaded"
        done.set()

    nursery.start_soon(first)
    await trio.to_thread.run_sync(started.wait)
    nursery.start_soon(second)
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
    gate.set()
    await done.wait()
    assert value.loads == 1


async def test_a_waiting_task_can_be_cancelled_alone(nursery: trio.Nursery) -> None:
    steps, gate = Steps(), threading.Event()

    def load() -> str:
        gate.wait()
        return "loaded"

    value = Value(load)
    nursery.start_soon(steps.run, value.step)
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0) as scope:
        await steps.run(value.step)
    assert scope.cancelled_caught
    gate.set()


async def test_waiting_for_work_under_way(nursery: trio.Nursery) -> None:
    steps, gate = Steps(), threading.Event()
    value = Value(lambda: "sealed" if gate.wait() else "")

    def other() -> str:
        if value.value is None:
            raise NotReady("value", None)
        return value.value

    nursery.start_soon(steps.run, value.step)
    await trio.testing.wait_all_tasks_blocked()
    results: list[str] = []

    async def take() -> None:
        results.append(await steps.run(other))

    nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()
    assert results == []
    gate.set()
    await trio.to_thread.run_sync(value.ended.wait)
    await trio.testing.wait_all_tasks_blocked()
    assert results == ["sealed"]


async def test_waiting_for_work_that_nobody_does_is_a_bug() -> None:
    def step() -> None:
        raise NotReady("nothing", None)

    with pytest.raises(RuntimeError, match="nothing"):
        await Steps().run(step)


async def test_different_keys_do_not_wait_for_each_other() -> None:
    steps, barrier = Steps(), threading.Barrier(3)
    loaded: set[str] = set()

    def step(name: str) -> None:
        if name not in loaded:
            raise NotReady(name, lambda: barrier.wait(5), lambda _: loaded.add(name))

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(steps.run, step, name)
    assert loaded == {"a", "b", "c"}


@pytest.mark.parametrize("lasting", [False, True])
async def test_other_machines_that_do_not_answer_keep_no_local_work_waiting(
    nursery: trio.Nursery, lasting: bool
) -> None:
    steps, answered, hanging = Steps(workers=1, remote_workers=2), threading.Event(), 0
    started = threading.Semaphore(0)

    def hang() -> None:
        nonlocal hanging
        hanging += 1
        started.release()
        answered.wait()

    def far(name: int) -> None:
        if not answered.is_set():
            raise NotReady(name, hang, remote=True, lasting=lasting)

    for name in range(9):
        nursery.start_soon(steps.run, far, name)
    most = LASTING_WORKERS if lasting else 2
    for _ in range(most):
        await trio.to_thread.run_sync(started.acquire)
    value = Value(remote=lasting)
    assert await steps.run(value.step) == "loaded"
    assert hanging == most
    answered.set()


async def test_what_an_open_file_forbids_is_tried_again_when_files_are_closed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    steps, opened, tries = Steps(), ["one", "other"], 0

    def step() -> str:
        nonlocal tries
        tries += 1
        if opened:
            raise Busy(f"Files {opened} are open")
        return "done"

    async def close() -> None:
        while opened:
            await trio.sleep(RELEASE_PATIENCE / 4)
            opened.pop()
            steps.closed()

    nursery.start_soon(close)
    assert await steps.run(step) == "done"
    assert tries == 3


async def test_what_stays_open_is_an_error_in_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    steps, tries = Steps(), 0

    def step() -> None:
        nonlocal tries
        tries += 1
        raise Busy("A file is open")

    with pytest.raises(Busy):
        await steps.run(step)
    assert tries == 1
    steps.closed()  # nobody waits any more
    with pytest.raises(Busy):
        await steps.run(step)

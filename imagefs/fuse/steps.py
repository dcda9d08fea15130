"""Waiting for what a step needs: one piece of work per key, however many steps wait for it.

Everything here happens on the loop's thread except `NotReady.work`, which runs in a worker
thread. A piece of work is run by the first task that asks for it and goes on if that task is
cancelled, because others may wait and because the vfs counts on `finish` being called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import ParamSpec, TypeVar

import msgspec
import trio

from imagefs.errors import NotReady

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = max(4, 2 * (os.cpu_count() or 1))
"""Worker threads at a time: some wait for the disk while others use the processors."""


class _Job:
    """A piece of work under way; `error` is its answer once `done` is set."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: Exception | None = None


class StepStatistics(msgspec.Struct, frozen=True):
    """`running` pieces of work now, `run` since the start, `shared` waits that joined one."""

    running: int
    run: int
    shared: int


class Steps:
    """Runs steps that may not be ready; belongs to the loop's thread."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._limiter = trio.CapacityLimiter(workers)
        self._jobs: dict[Hashable, _Job] = {}
        self._run = 0
        self._shared = 0

    def __repr__(self) -> str:
        return f"<Steps: {len(self._jobs)} running, {self._run} run, {self._shared} shared>"

    def statistics(self) -> StepStatistics:
        """Figures for `imagefs status`."""
        return StepStatistics(len(self._jobs), self._run, self._shared)

    async def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Take a step, doing first what it needs; raises what the step or that work raises."""
        while True:
            try:
                return step(*args, **kwargs)
            except NotReady as needed:
                waiting = needed
            await self.wait(waiting)

    async def wait(self, needed: NotReady) -> None:
        """Return once the work is done, so that the step can be taken again.

        Raises what the work raised: that is the answer to every step that asked for it. A step
        that only waits for it to be over (no work of its own) is taken again either way.
        """
        job = self._jobs.get(needed.key)
        if job is None:
            await self._do(needed)
        else:
            self._shared += 1
            await job.done.wait()
            if job.error is not None and needed.work is not None:
                raise job.error

    async def _do(self, needed: NotReady) -> None:
        if needed.work is None:
            raise RuntimeError(f"A step waits for {needed.key!r}, which nobody works on")
        job = self._jobs[needed.key] = _Job()
        self._run += 1
        try:
            with trio.CancelScope(shield=True):
                result = await trio.to_thread.run_sync(needed.work, limiter=self._limiter)
            if needed.finish is not None:
                needed.finish(result)
        except Exception as error:
            job.error = error
            raise
        finally:
            del self._jobs[needed.key]
            job.done.set()

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

from imagefs.errors import Busy, NotReady

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = max(4, 2 * (os.cpu_count() or 1))
"""Worker threads at a time: some wait for the disk while others use the processors."""

REMOTE_WORKERS = 64
"""Worker threads that wait for other machines. They are threads of their own: however long a region
does not answer, what is on this machine is served as ever. So many that those who wait for a region
that hangs leave some for the other regions."""

LASTING_WORKERS = 4
"""Worker threads that copy images between machines. However many copies are under way, whoever needs a
list or a file of a region gets it."""

RELEASE_PATIENCE = 0.5
"""Seconds that a step which is refused because a file is open waits for the file to be closed:
close() returns before the kernel tells of it, and behind reading ahead that may be later than the
next request of the same program."""


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

    def __init__(self, workers: int = WORKERS, remote_workers: int = REMOTE_WORKERS) -> None:
        self._limiter = trio.CapacityLimiter(workers)
        self._remote_limiter = trio.CapacityLimiter(remote_workers)
        self._lasting_limiter = trio.CapacityLimiter(LASTING_WORKERS)
        self._jobs: dict[Hashable, _Job] = {}
        self._closing: trio.Event | None = None
        self._run = 0
        self._shared = 0

    def __repr__(self) -> str:
        return f"<Steps: {len(self._jobs)} running, {self._run} run, {self._shared} shared>"

    def statistics(self) -> StepStatistics:
        """Figures for `imagefs status`."""
        return StepStatistics(len(self._jobs), self._run, self._shared)

    async def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Take a step, doing first what it needs; raises what the step or that work raises."""
        try:
            return step(*args, **kwargs)
        except (NotReady, Busy) as found:
            obstacle = found
        return await self.go_on(obstacle, step, *args, **kwargs)

    async def go_on(
        self, obstacle: NotReady | Busy, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `run`, for a step that was taken once and met this obstacle."""
        patience = RELEASE_PATIENCE
        while True:
            if isinstance(obstacle, NotReady):
                await self.wait(obstacle)
            else:
                patience = await self._wait_for_closing(patience)
                if not patience:
                    raise obstacle
            try:
                return step(*args, **kwargs)
            except (NotReady, Busy) as found:
                obstacle = found

    def closed(self) -> None:
        """A file was closed: what was refused because of it may work now."""
        if self._closing is not None:
            self._closing.set()
            self._closing = None

    async def _wait_for_closing(self, patience: float) -> float:
        """Return the seconds that are left when a file was closed, 0.0 if none was in time."""
        if self._closing is None:
            self._closing = trio.Event()
        with trio.move_on_after(patience) as scope:
            await self._closing.wait()
            return max(0.0, scope.deadline - trio.current_time())
        return 0.0

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
        limiter = self._remote_limiter if needed.remote else self._limiter
        if needed.lasting:
            limiter = self._lasting_limiter
        try:
            with trio.CancelScope(shield=True):
                result = await trio.to_thread.run_sync(needed.work, limiter=limiter)
            if needed.finish is not None:
                needed.finish(result)
        except Exception as error:
            job.error = error
            raise
        finally:
            del self._jobs[needed.key]
            job.done.set()

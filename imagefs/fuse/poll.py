"""Short polling in front of trio's sleep, for the descriptor that FUSE requests come from.

A program that works on many files sends its next request some microseconds after the last
answer. Putting the daemon's thread to sleep in between and waking it on another core costs
more than handling the request, and so does a pass of trio's scheduler. `ShortPolling` is
what pyfuse3 uses of trio (it looks trio up in its module global, the way pyfuse3.asyncio
replaces it), with two differences:

* waiting first asks the descriptor with poll(2), timeout 0, for a short while;
* the lock that lets one task at a time wait does not hand itself over from task to task.

So while requests keep coming, one task takes them all without leaving the loop. Rules:

* Others run in time. At least every `YIELD_NS` waiting passes through trio's scheduler; a
  handler that waits for something leaves the loop anyway.
* Polling pays or stops. Every wait tells, polled or slept, whether polling would have met the
  request; `_score` remembers the last few, and at zero waiting sleeps at once. So an idle
  loop makes no system call, and a request every second costs one sleep.
* poll(2) releases the GIL, so worker threads get on while the loop polls.
* With one core to run on, polling takes time from whoever is to send the next request: then
  waiting looks once (`best_window`). The lock alone still halves the cost of a request.

Giving the core away between polls (sched_yield), windows from 100 to 1,000 us and longer or
shorter times between the scheduler's turns made no difference that could be measured.
"""

from __future__ import annotations

import os
import select
import time
from types import TracebackType

import pyfuse3
import trio

WINDOW_NS = 250_000
"""How long to poll for the next request before sleeping."""

YIELD_NS = 250_000
"""How long the loop may be kept from other tasks while requests are waiting."""

IDLE_YIELD_NS = 25_000
"""The same while none is: others may as well run, and a worker thread's result may be due."""

MAX_SCORE = 8


class ReadLock:
    """A lock for the tasks that take turns at waiting for requests.

    Who releases it may take it again at once: trio's own lock would pass it on to the next in
    the queue and so force a task switch on every request. When nobody waits for it, taking it
    is a checkpoint, so that a task pyfuse3 has just started comes to stand in the queue
    (pyfuse3 starts another for every request that finds the queue empty).
    """

    def __init__(self) -> None:
        self._held = False
        self._waking = False
        self._queue = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        if not (self._queue or self._waking):
            await trio.lowlevel.checkpoint()
        while self._held:
            await self._queue.park()
            self._waking = False
        self._held = True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held = False
        # One woken task is enough: it either finds the lock free or queues again.
        if self._queue and not self._waking:
            self._waking = True
            self._queue.unpark()


class ShortPolling:
    """What pyfuse3 uses of trio, with polling; install before `pyfuse3.init`.

    `polls` counts calls of poll(2), `sleeps` the waits that were left to trio.
    """

    Lock = ReadLock
    ClosedResourceError = trio.ClosedResourceError
    open_nursery = staticmethod(trio.open_nursery)
    current_task = staticmethod(trio.lowlevel.current_task)
    current_trio_token = staticmethod(trio.lowlevel.current_trio_token)

    def __init__(self, window_ns: int = WINDOW_NS) -> None:
        self.polls = 0
        self.sleeps = 0
        self._window = window_ns
        self._score = MAX_SCORE if window_ns else 0
        self._yield_at = 0
        self._closing = False
        self._poll = select.poll()
        self._fd = -1

    def __repr__(self) -> str:
        return f"<ShortPolling: {self.polls} polls, {self.sleeps} sleeps, score {self._score}>"

    @property
    def lowlevel(self) -> ShortPolling:
        """pyfuse3 looks for some functions in `trio.lowlevel`."""
        return self

    async def wait_readable(self, fd: int) -> None:
        """Return once `fd` is readable.

        Raises trio.ClosedResourceError after `notify_closing`. Unlike trio's own it is not
        always a checkpoint; see the rules above.
        """
        if fd != self._fd:
            self._watch(fd)
        start = time.perf_counter_ns()
        self.polls += 1
        if not self._poll.poll(0):
            await self._wait_longer(fd, start)
        elif start >= self._yield_at:
            await self._let_others_run()
        if self._closing:
            raise trio.ClosedResourceError

    def notify_closing(self, fd: int) -> None:
        """End all waiting, polled or slept."""
        self._closing = True
        trio.lowlevel.notify_closing(fd)

    async def _wait_longer(self, fd: int, start: int) -> None:
        """Poll until the window is over, then sleep; learn from how long it took."""
        end = start + self._window
        met = self._score > 0 and await self._poll_until(end)
        if not met and not self._closing:
            self.sleeps += 1
            await trio.lowlevel.wait_readable(fd)
        now = time.perf_counter_ns()
        if now < end:
            self._score = min(self._score + 1, MAX_SCORE)
        else:
            self._score = max(self._score - 1, 0)
        self._yield_at = now + YIELD_NS

    async def _poll_until(self, end: int) -> bool:
        """Poll until a request is there (true) or the time `end` has come (false)."""
        yield_at = min(self._yield_at, time.perf_counter_ns() + IDLE_YIELD_NS)
        while not self._closing:
            self.polls += 1
            if self._poll.poll(0):
                return True
            now = time.perf_counter_ns()
            if now >= end:
                return False
            if now >= yield_at:
                await trio.lowlevel.checkpoint()
                yield_at = now + IDLE_YIELD_NS
        return False

    async def _let_others_run(self) -> None:
        await trio.lowlevel.checkpoint()
        self._yield_at = time.perf_counter_ns() + YIELD_NS

    def _watch(self, fd: int) -> None:
        """Poll this descriptor from now on."""
        if self._fd >= 0:
            self._poll.unregister(self._fd)
        self._poll.register(fd, select.POLLIN)
        self._fd = fd


def best_window() -> int:
    """The window for the cores that this process may run on."""
    return WINDOW_NS if len(os.sched_getaffinity(0)) > 1 else 0


def install(polling: ShortPolling) -> None:
    """Let pyfuse3 wait with `polling` (for the rest of the process)."""
    vars(pyfuse3)["trio"] = polling


def uninstall() -> None:
    """Let pyfuse3 wait with trio alone."""
    vars(pyfuse3)["trio"] = trio

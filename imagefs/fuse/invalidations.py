"""Telling the kernel that a name stands for something else now, or what it may show no more.

Telling blocks while the kernel has a request on the same directory under way, one that may
wait for this very daemon. So one worker thread does it, and the loop only queues. Whoever
must know that the kernel has been told waits with `drain`.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading

import pyfuse3
import trio

from imagefs.vfs.node import Forgotten, Withdrawn

log = logging.getLogger(__name__)

# The kernel has nothing to forget, or the file system is not mounted any more.
_FINE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENOTCONN})


class Invalidations:
    """A queue of names for the kernel to forget, worked off by a thread.

    `add` may be called on the loop's thread only; between `start` and `stop` pyfuse3's session
    must exist. `stop` drops what is still queued: the kernel forgets everything anyway.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Forgotten | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def __repr__(self) -> str:
        return f"<Invalidations: {self._queue.qsize()} waiting>"

    def start(self) -> None:
        """Begin to tell the kernel."""
        self._thread = threading.Thread(target=self._work, name="invalidations", daemon=True)
        self._thread.start()

    def add(self, forgotten: Forgotten) -> None:
        """Have the kernel forget a name or the pages of an inode, soon."""
        self._queue.put(forgotten)

    async def drain(self) -> None:
        """Return once the kernel was told of all that was added before."""
        if self._thread is None or self._stopped.is_set():
            return
        done = threading.Event()
        self._queue.put(done)
        await trio.to_thread.run_sync(done.wait, abandon_on_cancel=True)

    def stop(self, seconds: float) -> bool:
        """End the thread; false if it does not end in that time, because the kernel waits."""
        self._stopped.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(seconds)
            return not self._thread.is_alive()
        return True

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            elif not self._stopped.is_set():
                _tell(item)


def _tell(forgotten: Forgotten) -> None:
    try:
        if isinstance(forgotten, Withdrawn):
            pyfuse3.invalidate_inode(forgotten.node)
        else:
            pyfuse3.invalidate_entry(forgotten.parent, forgotten.name)
    except OSError as error:
        if error.errno not in _FINE:
            log.warning("The kernel would not forget %r: %s", forgotten, error)

"""Noticing that packs are read from front to back, and saying what comes next.

Content lies in packs in the order of a walk, so who reads a whole tree reads window after
window. From the second one in a row on, some more are asked for before they are needed: few at
first, because many readings in a row are short.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from imagefs.region.index import WINDOW
from imagefs.tree.recent import Recent

FIRST: Final = 2 * WINDOW
AHEAD: Final = 16 * WINDOW
"""Bytes that are asked for at once: the first time, doubled each time, and at most."""

_PACKS: Final = 1024


class _Run(NamedTuple):
    """The window used last, where it ends, up to where was asked for, and how much the next time."""

    last: int
    end: int
    until: int
    step: int


class ReadAhead:
    """What is read in which pack. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._runs: Recent[int, _Run] = Recent(_PACKS)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<ReadAhead {self._runs}>"

    def seen(self, pack: int, offset: int, size: int) -> tuple[int, int] | None:
        """A window is used; returns the range of the pack that is to be fetched now, its end
        excluded, or None for nothing."""
        with self._lock:
            run = self._runs.get(pack)
            if run is not None and run.last == offset:
                return None
            end = offset + size
            if run is None or not run.end <= offset <= max(run.until, run.end):
                self._runs.put(pack, _Run(offset, end, end, FIRST))
                return None
            if run.until - end > run.step // 4:
                self._runs.put(pack, _Run(offset, end, run.until, run.step))
                return None
            start = max(run.until, end)
            step = min(2 * run.step, AHEAD)
            self._runs.put(pack, _Run(offset, end, start + run.step, step))
            return start, start + run.step

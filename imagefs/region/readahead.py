"""Noticing that packs are read from front to back, and saying what comes next.

Content lies in packs in the order of a walk, so who reads a whole tree reads window after
window. From the second one in a row on, some more are asked for before they are needed.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from imagefs.region.index import WINDOW
from imagefs.tree.recent import Recent

AHEAD: Final = 8 * WINDOW
"""Bytes that are fetched before they are asked for."""

_PACKS: Final = 1024


class _Run(NamedTuple):
    """The window used last, where it ends, and up to where was asked for."""

    last: int
    end: int
    until: int


class ReadAhead:
    """What is read in which pack. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._runs: Recent[int, _Run] = Recent(_PACKS)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<ReadAhead {self._runs}>"

    def seen(self, pack: int, offset: int, size: int) -> int | None:
        """A window is used; returns from where on `AHEAD` bytes of the pack are to be fetched now,
        None for nothing."""
        with self._lock:
            run = self._runs.get(pack)
            if run is not None and run.last == offset:
                return None
            end = offset + size
            if run is None or not run.end <= offset <= max(run.until, run.end):
                self._runs.put(pack, _Run(offset, end, end))
                return None
            if run.until - end > AHEAD // 2:
                self._runs.put(pack, _Run(offset, end, run.until))
                return None
            start = max(run.until, end)
            self._runs.put(pack, _Run(offset, end, start + AHEAD))
            return start

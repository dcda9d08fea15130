"""The clock that times in images and instances are taken from.

For `touch` and the like the kernel sends the time itself, from its coarse clock: the time of its
last tick, some milliseconds ago. With any finer clock here, touching a file right after it was
written would turn its time back.
"""

from __future__ import annotations

import time

_REALTIME_COARSE = 5
"""CLOCK_REALTIME_COARSE of linux/time.h; Python has no name for it."""


def now() -> int:
    """Nanoseconds since 1970, as the kernel stamps files."""
    return time.clock_gettime_ns(_REALTIME_COARSE)

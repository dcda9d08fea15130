"""Trying a request until it is done, is refused, or patience ends.

The client could do that too, but not for all that fails (bodies that break off, answers that come too
late to a write), and without saying whether the first of two conditional writes was done after all.
So it tries once, and everything else is here. All requests may be done twice without harm.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from imagefs.errors import Unreachable
from imagefs.region.patience import Patience
from imagefs.region.trouble import Trouble, What

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0
_DOWN_SECONDS = 60.0
_random = random.SystemRandom()

Result = TypeVar("Result")


class Failed(Exception):
    """One try was in vain; never leaves this package's client."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


class Retrying:
    """Thread-safe. Who was found unreachable gets one try for each request until it answers again,
    so that a thousand reads of a dead service do not take a thousand times as long as one."""

    def __init__(self, label: str, patience: Patience) -> None:
        self._label = label
        self._patience = patience
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._failed_at: float | None = None
        self.retries = 0

    def close(self) -> None:
        """Nothing is tried again from now on."""
        self._closed.set()

    def run(self, attempt: Callable[[], Result], uncertain: Callable[[], None]) -> Result:
        """The result of the first try that succeeds.

        `uncertain` is called before another try when the last one may have been done after all.
        Raises `Failed` for what another try will not change, `Unreachable` in the end.
        """
        begun = time.monotonic()
        connected = False
        delay = _FIRST_DELAY
        while True:
            try:
                result = attempt()
            except Failed as failed:
                trouble = failed.trouble
                if trouble.what not in (What.AGAIN, What.NO_CONNECTION):
                    self._failed_at = None
                    raise
            else:
                self._failed_at = None
                return result
            connected = connected or trouble.what is What.AGAIN
            pause = delay * _random.uniform(0.5, 1.0)
            if time.monotonic() + pause - begun > self._limit(connected):
                self._failed_at = time.monotonic()
                raise Unreachable(f"{self._label} does not answer ({trouble.reason})")
            if trouble.what is What.AGAIN:
                uncertain()
            with self._lock:
                self.retries += 1
            if self._closed.wait(pause):
                raise Unreachable(f"{self._label} is being closed ({trouble.reason})")
            delay = min(delay * 2, _LONGEST_DELAY)

    def _limit(self, connected: bool) -> float:
        failed_at = self._failed_at
        if failed_at is not None and time.monotonic() - failed_at < _DOWN_SECONDS:
            return 0.0
        return self._patience.retry if connected else self._patience.refused

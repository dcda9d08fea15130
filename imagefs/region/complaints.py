"""What is wrong in a region, said once: a listing comes by every second."""

from __future__ import annotations

import logging
import threading

_MOST = 1000


class Complaints:
    """Warnings about keys of one region, each given once as long as it is the same. Thread-safe."""

    def __init__(self, log: logging.Logger, region: str) -> None:
        self._log = log
        self._region = region
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Complaints of region {self._region}, {len(self._said)} keys>"

    def say(self, key: str, what: str) -> None:
        """Warns that something is wrong with what has this key."""
        with self._lock:
            if self._said.get(key) == what:
                return
            if len(self._said) >= _MOST:
                self._said.clear()
            self._said[key] = what
        self._log.warning("Region %s: %r is left alone: %s", self._region, key[:1000], what)

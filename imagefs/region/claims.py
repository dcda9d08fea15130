"""What threads of this process are at work at, so that no two are at the same."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from imagefs.errors import Busy


class Claims:
    """Thread-safe. Leases keep stores apart; claims keep threads apart, whose leases would be one."""

    def __init__(self) -> None:
        self._claimed: set[Hashable] = set()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Claims {len(self._claimed)}>"

    @contextmanager
    def claim(self, what: Hashable, busy: str) -> Iterator[None]:
        """Has `what` for a while; raises `Busy` with that message when another thread does."""
        with self._lock:
            if what in self._claimed:
                raise Busy(busy)
            self._claimed.add(what)
        try:
            yield
        finally:
            with self._lock:
                self._claimed.discard(what)

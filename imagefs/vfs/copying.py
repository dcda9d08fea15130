"""One copy of an image between the store and a region, while it is under way.

Made on the loop's thread; a worker thread runs it and says how far it is. What the loop reads of
that are single numbers, so neither waits for the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from imagefs.catalog import TreeRow
from imagefs.catalog.rows import Sealed


class Copying:
    """A copy of the tree `source` (None: of something new) to the name `name` in `region` (empty: the store itself)."""

    def __init__(
        self,
        source: TreeRow | None,
        region: str,
        name: str,
        run: Callable[[Copying, Sealed], None],
        over: Callable[[], object],
    ) -> None:
        self.source = source
        self.region = region
        self.name = name
        self.done = 0
        """Bytes that have arrived."""
        self.total = 0
        """Bytes that are to travel, 0 while that is not known."""
        self._run = run
        self._over = over
        self._cancelled = threading.Event()

    def __repr__(self) -> str:
        return f"<Copying {self.name} to {self.region or 'the store'}: {self.state}>"

    @property
    def origin(self) -> str:
        """The region that has what is copied; empty: the store itself."""
        return "" if self.source is None else self.source.region

    @property
    def state(self) -> str:
        """What lists and attributes say."""
        return f"copying {self.done * 100 // self.total}%" if self.total else "copying"

    def run(self, sealed: Sealed) -> None:
        """Carry it out; blocks, for a worker thread. Raises what keeps it from its end."""
        self._run(self, sealed)

    def over(self) -> None:
        """It has come to its end, in whatever way; to be called on the loop's thread."""
        self._over()

    def cancel(self) -> None:
        """End it soon. What has arrived counts for the next attempt."""
        self._cancelled.set()

    def is_cancelled(self) -> bool:
        """Whether somebody asked for its end; for the worker thread."""
        return self._cancelled.is_set()

    def tell(self, done: int, total: int) -> None:
        """So much has arrived; for the worker thread."""
        self.done, self.total = done, total

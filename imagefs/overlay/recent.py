"""The bounded cache of rows: what the tree uses, with a way to take values out."""

from __future__ import annotations

from typing import TypeVar

from imagefs.tree.recent import Recent

K = TypeVar("K")
V = TypeVar("V")


class RowCache(Recent[K, V]):
    """Rows that were used recently; what the database holds is put in its place at once."""

    __slots__ = ()

    def drop(self, key: K) -> None:
        """Forget one value."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young.clear()
        self._old.clear()
        self._weight = 0

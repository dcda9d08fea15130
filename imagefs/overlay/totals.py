"""What the whole of an overlay's tree comes to: entries, bytes, changed bytes."""

from __future__ import annotations

from typing import Final

from imagefs.model import MAX_FILE_SIZE
from imagefs.overlay.layer import Layer

_ADDED: Final = """
    SELECT coalesce(sum(added_entries), 0), coalesce(sum(added_bytes >> 32), 0),
    coalesce(sum(added_bytes & 4294967295), 0) FROM inode"""
"""In halves, because a few sparse files have more bytes together than an integer of SQLite."""

_CHANGED: Final = """
    SELECT coalesce((SELECT sum(capacity) FROM inode), 0)
    + coalesce((SELECT sum(capacity) FROM extent), 0)"""


class Totals:
    """Figures of one overlay, each worked out when it is asked for: one pass over the rows,
    0.1 s for a million. A base class of `Overlay`."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    @property
    def entries(self) -> int:
        """Names in the tree as it is now, the root not counted."""
        return self._layer.base.manifest.root.count + self._added()[0]

    @property
    def bytes(self) -> int:
        """Bytes of all regular files as they are now, counted for every name; at most
        MAX_FILE_SIZE, as in directories."""
        return min(self._layer.base.manifest.root.size + self._added()[1], MAX_FILE_SIZE)

    @property
    def changed_bytes(self) -> int:
        """Bytes that the heap holds for changed content."""
        database = self._layer.database()
        return 0 if database is None else int(database.row(_CHANGED)[0])

    def _added(self) -> tuple[int, int]:
        database = self._layer.database()
        if database is None:
            return 0, 0
        entries, high, low = database.row(_ADDED)
        return entries, (high << 32) + low

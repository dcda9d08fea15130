"""Extents: where in the heap the chunks of a file lie.

Chunk 0 is in the inode's own row, because most files have no other: so a small file costs
one row. All other chunks have a row here. An extent holds the first `capacity` bytes of its
chunk, the rest of the chunk is zeros; what lies behind the file's end is garbage until the
file grows over it. Chunks that have no extent are the store's (below the inode's `keep`) or
holes.

Rows are cached in windows of neighbouring chunks, so that neither a small nor a huge file
costs a query per chunk.
"""

from __future__ import annotations

from collections.abc import Callable

from imagefs.overlay.database import Database
from imagefs.overlay.recent import RowCache

_WINDOW_BITS = 6
_WINDOWS = 1024

Place = tuple[int, int]
"""Address and capacity."""

_GET = "SELECT chunk, place, capacity FROM extent WHERE ino = ? AND chunk BETWEEN ? AND ?"
_PUT = "INSERT OR REPLACE INTO extent VALUES (?, ?, ?, ?)"
_FROM = "SELECT place, capacity FROM extent WHERE ino = ? AND chunk >= ? ORDER BY chunk"
_CHUNKS = "SELECT chunk FROM extent WHERE ino = ? AND chunk BETWEEN ? AND ?"
_CUT = "DELETE FROM extent WHERE ino = ? AND chunk >= ?"
_ADD_ORPHAN = "INSERT OR IGNORE INTO orphan VALUES (?)"
_REMOVE_ORPHAN = "DELETE FROM orphan WHERE ino = ?"
_ORPHANS = "SELECT ino FROM orphan"


class Extents:
    """The extents of chunks 1 and up. Changes go to the row and the cache at once; after a
    rollback call `forget`."""

    def __init__(self, database: Callable[[], Database | None]) -> None:
        self._database = database
        self._windows: RowCache[tuple[int, int], dict[int, Place]] = RowCache(_WINDOWS)

    def __repr__(self) -> str:
        return f"<Extents: {len(self._windows)} windows cached>"

    def forget(self) -> None:
        """Drop the cache."""
        self._windows.clear()

    def get(self, ino: int, chunk: int) -> Place | None:
        """Where a chunk lies, None if not in the heap."""
        return self._window(ino, chunk >> _WINDOW_BITS).get(chunk)

    def put(self, ino: int, chunk: int, place: Place) -> None:
        """A chunk lies there from now on."""
        self._require().run(_PUT, (ino, chunk, *place))
        self._window(ino, chunk >> _WINDOW_BITS)[chunk] = place

    def chunks(self, ino: int, first: int, last: int) -> list[int]:
        """Which of the chunks first to last are in the heap."""
        database = self._database()
        if database is None:
            return []
        return [chunk for (chunk,) in database.rows(_CHUNKS, (ino, first, last))]

    def ranges(self, ino: int, first: int) -> list[Place]:
        """Where the chunks from `first` on lie."""
        return self._require().rows(_FROM, (ino, first))

    def cut(self, ino: int, first: int) -> None:
        """The chunks from `first` on are not in the heap any more."""
        self._require().run(_CUT, (ino, first))
        self._windows.clear()

    # -- of inodes without a row --------------------------------------------------------

    def adopt(self, ino: int) -> None:
        """The inode is an orphan: what is left of it after a crash is removed at opening."""
        self._require().run(_ADD_ORPHAN, (ino,))

    def remove_orphan(self, ino: int) -> None:
        """Forget all extents of an orphan; inside a transaction."""
        self.cut(ino, 0)
        self._require().run(_REMOVE_ORPHAN, (ino,))

    def orphans(self) -> list[int]:
        """Inodes without a row that may have extents."""
        return [ino for (ino,) in self._require().rows(_ORPHANS)]

    def _require(self) -> Database:
        database = self._database()
        assert database is not None
        return database

    def _window(self, ino: int, number: int) -> dict[int, Place]:
        key = (ino, number)
        window = self._windows.get(key)
        if window is None:
            database = self._database()
            first = number << _WINDOW_BITS
            last = first + (1 << _WINDOW_BITS) - 1
            rows = database.rows(_GET, (ino, first, last)) if database is not None else ()
            window = {chunk: (place, capacity) for chunk, place, capacity in rows}
            self._windows.put(key, window)
        return window

"""Names: which inode a name in a directory stands for, rows merged over the base.

A row with inode 0 is a whiteout: the base has that name there and it is gone. Every other
row names an inode that has a row itself. A directory has rows only if its inode has one, so
directories that nobody changed are served by the base alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from imagefs.errors import Corrupt
from imagefs.model import DirectoryItem, Ino
from imagefs.overlay.database import Database
from imagefs.overlay.inodes import Inode, Inodes, attributes_of
from imagefs.overlay.recent import RowCache
from imagefs.tree import Tree

WHITEOUT = 0
_CACHED = 1024
"""Few, because every instance in use has a cache; the kernel has the large one."""

_FIND = "SELECT ino FROM dentry WHERE parent = ? AND name = ?"
_PUT = "INSERT OR REPLACE INTO dentry VALUES (?, ?, ?)"
_REMOVE = "DELETE FROM dentry WHERE parent = ? AND name = ?"
_REMOVE_ALL = "DELETE FROM dentry WHERE parent = ?"
_ANY = "SELECT 1 FROM dentry WHERE parent = ? AND ino <> 0 LIMIT 1"
_COUNT = "SELECT count(*) FROM dentry WHERE parent = ?"
LIST_NAMES = """
    SELECT d.name, d.ino, i.* FROM dentry d LEFT JOIN inode i ON i.ino = d.ino
    WHERE d.parent = ? AND d.name > ? ORDER BY d.name LIMIT ?"""
"""Names of a directory behind a name, whiteouts too, each with its inode and that one's row."""
_NAME = "SELECT name FROM dentry WHERE parent = ? AND ino = ? LIMIT 1"
_PARENT = "SELECT parent, name FROM dentry WHERE ino = ? LIMIT 1"


Items = list[DirectoryItem]


class Names:
    """The names of one overlay with a bounded cache. Changes go to the row and the cache at
    once; after a rollback call `forget`."""

    def __init__(self, base: Tree, database: Callable[[], Database | None], inodes: Inodes) -> None:
        self._base = base
        self._database = database
        self._inodes = inodes
        self._recent: RowCache[tuple[int, bytes], int] = RowCache(_CACHED)

    def __repr__(self) -> str:
        return f"<Names: {len(self._recent)} cached>"

    def forget(self) -> None:
        """Drop the cache."""
        self._recent.clear()

    # -- finding ------------------------------------------------------------------------

    def find(self, directory: Inode, name: bytes) -> int:
        """The inode of a name, 0 if there is none; may raise NotReady."""
        if not directory.nlink:
            return 0
        key = (directory.ino, name)
        ino = self._recent.get(key)
        if ino is None:
            ino = self._find(directory.ino, name)
            self._recent.put(key, ino)
        return ino

    def hides(self, directory: Inode, name: bytes) -> bool:
        """Whether the base has that name there, so that removing it takes a whiteout."""
        ino = directory.ino
        return ino <= self._inodes.total and self._base.lookup(Ino(ino), name) is not None

    def is_empty(self, directory: Inode) -> bool:
        """Whether a directory has no names."""
        database = self._rows_of(directory.ino)
        hidden = 0
        if database is not None:
            if database.row(_ANY, (directory.ino,)) is not None:
                return False
            hidden = database.row(_COUNT, (directory.ino,))[0]
        if directory.ino > self._inodes.total or not directory.nlink:
            return True
        # Every whiteout hides a name of its own.
        return len(self._base.list(Ino(directory.ino), None, hidden + 1)) == hidden

    def any_name(self, ino: int) -> tuple[int, bytes] | None:
        """A directory and name that a row gives the inode; slow, for messages."""
        database = self._database()
        found = database.row(_PARENT, (ino,)) if database is not None else None
        return None if found is None else (found[0], found[1])

    def name_in(self, parent: int, ino: int) -> bytes | None:
        """The name a row gives the inode in that directory."""
        database = self._database()
        found = database.row(_NAME, (parent, ino)) if database is not None else None
        return None if found is None else bytes(found[0])

    def _rows_of(self, directory: int) -> Database | None:
        """The database if the directory can have rows."""
        database = self._database()
        if database is None or not self._inodes.may_be_stored(directory):
            return None
        return database

    def _find(self, directory: int, name: bytes) -> int:
        database = self._rows_of(directory)
        if database is not None:
            row = database.row(_FIND, (directory, name))
            if row is not None:
                return int(row[0])
        if directory > self._inodes.total:
            return 0
        found = self._base.lookup(Ino(directory), name)
        if found is None:
            return 0
        self._inodes.seen(*found)
        return found[0]

    # -- changing -----------------------------------------------------------------------

    def put(self, directory: int, name: bytes, ino: int) -> None:
        """A name stands for this inode from now on."""
        self._require().run(_PUT, (directory, name, ino))
        self._recent.put((directory, name), ino)

    def remove(self, directory: int, name: bytes, *, hidden: bool) -> None:
        """A name is gone; `hidden` says whether the base has it (see `hides`)."""
        if hidden:
            self._require().run(_PUT, (directory, name, WHITEOUT))
        else:
            self._require().run(_REMOVE, (directory, name))
        self._recent.put((directory, name), 0)

    def remove_all(self, directory: int) -> None:
        """Delete what rows a directory has: it is empty and goes itself."""
        self._require().run(_REMOVE_ALL, (directory,))

    def _require(self) -> Database:
        database = self._database()
        assert database is not None
        return database

    # -- listing ------------------------------------------------------------------------

    def list(self, directory: Inode, after: bytes | None, limit: int) -> Items:
        """Up to `limit` names behind `after` in byte order; fewer only at the end."""
        if not directory.nlink:
            return []
        ino = directory.ino
        database = self._rows_of(ino)
        if database is None:
            items = self._base_items(ino, after, limit)
        else:
            rows = self._rows(database, ino, after, limit)
            base = self._base_items(ino, after, limit) if ino <= self._inodes.total else iter(())
            items = _merged(rows, base)
        return list(islice(items, limit))

    def _rows(
        self, database: Database, directory: int, after: bytes | None, batch: int
    ) -> Iterator[tuple[bytes, DirectoryItem | None]]:
        """Names that have rows, None for whiteouts."""
        last = after or b""
        while True:
            rows = database.rows(LIST_NAMES, (directory, last, batch))
            for name, ino, *columns in rows:
                yield name, _item(name, columns) if ino else None
            if len(rows) < batch:
                return
            last = rows[-1][0]

    def _base_items(
        self, directory: int, after: bytes | None, batch: int
    ) -> Iterator[DirectoryItem]:
        """Names of the base."""
        inodes = self._inodes
        while True:
            listed = self._base.list(Ino(directory), after, batch)
            for ino, entry in listed:
                if inodes.may_be_stored(ino):
                    yield DirectoryItem(entry.name, attributes_of(inodes.get(ino)))
                else:
                    yield DirectoryItem(entry.name, self._base.attributes(ino, entry))
            if len(listed) < batch:
                return
            after = listed[-1][1].name


def _item(name: bytes, columns: Sequence[Any]) -> DirectoryItem:
    if columns[0] is None:
        raise Corrupt(f"Overlay names {name!r}, whose inode is missing")
    return DirectoryItem(name, attributes_of(Inode(*columns)))


def _merged(
    rows: Iterator[tuple[bytes, DirectoryItem | None]], base: Iterator[DirectoryItem]
) -> Iterator[DirectoryItem]:
    """Both in name order; of equal names the row counts, and a whiteout is left out."""
    row = next(rows, None)
    below = next(base, None)
    while row is not None or below is not None:
        if row is None or (below is not None and below.name < row[0]):
            assert below is not None
            yield below
            below = next(base, None)
            continue
        if below is not None and below.name == row[0]:
            below = next(base, None)
        if row[1] is not None:
            yield row[1]
        row = next(rows, None)

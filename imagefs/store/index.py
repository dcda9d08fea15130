"""The index: which record holds an object. A database derived from the packs alone.

A row may only be committed when the record it points to is durable; the other way round
nothing is lost, because records the index does not know are found again by a scan. Every
method may be called from any thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from imagefs.model import ObjectId
from imagefs.store.derived import DerivedDatabase

INDEX_VERSION = 1

_SCHEMA = (
    # One row per object: the record that holds it and its place in the record's table.
    """CREATE TABLE object (
        id BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL,
        size INTEGER NOT NULL, ordinal INTEGER NOT NULL) WITHOUT ROWID""",
    # How far a pack is indexed; what lies beyond is scanned when the store is opened.
    """CREATE TABLE pack (
        number INTEGER PRIMARY KEY, indexed INTEGER NOT NULL, objects INTEGER NOT NULL)""",
    # Records found damaged; the next put of an object in them stores it anew.
    """CREATE TABLE damage (
        pack INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (pack, offset)) WITHOUT ROWID""",
)
_FIND = "SELECT pack, offset, size, ordinal FROM object WHERE id = ?"
_ADD = "INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?)"
_AT_ONCE = 50
_ADD_MANY = _ADD + ", (?, ?, ?, ?, ?)" * (_AT_ONCE - 1)
_ADVANCE = """INSERT INTO pack VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE SET
    indexed = max(indexed, excluded.indexed), objects = objects + excluded.objects"""


class Location(NamedTuple):
    """Where an object is: the record (pack, offset, size in the file) and its place in it."""

    pack: int
    offset: int
    size: int
    ordinal: int


Row = tuple[ObjectId, int, int, int, int]
"""An object id and its `Location`, flat."""


class Index(DerivedDatabase):
    """The index file of one store; `Index.open` makes its tables when it is new."""

    SCHEMA = _SCHEMA
    VERSION = INDEX_VERSION
    NOUN = "Index"
    REMEDY = (
        "stop every imagefs on this store and delete that file, it is rebuilt from the packs at the"
        " next start"
    )

    # -- reading ------------------------------------------------------------------------

    def find(self, oid: ObjectId) -> Location | None:
        """Where an object is, also when another process added it a moment ago."""
        try:
            with self._reader_lock:
                row = self._reader.execute(_FIND, (oid,)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error, self._path) from error
        return None if row is None else Location._make(row)

    def is_empty(self) -> bool:
        return not self._query("SELECT 1 FROM object LIMIT 1")

    def indexed(self) -> dict[int, int]:
        """Of each known pack the offset up to which its records are in the index."""
        return dict(self._query("SELECT number, indexed FROM pack"))

    def object_count(self) -> int:
        """Objects stored, counting an object once for each time it was stored."""
        return int(self._query("SELECT coalesce(sum(objects), 0) FROM pack")[0][0])

    def damaged(self) -> set[tuple[int, int]]:
        """Pack and offset of the records that are known to be damaged."""
        return set(self._query("SELECT pack, offset FROM damage"))

    def stored(self) -> int:
        """Objects that can be found, each counted once; reads the whole table."""
        return int(self._query("SELECT count(*) FROM object")[0][0])

    # -- changing -----------------------------------------------------------------------

    def add(self, rows: Sequence[Row], ends: Mapping[int, int]) -> None:
        """Adds objects, and that the packs in `ends` are indexed up to there, at once.

        Everything the rows point to must be durable. A row replaces an older one. After
        `NoSpace` nothing was added; after another error that is not known.
        """
        counts = dict.fromkeys(ends, 0)
        for row in rows:
            counts[row[1]] += 1
        with self._transaction() as connection:
            _insert(connection, rows)
            connection.executemany(_ADVANCE, [(n, end, counts[n]) for n, end in ends.items()])

    def add_damage(self, records: Iterable[tuple[int, int]]) -> None:
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO damage VALUES (?, ?)", records)


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Sorted, so that neighbours in the B-tree come one after the other; many in a statement,
    because between statements the thread has to get the interpreter lock back."""
    ordered = sorted(rows)
    whole = len(ordered) - len(ordered) % _AT_ONCE
    for start in range(0, whole, _AT_ONCE):
        values = list(chain.from_iterable(ordered[start : start + _AT_ONCE]))
        connection.execute(_ADD_MANY, values)
    connection.executemany(_ADD, ordered[whole:])

"""The index: which record holds an object. SQLite (WAL), derived from the packs alone.

A row may only be committed when the record it points to is durable; the other way round
nothing is lost, because records the index does not know are found again by a scan. So
`synchronous=NORMAL` is enough: power loss may take back transactions, never order.

Two connections: one for lookups, so that they never wait for a long insertion, and one for
changes. Each is guarded by its own lock; every method may be called from any thread.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from imagefs.errors import Corrupt, ImagefsError, IOFailure, NoSpace, StoreError
from imagefs.model import ObjectId

INDEX_VERSION = 1
_BUSY_SECONDS = 60.0
_LONGEST_LOG = 16 * 1024 * 1024

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
_INTEGRITY_CHECK = "PRAGMA integrity_check(10)"
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


class Index:
    """The index file of one store; `Index.open` makes its tables when it is new."""

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: sqlite3.Connection) -> None:
        self._path = path
        self._reader = reader
        self._reader_lock = threading.Lock()
        self._writer = writer
        self._writer_lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Index:
        with ExitStack() as opened:
            try:
                writer = opened.enter_context(closing(_connect(path)))
                _make_tables(writer, path)
                reader = opened.enter_context(closing(_connect(path)))
            except sqlite3.Error as error:
                raise _failure(error, path) from error
            opened.pop_all()
        return cls(path, reader, writer)

    def close(self) -> None:
        with self._reader_lock, self._writer_lock:
            self._reader.close()
            self._writer.close()

    def __repr__(self) -> str:
        return f"<Index {self._path}>"

    # -- reading ------------------------------------------------------------------------

    def find(self, oid: ObjectId) -> Location | None:
        """Where an object is, also when another process added it a moment ago."""
        try:
            with self._reader_lock:
                row = self._reader.execute(_FIND, (oid,)).fetchone()
        except sqlite3.Error as error:
            raise _failure(error, self._path) from error
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

    def check(self) -> list[str]:
        """What is wrong with the database itself, a few sentences at most; reads all of it.

        Raises Corrupt when it cannot even be asked.
        """
        lines = [str(line) for (line,) in self._query(_INTEGRITY_CHECK)]
        return [] if lines == ["ok"] else lines

    def _query(self, statement: str) -> list[Any]:
        try:
            with self._reader_lock:
                return self._reader.execute(statement).fetchall()
        except sqlite3.Error as error:
            raise _failure(error, self._path) from error

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

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._writer_lock, _immediate(self._writer):
                yield self._writer
        except sqlite3.Error as error:
            raise _failure(error, self._path) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_LONGEST_LOG}")
    except BaseException:
        connection.close()
        raise
    return connection


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Sorted, so that neighbours in the B-tree come one after the other; many in a statement,
    because between statements the thread has to get the interpreter lock back."""
    ordered = sorted(rows)
    whole = len(ordered) - len(ordered) % _AT_ONCE
    for start in range(0, whole, _AT_ONCE):
        values = list(chain.from_iterable(ordered[start : start + _AT_ONCE]))
        connection.execute(_ADD_MANY, values)
    connection.executemany(_ADD, ordered[whole:])


@contextmanager
def _immediate(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) == 0:
        with _immediate(connection):
            if _version(connection) == 0:  # another process may have been faster
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {INDEX_VERSION}")
    version = _version(connection)
    if version != INDEX_VERSION:
        raise StoreError(
            f"Index {path} has version {version}, this imagefs knows {INDEX_VERSION}:"
            " use a newer imagefs"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _failure(error: sqlite3.Error, path: Path) -> ImagefsError:
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:
        return NoSpace(f"No space left for {path}: free some and try again")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(
            f"Index {path} is damaged ({error}): stop every imagefs on this store and delete"
            " that file, it is rebuilt from the packs at the next start"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreError(
            f"Index {path} cannot be opened for writing by user {os.geteuid()} ({error}): run"
            " imagefs as its owner"
        )
    if code == sqlite3.SQLITE_BUSY:
        return StoreError(f"Index {path} is busy: another process keeps it locked")
    return IOFailure(f"The index {path} failed: {error}")

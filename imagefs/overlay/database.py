"""The database of one overlay: `meta.db`, SQLite in WAL mode, held by one connection.

`locking_mode=EXCLUSIVE` keeps the WAL's index in memory and saves the lock calls of every
transaction (6 of 12 us for a single row here); with it only one connection may exist, so a
commit in a worker thread reads through the same one (SQLite serializes, each step of a
cursor is one short hold of its mutex). Changes are made by the loop's thread alone.

Nothing here waits for the disk but the automatic checkpoint: 7 ms after some 8,000 pages of
WAL, 1 ms when `sync` had already written the WAL out.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from imagefs.disk import Disk
from imagefs.errors import Busy, Corrupt, ImagefsError, IOFailure, NoSpace, StoreError

SCHEMA_VERSION = 1
PAGE_SIZE = 1024
"""Small, because most transactions change one row on each of two or three pages."""

_CHECKPOINT_PAGES = 8000
_CACHE_KIB = 4096
_BUSY_SECONDS = 1.0
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_WAL_FORMAT = b"\x02\x02"
_WAL_FORMAT_OFFSET = 18

# The meaning of every column is told in docs/format.md, "Overlay".
_SCHEMA = (
    """CREATE TABLE inode (
        ino INTEGER PRIMARY KEY,
        mode INTEGER NOT NULL, nlink INTEGER NOT NULL,
        uid INTEGER NOT NULL, gid INTEGER NOT NULL, rdev INTEGER NOT NULL,
        size INTEGER NOT NULL, allocated INTEGER NOT NULL,
        atime INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
        parent INTEGER NOT NULL,
        ref BLOB, ref_size INTEGER NOT NULL, ref_count INTEGER NOT NULL, keep INTEGER NOT NULL,
        place INTEGER NOT NULL, capacity INTEGER NOT NULL,
        xattrs BLOB,
        added_entries INTEGER NOT NULL, added_bytes INTEGER NOT NULL)""",
    """CREATE TABLE dentry (
        parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL,
        PRIMARY KEY (parent, name)) WITHOUT ROWID""",
    """CREATE TABLE extent (
        ino INTEGER NOT NULL, chunk INTEGER NOT NULL,
        place INTEGER NOT NULL, capacity INTEGER NOT NULL,
        PRIMARY KEY (ino, chunk)) WITHOUT ROWID""",
    "CREATE TABLE orphan (ino INTEGER PRIMARY KEY)",
    """CREATE TABLE state (
        next_ino INTEGER NOT NULL, heap_end INTEGER NOT NULL, heap_limit INTEGER NOT NULL,
        clean INTEGER NOT NULL, relinked INTEGER NOT NULL)""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


def path_in(directory: Path) -> Path:
    """The database of the overlay in a directory."""
    return directory / "meta.db"


def wal_in(directory: Path) -> Path:
    """Its write-ahead log."""
    return directory / "meta.db-wal"


def create(directory: Path, disk: Disk) -> None:
    """Put an empty database into the directory, whole or not at all, also after power loss; its
    name is not durable yet.

    Copied from a template because making tables one by one costs ten fsyncs; the one that is
    left takes 0.7 ms here, once for an overlay.
    """
    path = path_in(directory)
    temporary = path.with_suffix(".tmp")
    fd = disk.open(temporary, _CREATE)
    try:
        disk.pwrite(fd, _template(), 0)
        disk.fdatasync(fd)
    finally:
        disk.close(fd)
    disk.rename(temporary, path)


class Database:
    """The open database. `on_rollback` is called after a transaction was taken back, so that
    caches of rows can be dropped: what they hold may never have been stored."""

    def __init__(self, directory: Path, on_rollback: Callable[[], None]) -> None:
        """Open; raises Corrupt, StoreError (written by a newer version), Busy, IOFailure."""
        self.path = path_in(directory)
        self.full = False
        """Whether the disk was full and no checkpoint has succeeded since."""
        self._transaction = _Transaction(self, on_rollback)
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = _connect(self.path)
        except sqlite3.Error as error:
            raise self.failure(error) from error
        self.execute = self._connection.execute

    def __repr__(self) -> str:
        return f"<Database {self.path}>"

    def close(self) -> None:
        """Close; SQLite moves the WAL into the database and removes it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def transaction(self) -> _Transaction:
        """For a `with` block whose statements (by `execute`) happen together or not at all.

        Errors of SQLite leave it as `NoSpace`, `IOFailure` or `Corrupt`.
        """
        return self._transaction

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """One changing statement that is a transaction of its own."""
        try:
            self.execute(statement, values)
        except sqlite3.Error as error:
            raise self.failure(error) from error

    def run_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for many rows, inside a transaction."""
        assert self._connection is not None
        self._connection.executemany(statement, rows)

    @contextmanager
    def new_wal(self) -> Iterator[None]:
        """For the first change to a database whose WAL is empty: SQLite would wait until the
        WAL's header is durable (1 to 7 ms), which matters only where it has old frames."""
        self.run("PRAGMA synchronous = OFF")
        try:
            yield
        finally:
            self.run("PRAGMA synchronous = NORMAL")

    def checkpoint(self) -> None:
        """Move the WAL into the database, so that it is written from its start again."""
        self.rows("PRAGMA wal_checkpoint")
        self.full = False

    def row(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None."""
        try:
            return self.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise self.failure(error) from error

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        try:
            return self.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self.failure(error) from error

    def each(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """The rows of a query one by one; nothing may be changed before the last."""
        try:
            yield from self.execute(statement, values)
        except sqlite3.Error as error:
            raise self.failure(error) from error

    def failure(self, error: sqlite3.Error) -> ImagefsError:
        """What to raise for an error of SQLite."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            self.full = True
            return NoSpace(f"No space left for {self.path}: free some and try again")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return Corrupt(
                f"Overlay database {self.path} is damaged ({error}): restore the file from a"
                " backup, or give up the changes with `imagefs reset` or `imagefs rm`"
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Busy(f"Overlay database {self.path} is in use by another process")
        return IOFailure(f"The host's disk failed at {self.path}: {error}")


class _Transaction:
    """BEGIN and COMMIT around a `with` block, ROLLBACK and mapped errors when it fails."""

    __slots__ = ("_database", "_on_rollback")

    def __init__(self, database: Database, on_rollback: Callable[[], None]) -> None:
        self._database = database
        self._on_rollback = on_rollback

    def __enter__(self) -> None:
        try:
            self._database.execute("BEGIN")
        except sqlite3.Error as error:
            raise self._database.failure(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                self._database.execute("COMMIT")
            except sqlite3.Error as failure:
                self._roll_back()
                raise self._database.failure(failure) from failure
            return
        self._roll_back()
        if isinstance(error, sqlite3.Error):
            raise self._database.failure(error) from error

    def _roll_back(self) -> None:
        try:
            # SQLite may have rolled back by itself, which makes this an error to ignore.
            self._database.execute("ROLLBACK")
        except sqlite3.Error:
            pass
        finally:
            self._on_rollback()


def _connect(path: Path) -> sqlite3.Connection:
    # The URI forbids SQLite to make a file that is missing.
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=128,
    )
    try:
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
            f"cache_size = -{_CACHE_KIB}",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"Overlay database {path} has format version {version}; this imagefs reads up to"
            f" {SCHEMA_VERSION}: use the newer imagefs that wrote it"
        )
    if version != SCHEMA_VERSION or connection.execute("SELECT 1 FROM state").fetchone() is None:
        raise Corrupt(
            f"Overlay database {path} is incomplete: restore the file from a backup, or give up"
            " the changes with `imagefs reset` or `imagefs rm`"
        )


@cache
def _template() -> bytes:
    """An empty database, marked as one in WAL mode."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO state VALUES (0, 0, 0, 1, 0)")
        image = bytearray(connection.serialize())
    finally:
        connection.close()
    image[_WAL_FORMAT_OFFSET : _WAL_FORMAT_OFFSET + 2] = _WAL_FORMAT
    return bytes(image)

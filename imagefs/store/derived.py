"""Databases that can be made again from what they tell of: SQLite (WAL), any thread.

`synchronous=NORMAL` is enough for them: power loss may take back transactions, never order.

Two connections: one for lookups, so that they never wait for a long insertion, and one for
changes. Each is guarded by its own lock.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from imagefs.errors import Corrupt, ImagefsError, IOFailure, NoSpace, StoreError

_BUSY_SECONDS = 60.0
_LONGEST_LOG = 16 * 1024 * 1024
_INTEGRITY_CHECK = "PRAGMA integrity_check(10)"


class DerivedDatabase:
    """One file; a subclass says what is in it. `open` makes its tables when it is new."""

    SCHEMA: ClassVar[Sequence[str]]
    VERSION: ClassVar[int]
    NOUN: ClassVar[str]
    """What it is called in messages."""
    REMEDY: ClassVar[str]
    """What to do when it is damaged: the end of a sentence."""

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: sqlite3.Connection) -> None:
        self._path = path
        self._reader = reader
        self._reader_lock = threading.Lock()
        self._writer = writer
        self._writer_lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises StoreError when it cannot be used, Corrupt when it is damaged."""
        with ExitStack() as opened:
            try:
                writer = opened.enter_context(closing(_connect(path)))
                cls._make_tables(writer, path)
                reader = opened.enter_context(closing(_connect(path)))
            except sqlite3.Error as error:
                raise cls._failure(error, path) from error
            opened.pop_all()
        return cls(path, reader, writer)

    def close(self) -> None:
        with self._reader_lock, self._writer_lock:
            self._reader.close()
            self._writer.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path}>"

    def check(self) -> list[str]:
        """What is wrong with the database itself, a few sentences at most; reads all of it.

        Raises Corrupt when it cannot even be asked.
        """
        lines = [str(line) for (line,) in self._query(_INTEGRITY_CHECK)]
        return [] if lines == ["ok"] else lines

    def _query(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        try:
            with self._reader_lock:
                return self._reader.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error, self._path) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._writer_lock, _immediate(self._writer):
                yield self._writer
        except sqlite3.Error as error:
            raise self._failure(error, self._path) from error

    @classmethod
    def _make_tables(cls, connection: sqlite3.Connection, path: Path) -> None:
        if _version(connection) == 0:
            with _immediate(connection):
                if _version(connection) == 0:  # another process may have been faster
                    for statement in cls.SCHEMA:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {cls.VERSION}")
        version = _version(connection)
        if version != cls.VERSION:
            raise StoreError(
                f"{cls.NOUN} {path} has version {version}, this imagefs knows {cls.VERSION}:"
                " use a newer imagefs"
            )

    @classmethod
    def _failure(cls, error: sqlite3.Error, path: Path) -> ImagefsError:
        extended = getattr(error, "sqlite_errorcode", 0)
        code = extended & 0xFF
        if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:
            return NoSpace(f"No space left for {path}: free some and try again")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return Corrupt(f"{cls.NOUN} {path} is damaged ({error}): {cls.REMEDY}")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return StoreError(
                f"{cls.NOUN} {path} cannot be opened for writing by user {os.geteuid()} ({error}):"
                " run imagefs as its owner"
            )
        if code == sqlite3.SQLITE_BUSY:
            return StoreError(f"{cls.NOUN} {path} is busy: another process keeps it locked")
        return IOFailure(f"{cls.NOUN} {path} failed: {error}")


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


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])

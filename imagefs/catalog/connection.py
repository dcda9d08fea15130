"""The open database of the catalog: transactions, their durability, and rows of trees.

Methods are called on the loop's thread (or the only thread of a command) and block for some
tens of microseconds; `sync` is for any thread. Several processes may have the catalog open.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from imagefs.catalog import schema
from imagefs.catalog.rows import TreeRow
from imagefs.disk import Disk
from imagefs.errors import ImagefsError

_COLUMNS = (
    "number, kind, account, place, name, state, manifest, parent, created, used, entries, bytes, "
    "stored, deleted, origin"
)


class Connection:
    """What reading and changing the catalog stands on."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        """Open or create the database at `path`; raises StoreError, Corrupt."""
        self._path = path
        self._disk = disk or Disk()
        self._connection = schema.connect(path)
        self.changes = 1
        """Counts transactions that changed something; the first are those of earlier sessions,
        which nobody may have made durable."""
        self.synced = 0
        """How many of them survive power loss."""
        self._sync_lock = threading.Lock()
        self._sync_failure: ImagefsError | None = None

    def __repr__(self) -> str:
        (trees,) = self._connection.execute("SELECT count(*) FROM tree").fetchone()
        return f"<Catalog {self._path}: {trees} trees>"

    def close(self) -> None:
        """Close the database; what was changed stays."""
        self._connection.close()

    def sync(self) -> None:
        """Everything that was changed before survives power loss afterwards. Blocks; any thread.

        Once it has failed it fails until the catalog is opened again: the kernel may have
        dropped what it could not write, and a second attempt would not know.
        """
        with self._sync_lock:
            covered = self.changes
            if self._sync_failure is not None:
                raise self._sync_failure
            try:
                self._sync_log()
            except ImagefsError as error:
                self._sync_failure = error
                raise
            self.synced = max(self.synced, covered)

    def _sync_log(self) -> None:
        """What is not in the log any more is in the database, which SQLite has synced."""
        try:
            fd = self._disk.open(f"{self._path}-wal", os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)

    def version(self) -> int:
        """A number that changes when another process has changed the catalog."""
        return int(self._fetch("PRAGMA data_version")[0][0])

    @contextlib.contextmanager
    def _changing(self, *, durable: bool = False) -> Iterator[None]:
        """A write transaction; `durable` waits for the disk at its end."""
        if durable:
            self._connection.execute("PRAGMA synchronous=FULL")
        try:
            with self._mapped_errors():
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._connection.execute("COMMIT")
                    self.changes += 1
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    if durable:
                        self._forget_torn()
                    raise
        finally:
            if durable:
                self._connection.execute("PRAGMA synchronous=NORMAL")

    def _forget_torn(self) -> None:
        """A commit that failed in its sync has left a whole transaction in the log: after a
        crash it would count. The next transaction is written over it, so one is made now."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute(f"PRAGMA user_version = {schema.VERSION}")

    @contextlib.contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise schema.failure(error, self._path) from error

    def _fetch(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        with self._mapped_errors():
            return self._connection.execute(sql, arguments).fetchall()

    def _rows(self, condition: str, *arguments: object) -> list[TreeRow]:
        rows = self._fetch(f"SELECT {_COLUMNS} FROM tree WHERE {condition}", *arguments)
        return [_row(row) for row in rows]

    def _one(self, condition: str, *arguments: object) -> TreeRow | None:
        rows = self._rows(condition, *arguments)
        return rows[0] if rows else None


def _row(values: tuple[Any, ...]) -> TreeRow:
    return msgspec.convert(values, TreeRow, strict=False)  # SQLite has no booleans

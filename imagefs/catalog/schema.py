"""The catalog's tables, and opening a database that has them.

`tree.number` is also the upper half of the inode numbers that the kernel sees, so it is
never used twice (AUTOINCREMENT). A name is free again once its tree is deleted: uniqueness
holds among the living, which the partial index says. A tree that turns into another one
(a draft sealed, an instance moved to images/) gets a new row and a new number, because its
inode numbers change.

An image's `place` is the region it is in, empty for the store's own. Images of regions are what a
region listed last: these rows can be made again. `origin` of an instance is the region of its image.
`region` are the regions that the store knows, `home` whose images an account sees in `images/`.

`grantee` are the accounts that an account shares with or is about to (the directories of
`shared/to/`), `share` which image is shared with whom.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from pathlib import Path

from imagefs.errors import Busy, Corrupt, ImagefsError, IOFailure, NoSpace, StoreError

VERSION = 3
"""2 added sharing, 3 regions; what an older catalog lacks is added when it is opened."""

_SHARED_MEMORY_FULL = sqlite3.SQLITE_IOERR_SHMSIZE
"""What opening a database on a full disk fails with."""

_TABLES = """
CREATE TABLE IF NOT EXISTS tree (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT NOT NULL,
    account  TEXT NOT NULL,
    place    TEXT NOT NULL,
    name     TEXT NOT NULL,
    state    TEXT NOT NULL,
    manifest BLOB,
    parent   TEXT,
    created  INTEGER NOT NULL,
    used     INTEGER NOT NULL DEFAULT 0,
    entries  INTEGER,
    bytes    INTEGER,
    stored   INTEGER,
    deleted  INTEGER,
    origin   TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS tree_name
    ON tree (account, kind, place, name) WHERE deleted IS NULL;
CREATE TABLE IF NOT EXISTS alias (
    account TEXT NOT NULL,
    name    TEXT NOT NULL,
    target  TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    path   TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS grantee (
    account TEXT NOT NULL,
    name    TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS share (
    image   INTEGER NOT NULL,
    grantee TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (image, grantee)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS share_grantee ON share (grantee);
CREATE TABLE IF NOT EXISTS region (
    name      TEXT PRIMARY KEY,
    url       TEXT NOT NULL,
    created   INTEGER NOT NULL,
    refreshed INTEGER,
    failure   TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS home (
    account TEXT PRIMARY KEY,
    region  TEXT NOT NULL
) WITHOUT ROWID;
"""
_ORIGIN = "ALTER TABLE tree ADD COLUMN origin TEXT NOT NULL DEFAULT '';"
"""What turns a tree of version 1 or 2 into one of version 3."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the catalog at `path`.

    Raises StoreError for a newer format, Corrupt for a damaged file, NoSpace, Busy, IOFailure.
    """
    with ExitStack() as opened:
        try:
            connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=30
            )
            opened.callback(connection.close)
            _prepare(connection, path)
        except sqlite3.Error as error:
            raise failure(error, path) from error
        opened.pop_all()
    return connection


def failure(error: sqlite3.Error, path: Path) -> ImagefsError:
    """The error of ours for one of SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_FULL or code == _SHARED_MEMORY_FULL:
        return NoSpace(f"No space left for the catalog {path}: free some and try again")
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(
            f"The catalog {path} is damaged ({error}): put a good copy of it in its place"
        )
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"The catalog {path} is locked by another process: try again")
    return IOFailure(f"The catalog {path} cannot be used: {error}")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise StoreError(
            f"The catalog {path} has format {version}, this imagefs knows {VERSION}: use a newer one"
        )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    if version < VERSION:
        _upgrade(connection)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Make or add the tables, unless another process has just done so."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        changes = _TABLES if version < VERSION else ""
        # An older imagefs that still runs may have set its own version again.
        columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(tree)")}
        if changes and columns and "origin" not in columns:
            changes = _ORIGIN + changes
        for statement in changes.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise

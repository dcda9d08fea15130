"""A catalog of an older version is opened and works; an older imagefs may still have it open."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from imagefs.catalog import Catalog, Kind, State
from imagefs.catalog.rows import Published
from imagefs.model import ObjectId

MANIFEST = ObjectId(b"1" * 32)

VERSION_2 = """
CREATE TABLE tree (
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
    deleted  INTEGER
);
CREATE UNIQUE INDEX tree_name ON tree (account, kind, place, name) WHERE deleted IS NULL;
CREATE TABLE alias (
    account TEXT NOT NULL,
    name    TEXT NOT NULL,
    target  TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;
CREATE TABLE place (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    path   TEXT NOT NULL UNIQUE
);
CREATE TABLE grantee (
    account TEXT NOT NULL,
    name    TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;
CREATE TABLE share (
    image   INTEGER NOT NULL,
    grantee TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (image, grantee)
) WITHOUT ROWID;
CREATE INDEX share_grantee ON share (grantee);
"""

OLD_INSERT = (
    "INSERT INTO tree (kind, account, place, name, state, manifest, parent, created, used, entries,"
    " bytes, stored) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

ROWS = (
    ("image", "ann", "", "web", "sealed", MANIFEST, None, 1, 1, 3, 10, 7),
    ("image", "ann", "", "draft", "draft", None, None, 2, 0, None, None, None),
    ("instance", "ann", "web", "one", "live", MANIFEST, "web", 3, 0, None, None, None),
    ("instance", "bob", "web@ann", "two", "live", MANIFEST, "web@ann", 4, 0, None, None, None),
)


def make(path: Path, *, without: tuple[str, ...] = (), version: int = 2) -> None:
    """A catalog as an older imagefs left it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in VERSION_2.split(";"):
            if not any(f" {table} " in statement for table in without):
                connection.execute(statement)
        connection.executemany(OLD_INSERT, ROWS)
        connection.execute("UPDATE tree SET deleted = 9 WHERE name = 'two'")
        connection.execute("INSERT INTO alias VALUES ('ann', 'current', 'web', 5)")
        connection.execute("INSERT INTO place (path) VALUES ('alias/current')")
        if not without:
            connection.execute("INSERT INTO grantee VALUES ('ann', 'bob', 6)")
            connection.execute("INSERT INTO share VALUES (1, 'bob', 6)")
        connection.execute(f"PRAGMA user_version={version}")


def require_all_of_it(catalog: Catalog) -> None:
    assert catalog.check() == []
    assert [row.name for row in catalog.images("ann")] == ["draft", "web"]
    assert [row.origin for row in catalog.everything()] == [""] * 4
    assert catalog.aliases("ann") == {"current": "web"}
    assert catalog.place_number("alias/current") == 1
    assert catalog.regions() == []
    assert catalog.home("ann") == ""


def test_a_catalog_of_version_2_is_opened_and_works(tmp_path: Path) -> None:
    make(tmp_path / "catalog.db")
    catalog = Catalog(tmp_path / "catalog.db")
    require_all_of_it(catalog)
    assert [row.name for row in catalog.shared_images("bob")] == ["web"]
    web = catalog.image("ann", "web")
    assert web is not None
    assert web.used
    assert (web.entries, web.bytes, web.stored) == (3, 10, 7)
    two = catalog.last_deleted(Kind.INSTANCE, "bob", "web@ann", "two")
    assert two is not None
    assert catalog.undelete(two).number == 4
    (three,) = catalog.clone(web, "ann", "web", ["three"], 10)
    assert three.number == 5
    catalog.add_region("eu", "file:///eu", 11)
    image = Published("ann", "web", MANIFEST, 3, 10, 12, None)
    (row,) = catalog.mirror("eu", "ann", [image], [("ann", "web", "bob")], 13)
    assert (row.place, row.state) == ("eu", State.SEALED)
    (four,) = catalog.clone(row, "ann", "web", ["four"], 14)
    assert four.origin == "eu"
    assert catalog.check() == []
    catalog.close()


def test_a_catalog_from_before_sharing_is_opened(tmp_path: Path) -> None:
    make(tmp_path / "catalog.db", without=("grantee", "share"), version=1)
    catalog = Catalog(tmp_path / "catalog.db")
    require_all_of_it(catalog)
    assert catalog.shared_images("bob") == []
    catalog.close()


def test_an_older_imagefs_goes_on_beside(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    make(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as older:
        older.execute("SELECT count(*) FROM tree").fetchall()
        catalog = Catalog(path)
        old = ("image", "bob", "", "db", "sealed", MANIFEST, None, 20, 0, 3, 10, 7)
        older.execute(OLD_INSERT, old)
        row = catalog.image("bob", "db")
        assert row is not None
        assert row.origin == ""
        catalog.close()
        # What it does when the disk fails.
        older.execute("PRAGMA user_version=2")
    again = Catalog(path)
    assert [row.name for row in again.images("bob")] == ["db"]
    assert again.check() == []
    again.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)

"""A check of the catalog names rows that contradict each other or cannot be."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from imagefs.catalog import Catalog
from imagefs.catalog.rows import Sealed
from imagefs.model import ObjectId

SEALED = Sealed(ObjectId(b"m" * 32), 10, 1000, 500)

OTHER_INDEX = """
    PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE INDEX tree_name
    ON tree (account, kind, place, name) WHERE deleted IS NOT NULL' WHERE name = 'tree_name'"""

BREAKAGES = {
    "an instance without a tree": (
        "UPDATE tree SET manifest = NULL WHERE name = 'n1'",
        "it has no tree",
    ),
    "a sealed image without a tree": (
        "UPDATE tree SET manifest = NULL WHERE name = 'base'",
        "it has no tree",
    ),
    "a manifest that is none": (
        "UPDATE tree SET manifest = x'00' WHERE name = 'base'",
        "its manifest is no object id",
    ),
    "a sealed image without figures": (
        "UPDATE tree SET entries = NULL WHERE name = 'base'",
        "a sealed image with None entries and 1000 bytes",
    ),
    "an instance that is a draft": (
        "UPDATE tree SET state = 'draft' WHERE name = 'n1'",
        "no instance can be draft",
    ),
    "a kind that is none": (
        "UPDATE tree SET kind = 'thing' WHERE name = 'n1'",
        "no thing can be live",
    ),
    "an instance of nothing": (
        "UPDATE tree SET place = '' WHERE name = 'n1'",
        "names have 1 to 255",
    ),
    "an image in no region": (
        "UPDATE tree SET place = 'a/b' WHERE name = 'draft'",
        "contains '/'",
    ),
    "a name that cannot be": (
        "UPDATE tree SET name = 'a/b' WHERE name = 'draft'",
        "contains '/'",
    ),
    "an image called like an archive": (
        "UPDATE tree SET name = 'x.tar' WHERE name = 'draft'",
        "which is reserved",
    ),
    "a number that was not given out": (
        "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'tree'",
        "Tree 3: numbers up to 1 were given out",
    ),
    "a number too large": (
        "UPDATE tree SET number = 3000000000 WHERE name = 'draft'",
        "no tree can have this number",
    ),
    "two images of one name": (
        "DROP INDEX tree_name; UPDATE tree SET name = 'base' WHERE name = 'draft'",
        "Account ann has the image /base twice",
    ),
    "an image and an alias of one name": (
        "UPDATE alias SET name = 'base'",
        "Account ann has the image base and an alias of that name",
    ),
    "an alias of nothing": (
        "UPDATE alias SET target = ''",
        "Alias stable of ann: ",
    ),
    "a time that is none": (
        "UPDATE tree SET created = 'yesterday' WHERE name = 'draft'",
        "created at yesterday",
    ),
    "used that is neither": (
        "UPDATE tree SET used = 7 WHERE name = 'draft'",
        "used is 7",
    ),
    "an index that lost a row": (
        OTHER_INDEX,
        "Database: ",
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.db"
    catalog = Catalog(path)
    image = catalog.publish("ann", "base", SEALED, None, 1)
    catalog.create_draft("ann", "draft", 2)
    (instance,) = catalog.clone(image, "ann", "base", ["n1"], 3)
    catalog.reset(instance, 4)
    catalog.set_alias("ann", "stable", "base", 5, replace=False)
    catalog.close()
    return path


def test_a_whole_catalog_has_no_problems(path: Path) -> None:
    with closing(Catalog(path)) as catalog:
        assert catalog.check() == []


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_broken_is_named(path: Path, name: str) -> None:
    statements, expected = BREAKAGES[name]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(statements)
    with closing(Catalog(path)) as catalog:
        problems = catalog.check()
    assert any(expected in problem for problem in problems), problems

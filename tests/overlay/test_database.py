"""The database file: versions, damage, two processes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from imagefs.disk import Disk
from imagefs.errors import Busy, Corrupt, ImagefsError, StoreError
from imagefs.model import ROOT_INO
from imagefs.overlay.database import PAGE_SIZE, SCHEMA_VERSION, Database, create
from tests.overlay.workbench import Bench


def made(bench: Bench) -> Path:
    for number in range(200):
        bench.make(b"file %d" % number, content=b"x")
    bench.overlay.close()
    return bench.directory / "meta.db"


def test_a_new_database_is_whole_and_in_wal_mode(tmp_path: Path) -> None:
    create(tmp_path, Disk())
    database = Database(tmp_path, lambda: None)
    assert database.row("PRAGMA journal_mode") == ("wal",)
    assert database.row("PRAGMA page_size") == (PAGE_SIZE,)
    assert database.row("PRAGMA integrity_check") == ("ok",)
    assert database.row("PRAGMA synchronous") == (1,)
    database.close()
    database.close()


@pytest.mark.damaged
def test_a_newer_version_is_refused(bench: Bench) -> None:
    path = made(bench)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match=f"version {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}"):
        bench.open()


@pytest.mark.damaged
@pytest.mark.parametrize(
    "damage", [b"not a database at all", bytes(4096), b"SQLite format 3\0" + bytes(5000)]
)
def test_a_damaged_file_is_named_with_what_to_do(bench: Bench, damage: bytes) -> None:
    path = made(bench)
    path.write_bytes(damage)
    with pytest.raises(Corrupt, match=r"meta\.db.*imagefs reset"):
        bench.open()


@pytest.mark.damaged
def test_no_damage_of_a_page_leaves_the_layer_as_another_error(bench: Bench) -> None:
    path = made(bench)
    content = path.read_bytes()
    damaged = 0
    for page in range(1, len(content) // PAGE_SIZE):
        start = page * PAGE_SIZE
        path.write_bytes(content[:start] + b"\xa5" * PAGE_SIZE + content[start + PAGE_SIZE :])
        try:
            bench.open()
            for name in bench.names(ROOT_INO):
                bench.read(name)
            bench.overlay.make(ROOT_INO, b"new", 0o100644, 0, 0)
        except ImagefsError:
            damaged += 1
        finally:
            bench.overlay.close()
    assert damaged > 10


def test_a_second_process_is_refused(bench: Bench) -> None:
    bench.make(b"x")
    second = Bench.__new__(Bench)
    second.__dict__.update(bench.__dict__)
    with pytest.raises(Busy, match="in use by another process"):
        second.open()
    second.overlay.close()


def test_an_overlay_below_another_tree_is_not_mixed_up(bench: Bench) -> None:
    """Numbers the overlay gave out are kept even when the base is smaller than before."""
    ino = bench.make(b"x", content=b"content")
    bench.overlay.close()
    bench.open()
    assert bench.ino(b"x") == ino
    assert bench.make(b"y") > ino

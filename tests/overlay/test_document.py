"""docs/format.md tells every column of the overlay's database, and the limits as they are."""

from __future__ import annotations

import re
from pathlib import Path

from imagefs.disk import Disk
from imagefs.overlay.database import SCHEMA_VERSION, Database, create
from imagefs.overlay.heap import PAGE
from imagefs.overlay.space import LIMIT

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "format.md"


def section() -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.partition("\n## Overlay\n")[2].partition("\n## ")[0]


def told() -> set[tuple[str, str]]:
    columns = set()
    table = ""
    for line in section().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 5 or set(cells[1]) == {"-"}:
            continue
        table = cells[1].strip("`") or table
        columns |= {(table, name) for name in re.findall(r"`(\w+)`", cells[2])}
    return columns


def test_every_column_is_told(tmp_path: Path) -> None:
    create(tmp_path, Disk())
    database = Database(tmp_path, lambda: None)
    tables = [
        name for (name,) in database.rows("SELECT name FROM sqlite_schema WHERE type='table'")
    ]
    columns = {
        (table, row[1]) for table in tables for row in database.rows(f"PRAGMA table_info({table})")
    }
    database.close()
    assert told() == columns


def test_the_numbers_are_those_of_the_code() -> None:
    text = section()
    assert f"its version, {SCHEMA_VERSION}." in text
    assert f"a multiple of {PAGE:,}" in text
    assert f"stands for {LIMIT >> 40} TiB" in text

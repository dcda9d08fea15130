"""The columns of a database as its section of docs/format.md tells them."""

import re
import sqlite3
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/format.md"
Column = tuple[str, str]
"""Table and name."""


def section(title: str) -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def told(title: str) -> set[Column]:
    columns = set()
    table = ""
    for line in section(title).splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 5 or set(cells[1]) == {"-"}:
            continue
        table = cells[1].strip("`") or table
        columns |= {(table, name) for name in re.findall(r"`(\w+)`", cells[2])}
    return columns


def columns(database: Path) -> set[Column]:
    """The columns that a database has, but for the tables that SQLite makes for itself."""
    connection = sqlite3.connect(database)
    try:
        return set(
            connection.execute(
                "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c"
                " WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'"
            )
        )
    finally:
        connection.close()

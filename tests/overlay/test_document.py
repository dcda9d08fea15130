"""docs/format.md tells every column of the overlay's database, and the limits as they are."""

from __future__ import annotations

from pathlib import Path

from imagefs.disk import Disk
from imagefs.overlay.database import SCHEMA_VERSION, create, path_in
from imagefs.overlay.heap import PAGE
from imagefs.overlay.space import LIMIT
from tests.columns import columns, section, told


def test_every_column_is_told(tmp_path: Path) -> None:
    create(tmp_path, Disk())
    assert told("Overlay") == columns(path_in(tmp_path))


def test_the_numbers_are_those_of_the_code() -> None:
    text = section("Overlay")
    assert f"its version, {SCHEMA_VERSION}." in text
    assert f"a multiple of {PAGE:,}" in text
    assert f"stands for {LIMIT >> 40} TiB" in text

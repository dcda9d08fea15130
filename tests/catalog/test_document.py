"""docs/format.md tells every column of the catalog, what is in them, and its version."""

from pathlib import Path

from imagefs.catalog import PUBLIC, Kind, State
from imagefs.catalog.schema import VERSION, connect
from imagefs.vfs.places import FIRST_DYNAMIC
from tests.columns import columns, section, told


def test_every_column_is_told(tmp_path: Path) -> None:
    connect(tmp_path / "catalog.db").close()
    assert told("The catalog") == columns(tmp_path / "catalog.db")


def test_versions_and_values_are_those_of_the_code() -> None:
    text = section("The catalog")
    assert f"its version, {VERSION};" in text
    assert all(f"`{value}`" in text for value in [*Kind, *State, PUBLIC])
    assert f"{FIRST_DYNAMIC} and the number" in text

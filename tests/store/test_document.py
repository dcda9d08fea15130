"""docs/format.md tells every column of the index, and its version."""

from pathlib import Path

from imagefs.store.index import INDEX_VERSION, Index
from tests.columns import columns, section, told


def test_every_column_is_told(tmp_path: Path) -> None:
    Index.open(tmp_path / "index.db").close()
    assert told("The index") == columns(tmp_path / "index.db")


def test_the_version_is_that_of_the_code() -> None:
    assert f"its version, {INDEX_VERSION}." in section("The index")

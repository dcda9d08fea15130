"""Stores in temporary directories, on a disk that is watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.store import Store
from tests.store.watched import WatchedDisk


@pytest.fixture
def disk() -> WatchedDisk:
    return WatchedDisk()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's store is."""
    return tmp_path / "store"


@pytest.fixture
def store(path: Path, disk: WatchedDisk) -> Iterator[Store]:
    """An empty store on a watched disk."""
    with Store.create(path, disk) as store:
        disk.calls.clear()
        yield store

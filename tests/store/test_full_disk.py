"""A disk that is full: writers are told, readers notice nothing, the store can be emptied."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import NoSpace
from imagefs.model import ObjectId
from imagefs.store import Store
from imagefs.store.reserve import RESERVE

MIB = 1024 * 1024


def noise(number: int, size: int = 100_000) -> bytes:
    return random.Random(number).randbytes(size)


def put(store: Store, numbers: range) -> list[ObjectId]:
    with store.writer() as writer:
        ids = [writer.put(noise(number)) for number in numbers]
        writer.finish()
    return ids


def fill(path: Path) -> None:
    """Takes the last byte of the file system."""
    with path.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of a few MiB, as many as the test asks for."""
    mountpoint = tmp_path / "disk"
    mountpoint.mkdir()
    size = f"size={request.param}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


@pytest.mark.root
@pytest.mark.parametrize("small_disk", [6], indirect=True)
def test_a_full_disk_costs_nothing_that_was_stored(small_disk: Path) -> None:
    path = small_disk / "store"
    with Store.create(path) as store:
        ids = put(store, range(10))
        with pytest.raises(NoSpace, match=r"No space left for .*pack: free some"):
            put(store, range(10, 100))
        put(store, range(10, 12))  # what the failed import took is free again
        fill(small_disk / "filler")
        with pytest.raises(NoSpace):
            put(store, range(12, 14))
        assert [store.get(oid) for oid in ids] == [noise(number) for number in range(10)]
        (small_disk / "filler").unlink()
        put(store, range(12, 14))
    with Store.open(path) as store:
        assert store.statistics().objects == 14


@pytest.mark.root
@pytest.mark.parametrize("small_disk", [96], indirect=True)
def test_a_store_that_filled_its_disk_can_be_opened_and_written_to(small_disk: Path) -> None:
    path = small_disk / "store"
    with Store.create(path) as store:
        ids = put(store, range(3))
    assert os.stat(path / "reserve").st_blocks * 512 == RESERVE
    fill(small_disk / "filler")
    with Store.open(path) as store:
        assert store.get(ids[0]) == noise(0)
        put(store, range(3, 5))
        assert not store.release_reserve()
    fill(small_disk / "filler")
    with pytest.raises(NoSpace, match="free some"):
        Store.open(path)
    (small_disk / "filler").unlink()
    with Store.open(path) as store:
        assert store.statistics().objects == 5
        assert (path / "reserve").exists()
        assert store.release_reserve()

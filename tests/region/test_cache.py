"""Windows on the local disk: bounded together, and never more than a help."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefs.disk import Disk
from imagefs.errors import IOFailure, NoSpace
from imagefs.region.cache import WindowCache, WindowKey
from tests.store.watched import WatchedDisk

PACK = b"p" * 32
SIZE = 1000


def key(number: int) -> WindowKey:
    return WindowKey(PACK if number % 2 else b"q" * 32, number)


def files(path: Path) -> dict[str, int]:
    return {str(file.relative_to(path)): file.stat().st_size for file in path.glob("*/*")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_what_was_put_is_read_in_parts(path: Path) -> None:
    cache = WindowCache(path, Disk(), 10**9)
    for read in (cache.read, cache.read_nowait):
        assert read(key(1), 0, 10) is None
    assert not cache.holds(key(1))
    cache.put(key(1), bytes(range(100)))
    assert cache.holds(key(1))
    for read in (cache.read, cache.read_nowait):
        assert read(key(1), 0, 100) == bytes(range(100))
        assert read(key(1), 7, 3) == b"\x07\x08\x09"
        assert read(key(1), 90, 20) is None
        assert read(key(3), 0, 10) is None
    assert cache.offsets(PACK) == [1]
    cache.put(key(1), b"other")
    assert cache.read(key(1), 0, 5) == b"other"
    cache.drop(key(1))
    cache.drop(key(1))
    assert not cache.holds(key(1))
    assert cache.offsets(PACK) == []


def test_the_bound_holds_for_all_who_share_the_directory(path: Path) -> None:
    caches = [WindowCache(path, Disk(), 50 * SIZE) for _ in range(2)]
    for number in range(200):
        for cache in caches:
            cache.put(WindowKey(os.urandom(32), number), bytes(SIZE))
            assert sum(files(path).values()) <= 60 * SIZE
    assert sum(files(path).values()) > 30 * SIZE
    # Directories of packs that have no windows any more are gone.
    assert len(list(path.iterdir())) <= 60


def test_what_was_used_last_stays(path: Path) -> None:
    cache = WindowCache(path, Disk(), 20 * SIZE)
    cache.put(key(0), bytes(SIZE))
    for number in range(1, 100):
        cache.put(key(number), bytes(SIZE))
        assert cache.read(key(0), 0, SIZE) is not None
    assert cache.statistics().evictions > 70
    assert not cache.holds(key(1))
    assert cache.holds(key(99))


def test_clearing_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagefs.region.cache._AT_ONCE", 3)
    cache = WindowCache(path, Disk(), 10**9)
    for number in range(20):
        cache.put(key(number), bytes(SIZE))
    cache.clear()
    assert list(path.iterdir()) == []


def test_what_a_crash_left_goes_after_a_while(path: Path) -> None:
    cache = WindowCache(path, Disk(), 10**9)
    cache.put(key(1), bytes(SIZE))
    left, fresh = path / PACK.hex() / "1.77.0", path / PACK.hex() / "1.78.0"
    for file in (left, fresh):
        file.write_bytes(b"half")
    old = time.time_ns() - 2 * 3600 * 10**9
    os.utime(left, ns=(old, old))
    (path / "a file of somebody").touch()
    WindowCache(path, Disk(), 10**9).put(key(2), bytes(SIZE))
    assert not left.exists()
    assert fresh.exists()
    assert cache.holds(key(1))


@pytest.mark.parametrize("error", [NoSpace, IOFailure])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_disk_that_fails_costs_the_window_only(
    path: Path, error: Callable[[str], Exception], at: int
) -> None:
    disk = WatchedDisk()
    cache = WindowCache(path, disk, 10**9)
    disk.fail_at = disk.changes + at
    disk.error = error
    cache.put(key(1), bytes(SIZE))
    disk.fail_at = None
    assert cache.read(key(1), 0, SIZE) in (None, bytes(SIZE))
    cache.put(key(1), bytes(SIZE))
    assert cache.read(key(1), 0, SIZE) == bytes(SIZE)
    assert set(files(path).values()) == {SIZE}


def test_a_full_disk_is_given_room(path: Path) -> None:
    disk = WatchedDisk()
    cache = WindowCache(path, disk, 20 * SIZE)
    for number in range(15):
        cache.put(key(number), bytes(SIZE))
    disk.fail_at = disk.changes + 1
    disk.error = NoSpace
    cache.put(key(99), bytes(SIZE))
    assert sum(files(path).values()) <= 10 * SIZE


def test_by_default_it_takes_a_part_of_the_disk(path: Path) -> None:
    cache = WindowCache(path, Disk())
    status = os.statvfs(path)
    assert cache.limit == max(status.f_blocks * status.f_frsize // 10, 1024**3)

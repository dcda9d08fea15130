"""The id of a store: made once, whoever asks, kept, and never guessed at when it is damaged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagefs.disk import Disk
from imagefs.errors import Corrupt
from imagefs.region.identity import store_id
from tests.store.watched import WatchedDisk


def test_it_stays(tmp_path: Path) -> None:
    made = store_id(tmp_path, Disk())
    assert len(made) == 16
    assert store_id(tmp_path, Disk()) == made
    assert (tmp_path / "id").read_text() == f"{made.hex()}\n"


def test_who_asks_at_once_gets_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: store_id(tmp_path, Disk()), range(32)))) == 1


@pytest.mark.parametrize("length", [0, 1, 32])
def test_what_a_crash_left_is_made_whole(tmp_path: Path, length: int) -> None:
    (tmp_path / "id").write_bytes(b"0" * length)
    made = store_id(tmp_path, Disk())
    assert store_id(tmp_path, Disk()) == made


@pytest.mark.parametrize("text", [b"x" * 33, b"0" * 33, b"0" * 32 + b"\n\n", b"A" * 32 + b"\n"])
def test_a_damaged_one_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "id").write_bytes(text)
    with pytest.raises(Corrupt, match="is not the id of a store"):
        store_id(tmp_path, Disk())
    assert (tmp_path / "id").read_bytes() == text


def test_it_is_durable_before_it_is_used(tmp_path: Path) -> None:
    disk = WatchedDisk()
    store_id(tmp_path, disk)
    assert [call for call, _ in disk.calls if "sync" in call] == ["fdatasync", "fsync_dir"]

"""The one door to the host's files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from imagefs.disk import Disk, failure
from imagefs.errors import IOFailure, NoSpace


@pytest.fixture
def fd(tmp_path: Path) -> int:
    return Disk().open(tmp_path / "file", os.O_RDWR | os.O_CREAT)


def test_bytes_written_come_back_until_the_file_ends(fd: int) -> None:
    disk = Disk()
    disk.pwrite(fd, b"hello", 3)
    disk.pwritev(fd, [b" ", b"", b"world"], 8)
    assert disk.pread(fd, 100, 0) == b"\0\0\0hello world"
    assert disk.pread(fd, 5, 3) == b"hello"
    assert disk.pread(fd, 5, 100) == b""
    assert disk.size(fd) == 14


def test_reading_without_waiting_gives_what_reading_gives(fd: int) -> None:
    disk = Disk()
    disk.pwrite(fd, b"hello", 0)
    for size, offset in ((5, 0), (2, 1), (9, 3), (1, 5), (1, 50)):
        assert disk.pread_nowait(fd, size, offset) == disk.pread(fd, size, offset)


def test_reading_without_waiting_works_in_a_memory_file_system() -> None:
    fd = os.memfd_create("test")
    Disk().pwrite(fd, b"hello", 0)
    assert Disk().pread_nowait(fd, 5, 0) == b"hello"


@pytest.mark.parametrize("refuses", [True, False])
def test_a_durable_write_needs_no_flag_of_the_file_system(
    fd: int, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "no flags here")

    disk = Disk()
    synced: list[int] = []
    monkeypatch.setattr(disk, "fdatasync", synced.append)
    if refuses:
        monkeypatch.setattr(os, "pwritev", refuse)
    disk.pwrite_durably(fd, b"hello", 3)
    assert disk.pread(fd, 100, 0) == b"\0\0\0hello"
    assert synced == [fd] * refuses


def test_a_punched_hole_reads_as_zeros_and_keeps_the_size(fd: int) -> None:
    disk = Disk()
    disk.pwrite(fd, b"x" * 3 * 65536, 0)
    disk.punch_hole(fd, 65536, 65536)
    assert disk.pread(fd, 3 * 65536, 0) == b"x" * 65536 + bytes(65536) + b"x" * 65536
    disk.punch_hole(fd, 0, 10**9)
    assert disk.size(fd) == 3 * 65536
    assert os.fstat(fd).st_blocks == 0


def test_a_lock_belongs_to_one_descriptor(tmp_path: Path, fd: int) -> None:
    disk = Disk()
    other = disk.open(tmp_path / "file", os.O_RDWR)
    assert disk.try_lock(fd)
    assert not disk.try_lock(other)
    disk.close(fd)
    disk.lock(other)


def test_publish_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    disk = Disk()
    disk.publish(tmp_path / "name", b"first, long")
    (tmp_path / "name.tmp").write_bytes(b"left by a crash, longer than what follows")
    disk.publish(tmp_path / "name", b"second")
    assert (tmp_path / "name").read_bytes() == b"second"
    assert disk.listdir(tmp_path) == ["name"]


def test_errors_are_told_apart_and_name_the_file(tmp_path: Path, fd: int) -> None:
    full = failure(OSError(errno.ENOSPC, "No space left on device"), fd)
    assert isinstance(full, NoSpace)
    assert str(tmp_path / "file") in str(full)
    assert isinstance(failure(OSError(errno.EDQUOT, "Quota exceeded"), fd), NoSpace)
    other = failure(OSError(errno.EIO, "Input/output error"), tmp_path / "elsewhere")
    assert isinstance(other, IOFailure)
    assert str(tmp_path / "elsewhere") in str(other)


def test_missing_and_existing_files_keep_their_python_errors(tmp_path: Path, fd: int) -> None:
    disk = Disk()
    with pytest.raises(FileNotFoundError):
        disk.open(tmp_path / "nothing", os.O_RDONLY)
    with pytest.raises(FileExistsError):
        disk.mkdir(tmp_path / "file")
    with pytest.raises(IOFailure, match="file"):
        disk.listdir(tmp_path / "file")
    with pytest.raises(IOFailure, match="descriptor"):
        disk.pread(-1, 1, 0)


@pytest.mark.parametrize("one_call", [True, False])
def test_renaming_to_a_new_name_replaces_nothing(
    tmp_path: Path, one_call: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, other = (tmp_path / name for name in ("old", "new", "other"))
    old.write_bytes(b"old")
    other.write_bytes(b"other")
    if not one_call:
        # As file systems that do not know the flag answer.
        monkeypatch.setattr("imagefs.disk._RENAME_NOREPLACE", 1 << 30)
    with pytest.raises(FileExistsError):
        Disk().rename_new(old, other)
    assert (old.read_bytes(), other.read_bytes()) == (b"old", b"other")
    Disk().rename_new(old, new)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "other"]
    assert new.read_bytes() == b"old"
    with pytest.raises(FileNotFoundError):
        Disk().rename_new(old, new)

"""What a store directory holds, how one is made and recognised.

`format` says what this is and its version; it is written last, so a directory with it is a
whole store, and its lock (flock) is held while the index is recovered. `packs/` has the
objects, `index.db` (with -wal and -shm while open) says where they are, `reserve` is there
for a full disk.
"""

from __future__ import annotations

import os
from pathlib import Path

from imagefs.disk import Disk
from imagefs.errors import Corrupt, Exists, StoreError

STORE_VERSION = 1
_FIRST_LINE = "imagefs store"
_LEFTOVERS = frozenset(
    {"packs", "format.tmp", "index.db", "index.db-wal", "index.db-shm", "reserve", "lost+found"}
)
_LONGEST_FORMAT = 4096


def format_file(path: Path) -> Path:
    return path / "format"


def packs(path: Path) -> Path:
    return path / "packs"


def index(path: Path) -> Path:
    return path / "index.db"


def reserve(path: Path) -> Path:
    return path / "reserve"


def create(path: Path, disk: Disk) -> None:
    """Makes an empty store; what a crash left of an earlier attempt is taken over.

    Raises `Exists` when there is one, `StoreError` when the directory holds something else.
    """
    if disk.size_of(format_file(path)) is not None:
        raise Exists(f"There is a store at {path} already")
    _make_directory(path, disk)
    strangers = sorted(set(disk.listdir(path)) - _LEFTOVERS)
    if strangers:
        raise StoreError(
            f"Directory {path} is not empty (it holds {strangers[0]}): choose an empty or a"
            " new directory for the store"
        )
    _check_writable(path, disk)
    _make_directory(packs(path), disk)
    disk.fsync_dir(path)
    disk.publish(format_file(path), f"{_FIRST_LINE}\nversion {STORE_VERSION}\n".encode())


def check(path: Path, disk: Disk) -> None:
    """Raises `StoreError` unless `path` is a store that this program and user can work with,
    `Corrupt` when part of it is gone."""
    if not disk.is_directory(path):
        raise StoreError(f"There is no store at {path}")
    _check_writable(path, disk)
    version = _version(path, disk)
    if version != STORE_VERSION:
        raise StoreError(
            f"Store {path} has version {version}, this imagefs knows {STORE_VERSION}:"
            " use a newer imagefs"
        )
    if not disk.is_directory(packs(path)):
        raise Corrupt(f"Store {path} is damaged: directory {packs(path)} is missing")
    _check_writable(packs(path), disk)


def _version(path: Path, disk: Disk) -> int:
    try:
        fd = disk.open(format_file(path), os.O_RDONLY)
    except FileNotFoundError as error:
        raise StoreError(f"Directory {path} is not a store: it has no file named format") from error
    try:
        lines = disk.pread(fd, _LONGEST_FORMAT, 0).decode("ascii", "replace").splitlines()
    finally:
        disk.close(fd)
    if len(lines) >= 2 and lines[0] == _FIRST_LINE and lines[1].startswith("version "):
        number = lines[1].removeprefix("version ")
        if number.isdecimal():
            return int(number)
    raise StoreError(f"Directory {path} is not a store: {format_file(path)} says something else")


def _make_directory(path: Path, disk: Disk) -> None:
    if disk.is_directory(path):
        return
    if not disk.is_directory(path.parent):
        _make_directory(path.parent, disk)
    _check_writable(path.parent, disk)
    try:
        disk.mkdir(path)
    except FileExistsError as error:
        if not disk.is_directory(path):
            raise StoreError(f"{path} is in the way: it is not a directory") from error
    disk.fsync_dir(path.parent)


def _check_writable(path: Path, disk: Disk) -> None:
    if not disk.writable(path):
        raise StoreError(
            f"Directory {path} is not writable for user {os.geteuid()}: run imagefs as its"
            " owner, or choose another store"
        )

"""The pack files of a store: names, reading, appending.

A pack has one writer at a time, whoever holds the lock (flock) on the file; readers take no
lock, because what the index points to never changes. Reading methods may be called from any
thread; a `PackAppender` belongs to whoever guards it.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from imagefs.disk import Disk
from imagefs.errors import Corrupt
from imagefs.format.record import PACK_HEADER_SIZE, check_pack_header, encode_pack_header

_MAX_OPEN = 128
_NEWEST = 16
_WRITEBACK = 8 * 1024 * 1024
_SUFFIX = ".pack"


class _OpenPack:
    """A pack open for reading; it is not closed while somebody uses it."""

    __slots__ = ("fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0


class Packs:
    """The directory of packs; keeps a bounded number of them open for reading."""

    full = 1024 * 1024 * 1024
    """A pack that has grown to this many bytes is not appended to any more."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.directory = directory
        self.disk = disk
        self._open: OrderedDict[int, _OpenPack] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Packs {self.directory}, {len(self._open)} open>"

    def path(self, number: int) -> Path:
        return self.directory / f"{number:08d}{_SUFFIX}"

    def numbers(self) -> list[int]:
        """The packs there are, oldest first; other files in the directory are left alone."""
        names = (
            name.removesuffix(_SUFFIX)
            for name in self.disk.listdir(self.directory)
            if name.endswith(_SUFFIX)
        )
        return sorted(int(name) for name in names if name.isdecimal())

    def sizes(self) -> dict[int, int]:
        """The size in bytes of each pack there is."""
        sizes = {}
        for number in self.numbers():
            size = self.disk.size_of(self.path(number))
            if size is not None:
                sizes[number] = size
        return sizes

    # -- reading ------------------------------------------------------------------------

    def read(self, number: int, size: int, offset: int) -> bytes:
        """Bytes of a pack, fewer where it ends; raises `Corrupt` when there is no such pack."""
        pack = self._acquire(number)
        try:
            return self.disk.pread(pack.fd, size, offset)
        finally:
            self._release(pack)

    def read_nowait(self, number: int, size: int, offset: int) -> bytes | None:
        """The same, None when that would wait for the disk."""
        pack = self._acquire(number)
        try:
            return self.disk.pread_nowait(pack.fd, size, offset)
        finally:
            self._release(pack)

    def close(self) -> None:
        with self._lock:
            while self._open:
                self.disk.close(self._open.popitem()[1].fd)

    def _acquire(self, number: int) -> _OpenPack:
        with self._lock:
            pack = self._open.get(number)
            if pack is None:
                pack = self._open[number] = _OpenPack(self._open_file(number))
                self._close_unused()
            else:
                self._open.move_to_end(number)
            pack.users += 1
            return pack

    def _release(self, pack: _OpenPack) -> None:
        with self._lock:
            pack.users -= 1

    def _open_file(self, number: int) -> int:
        try:
            return self.disk.open(self.path(number), os.O_RDONLY)
        except FileNotFoundError as error:
            raise Corrupt(f"pack {self.path(number)} is missing") from error

    def _close_unused(self) -> None:
        if len(self._open) <= _MAX_OPEN:
            return
        for number, pack in list(self._open.items())[:-1]:
            if not pack.users:
                del self._open[number]
                self.disk.close(pack.fd)
                return


class PackAppender:
    """A pack that this writer alone may append to.

    `end` is where the next record goes; what lies behind `kept_end` is given back by `cut`;
    `named` says whether the file's name is known to survive power loss.
    """

    def __init__(self, disk: Disk, number: int, fd: int, end: int, *, named: bool) -> None:
        self.number = number
        self.fd = fd
        self.named = named
        self.end = end
        self.kept_end = end
        self._disk = disk
        self._synced = end
        self._written_back = end

    def __repr__(self) -> str:
        return f"<PackAppender {self.number}, {self.end} bytes, {self.kept_end} kept>"

    def append(self, parts: Sequence[bytes]) -> tuple[int, int]:
        """Writes one record; returns its offset and size. Not durable before `sync`."""
        offset = self.end
        self._disk.pwritev(self.fd, parts, offset)
        size = sum(map(len, parts))
        self.end += size
        # Started early, so that the sync at the end has little left to wait for.
        if self.end - self._written_back >= _WRITEBACK:
            self._disk.start_writeback(self.fd, self._written_back, self.end - self._written_back)
            self._written_back = self.end
        return offset, size

    def sync(self) -> None:
        """Afterwards everything appended so far survives power loss."""
        if self.end > self._synced:
            self._disk.fdatasync(self.fd)
            self._synced = self.end

    def keep(self) -> None:
        """The index may point to everything appended so far."""
        self.kept_end = self.end

    def cut(self) -> None:
        """Gives back what was appended since the last `keep`, a torn record too."""
        if self._disk.size(self.fd) > self.kept_end:
            self._disk.truncate(self.fd, self.kept_end)
        self.end = self.kept_end

    def close(self) -> None:
        self._disk.close(self.fd)


def open_for_appending(packs: Packs, number: int) -> int | None:
    """A descriptor of a pack with its lock held; None when another writer has it."""
    disk = packs.disk
    try:
        fd = disk.open(packs.path(number), os.O_RDWR)
    except FileNotFoundError:
        return None
    if disk.try_lock(fd):
        return fd
    disk.close(fd)
    return None


def newest(packs: Packs) -> list[int]:
    """The packs worth trying to append to, newest first."""
    return packs.numbers()[: -_NEWEST - 1 : -1]


def create_pack(packs: Packs) -> PackAppender:
    """A new pack, locked; it is there after power loss once it and the directory are synced."""
    numbers = packs.numbers()
    number = numbers[-1] + 1 if numbers else 1
    while True:
        try:
            fd = packs.disk.open(packs.path(number), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            number += 1
            continue
        with ExitStack() as opened:
            opened.callback(packs.disk.close, fd)
            # Between the two calls another writer may have found the file and locked it.
            if packs.disk.try_lock(fd):
                packs.disk.pwrite(fd, encode_pack_header(), 0)
                opened.pop_all()
                return PackAppender(packs.disk, number, fd, PACK_HEADER_SIZE, named=False)
        number += 1


def has_header(disk: Disk, fd: int) -> bool:
    """Whether an open file begins like a pack of ours."""
    try:
        check_pack_header(disk.pread(fd, PACK_HEADER_SIZE, 0))
    except Corrupt:
        return False
    return True

"""The heap: one sparse file with the changed content of all files of an overlay.

Space is only ever taken from the end, so no byte is written twice for two files: freed
ranges are punched out (the host gets the space back) and their addresses are not used again
while the overlay is open. That makes crash rules short. Data is written before the row that
names it, so what a row names is there after kill -9; a range is punched only after the
row's end is durable, so power loss never brings back a file whose data is gone.

Addresses are plentiful but not endless (16 TiB on ext4): see `Space`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from imagefs.disk import Disk
from imagefs.errors import NotReady

PAGE = 4096
"""Capacities are multiples of this, so that freed space can be punched."""

_MAX_WARMED = 1024

Range = tuple[int, int]
"""Begin and end of a part of the heap."""


def path_in(directory: Path) -> Path:
    """The heap of the overlay in a directory."""
    return directory / "heap"


def create(directory: Path, disk: Disk) -> None:
    """Put an empty heap into the directory; its name is not durable yet."""
    disk.close(disk.open(path_in(directory), os.O_RDWR | os.O_CREAT))


def whole_pages(size: int) -> int:
    """The capacity that holds `size` bytes."""
    return -(-size // PAGE) * PAGE


class Heap:
    """The open heap file. `release`d ranges wait until `punch`, in the order given here:
    take them with `take_released`, make the database durable, then punch."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._fd = disk.open(path, os.O_RDWR | os.O_CREAT)
        self._guard = threading.Lock()
        """Of `_released`: a worker takes what the loop's thread adds to."""
        self._released: list[Range] = []
        self._warmed: set[Range] = set()
        self._unsynced = True

    def __repr__(self) -> str:
        return f"<Heap {self.path}, {len(self._released)} ranges to punch>"

    def close(self) -> None:
        """Close the file."""
        self._disk.close(self._fd)

    def write(self, place: int, data: bytes | bytearray | memoryview) -> None:
        """Write at an address."""
        self._unsynced = True
        self._disk.pwrite(self._fd, data, place)

    def write_durably(self, place: int, data: bytes) -> None:
        """Write at an address that nothing else is written to; blocks until it is durable."""
        self._disk.pwrite_durably(self._fd, data, place)

    def read_now(self, place: int, length: int) -> bytes:
        """Exactly that many bytes; raises NotReady when they are not in memory.

        The second attempt at a range blocks, so that a page cache that cannot keep it does
        not keep the reader from ever getting it.
        """
        data = self._disk.pread_nowait(self._fd, length, place)
        if data is None:
            wanted = (place, length)
            if wanted not in self._warmed:
                raise NotReady(
                    ("heap", self.path, place, length),
                    lambda: self._warm(wanted),
                )
            self._warmed.discard(wanted)
            data = self._disk.pread(self._fd, length, place)
        return data if len(data) == length else data.ljust(length, b"\0")

    def read(self, place: int, length: int) -> bytes:
        """Exactly that many bytes; blocks."""
        return self._disk.pread(self._fd, length, place).ljust(length, b"\0")

    def _warm(self, wanted: Range) -> None:
        place, length = wanted
        self._disk.pread(self._fd, length, place)
        if len(self._warmed) >= _MAX_WARMED:
            self._warmed.clear()
        self._warmed.add(wanted)

    def size(self) -> int:
        """The length of the file."""
        return self._disk.size(self._fd)

    def sync(self) -> None:
        """Everything written is durable; blocks, any thread."""
        if self._unsynced:
            # Before, so that what is written meanwhile counts for the next time.
            self._unsynced = False
            self._disk.fdatasync(self._fd)

    def renew(self, gap: Range) -> None:
        """Make a range that no row names read as zeros, durably, so that it can be used again
        and no power loss shows in it what another file had there."""
        begin, end = gap
        size = self.size()
        if begin >= min(end, size):
            return
        if size <= end:
            self._disk.truncate(self._fd, begin)
        else:
            self.punch([gap])
        self._disk.fdatasync(self._fd)

    def reach(self, end: int) -> None:
        """Make the file at least that long, so that one cut short can be told from it; durable
        after the next `sync`."""
        if self.size() < end:
            self._unsynced = True
            self._disk.truncate(self._fd, end)

    def all_stored(self) -> None:
        """Nothing in the heap has to become durable any more."""
        self._unsynced = False

    def release(self, place: int, length: int) -> None:
        """No row names this range any more."""
        if not length:
            return
        with self._guard:
            released = self._released
            if released and released[-1][1] == place:
                released[-1] = (released[-1][0], place + length)
            else:
                released.append((place, place + length))

    @property
    def has_released(self) -> bool:
        """Whether there is space to give back to the host."""
        return bool(self._released)

    def take_released(self) -> list[Range]:
        """The ranges released so far; whoever takes them punches them. Neighbours are one,
        because a punch costs 0.1 ms."""
        with self._guard:
            taken, self._released = self._released, []
        merged: list[Range] = []
        for begin, end in sorted(taken):
            if merged and merged[-1][1] >= begin:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged

    def give_back(self, ranges: Sequence[Range]) -> None:
        """Ranges that were taken and could not be punched."""
        with self._guard:
            self._released = [*ranges, *self._released]

    def punch(self, ranges: Sequence[Range]) -> None:
        """Give the space of ranges back to the host; blocks, any thread."""
        for begin, end in ranges:
            self._disk.punch_hole(self._fd, begin, end - begin)

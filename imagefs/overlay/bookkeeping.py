"""What a commit has stored, and letting go of it in the heap."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from imagefs.model import CHUNK_SIZE, OBJECT_ID_SIZE
from imagefs.overlay.inodes import Inode
from imagefs.overlay.layer import Layer
from imagefs.overlay.sealing import Stored

_REMEMBER: Final = """
    UPDATE inode SET ref = ?, ref_size = size, ref_count = ?, keep = size, place = 0,
    capacity = 0, allocated = ? WHERE ino = ?"""
_FORGET_EXTENTS: Final = "DELETE FROM extent WHERE ino = ?"

_NO_REF: Final = bytes(OBJECT_ID_SIZE)


class File(NamedTuple):
    """One file whose content is in the store now. `place` and `capacity` were its chunk 0 in
    the heap, `large` says that it may have extents."""

    ino: int
    allocated: int
    place: int
    capacity: int
    large: bool
    ref: bytes


class Bookkeeping:
    """The files whose content a commit has stored, packed: an image may have a million.

    `changes` is the number of changes the overlay had seen before.
    """

    _ROW: Final = struct.Struct(f"<qqqq?{OBJECT_ID_SIZE}s")

    def __init__(self, changes: int) -> None:
        self.changes = changes
        self._rows = bytearray()

    def __repr__(self) -> str:
        return f"<Bookkeeping of {len(self)} files>"

    def __len__(self) -> int:
        return len(self._rows) // self._ROW.size

    def __iter__(self) -> Iterator[File]:
        return map(File._make, self._ROW.iter_unpack(self._rows))

    def add(self, inode: Inode, stored: Stored) -> None:
        """The content of a file is stored."""
        self._rows += self._ROW.pack(
            inode.ino,
            stored.allocated,
            inode.place,
            inode.capacity,
            inode.size > CHUNK_SIZE,
            stored.ref or _NO_REF,
        )


def remember(layer: Layer, bookkeeping: Bookkeeping) -> None:
    """Let go of content that a commit has stored; on the loop's thread, once the store's
    writer has finished. Does nothing when anything was changed since: the content is then
    stored again by the next commit."""
    if layer.changes != bookkeeping.changes or not bookkeeping:
        return
    database = layer.begin()
    large = [file.ino for file in bookkeeping if file.large]
    ranges = [(file.place, file.capacity) for file in bookkeeping if file.capacity]
    for ino in large:
        ranges += layer.extents.ranges(ino, 1)
    with database.transaction():
        database.run_many(_REMEMBER, map(_values, bookkeeping))
        database.run_many(_FORGET_EXTENTS, ((ino,) for ino in large))
    layer.forget()
    for place, capacity in ranges:
        layer.heap.release(place, capacity)
    layer.heap.all_stored()


def _values(file: File) -> tuple[bytes | None, int, int, int]:
    ref = None if file.ref == _NO_REF else file.ref
    return ref, file.allocated, file.allocated, file.ino

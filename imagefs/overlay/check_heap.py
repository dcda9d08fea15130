"""Whether extents and the heap fit each other, and what an inode says of its allocation."""

from __future__ import annotations

import stat
from collections.abc import Container, Iterator
from typing import Final

from imagefs.format.content import chunk_count
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.overlay.database import Database
from imagefs.overlay.heap import PAGE
from imagefs.overlay.inodes import Inode
from imagefs.overlay.layer import Layer
from imagefs.overlay.space import LIMIT
from imagefs.tree.contents import Fetch, allocated

_AT_ONCE: Final = 2000
_EXTENTS: Final = """
    SELECT e.ino, e.chunk, e.place, e.capacity, i.mode, i.size FROM extent e
    LEFT JOIN inode i ON i.ino = e.ino WHERE (e.ino, e.chunk) > (?, ?)
    ORDER BY e.ino, e.chunk LIMIT ?"""
_PLACES: Final = """
    SELECT place, capacity, ino FROM inode WHERE capacity > 0
    UNION ALL SELECT place, capacity, ino FROM extent ORDER BY 1"""
_FREE: Final = "SELECT heap_end, heap_limit FROM state"
_OF_FILE: Final = "SELECT chunk, capacity FROM extent WHERE ino = ? ORDER BY chunk"


def check_heap(layer: Layer, database: Database, orphans: Container[int]) -> Iterator[str]:
    """What is wrong with the extents of an overlay."""
    after = (-1, -1)
    while rows := database.rows(_EXTENTS, (*after, _AT_ONCE)):
        for ino, chunk, _, capacity, mode, size in rows:
            what = f"Chunk {chunk} of inode {ino}"
            if ino in orphans:
                continue
            if mode is None or not stat.S_ISREG(mode) or chunk <= 0:
                yield f"{what} is in the heap and no content of a file"
                continue
            yield from check_place(what, capacity, size, chunk)
        after = rows[-1][:2]
    yield from _check_places(layer, database)


def _check_places(layer: Layer, database: Database) -> Iterator[str]:
    size = layer.heap.size()
    free, limit = database.row(_FREE) or (LIMIT, LIMIT)
    end = 0
    for place, capacity, ino in database.each(_PLACES):
        if place < end:
            yield f"Inode {ino} shares bytes of the heap at {place} with another"
        if place >= size:
            yield f"Inode {ino} has content at {place}, the heap ends at {size}"
        elif place < (limit or LIMIT) and place + capacity > free:
            yield f"Inode {ino} has content at {place}, where the heap should be free"
        end = max(end, place + capacity)
    if end > LIMIT:
        yield f"The heap is used up to {end} and ends at {LIMIT}"


def check_place(what: str, capacity: int, size: int, chunk: int) -> Iterator[str]:
    """What is wrong with the extent of one chunk of a file of `size` bytes."""
    if capacity % PAGE or not 0 <= capacity <= CHUNK_SIZE or (chunk and not capacity):
        yield f"{what} has a capacity of {capacity} bytes"
    if capacity and chunk >= chunk_count(size):
        yield f"{what} is in the heap, behind the end of the file"


def stored_bytes(database: Database, fetch: Fetch, inode: Inode) -> int:
    """What the figure `allocated` of a regular file should be: the capacities in the heap and
    the stored chunks that show beside them."""
    extents: list[tuple[int, int]] = [(0, inode.capacity)] if inode.capacity else []
    if inode.size > CHUNK_SIZE:
        extents += database.rows(_OF_FILE, (inode.ino,))
    in_heap = sum(capacity for _, capacity in extents)
    last = chunk_count(inode.keep) - 1
    if inode.ref is None or last < 0:
        return in_heap
    if not extents and last + 1 == chunk_count(inode.ref_size):
        return inode.ref_count
    ref, size = ObjectId(inode.ref), inode.ref_size
    stored = allocated(fetch, ref, size, 0, last)
    for chunk, _ in extents:
        if chunk <= last:
            stored -= allocated(fetch, ref, size, chunk, chunk)
    return in_heap + stored

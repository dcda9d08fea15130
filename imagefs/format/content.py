"""File content: chunks of CHUNK_SIZE and the map nodes above them.

A file of at most CHUNK_SIZE bytes refers to its one chunk. A larger one refers to a map: a
tree of nodes with FANOUT children each, just deep enough for the size. A node is the ids of
its children one after the other, zeros standing for a hole; holes at its end are left out,
and a node without any child does not exist (its parent has a hole there). A chunk's object
holds exactly the bytes of the file there: CHUNK_SIZE, or less in the last one. Chunks that
are all zeros are always holes.

Fixed places make a write in the middle of a large file one new chunk and one new node a
level; omitted holes make the sparsest file of 2**62 bytes as cheap as its few chunks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from imagefs.errors import Corrupt
from imagefs.model import CHUNK_SIZE, OBJECT_ID_SIZE, ObjectId

FANOUT_BITS: Final = 10
FANOUT: Final = 1 << FANOUT_BITS
NO_ID: Final = bytes(OBJECT_ID_SIZE)

_ZEROS: Final = bytes(CHUNK_SIZE)


def is_zero(data: bytes | memoryview) -> bool:
    """Whether all bytes are zero (also when there are none). Any length; fast both ways:
    the first byte decides for most data, memcmp for the rest."""
    if len(data) == 0:
        return True
    if data[0] != 0:
        return False
    if len(data) == CHUNK_SIZE:
        return data == _ZEROS
    if len(data) < CHUNK_SIZE:
        return data == memoryview(_ZEROS)[: len(data)]
    view = memoryview(data)
    return all(
        is_zero(view[start : start + CHUNK_SIZE]) for start in range(0, len(view), CHUNK_SIZE)
    )


def chunk_count(size: int) -> int:
    """The number of chunks of a file of that size, holes included."""
    return -(-size // CHUNK_SIZE)


def chunk_length(index: int, size: int) -> int:
    """The length of one chunk of a file of that size; 0 beyond its end."""
    return min(max(size - index * CHUNK_SIZE, 0), CHUNK_SIZE)


def map_depth(size: int) -> int:
    """The levels of map nodes above the chunks; 0 when the reference is the chunk itself."""
    chunks = chunk_count(size)
    depth = 0
    while chunks > 1:
        chunks = -(-chunks // FANOUT)
        depth += 1
    return depth


def node_span(depth: int) -> int:
    """How many chunks a node with that many levels of nodes, itself included, can cover."""
    return 1 << FANOUT_BITS * depth


def encode_node(children: Iterable[ObjectId | None]) -> bytes:
    """The bytes of a map node; empty when all are holes (then there is no node)."""
    return trim_node(b"".join([child or NO_ID for child in children]))


def trim_node(data: bytes | bytearray) -> bytes:
    """The same node without holes at its end."""
    end = len(data)
    while end and data[end - OBJECT_ID_SIZE : end] == NO_ID:
        end -= OBJECT_ID_SIZE
    return bytes(data[:end])


def check_node(data: bytes, children: int) -> None:
    """Raise Corrupt unless these bytes are a map node of at most that many children."""
    length = len(data)
    if length == 0 or length % OBJECT_ID_SIZE or length > children * OBJECT_ID_SIZE:
        raise Corrupt(f"Content map of {length} bytes cannot hold up to {children} references")
    if data.endswith(NO_ID) and data[-OBJECT_ID_SIZE:] == NO_ID:
        raise Corrupt("Content map ends with a hole, so it is not in canonical form")


def node_child(data: bytes | bytearray, index: int) -> ObjectId | None:
    """The reference at that place of a node, None for a hole."""
    start = index * OBJECT_ID_SIZE
    child = bytes(data[start : start + OBJECT_ID_SIZE])
    return None if not child or child == NO_ID else ObjectId(child)
